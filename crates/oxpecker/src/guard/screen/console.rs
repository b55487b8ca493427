//! The document for the console's now page: the lines of the screen, and what has a list of its own there.

use console::{Backup, Figures, Line, Now, State};
use model::{AlertState, Severity, reading::Health};

use super::{ServerState, clock};
use crate::guard::GuardStatus;

/// What the console shows.
pub fn now(status: &GuardStatus) -> Now {
    let lines: Vec<Line> = super::lines(status)
        .into_iter()
        .map(|line| Line { name: line.name.to_owned(), state: shown(line.state), text: line.text })
        .collect();
    let firing = status.alerts.iter().filter(|a| a.state == AlertState::Firing).map(|alert| Line {
        name: alert.severity.to_string(),
        state: if alert.severity >= Severity::Warning { State::NotWell } else { State::Unknown },
        text: format!("{} (since {})", alert.summary, clock(alert.since.wall)),
    });
    let services = status.services.iter().map(|service| Line {
        name: service.service.to_string(),
        state: match (service.health, &service.stopped_by) {
            (_, Some(_)) => State::Unknown,
            (Health::Healthy, None) => State::Well,
            (Health::Unhealthy, None) => State::NotWell,
        },
        text: service.detail.clone().unwrap_or_default(),
    });
    let vacuums = status.activity.iter().flat_map(|a| &a.vacuums).map(|vacuum| Line {
        name: "vacuum".to_owned(),
        state: State::Unknown,
        text: super::vacuum_in_words(vacuum),
    });
    Now {
        head: format!(
            "{} at {} · oxpecker {}, guard {} since {}, mode {}",
            status.cluster,
            status.address,
            status.version,
            status.pid,
            clock(status.since),
            status.mode
        ),
        at: clock(status.now),
        well: lines.iter().all(|l| l.state != State::NotWell),
        alerts: firing.collect(),
        services: services.collect(),
        vacuums: vacuums.collect(),
        limitations: status.limitations.clone(),
        figures: figures(status),
        lines,
    }
}

fn shown(state: super::State) -> State {
    match state {
        super::State::Well => State::Well,
        super::State::NotWell => State::NotWell,
        super::State::Unknown => State::Unknown,
    }
}

fn figures(status: &GuardStatus) -> Figures {
    let firing = status.alerts.iter().filter(|a| a.state == AlertState::Firing).count();
    let connections = status.activity.as_ref().map(|a| &a.connections);
    let proven = status.backup.as_ref().and_then(|b| b.proven.as_ref());
    Figures {
        server_up: match status.server {
            ServerState::Unknown => None,
            ServerState::Up { .. } => Some(true),
            ServerState::Down { .. } => Some(false),
        },
        cpu_busy: status.host.as_ref().map(|h| h.cpu_for_database().1.busy().0),
        memory_available: status.host.as_ref().map(|h| h.memory.available.0 as f64),
        connections_used: connections.map(|c| f64::from(c.used)),
        connections_usable: connections.map(|c| f64::from(c.max.saturating_sub(c.reserved))),
        vacuums: status.activity.as_ref().map(|a| a.vacuums.len() as f64),
        governor_engaged: status.governor.as_ref().map(|g| g.engaged),
        alerts_firing: u32::try_from(firing).unwrap_or(u32::MAX),
        journal_ok: status.journal.ok,
        backup: Backup {
            proven_age_s: proven.map(|b| b.age.as_secs_f64()),
            recovery_s: proven.and_then(|b| b.recovery_time).map(|t| t.as_secs_f64()),
        },
    }
}

//! The document as one screen for a tired person: what is well, what is not, and why.

mod backup;
mod console;
mod death;
mod receive;
mod recovery;
mod relief;
mod shedding;

use std::time::Duration;

use autovacuum::GovernorStatus;
use jiff::{SignedDuration, Timestamp};
use model::{
    AlertState, Severity, Share,
    event::Lever,
    reading::{Health, VacuumKind, VacuumReading},
};
use owo_colors::OwoColorize as _;

pub use console::now;

use super::document::{GuardStatus, ServerState};
use crate::output;

/// How one line of the screen is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Well,
    NotWell,
    /// Not known, or nobody watches it.
    Unknown,
}

/// One line of the screen.
struct Line {
    name: &'static str,
    state: State,
    text: String,
}

/// Share of the database's CPUs from which the host counts as saturated on the screen (as the alert's default).
const SATURATED: f64 = 0.95;
/// Share of free memory below which it counts as low on the screen (as the alert's default).
const MEMORY_LOW: f64 = 0.08;
/// The column in which each line's text begins.
const BESIDE: usize = 25;
/// Vacuums and alerts shown; the rest is counted.
const SHOWN: usize = 5;

/// The document as text, and whether all is well.
pub fn render(status: &GuardStatus) -> (String, bool) {
    let lines = lines(status);
    let well = lines.iter().all(|l| l.state != State::NotWell);

    let mut text = format!(
        "{} at {}\noxpecker {}, guard {} since {}, mode {}\n\n",
        status.cluster.bold(),
        status.address,
        status.version,
        status.pid,
        clock(status.since),
        status.mode
    );
    for line in &lines {
        let state = match line.state {
            State::Well => "well".green().to_string(),
            State::NotWell => "NOT WELL".red().bold().to_string(),
            State::Unknown => "-".dimmed().to_string(),
        };
        let pad = " ".repeat(
            10 - if line.state == State::NotWell {
                8
            } else if line.state == State::Well {
                4
            } else {
                1
            },
        );
        text.push_str(&format!(
            "  {:<13}{state}{pad}{}\n",
            line.name,
            output::prose_beside(&line.text, BESIDE).trim_end().replace('\n', &format!("\n{}", " ".repeat(BESIDE)))
        ));
    }
    if !status.limitations.is_empty() {
        text.push_str("\nMissing here, and what that costs:\n");
        for limitation in &status.limitations {
            text.push_str(output::prose(&format!("  - {limitation}")).trim_end());
            text.push('\n');
        }
    }
    (text, well)
}

/// Everything that is shown, in its order.
fn lines(status: &GuardStatus) -> Vec<Line> {
    let mut lines = vec![server(status), host(status), connections(status), transactions(status)];
    lines.push(vacuum(status));
    if !status.services.is_empty() {
        lines.push(services(status));
    }
    lines.extend(death::line(status.death.as_ref(), status.now));
    lines.extend(recovery::line(status.recovery.as_ref()));
    lines.extend(shedding::line(status.shedding.as_ref()));
    lines.extend(relief::line(status.relief.as_ref()));
    lines.push(alerts(status));
    lines.push(journal(status));
    lines.push(backup::line(status.backup.as_ref(), status.receive.is_some(), status.now));
    lines.extend(receive::line(status.receive.as_ref()));
    lines
}

fn server(status: &GuardStatus) -> Line {
    let (state, text) = match &status.server {
        ServerState::Unknown => (State::Unknown, "no answer yet".to_owned()),
        ServerState::Up { version, started, in_recovery } => {
            let took = status.activity.as_ref().map_or(String::new(), |a| format!(", answers in {}", short(a.took)));
            let standby = if *in_recovery { ", in recovery" } else { "" };
            (State::Well, format!("{version}, up {}{standby}{took}", span(*started, status.now)))
        }
        ServerState::Down { since, detail, .. } => (
            State::NotWell,
            format!("does not serve us since {} ({}): {detail}", clock(*since), span(*since, status.now)),
        ),
    };
    Line { name: "PostgreSQL", state, text }
}

fn host(status: &GuardStatus) -> Line {
    let Some(host) = &status.host else {
        return Line { name: "host", state: State::Unknown, text: "no reading yet".into() };
    };
    let (cpus, cpu) = host.cpu_for_database();
    let whose = if host.database_cpus.is_some_and(|n| n < host.cpus) { "the database's " } else { "" };
    let available = Share::of(host.memory.available.0 as f64, host.memory.total.0 as f64);
    let bad = cpu.busy().0 >= SATURATED || available.0 < MEMORY_LOW;
    let waits =
        host.cpu_pressure.map_or(String::new(), |p| format!(", something waits for CPU {} of the time", p.some));
    let text = format!(
        "CPU {} of {whose}{cpus} busy{waits}; memory {} of {} available",
        cpu.busy(),
        host.memory.available,
        host.memory.total
    );
    Line { name: "host", state: if bad { State::NotWell } else { State::Well }, text }
}

fn connections(status: &GuardStatus) -> Line {
    let Some(c) = status.activity.as_ref().map(|a| &a.connections) else {
        return Line { name: "connections", state: State::Unknown, text: "no reading yet".into() };
    };
    let usable = c.max.saturating_sub(c.reserved);
    let near = f64::from(c.used) >= 0.85 * f64::from(usable);
    let active = c.by_state.get("active").copied().unwrap_or(0);
    let text = format!("{} of {usable} used, {active} active, {} of them waiting", c.used, c.active_waiting);
    Line { name: "connections", state: if near { State::NotWell } else { State::Well }, text }
}

fn transactions(status: &GuardStatus) -> Line {
    let Some(activity) = &status.activity else {
        return Line { name: "transactions", state: State::Unknown, text: "no reading yet".into() };
    };
    let longest = activity.longest_transaction.as_ref().map_or_else(
        || "none open".to_owned(),
        |t| format!("longest {} (pid {}, {}, {})", short(t.age), t.pid, t.role.as_deref().unwrap_or("?"), t.state),
    );
    let locks = match (activity.locks.waiting, activity.locks.head) {
        (0, _) => "nobody waits for a lock".to_owned(),
        (n, Some(head)) => format!("{n} wait for a lock, up to {}, behind pid {head}", short(activity.locks.longest)),
        (n, None) => format!("{n} wait for a lock, up to {}", short(activity.locks.longest)),
    };
    let near: Vec<String> = status.near_wraparound().map(|(d, age)| format!("{d} is {age} transactions old")).collect();
    let wraparound = if near.is_empty() { String::new() } else { format!("; WRAPAROUND NEAR: {}", near.join(", ")) };
    let state = if near.is_empty() { State::Well } else { State::NotWell };
    Line { name: "transactions", state, text: format!("{longest}; {locks}{wraparound}") }
}

/// One vacuum in words: `public.big (worker 4242, 78 % of a core, scanning heap 31 %)`.
pub fn vacuum_in_words(vacuum: &VacuumReading) -> String {
    let table = vacuum.table.as_ref().map_or_else(|| "a table".to_owned(), ToString::to_string);
    let cpu = vacuum.cpu.map_or(String::new(), |c| format!(", {c} of a core"));
    let phase = vacuum.phase.as_deref().map_or(String::new(), |p| format!(", {p}"));
    let progress = match (vacuum.heap_blocks_scanned, vacuum.heap_blocks) {
        (Some(done), Some(all)) if all > 0 => format!(" {}", Share::of(done as f64, all as f64)),
        _ => String::new(),
    };
    let kind = match vacuum.kind {
        VacuumKind::Autovacuum => "worker",
        VacuumKind::Autoanalyze => "analysing worker",
        VacuumKind::AntiWraparound => "anti-wraparound worker",
        VacuumKind::Manual => "manual, pid",
    };
    format!("{table} in {} ({kind} {}{cpu}{phase}{progress})", vacuum.database, vacuum.process.pid)
}

fn vacuum(status: &GuardStatus) -> Line {
    let Some(activity) = &status.activity else {
        return Line { name: "vacuum", state: State::Unknown, text: "no reading yet".into() };
    };
    let mut parts: Vec<String> = activity.vacuums.iter().take(SHOWN).map(vacuum_in_words).collect();
    if activity.vacuums.len() > SHOWN {
        parts.push(format!("and {} more", activity.vacuums.len() - SHOWN));
    }
    if parts.is_empty() {
        parts.push("none runs".into());
    }
    if let Some(held) = status.governor.as_ref().and_then(governor_line) {
        parts.push(held);
    }
    Line { name: "vacuum", state: State::Well, text: parts.join("\n") }
}

fn services(status: &GuardStatus) -> Line {
    let (stopped, others): (Vec<_>, Vec<_>) = status.services.iter().partition(|s| s.stopped_by.is_some());
    let (well, bad): (Vec<_>, Vec<_>) = others.into_iter().partition(|s| s.health == Health::Healthy);
    let mut parts: Vec<String> = bad
        .iter()
        .map(|s| format!("{} unhealthy: {}", s.service, s.detail.as_deref().unwrap_or("no reason given")))
        .collect();
    parts.extend(stopped.iter().filter_map(|s| Some(format!("{} stopped by {}", s.service, s.stopped_by.as_ref()?))));
    if !well.is_empty() {
        parts.push(format!("{} well", well.iter().map(|s| s.service.to_string()).collect::<Vec<_>>().join(", ")));
    }
    Line { name: "services", state: if bad.is_empty() { State::Well } else { State::NotWell }, text: parts.join("; ") }
}

fn alerts(status: &GuardStatus) -> Line {
    let firing: Vec<_> = status.alerts.iter().filter(|a| a.state == AlertState::Firing).collect();
    if firing.is_empty() {
        return Line { name: "alerts", state: State::Well, text: "none".into() };
    }
    let mut parts: Vec<String> = firing
        .iter()
        .take(SHOWN)
        .map(|a| format!("{}: {} (since {})", a.severity, a.summary, clock(a.since.wall)))
        .collect();
    if firing.len() > SHOWN {
        parts.push(format!("and {} more", firing.len() - SHOWN));
    }
    let bad = firing.iter().any(|a| a.severity >= Severity::Warning);
    Line { name: "alerts", state: if bad { State::NotWell } else { State::Well }, text: parts.join("\n") }
}

fn journal(status: &GuardStatus) -> Line {
    let journal = &status.journal;
    let lost = if journal.lost == 0 {
        String::new()
    } else {
        format!("; {} records lost since the guard started", journal.lost)
    };
    let text = match (&journal.error, journal.failing_since) {
        (None, _) => format!("records{lost}"),
        (Some(error), since) => format!(
            "does not record{}: {error}; {} records wait in memory{lost}",
            since.map_or_else(String::new, |s| format!(" since {}", clock(s))),
            journal.waiting
        ),
    };
    Line { name: "journal", state: if journal.ok { State::Well } else { State::NotWell }, text }
}

/// A moment for people: `14:03:21 UTC`, with the date when it was not today (UTC).
fn clock(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// The time between two moments, in its two largest units.
fn span(from: Timestamp, to: Timestamp) -> String {
    let elapsed = to.duration_since(from).max(SignedDuration::ZERO);
    let seconds = elapsed.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// A short duration with its unit.
fn short(duration: Duration) -> String {
    match duration.as_secs_f64() {
        s if s < 0.000_95 => format!("{:.0} µs", s * 1e6),
        s if s < 0.995 => format!("{:.0} ms", s * 1e3),
        s if s < 99.5 => format!("{s:.1} s"),
        s => format!("{:.0} min", s / 60.0),
    }
}

/// What the governor holds, in one line; `None` while it holds nothing.
fn governor_line(governor: &GovernorStatus) -> Option<String> {
    let setting = governor.setting.filter(|_| governor.engaged)?;
    let lever = governor.lever.map_or("?", lever_in_words);
    let workers: Vec<String> = governor.workers.iter().map(|w| w.pid.to_string()).collect();
    Some(format!("held: worker {} at {setting}, {lever}", workers.join(", ")))
}

/// A lever's name for people.
fn lever_in_words(lever: Lever) -> &'static str {
    match lever {
        Lever::WorkerSignal => "by a signal to the worker",
        Lever::LauncherSignal => "by a signal to the launcher",
        Lever::FullReload => "by a full reload",
        Lever::AlterSystem => "by ALTER SYSTEM",
    }
}

/// The governor as `vacuum status` shows it.
pub fn governor_in_words(governor: &GovernorStatus) -> String {
    let mut text = format!("governor: mode {}\n", governor.mode);
    match governor_line(governor) {
        Some(line) => text.push_str(&format!("  {line}\n")),
        None => text.push_str("  holds nothing\n"),
    }
    if let Some(configured) = governor.configured {
        text.push_str(&format!("  configured by the owner: {configured}\n"));
    }
    if let Some(resting) = governor.resting {
        text.push_str(&format!("  resting setting put in place by oxpecker: {resting}\n"));
    }
    if let Some(undo) = &governor.undo_by_hand {
        text.push_str(&format!("  taken back by hand, should the guard not do it: {undo}\n"));
    }
    text.push_str("  levers:\n");
    if governor.levers.is_empty() {
        text.push_str("    not known: the server was not asked yet\n");
    }
    for status in &governor.levers {
        let mark = match (status.available, Some(status.lever) == governor.lever) {
            (true, true) => "chosen",
            (true, false) => "available",
            (false, _) => "unavailable",
        };
        text.push_str(&format!("    {:<28} {mark}: {}\n", lever_in_words(status.lever), status.reason));
    }
    for limitation in &governor.limitations {
        text.push_str(&format!("  missing: {limitation}\n"));
    }
    text
}

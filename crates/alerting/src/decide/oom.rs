//! Rule `oom-killed`.
//!
//! *Why*: a backend that the kernel kills takes the whole server through crash recovery, and a service that it kills comes back, and is
//! killed again; neither says why.
//! *Source*: `oom_kill` of `/proc/vmstat`, and the kernel's log, which names the process and whether a control group's limit or the
//! host's end of memory was the cause.
//! *First things to do*: see whose memory it was; bound it; protect the postmaster (`oom_score_adj`, `vm.overcommit_memory = 2`).

use std::time::Duration;

use model::{
    Moment, Observation, Reading, Severity,
    alert::{label, rule},
    reading::{OomKills, OomVictim, ProcessReading},
};

use super::{
    cpu,
    gate::{Confirmation, Gate, Judgement, Verdict},
    rule::{Facts, Rule, Subject, steps},
    text::{plural, short},
};
use crate::settings::{self, duration};

/// Victims that are remembered of an episode.
const MAX_VICTIMS: usize = 16;

/// The rule's state.
pub(super) struct OomKilled {
    settings: settings::OomKilled,
    gate: Gate,
    last: Option<Moment>,
    /// Counted in the reading before, not all of them named yet.
    unnamed: bool,
    kills: u64,
    /// With what was known of each before.
    victims: Vec<(OomVictim, Option<ProcessReading>)>,
    known: Vec<ProcessReading>,
}

impl OomKilled {
    pub(super) fn new(settings: settings::OomKilled) -> Self {
        let gate = Gate::new(Confirmation {
            readings: 1,
            lasting: Duration::ZERO,
            clear: duration(settings.clear_s),
            forget: Duration::ZERO,
            max_gap: Duration::MAX,
        });
        Self { settings, gate, last: None, unnamed: false, kills: 0, victims: Vec::new(), known: Vec::new() }
    }

    fn take_in(&mut self, kills: &OomKills) {
        self.kills = self.kills.saturating_add(kills.count);
        for victim in &kills.victims {
            let known = self.known.iter().find(|process| process.id.pid == victim.pid).cloned();
            if self.victims.len() == MAX_VICTIMS {
                self.victims.remove(0);
            }
            self.victims.push((victim.clone(), known));
        }
    }

    fn severity(&self) -> Severity {
        let postgres = |(victim, known): &(OomVictim, Option<ProcessReading>)| {
            known.is_some() || victim.name.starts_with("postgres") || victim.name.starts_with("postmaster")
        };
        if self.victims.iter().any(postgres) { Severity::Critical } else { Severity::Warning }
    }
}

fn line((victim, known): &(OomVictim, Option<ProcessReading>)) -> String {
    let was = known.as_ref().map(|process| format!(", {} with {} resident", cpu::role(&process.role), process.rss));
    let cause = if victim.in_cgroup { "its control group's limit was reached" } else { "the host had no memory left" };
    format!("killed: {} (pid {}){}: {cause}", victim.name, victim.pid, was.unwrap_or_default())
}

impl Rule for OomKilled {
    fn id(&self) -> &'static str {
        rule::OOM_KILLED
    }

    fn title(&self, subject: &Subject) -> String {
        format!("The kernel of {} kills for want of memory", subject.host)
    }

    fn gate(&mut self) -> &mut Gate {
        &mut self.gate
    }

    fn judge(&mut self, observation: &Observation) -> Option<Judgement> {
        let Observation::Reading(Reading::Host(host)) = observation else { return None };
        let quiet = host.oom.is_none() && !self.unnamed;
        if let Some(kills) = host.oom.as_deref() {
            // What was killed in an episode that is over is not told in the next.
            let over = duration(self.settings.clear_s);
            if self.last.replace(host.at).is_none_or(|last| host.at.since(last) > over) {
                (self.kills, self.victims) = (0, Vec::new());
            }
            self.take_in(kills);
        }
        let named = self.victims.len() as u64 >= self.kills;
        // The kernel counts first and writes then: what is not named yet may be in the next reading.
        let waits = host.oom.is_some() && !named && !self.unnamed;
        self.unnamed = waits;
        self.known.clone_from(&host.processes);
        let verdict = match (quiet, waits) {
            (true, _) => Verdict::Good,
            (false, true) => Verdict::Between,
            (false, false) => Verdict::Bad(self.severity()),
        };
        Some(Judgement { window: host.window, ..Judgement::instant(host.at, verdict) })
    }

    fn facts(&self, subject: &Subject, _: Severity) -> Facts {
        let kills = u32::try_from(self.kills.max(self.victims.len() as u64)).unwrap_or(u32::MAX);
        let newest = self.victims.last();
        let whom = newest.map_or_else(
            || format!("{}, whom it does not say", plural(kills, "process", "processes")),
            |(victim, _)| format!("{} (pid {})", short(&victim.name), victim.pid),
        );
        let more = if kills > 1 && newest.is_some() { format!(", {kills} in all") } else { String::new() };
        let mut details: Vec<String> = self.victims.iter().map(line).collect();
        if (self.victims.len() as u64) < self.kills {
            details.push(format!(
                "{} killed that the kernel's log does not name to us",
                self.kills - self.victims.len() as u64
            ));
        }
        let mut labels = std::collections::BTreeMap::new();
        if let Some((victim, _)) = newest {
            labels.insert(label::PID.to_owned(), victim.pid.to_string());
            labels.insert("process".to_owned(), victim.name.clone());
        }
        Facts {
            summary: format!("The kernel of {} killed {whom} for want of memory{more}", subject.host),
            details,
            labels,
            next_steps: steps(&[
                "see the kernel's own table of who had what: `dmesg -T | grep -i -B 60 'killed process'`",
                "bound what grew: a memory limit for that service; work_mem, connections or the query of that role",
                "shield PostgreSQL: OOMScoreAdjust=-900 for its unit, vm.overcommit_memory = 2",
            ]),
        }
    }

    fn present(&self) -> Vec<String> {
        self.victims.iter().map(line).collect()
    }
}

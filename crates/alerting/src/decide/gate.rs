//! Hysteresis: what turns verdicts about single readings into episodes.
//!
//! A condition begins when it was seen often and long enough, and ends when it was absent long enough; between the two thresholds
//! nothing changes. All arithmetic is on the boot clock, so that a stepped wall clock neither begins nor ends anything.

use std::time::Duration;

use model::{Moment, Severity};

/// What one observation says about the condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It holds, this badly.
    Bad(Severity),
    /// Between the thresholds: neither confirms nor clears.
    Between,
    /// It does not hold.
    Good,
}

/// One verdict with its place in time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Judgement {
    /// When the reading was taken.
    pub(crate) at: Moment,
    /// Where the rule knows better than the gate: since when it has been bad.
    pub(crate) since: Option<Moment>,
    /// The time that the reading covers, up to `at`.
    pub(crate) window: Duration,
    /// How many ordinary readings it stands for.
    pub(crate) weight: u32,
    pub(crate) verdict: Verdict,
}

impl Judgement {
    pub(crate) fn instant(at: Moment, verdict: Verdict) -> Self {
        Self { at, since: None, window: Duration::ZERO, weight: 1, verdict }
    }
}

/// When a condition begins and ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Confirmation {
    /// Bad readings in a row.
    pub(crate) readings: u32,
    /// From the first bad one.
    pub(crate) lasting: Duration,
    /// How long it must be good before an episode ends.
    pub(crate) clear: Duration,
    /// How long it must be good before bad readings that were not yet enough are forgotten.
    pub(crate) forget: Duration,
    /// A hole in the readings longer than this breaks "in a row": what was not seen was neither bad nor good.
    pub(crate) max_gap: Duration,
}

/// What an observation changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    None,
    /// An episode began.
    Began {
        since: Moment,
        severity: Severity,
    },
    /// The open episode turned worse: it ends and a more severe one begins.
    Worsened {
        since: Moment,
        severity: Severity,
    },
    /// The open episode ended.
    Ended,
}

#[derive(Clone, Copy, Debug)]
struct Suspicion {
    since: Moment,
    readings: u32,
    severity: Severity,
    good_since: Option<Moment>,
}

#[derive(Clone, Copy, Debug)]
struct Episode {
    severity: Severity,
    good_since: Option<Moment>,
}

/// The state machine of one rule.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    confirmation: Confirmation,
    episode: Option<Episode>,
    /// Towards an episode, or towards a more severe one.
    suspicion: Option<Suspicion>,
    last: Option<Moment>,
}

impl Gate {
    pub(crate) fn new(confirmation: Confirmation) -> Self {
        Self { confirmation, episode: None, suspicion: None, last: None }
    }

    /// Goes on with an episode of the guard before.
    pub(crate) fn resume(&mut self, severity: Severity) {
        self.episode = Some(Episode { severity, good_since: None });
    }

    pub(crate) fn step(&mut self, judgement: Judgement) -> Step {
        let Judgement { at, window, .. } = judgement;
        if let Some(last) = self.last {
            if at.boot_us < last.boot_us {
                return Step::None;
            }
            if at.since(last) > window.saturating_add(self.confirmation.max_gap) {
                self.suspicion = None;
                if let Some(episode) = &mut self.episode {
                    episode.good_since = None;
                }
            }
        }
        self.last = Some(at);
        match judgement.verdict {
            Verdict::Bad(severity) => self.bad(judgement, severity),
            Verdict::Between => {
                if self.confirmation.forget.is_zero() {
                    self.suspicion = None;
                }
                if let Some(episode) = &mut self.episode {
                    episode.good_since = None;
                }
                Step::None
            }
            Verdict::Good => self.good(at),
        }
    }

    fn bad(&mut self, judgement: Judgement, severity: Severity) -> Step {
        if let Some(episode) = &mut self.episode {
            episode.good_since = None;
            if severity <= episode.severity {
                self.suspicion = None;
                return Step::None;
            }
        }
        let first =
            Suspicion { since: judgement.since.unwrap_or(judgement.at), readings: 0, severity, good_since: None };
        let suspicion = self.suspicion.get_or_insert(first);
        suspicion.readings = suspicion.readings.saturating_add(judgement.weight);
        // The mildest reading of the row decides: a single worse one is a spike.
        suspicion.severity = suspicion.severity.min(severity);
        suspicion.good_since = None;
        let Suspicion { since, readings, severity, .. } = *suspicion;
        if readings < self.confirmation.readings || judgement.at.since(since) < self.confirmation.lasting {
            return Step::None;
        }
        self.suspicion = None;
        match self.episode.replace(Episode { severity, good_since: None }) {
            None => Step::Began { since, severity },
            Some(_) => Step::Worsened { since, severity },
        }
    }

    fn good(&mut self, at: Moment) -> Step {
        if let Some(suspicion) = &mut self.suspicion {
            let good_since = *suspicion.good_since.get_or_insert(at);
            if at.since(good_since) >= self.confirmation.forget {
                self.suspicion = None;
            }
        }
        let Some(episode) = &mut self.episode else { return Step::None };
        let good_since = *episode.good_since.get_or_insert(at);
        if at.since(good_since) < self.confirmation.clear {
            return Step::None;
        }
        self.episode = None;
        self.suspicion = None;
        Step::Ended
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    const CONFIRMATION: Confirmation = Confirmation {
        readings: 2,
        lasting: Duration::ZERO,
        clear: Duration::from_secs(10),
        forget: Duration::ZERO,
        max_gap: Duration::from_secs(3),
    };

    fn at(second: u64) -> Moment {
        Moment { wall: Timestamp::UNIX_EPOCH, boot_us: second * 1_000_000 }
    }

    /// One letter a second: `w` warning, `c` critical, `-` between, `.` good, a blank for no reading. Answers the steps
    /// that changed something.
    fn run(gate: &mut Gate, script: &str) -> Vec<String> {
        let mut steps = Vec::new();
        for (second, letter) in script.chars().enumerate() {
            let verdict = match letter {
                'w' => Verdict::Bad(Severity::Warning),
                'c' => Verdict::Bad(Severity::Critical),
                '-' => Verdict::Between,
                '.' => Verdict::Good,
                _ => continue,
            };
            let second = u64::try_from(second).unwrap();
            match gate.step(Judgement::instant(at(second), verdict)) {
                Step::None => {}
                Step::Began { since, severity } => {
                    steps.push(format!("{second} began {severity} since {}", since.boot_us / 1_000_000));
                }
                Step::Worsened { severity, .. } => steps.push(format!("{second} {severity}")),
                Step::Ended => steps.push(format!("{second} ended")),
            }
        }
        steps
    }

    #[test]
    fn episodes_begin_and_end_as_declared() {
        let none: [&str; 0] = [];
        for (script, expected) in [
            ("....w...w..-w-w.", &none[..]),
            ("..ww", &["3 began warning since 2"]),
            (".cc", &["2 began critical since 1"]),
            (".cw", &["2 began warning since 1"]),
            ("wwcwcwc", &["1 began warning since 0"]),
            ("wwcc", &["1 began warning since 0", "3 critical"]),
            ("ccwwww", &["1 began critical since 0"]),
            ("ww..........", &["1 began warning since 0"]),
            ("ww...........", &["1 began warning since 0", "12 ended"]),
            ("ww.....-...........", &["1 began warning since 0", "18 ended"]),
            ("ww.....w..........-", &["1 began warning since 0"]),
            ("w   w", &none[..]),
            ("w  w", &["3 began warning since 0"]),
            ("ww.....        ...........", &["1 began warning since 0", "25 ended"]),
        ] {
            assert_eq!(run(&mut Gate::new(CONFIRMATION), script), expected, "{script:?}");
        }
    }

    #[test]
    fn readings_that_are_not_newer_change_nothing() {
        let mut gate = Gate::new(CONFIRMATION);
        assert_eq!(gate.step(Judgement::instant(at(10), Verdict::Bad(Severity::Warning))), Step::None);
        assert_eq!(gate.step(Judgement::instant(at(9), Verdict::Bad(Severity::Warning))), Step::None);
        assert!(matches!(gate.step(Judgement::instant(at(11), Verdict::Bad(Severity::Warning))), Step::Began { .. }));
    }

    #[test]
    fn a_suspicion_that_is_remembered_outlasts_a_short_recovery() {
        let down = Confirmation {
            readings: 1,
            lasting: Duration::from_secs(2),
            forget: Duration::from_secs(3),
            ..CONFIRMATION
        };
        assert!(run(&mut Gate::new(down), "w....w....").is_empty());
        assert_eq!(run(&mut Gate::new(down), "w.w"), ["2 began warning since 0"]);
    }

    #[test]
    fn a_resumed_episode_ends_like_any_other() {
        let mut gate = Gate::new(CONFIRMATION);
        gate.resume(Severity::Warning);
        assert_eq!(run(&mut gate, "ww..........."), ["12 ended"]);
    }
}

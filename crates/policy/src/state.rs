//! What the ladder remembers between decisions. The guard writes it down, synced, before it acts.

use std::time::Duration;

use model::{DatabaseName, Moment, ServiceName, TableName};
use serde::{Deserialize, Serialize};

use crate::{
    ladder::HoldKind,
    pressure::{Picture, Streak},
    rung::Rung,
    settings::Thresholds,
};

/// The time over which acts are counted.
pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);
/// Relapses beyond this number change nothing: the calm time is at its longest.
const RELAPSES_MAX: u32 = 16;
/// A hole in the readings that is longer than this is one: what was not seen was neither critical nor calm.
const HOLE: Duration = Duration::from_millis(1500);

/// The ladder's state. `Default` is the ground.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Rungs that were taken and not given back, lowest first.
    pub(crate) held: Vec<Held>,
    /// What was tried since the last calm without staying in force: acts that are done once, and failures.
    pub(crate) tried: Vec<Tried>,
    /// When each rung was given back, or done, for the last time.
    pub(crate) rests: Vec<(Rung, Moment)>,
    /// Acts of the last 24 hours.
    pub(crate) spent: Vec<(Rung, Moment)>,
    /// Tables whose vacuum was ended in the last 24 hours.
    pub(crate) cancelled: Vec<(DatabaseName, TableName, Moment)>,
    /// Rungs that are in force by another's decision, and since when that is seen.
    pub(crate) elsewhere: Vec<(Rung, Moment)>,
    pub(crate) critical: Option<Streak>,
    pub(crate) calm: Option<Streak>,
    /// The newest reading that went into the two.
    pub(crate) seen: Option<Moment>,
    pub(crate) stepped_down: Option<Moment>,
    pub(crate) relapses: u32,
    /// What was last said, so that only news is told.
    pub(crate) said: Option<HoldKind>,
}

/// A rung that was taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// Which.
    pub rung: Rung,
    /// When its act was decided.
    pub asked: Moment,
    /// When it was first seen in force.
    pub in_force: Option<Moment>,
    /// The services that it stopped.
    pub services: Vec<ServiceName>,
    /// Whether it was carried out; if not, only proposed.
    pub carried_out: bool,
    /// When it was last asked to be given back.
    pub returning: Option<Moment>,
}

/// What was tried and is not in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tried {
    pub rung: Rung,
    pub at: Moment,
    pub words: String,
}

impl State {
    /// The rungs that were taken and not given back, lowest first.
    pub fn held(&self) -> &[Held] {
        &self.held
    }

    /// How often a rung was taken, and carried out, in the 24 hours before `now`.
    pub fn spent(&self, rung: Rung, now: Moment) -> u32 {
        let number = self.spent.iter().filter(|(of, at)| *of == rung && now.since(*at) < DAY).count();
        u32::try_from(number).unwrap_or(u32::MAX)
    }

    /// The state after the guard was started again, from what it had written down; `same_boot` tells whether the host was booted
    /// in between, which starts its boot clock anew.
    ///
    /// After a reboot all times are laid where the wall clock says that they were. A wall clock that was set back makes them
    /// younger than they are, and what is older than the boot counts as happened at the boot: budgets and cooldowns then last
    /// longer, never shorter.
    #[must_use]
    pub fn restarted(mut self, now: Moment, same_boot: bool) -> Self {
        (self.critical, self.calm, self.seen, self.said) = (None, None, None, None);
        if same_boot {
            return self;
        }
        let lay = |at: &mut Moment| {
            let age = Duration::try_from(now.wall.duration_since(at.wall)).unwrap_or(Duration::ZERO);
            let age_us = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
            at.boot_us = now.boot_us.saturating_sub(age_us);
        };
        for held in &mut self.held {
            lay(&mut held.asked);
            held.in_force.iter_mut().for_each(lay);
            held.returning.iter_mut().for_each(lay);
        }
        self.tried.iter_mut().for_each(|tried| lay(&mut tried.at));
        self.rests.iter_mut().for_each(|(_, at)| lay(at));
        self.spent.iter_mut().for_each(|(_, at)| lay(at));
        self.cancelled.iter_mut().for_each(|(_, _, at)| lay(at));
        self.elsewhere.iter_mut().for_each(|(_, at)| lay(at));
        self.stepped_down.iter_mut().for_each(lay);
        self
    }

    /// Drops what is older than a day.
    pub(crate) fn forget(&mut self, now: Moment) {
        let young = |at: &Moment| now.since(*at) < DAY;
        self.spent.retain(|(_, at)| young(at));
        self.cancelled.retain(|(_, _, at)| young(at));
        self.rests.retain(|(_, at)| young(at));
    }

    /// Goes on with the streaks, at most once for each reading.
    pub(crate) fn follow(&mut self, picture: &Picture, thresholds: &Thresholds) {
        use crate::pressure::Level;
        let Picture { at, window, level, .. } = *picture;
        if let Some(seen) = self.seen {
            if at.boot_us <= seen.boot_us {
                return;
            }
            if at.since(seen) > window.saturating_add(HOLE) {
                (self.critical, self.calm) = (None, None);
            }
        }
        self.seen = Some(at);
        let next = |before, of| Streak::next(before, level == of, at, window, thresholds.blip);
        self.critical = next(self.critical, Level::Critical);
        self.calm = next(self.calm, Level::Calm);
    }

    pub(crate) fn is_held(&self, rung: Rung) -> bool {
        self.held.iter().any(|held| held.rung == rung)
    }

    /// Puts a rung where it belongs in the order.
    pub(crate) fn hold(&mut self, held: Held) {
        let place = self.held.partition_point(|other| other.rung < held.rung);
        self.held.insert(place, held);
    }

    pub(crate) fn rest(&mut self, rung: Rung, now: Moment) {
        self.rests.retain(|(of, _)| *of != rung);
        self.rests.push((rung, now));
    }

    /// How long a rung has been given back.
    pub(crate) fn rested(&self, rung: Rung, now: Moment) -> Option<Duration> {
        self.rests.iter().find(|(of, _)| *of == rung).map(|(_, at)| now.since(*at))
    }

    pub(crate) fn relapsed(&mut self) {
        self.relapses = (self.relapses + 1).min(RELAPSES_MAX);
    }
}

//! What was tried, and what came of it.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use model::ServiceName;
use serde::{Deserialize, Serialize};

use super::Action;
use crate::{
    graph::Graph,
    health::RESTARTS_KEPT,
    state::{Broken, State, Status, shown},
};

/// Acts that are remembered of all services together, for the budget in total: more than any budget allows.
pub const ACTS_KEPT: usize = 4096;
/// How long an act that a driver has taken on may take to show; until then an old state is no failure.
pub const SHOWS_WITHIN: Duration = Duration::from_secs(5);
/// Acts on one service that were begun and never handed over, in a row, after which it is acted on no more: whoever acts dies in a loop.
pub const UNDONE_MAX: u32 = 3;
/// Losses count together only within this time of one another.
pub const LOST_WITHIN: Duration = Duration::from_secs(1800);

/// One act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When, on the boot clock.
    pub at: Duration,
    /// What.
    pub action: Action,
    /// When its driver had taken it on; `None` while that isn't known. It is judged from then on: what is still being stopped has not failed to start.
    pub handed_over: Option<Duration>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Track {
    open: Option<Attempt>,
    tried: bool,
    failed: u32,
    failed_at: Option<Duration>,
    last_failure: Option<String>,
    acts: VecDeque<Duration>,
    was_stable: bool,
    /// When it was lost.
    lost: Option<Duration>,
    /// Acts in a row that were begun and never handed over.
    undone: u32,
}

/// The acts of one recovery and their ends. The executor writes each act to the journal before it acts, and so can make this anew after it was killed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    tracks: BTreeMap<ServiceName, Track>,
    repeated: VecDeque<Duration>,
}

impl Ledger {
    /// Writes down that a service is acted on now.
    pub fn acted(&mut self, service: &ServiceName, action: Action, at: Duration) {
        let track = self.tracks.entry(service.clone()).or_default();
        if action == Action::Restart || track.tried {
            push(&mut self.repeated, at, ACTS_KEPT);
        }
        push(&mut track.acts, at, RESTARTS_KEPT);
        track.open = Some(Attempt { at, action, handed_over: None });
        track.tried = true;
        track.was_stable = false;
    }

    /// Its driver has taken the act on a service on, or may have.
    pub fn handed_over(&mut self, service: &ServiceName, at: Duration) {
        let Some(track) = self.tracks.get_mut(service) else { return };
        if let Some(open) = &mut track.open {
            open.handed_over = Some(at);
            track.undone = 0;
        }
    }

    /// The act on a service was not taken on: nothing will come of it.
    pub fn refused(&mut self, service: &ServiceName, why: &str, at: Duration) {
        let Some(track) = self.tracks.get_mut(service) else { return };
        if track.open.take().is_some() {
            track.undone = 0;
            track.failed += 1;
            (track.failed_at, track.last_failure) = (Some(at), Some(shown(why)));
        }
    }

    /// The act on a service was written down and never done: whoever was to do it was killed between the two. It is no failure of the service, and
    /// counts against no budget but [`UNDONE_MAX`].
    pub fn undone(&mut self, service: &ServiceName) {
        let Some(track) = self.tracks.get_mut(service) else { return };
        let Some(open) = track.open.take() else { return };
        track.undone = track.undone.saturating_add(1);
        track.acts.retain(|at| *at != open.at);
        if let Some(place) = self.repeated.iter().rposition(|at| *at == open.at) {
            self.repeated.remove(place);
        }
    }

    /// Acts that were begun and are not known to be handed over.
    pub fn not_handed_over(&self) -> impl Iterator<Item = &ServiceName> {
        let begun = |track: &Track| track.open.is_some_and(|open| open.handed_over.is_none());
        self.tracks.iter().filter(move |(_, track)| begun(track)).map(|(name, _)| name)
    }

    /// How often in a row acts on a service were begun and never handed over.
    pub fn undone_times(&self, service: &ServiceName) -> u32 {
        self.tracks.get(service).map_or(0, |track| track.undone)
    }

    /// The recovery has ended well: the next one begins anew, within what the budgets leave. Whether there was anything to end.
    pub fn close(&mut self) -> bool {
        let mut any = false;
        for track in self.tracks.values_mut().filter(|track| track.open.is_none()) {
            any |= track.tried || track.lost.is_some() || track.undone > 0;
            (track.tried, track.lost, track.undone) = (false, None, 0);
        }
        any
    }

    /// Judges the attempts that were handed over by what is seen now, and notes which services broke by themselves.
    pub fn judge(&mut self, graph: &Graph, statuses: &[Status], now: Duration) {
        for id in graph.ids() {
            let Some(status) = statuses.get(id.index()) else { continue };
            let name = graph.name(id);
            if !self.tracks.contains_key(name) {
                self.tracks.insert(name.clone(), Track::default());
            }
            if let Some(track) = self.tracks.get_mut(name) {
                track.judge(status, now);
            }
        }
        // Counted back from the newest loss, not from now: what was stopped for its losses does not go on by itself.
        let newest = self.tracks.values().filter_map(|track| track.lost).max();
        for track in self.tracks.values_mut() {
            track.lost =
                track.lost.filter(|lost| newest.is_some_and(|newest| newest.saturating_sub(*lost) < LOST_WITHIN));
        }
    }

    /// The attempt on a service that hasn't ended.
    pub fn open(&self, service: &ServiceName) -> Option<Attempt> {
        self.tracks.get(service)?.open
    }

    /// Failed attempts since it was last stable.
    pub fn failed(&self, service: &ServiceName) -> u32 {
        self.tracks.get(service).map_or(0, |track| track.failed)
    }

    /// Whether it was acted on at all.
    pub fn tried(&self, service: &ServiceName) -> bool {
        self.tracks.get(service).is_some_and(|track| track.tried)
    }

    /// When its last attempt failed, if that was after it was last stable.
    pub fn failed_at(&self, service: &ServiceName) -> Option<Duration> {
        self.tracks.get(service)?.failed_at
    }

    /// How its last attempt failed.
    pub fn last_failure(&self, service: &ServiceName) -> Option<&str> {
        self.tracks.get(service)?.last_failure.as_deref()
    }

    /// Acts on a service within a time.
    pub fn acts_of(&self, service: &ServiceName, now: Duration, within: Duration) -> usize {
        self.tracks.get(service).map_or(0, |track| count(&track.acts, now, within))
    }

    /// Restarts and further attempts of all services within a time.
    pub fn acts_of_all(&self, now: Duration, within: Duration) -> usize {
        count(&self.repeated, now, within)
    }

    /// Services that were stable and broke though all they need was stable and nobody acted on them, by name; within [`LOST_WITHIN`] of one another, and
    /// since all was stable.
    pub fn lost(&self) -> Vec<&ServiceName> {
        self.tracks.iter().filter(|(_, track)| track.lost.is_some()).map(|(name, _)| name).collect()
    }

    /// A person has looked: what was given up or held against the recovery is forgotten, the budgets are not.
    pub fn reset(&mut self) {
        for track in self.tracks.values_mut() {
            (track.failed, track.failed_at, track.last_failure, track.lost) = (0, None, None, None);
            track.undone = 0;
        }
    }
}

impl Track {
    fn judge(&mut self, status: &Status, now: Duration) {
        if self.open.is_some_and(|open| open.handed_over.is_none()) {
            return;
        }
        let needs_stable = status.needs_stable_since.is_some();
        let bad = match &status.state {
            State::Stable => {
                (self.open, self.failed, self.failed_at) = (None, 0, None);
                self.was_stable = true;
                return;
            }
            State::Stopped { .. } => {
                (self.open, self.was_stable) = (None, false);
                return;
            }
            State::Settling | State::Starting { .. } | State::Stopping { .. } | State::Unknown { .. } => return,
            State::Broken { .. }
            | State::Stuck { .. }
            | State::Wrong { .. }
            | State::Removed
            | State::Damaged { .. } => &status.state,
        };
        if let Some(open) = self.open {
            if !needs_stable {
                // What it needs went away under it: that is not its failure.
                self.open = None;
            } else if ended(open, status, now) {
                self.open = None;
                self.failed += 1;
                self.failed_at = Some(now);
                self.last_failure = Some(bad.to_string());
            }
        } else if self.was_stable {
            // A stale pool is the need's doing; what fails with its need is no loss of its own either.
            if needs_stable && !matches!(bad, State::Wrong { .. }) {
                self.lost = Some(now);
            }
            self.was_stable = false;
        }
    }
}

/// Whether a bad state tells the end of the attempt: it began after the act was done, or that had its time to show.
fn ended(open: Attempt, status: &Status, now: Duration) -> bool {
    let Some(done) = open.handed_over else { return false };
    let seen_after = status.seen_at.is_some_and(|seen| seen > done);
    let new = status.since > done && !matches!(status.state, State::Broken { how: Broken::HeldBack });
    seen_after && (new || now.saturating_sub(done) >= SHOWS_WITHIN)
}

fn push(times: &mut VecDeque<Duration>, at: Duration, kept: usize) {
    if times.len() == kept {
        times.pop_front();
    }
    times.push_back(at);
}

fn count(times: &VecDeque<Duration>, now: Duration, within: Duration) -> usize {
    times.iter().rev().take_while(|at| now.saturating_sub(**at) < within).count()
}

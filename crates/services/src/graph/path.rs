//! How long it takes at best.

use std::time::Duration;

use super::{Graph, Id};

/// The chain of needs that decides how long everything takes, however many start at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CriticalPath {
    /// Its members, the first to start first.
    pub members: Vec<Id>,
    /// What they take together.
    pub takes: Duration,
}

impl Graph {
    /// The longest chain by what each service takes; of equally long ones the one that comes first in the configuration.
    pub fn critical_path(&self, takes: impl Fn(Id) -> Duration) -> CriticalPath {
        let mut done = vec![Duration::ZERO; self.len()];
        let mut before: Vec<Option<Id>> = vec![None; self.len()];
        for id in self.order() {
            let mut ready = Duration::ZERO;
            for need in self.needs(*id) {
                if done[need.index()] > ready || before[id.index()].is_none() {
                    ready = done[need.index()];
                    before[id.index()] = Some(*need);
                }
            }
            done[id.index()] = ready.saturating_add(takes(*id));
        }
        let Some(last) = self.ids().rev().max_by_key(|id| done[id.index()]) else {
            return CriticalPath { members: vec![], takes: Duration::ZERO };
        };
        let mut members = vec![last];
        while let Some(need) = members.last().and_then(|id| before[id.index()]) {
            members.push(need);
        }
        members.reverse();
        CriticalPath { members, takes: done[last.index()] }
    }

    /// For each service the longest chain that begins with it: what waits behind it. The longest is started first when not all can be.
    pub fn ranks(&self, takes: impl Fn(Id) -> Duration) -> Vec<Duration> {
        let mut ranks = vec![Duration::ZERO; self.len()];
        for id in self.order().iter().rev() {
            let behind = self.needed_by(*id).iter().map(|next| ranks[next.index()]).max().unwrap_or_default();
            ranks[id.index()] = behind.saturating_add(takes(*id));
        }
        ranks
    }
}

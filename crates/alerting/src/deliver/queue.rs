//! The order in which one route delivers: pure, time is handed in.
//!
//! In order, as long as the first is fresh. Once the first failed [`PATIENCE`] times, alerts of *other* episodes may overtake it,
//! so that one alert that the receiver can't digest does not hold the rest; those of the same episode never do: a resolve
//! that comes before its firing would leave an incident open for ever.

use std::{
    collections::{HashSet, VecDeque},
    time::{Duration, Instant},
};

use model::Alert;

/// Failures of the first in the queue after which others may overtake it.
pub(crate) const PATIENCE: u32 = 2;

/// An alert on its way.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) id: u64,
    pub(crate) alert: Alert,
    /// Failed attempts.
    pub(crate) failed: u32,
    /// The receiver refused it together with others: it goes by itself.
    pub(crate) alone: bool,
    /// Not before.
    pub(crate) due: Instant,
    pub(crate) received: Instant,
    /// How old it was then.
    pub(crate) age: Duration,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Attempt the item with this id.
    Attempt(u64),
    /// Nothing before then.
    Wait(Instant),
    /// Nothing at all.
    Idle,
}

/// One route's queue. Its bound is the guard's, which keeps the outbox bounded and tells us what it dropped.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    items: VecDeque<Item>,
}

impl Queue {
    /// Adds one; an id that is there already stays as it is.
    pub(crate) fn push(&mut self, item: Item) {
        if !self.items.iter().any(|known| known.id == item.id) {
            self.items.push_back(item);
        }
    }

    pub(crate) fn remove(&mut self, id: u64) -> Option<Item> {
        let index = self.items.iter().position(|item| item.id == id)?;
        self.items.remove(index)
    }

    pub(crate) fn get_mut(&mut self, id: u64) -> Option<&mut Item> {
        self.items.iter_mut().find(|item| item.id == id)
    }

    /// The receiver is back: nobody waits any longer.
    pub(crate) fn wake(&mut self, now: Instant) {
        for item in &mut self.items {
            item.due = item.due.min(now);
        }
    }

    pub(crate) fn next(&self, now: Instant) -> Next {
        let mut held = HashSet::new();
        let mut soonest: Option<Instant> = None;
        for item in &self.items {
            if held.contains(&item.alert.key) {
                continue;
            }
            if item.due <= now {
                return Next::Attempt(item.id);
            }
            soonest = Some(soonest.map_or(item.due, |soonest| soonest.min(item.due)));
            if item.failed < PATIENCE {
                break;
            }
            held.insert(&item.alert.key);
        }
        soonest.map_or(Next::Idle, Next::Wait)
    }

    /// Which go in one message: that one, and those behind it in order that may go now too, at most `most`. An episode is in a
    /// message once: receivers know an alert by its name.
    pub(crate) fn together(&self, first: u64, most: usize, now: Instant) -> Vec<u64> {
        let mut batch = vec![first];
        let from = self.items.iter().position(|item| item.id == first).unwrap_or(self.items.len());
        let mut keys = HashSet::new();
        for (at, item) in self.items.iter().skip(from).enumerate() {
            if at == 0 {
                if item.alone {
                    break;
                }
                keys.insert(&item.alert.key);
                continue;
            }
            if batch.len() >= most || item.alone || item.due > now || !keys.insert(&item.alert.key) {
                break;
            }
            // One that waits before the first holds back its own episode.
            if self.items.iter().take(from).any(|before| before.alert.key == item.alert.key) {
                break;
            }
            batch.push(item.id);
        }
        batch
    }

    pub(crate) fn get(&self, id: u64) -> Option<&Item> {
        self.items.iter().find(|item| item.id == id)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The next that was never attempted, whatever waits before it: the guard is gone, each gets one chance. Behind a failed
    /// one of its own episode there is no chance.
    pub(crate) fn next_untried(&self) -> Option<u64> {
        let mut held = HashSet::new();
        for item in &self.items {
            if item.failed > 0 {
                held.insert(&item.alert.key);
            } else if !held.contains(&item.alert.key) {
                return Some(item.id);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use model::AlertState;

    use super::*;
    use crate::testing::alert;

    fn queue(start: Instant, items: &[(u64, &str, u32, u64)]) -> Queue {
        let mut queue = Queue::default();
        for &(id, key, failed, due_s) in items {
            queue.push(Item {
                id,
                alert: alert(key, AlertState::Firing),
                failed,
                alone: false,
                due: start + Duration::from_secs(due_s),
                received: start,
                age: Duration::ZERO,
            });
        }
        queue
    }

    #[test]
    fn order_is_kept_and_the_stuck_are_overtaken_by_other_episodes_only() {
        let start = Instant::now();
        let wait = |seconds| Next::Wait(start + Duration::from_secs(seconds));
        for (items, expected, untried) in [
            (&[][..], Next::Idle, None),
            (&[(1, "a", 0, 0), (2, "b", 0, 0)][..], Next::Attempt(1), Some(1)),
            (&[(1, "a", 1, 5), (2, "b", 0, 0)][..], wait(5), Some(2)),
            (&[(1, "a", PATIENCE, 5), (2, "b", 0, 0)][..], Next::Attempt(2), Some(2)),
            (&[(1, "a", PATIENCE, 5), (2, "a", 0, 0)][..], wait(5), None),
            (&[(1, "a", PATIENCE, 5), (2, "a", 0, 0), (3, "b", 0, 0)][..], Next::Attempt(3), Some(3)),
            (&[(1, "a", PATIENCE, 5), (2, "b", PATIENCE, 3)][..], wait(3), None),
        ] {
            let queue = queue(start, items);
            assert_eq!((queue.next(start), queue.next_untried()), (expected, untried), "{items:?}");
        }
    }

    #[test]
    fn what_waits_goes_together_in_order_each_episode_once() {
        let start = Instant::now();
        let together = |items: &[(u64, &str, u32, u64)], first, most| queue(start, items).together(first, most, start);
        assert_eq!(together(&[(1, "a", 0, 0)], 1, 9), [1]);
        assert_eq!(together(&[(1, "a", 0, 0), (2, "b", 0, 0), (3, "c", 0, 0)], 1, 9), [1, 2, 3]);
        assert_eq!(together(&[(1, "a", 0, 0), (2, "b", 0, 0), (3, "c", 0, 0)], 1, 2), [1, 2]);
        assert_eq!(together(&[(1, "a", 0, 0), (2, "b", 0, 0), (3, "a", 0, 0), (4, "c", 0, 0)], 1, 9), [1, 2]);
        assert_eq!(together(&[(1, "a", 2, 5), (2, "b", 0, 0), (3, "a", 0, 0)], 2, 9), [2]);
        assert_eq!(together(&[(1, "a", 0, 0), (2, "b", 1, 5)], 1, 9), [1]);
        let mut queue = queue(start, &[(1, "a", 0, 0), (2, "b", 0, 0)]);
        queue.get_mut(1).unwrap().alone = true;
        assert_eq!(queue.together(1, 9, start), [1]);
    }

    #[test]
    fn a_receiver_that_is_back_gets_all_in_order() {
        let start = Instant::now();
        let mut queue = queue(start, &[(1, "a", 9, 60), (2, "b", 1, 30)]);
        queue.wake(start);
        assert_eq!(queue.next(start), Next::Attempt(1));
        queue.remove(1);
        assert_eq!(queue.next(start), Next::Attempt(2));
    }
}

//! One route at work: its queue, its attempts, its warm connection.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    time::{Duration, Instant},
};

use model::Alert;
use tokio::sync::mpsc;

use super::{
    queue::{Item, Next, Queue},
    retry,
    target::{Failure, Target},
};
use crate::protocol::ToGuard;

/// How often an idle route's connection is opened or used again: below the 60 s after which most servers close it.
const WARM_INTERVAL: Duration = Duration::from_secs(45);

/// What the reader tells a route.
pub(super) enum Order {
    Deliver {
        id: u64,
        alert: Box<Alert>,
        age: Duration,
    },
    Forget {
        id: u64,
    },
    /// It still holds: told once, where nothing else waits.
    Remind {
        alert: Box<Alert>,
    },
}

pub(super) struct RouteTask {
    target: Target,
    orders: mpsc::Receiver<Order>,
    answers: mpsc::Sender<ToGuard>,
    queue: Queue,
    /// The receiver asked to be left alone until then.
    quiet_until: Instant,
}

impl RouteTask {
    pub(super) fn new(target: Target, orders: mpsc::Receiver<Order>, answers: mpsc::Sender<ToGuard>) -> Self {
        Self { target, orders, answers, queue: Queue::default(), quiet_until: Instant::now() }
    }

    /// Works until the guard is gone and each alert had its chance.
    pub(super) async fn run(mut self) {
        let mut warm = tokio::time::interval(WARM_INTERVAL);
        warm.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut guard_is_there = true;
        while guard_is_there {
            while let Ok(order) = self.orders.try_recv() {
                self.take(order).await;
            }
            let now = Instant::now();
            let next = match self.queue.next(now) {
                Next::Attempt(_) if self.quiet_until > now => Next::Wait(self.quiet_until),
                next => next,
            };
            if let Next::Attempt(id) = next {
                self.attempt(id).await;
                continue;
            }
            tokio::select! {
                order = self.orders.recv() => match order {
                    Some(order) => self.take(order).await,
                    None => guard_is_there = false,
                },
                () = until(&next) => {}
                _ = warm.tick() => { tokio::spawn(self.target.clone().warm()); }
            }
        }
        while let Some(id) = self.queue.next_untried() {
            tokio::time::sleep_until(self.quiet_until.into()).await;
            self.attempt(id).await;
        }
    }

    async fn take(&mut self, order: Order) {
        match order {
            Order::Deliver { id, alert, age } => {
                let now = Instant::now();
                self.queue.push(Item { id, alert: *alert, failed: 0, alone: false, due: now, received: now, age });
            }
            Order::Forget { id } => {
                self.queue.remove(id);
            }
            Order::Remind { alert } => {
                // Where anything waits, or the receiver wants its peace, the next reminder will do.
                if self.queue.is_empty()
                    && self.quiet_until <= Instant::now()
                    && let Err(failure) = self.target.send(&[&alert]).await
                {
                    tracing::debug!(key = %alert.key, "deliver worker: a reminder was not taken: {}", failure.error);
                }
            }
        }
    }

    /// One message: this alert, and those behind it that may go along.
    async fn attempt(&mut self, id: u64) {
        let batch = self.queue.together(id, self.target.together(), Instant::now());
        let alerts: Vec<&Alert> = batch.iter().filter_map(|&id| self.queue.get(id)).map(|item| &item.alert).collect();
        if alerts.is_empty() {
            return;
        }
        let result = self.target.send(&alerts).await;
        let now = Instant::now();
        match &result {
            Ok(rest) => self.quiet_until = now + *rest,
            // It asks all of us to wait, not only these.
            Err(Failure { retry_after: Some(after), .. }) => {
                self.quiet_until = now + (*after).min(retry::LONGEST_RETRY_AFTER);
            }
            Err(_) => {}
        }
        let several = batch.len() > 1;
        let chance = chance();
        for id in batch {
            let answer = match &result {
                Ok(_) => self.taken(id, now),
                Err(failure) => self.refused(id, failure, several, now, chance),
            };
            // Nobody may be left to hear it; the next guard delivers once more.
            if let Some(answer) = answer {
                let _ = self.answers.send(answer).await;
            }
        }
    }

    fn taken(&mut self, id: u64, now: Instant) -> Option<ToGuard> {
        let item = self.queue.remove(id)?;
        self.queue.wake(now);
        Some(ToGuard::Delivered { id, attempt: item.failed.saturating_add(1) })
    }

    fn refused(&mut self, id: u64, failure: &Failure, several: bool, now: Instant, chance: u64) -> Option<ToGuard> {
        let item = self.queue.get_mut(id)?;
        let attempt = item.failed.saturating_add(1);
        let age = item.age.saturating_add(now.saturating_duration_since(item.received));
        item.failed = attempt;
        item.due = now + retry::pause(attempt, failure.retry_after, chance);
        // What the receiver can't digest is one of several: which, shows when each goes by itself.
        item.alone |= several && failure.permanent;
        let gave_up = (failure.permanent && !several) || !retry::tries_again(attempt, age);
        if gave_up {
            self.queue.remove(id);
        }
        Some(ToGuard::Failed { id, attempt, error: failure.error.clone(), gave_up })
    }
}

/// A number by chance: each hasher of the standard library has random keys, and a jitter needs no better generator.
fn chance() -> u64 {
    RandomState::new().build_hasher().finish()
}

async fn until(next: &Next) {
    match next {
        Next::Wait(due) => tokio::time::sleep_until((*due).into()).await,
        Next::Attempt(_) => {}
        Next::Idle => std::future::pending().await,
    }
}

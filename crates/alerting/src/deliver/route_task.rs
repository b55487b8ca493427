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
    webhook::{Failure, Target},
};
use crate::protocol::ToGuard;

/// How often an idle route's connection is opened or used again: below the 60 s after which most servers close it.
const WARM_INTERVAL: Duration = Duration::from_secs(45);

/// What the reader tells a route.
pub(super) enum Order {
    Deliver { id: u64, alert: Box<Alert>, age: Duration },
    Forget { id: u64 },
}

pub(super) struct RouteTask {
    target: Target,
    orders: mpsc::Receiver<Order>,
    answers: mpsc::Sender<ToGuard>,
    queue: Queue,
}

impl RouteTask {
    pub(super) fn new(target: Target, orders: mpsc::Receiver<Order>, answers: mpsc::Sender<ToGuard>) -> Self {
        Self { target, orders, answers, queue: Queue::default() }
    }

    /// Works until the guard is gone and each alert had its chance.
    pub(super) async fn run(mut self) {
        let mut warm = tokio::time::interval(WARM_INTERVAL);
        warm.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut guard_is_there = true;
        while guard_is_there {
            while let Ok(order) = self.orders.try_recv() {
                self.take(order);
            }
            let next = self.queue.next(Instant::now());
            if let Next::Attempt(id) = next {
                self.attempt(id).await;
                continue;
            }
            tokio::select! {
                order = self.orders.recv() => match order {
                    Some(order) => self.take(order),
                    None => guard_is_there = false,
                },
                () = until(&next) => {}
                _ = warm.tick() => { tokio::spawn(self.target.clone().warm()); }
            }
        }
        while let Some(id) = self.queue.next_untried() {
            self.attempt(id).await;
        }
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Deliver { id, alert, age } => {
                let now = Instant::now();
                self.queue.push(Item { id, alert: *alert, failed: 0, due: now, received: now, age });
            }
            Order::Forget { id } => {
                self.queue.remove(id);
            }
        }
    }

    async fn attempt(&mut self, id: u64) {
        let Some(item) = self.queue.get_mut(id) else { return };
        let result = self.target.post(&item.alert).await;
        let attempt = item.failed.saturating_add(1);
        let answer = match result {
            Ok(()) => {
                self.queue.remove(id);
                self.queue.wake(Instant::now());
                ToGuard::Delivered { id, attempt }
            }
            Err(Failure { error, permanent, retry_after }) => {
                let now = Instant::now();
                let age = item.age.saturating_add(now.saturating_duration_since(item.received));
                item.failed = attempt;
                item.due = now + retry::pause(attempt, retry_after, chance());
                let gave_up = permanent || !retry::tries_again(attempt, age);
                if gave_up {
                    self.queue.remove(id);
                }
                ToGuard::Failed { id, attempt, error, gave_up }
            }
        };
        // Nobody may be left to hear it; the next guard delivers once more.
        let _ = self.answers.send(answer).await;
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

//! Acts on their way: they advance whatever else is waited for, and none is lost when such a wait is broken off.

use std::{collections::BTreeSet, path::PathBuf, pin::pin, sync::Arc, time::Duration};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use model::ServiceName;

use super::intent;
use crate::{
    driver::{Act, ActError, Doing, Driver},
    look::boot_now,
};

/// An act that a driver has taken on, or not.
pub(super) struct HandedOver {
    pub(super) service: ServiceName,
    /// When, on the boot clock.
    pub(super) at: Duration,
    pub(super) done: Result<(), ActError>,
}

#[derive(Default)]
pub(super) struct Acts {
    on_their_way: FuturesUnordered<Doing<'static, HandedOver>>,
    services: BTreeSet<ServiceName>,
    ended: Vec<HandedOver>,
}

impl Acts {
    /// Whether something is done to it that isn't written down as done.
    pub(super) fn is_acting_on(&self, service: &ServiceName) -> bool {
        self.services.contains(service)
    }

    /// Hands an act to its driver. `dir`: where it stands who was stopped on purpose.
    pub(super) fn begin(&mut self, driver: Arc<dyn Driver>, service: ServiceName, act: Act, dir: PathBuf) {
        self.services.insert(service.clone());
        self.on_their_way.push(Box::pin(async move {
            // Once more, as near to the act as can be: whoever wrote it down meanwhile stops it next.
            let done = if intent::load(&dir).is_ok_and(|stopped| stopped.contains_key(&service)) {
                let (why, hint) = ("it was stopped on purpose meanwhile".to_owned(), "it stays so".to_owned());
                Err(ActError::NoAnswer { act, service: service.clone(), why, hint })
            } else {
                driver.act(&service, act).await
            };
            HandedOver { service, at: boot_now(), done }
        }));
    }

    /// Returns when one more has ended; never where there is none.
    pub(super) async fn advance(&mut self) {
        match self.on_their_way.next().await {
            Some(ended) => self.ended.push(ended),
            None => std::future::pending().await,
        }
    }

    /// Advances until something else is there.
    pub(super) async fn advance_while<T>(&mut self, other: impl Future<Output = T>) -> T {
        let mut other = pin!(other);
        loop {
            tokio::select! {
                found = &mut other => return found,
                () = self.advance() => {}
            }
        }
    }

    /// Returns when all have ended.
    pub(super) async fn finish(&mut self) {
        while !self.on_their_way.is_empty() {
            self.advance().await;
        }
    }

    /// Those that have ended since.
    pub(super) fn take_ended(&mut self) -> Vec<HandedOver> {
        let ended = std::mem::take(&mut self.ended);
        for one in &ended {
            self.services.remove(&one.service);
        }
        ended
    }
}

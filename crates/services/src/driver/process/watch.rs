//! When something changed: by the kernel's word, not by looking again and again.
//!
//! What was seen last is compared first, so that nothing is missed between two calls; then the records' directory (inotify) and all processes that matter
//! (pidfds) are waited for. It writes nothing.

use std::{io, os::fd::OwnedFd, path::Path, time::Duration};

use futures_util::future::{FutureExt as _, select_all};
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;

use super::{
    Look, ProcessDriver,
    hand::{end_of, readable},
};
use crate::health::Process;

/// How often is looked where the directory isn't there yet, or there are no more watches to be had.
const UNWATCHED: Duration = Duration::from_millis(500);
/// How long changes are gathered.
const BURST: Duration = Duration::from_millis(10);
/// How many bytes of events are read at once; only that there are any matters.
const EVENTS_BYTES: usize = 4096;
/// Reads of events in a row until the state is looked at again.
const DRAINS_MAX: usize = 64;

/// What `changed` remembers from one call to the next.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// `None` until the first call, and where there are no more watches to be had.
    events: Option<AsyncFd<OwnedFd>>,
    seen: Option<Vec<Look>>,
}

impl ProcessDriver {
    pub(super) async fn until_changed(&self) {
        let mut watch = self.watch.lock().await;
        loop {
            if watch.events.is_none() {
                watch.events = open(&self.dir).ok();
            }
            // Watched from before the look: what happens from here on wakes us.
            let looks = self.looks();
            if watch.seen.as_ref() != Some(&looks) {
                watch.seen = Some(looks);
                return;
            }
            let keepers = looks.iter().filter_map(|look| look.keeper.clone());
            let running = looks.iter().filter(|look| look.process == Process::Running);
            let services = running.filter_map(|look| look.run.as_ref()).map(|run| run.process.clone());
            let ends = keepers.chain(services).map(|process| end_of(process).boxed());
            let event = async {
                match &watch.events {
                    Some(events) => drain(events).await,
                    None => tokio::time::sleep(UNWATCHED).await,
                }
            };
            select_all(ends.chain([event.boxed()])).await;
            // A burst of changes is one; and the instant between an end and its record is no reason to spin.
            tokio::time::sleep(BURST).await;
        }
    }
}

fn open(dir: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let events = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    // Records come by rename; what is merely written is a log or a lock.
    let flags = inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::DELETE | inotify::WatchFlags::ONLYDIR;
    inotify::add_watch(&events, dir, flags)?;
    readable(events)
}

/// Waits for events and takes them away.
async fn drain(events: &AsyncFd<OwnedFd>) {
    let mut buffer = [0; EVENTS_BYTES];
    for _ in 0..DRAINS_MAX {
        let Ok(mut ready) = events.readable().await else { return std::future::pending().await };
        let mut any = false;
        while matches!(rustix::io::read(events.get_ref(), &mut buffer), Ok(read) if read > 0) {
            any = true;
        }
        ready.clear_ready();
        if any {
            return;
        }
    }
}

//! The worker's end of the pipes to the guard: it tells what it does, hears when to step back, and ends when its input does.

use std::{
    io::{self, Write as _},
    process,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use backup::{Note, Progress, Stage, Update, progress::PACE_SLICE_MAX};
use model::ByteSize;
use tokio::io::AsyncBufRead;

use crate::{
    exit,
    guard::{
        Signals,
        backup_protocol::{ToGuard, ToWorker},
        lines::{read, to_line},
    },
};

/// Progress is told at most so often, but for a new stage at once.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// How long a worker whose guard is gone may take to end in good order. A scratch server is taken down meanwhile; what hangs is left:
/// the next proof removes it.
const END_TIMEOUT: Duration = Duration::from_secs(30);

/// What the threads share.
#[derive(Debug, Default)]
struct Shared {
    cancelled: AtomicBool,
    paused: AtomicBool,
}

/// Tells the guard, and the work what it shall do.
pub struct Teller {
    shared: Arc<Shared>,
    /// Said before the stage: what a restore is for.
    prefix: Mutex<&'static str>,
    told: Mutex<Option<(Instant, Stage)>>,
}

impl Teller {
    /// Begins to listen: to the rest of the guard's orders, on a thread of its own, and to signals.
    ///
    /// # Errors
    /// Where the system refuses a thread or a signal handler.
    pub fn listen<R>(mut orders: R, runtime: tokio::runtime::Runtime) -> io::Result<Self>
    where
        R: AsyncBufRead + Unpin + Send + 'static,
    {
        let shared = Arc::new(Shared::default());
        let mut signals = {
            let _inside = runtime.enter();
            Signals::listen()?
        };
        let heard = Arc::clone(&shared);
        thread::Builder::new().name("orders".to_owned()).spawn(move || {
            runtime.block_on(async {
                loop {
                    tokio::select! {
                        order = read::<ToWorker, _>(&mut orders) => match order {
                            Ok(Some(ToWorker::Pause)) => heard.paused.store(true, Ordering::Relaxed),
                            Ok(Some(ToWorker::Resume)) => heard.paused.store(false, Ordering::Relaxed),
                            Ok(Some(ToWorker::Begin { .. })) => {}
                            // The guard ends, or is gone: so does this.
                            Ok(None) | Err(_) => break,
                        },
                        _ = signals.next() => break,
                    }
                }
                heard.cancelled.store(true, Ordering::Relaxed);
                tokio::time::sleep(END_TIMEOUT).await;
                tracing::error!("the work did not stop in time");
                process::exit(exit::FAILED.into());
            });
        })?;
        Ok(Self { shared, prefix: Mutex::new(""), told: Mutex::new(None) })
    }

    /// Says in every line about progress what it is for, from now on.
    pub fn call(&self, prefix: &'static str) {
        *lock(&self.prefix) = prefix;
        *lock(&self.told) = None;
    }

    /// Says something. Where nobody hears it any more the work ends.
    pub fn say(&self, message: &ToGuard) {
        let mut stdout = io::stdout().lock();
        if stdout.write_all(&to_line(message)).and_then(|()| stdout.flush()).is_err() {
            self.shared.cancelled.store(true, Ordering::Relaxed);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Progress for Teller {
    fn update(&self, update: &Update) {
        let mut told = lock(&self.told);
        if told.is_some_and(|(at, stage)| stage == update.stage && at.elapsed() < TELL_EVERY) {
            return;
        }
        *told = Some((Instant::now(), update.stage));
        drop(told);
        self.say(&ToGuard::Progress {
            stage: format!("{}{}", lock(&self.prefix), words(update.stage)),
            done: ByteSize(update.bytes_done),
            total: ByteSize(update.bytes_total),
            remaining: update.remaining,
        });
    }

    fn note(&self, note: &Note) {
        match note {
            Note::CorruptPage { path, block, why } => {
                self.say(&ToGuard::Problem {
                    problem: format!("damaged page in the cluster: {path}, block {block}: {why}"),
                });
            }
            Note::Warning(text) => tracing::warn!("{text}"),
            other => tracing::debug!(?other, "backup"),
        }
    }

    fn pace(&self) -> Duration {
        if self.shared.paused.load(Ordering::Relaxed) { PACE_SLICE_MAX } else { Duration::ZERO }
    }

    fn cancelled(&self) -> bool {
        self.shared.cancelled.load(Ordering::Relaxed)
    }
}

fn words(stage: Stage) -> &'static str {
    match stage {
        Stage::Preparing => "preparing",
        Stage::Checkpoint => "waiting for a checkpoint",
        Stage::Copying => "copying",
        Stage::Wal => "copying WAL",
        Stage::Committing => "committing",
        Stage::Writing => "restoring",
        Stage::Syncing => "syncing",
        Stage::Done => "done",
    }
}

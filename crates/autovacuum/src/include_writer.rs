//! All changes that this process makes to the include file, one after the other, off the runtime's threads.
//!
//! A file system may hang, and what was begun on it can't be called back. So that nothing of it lands late: there is one hand at a time,
//! and one place for the change that it does next, which the newest takes; before a file is renamed into place it is asked whether
//! it is still wanted; and whoever gives up on a throttle takes back that it is. A file that is removed or made neutral late
//! does no harm, so those stay wanted until something newer is.

use std::{
    mem,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::oneshot;

use crate::{
    include_file::{self, FileError},
    undo::STATEMENT_TIMEOUT,
};

/// What is done to the file.
#[derive(Debug)]
enum What {
    Replace { content: String, owner: Option<(u32, u32)> },
    Remove,
}

/// A change that waits for its turn.
#[derive(Debug)]
struct Change {
    path: PathBuf,
    what: What,
    withdrawn: Arc<AtomicBool>,
    answer: oneshot::Sender<Result<(), String>>,
}

#[derive(Debug, Default)]
struct Desk {
    /// The one that is next; a newer one takes its place.
    next: Option<Change>,
    /// Whether a thread is at it.
    busy: bool,
}

/// See the module's documentation. Clones share the hand.
#[derive(Clone, Debug)]
pub(crate) struct IncludeWriter {
    desk: Arc<Mutex<Desk>>,
    patience: Duration,
    /// Held by a test, it is a file system that hangs.
    #[cfg(test)]
    hangs: Arc<Mutex<()>>,
}

impl Default for IncludeWriter {
    fn default() -> Self {
        Self {
            desk: Arc::default(),
            patience: STATEMENT_TIMEOUT,
            #[cfg(test)]
            hangs: Arc::default(),
        }
    }
}

/// Withdraws a change whose caller gave up or was dropped.
struct Withdraw(Option<Arc<AtomicBool>>);

impl Drop for Withdraw {
    fn drop(&mut self) {
        if let Some(withdrawn) = &self.0 {
            withdrawn.store(true, Ordering::SeqCst);
        }
    }
}

impl IncludeWriter {
    /// Puts a setting into the file. When this fails, or its future is dropped, the file is not replaced later; where the file system
    /// hung in that very moment, not after a change that is asked for from then on.
    ///
    /// # Errors
    /// In words: the file system refused, or did not answer within a few seconds.
    pub(crate) async fn put(&self, path: &Path, content: String, owner: Option<(u32, u32)>) -> Result<(), String> {
        self.ask(path, What::Replace { content, owner }, true).await
    }

    /// Puts something harmless into the file, which may also land late.
    ///
    /// # Errors
    /// As [`IncludeWriter::put`].
    pub(crate) async fn put_harmless(
        &self,
        path: &Path,
        content: String,
        owner: Option<(u32, u32)>,
    ) -> Result<(), String> {
        self.ask(path, What::Replace { content, owner }, false).await
    }

    /// Removes the file; that it is not there is fine. It may also go late.
    ///
    /// # Errors
    /// As [`IncludeWriter::put`].
    pub(crate) async fn remove(&self, path: &Path) -> Result<(), String> {
        self.ask(path, What::Remove, false).await
    }

    async fn ask(&self, path: &Path, what: What, withdrawable: bool) -> Result<(), String> {
        let (answer, answered) = oneshot::channel();
        let withdrawn = Arc::new(AtomicBool::new(false));
        let mut withdraw = Withdraw(withdrawable.then(|| Arc::clone(&withdrawn)));
        let change = Change { path: path.to_owned(), what, withdrawn, answer };
        let idle = {
            let mut desk = lock(&self.desk);
            // Whoever waits for the one that it replaces is told so by the channel's end.
            desk.next = Some(change);
            !mem::replace(&mut desk.busy, true)
        };
        if idle {
            let writer = self.clone();
            tokio::task::spawn_blocking(move || writer.work());
        }
        match tokio::time::timeout(self.patience, answered).await {
            Ok(Ok(done)) => {
                withdraw.0 = None;
                done
            }
            Ok(Err(_)) => Err("a later change of the include file took this one's place".to_owned()),
            Err(_) => Err(format!("the file system did not answer within {} s", self.patience.as_secs())),
        }
    }

    /// Does what is asked for until nothing is.
    fn work(&self) {
        loop {
            let change = {
                let mut desk = lock(&self.desk);
                match desk.next.take() {
                    Some(change) => change,
                    None => {
                        desk.busy = false;
                        return;
                    }
                }
            };
            let done = self.carry_out(&change).map_err(|error| error.to_string());
            // Whoever asked may have given up.
            let _ = change.answer.send(done);
        }
    }

    fn carry_out(&self, change: &Change) -> Result<(), FileError> {
        let wanted = || {
            #[cfg(test)]
            drop(lock(&self.hangs));
            !change.withdrawn.load(Ordering::SeqCst) && lock(&self.desk).next.is_none()
        };
        match &change.what {
            What::Replace { content, owner } => include_file::replace_if(&change.path, content, *owner, wanted),
            What::Remove => include_file::remove(&change.path),
        }
    }
}

/// A thread that panicked leaves nothing half done here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const THROTTLE: &str = "autovacuum_vacuum_cost_limit = 1\n";

    fn writer() -> (IncludeWriter, tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("throttle.conf");
        let writer = IncludeWriter { patience: Duration::from_millis(50), ..IncludeWriter::default() };
        (writer, directory, path)
    }

    async fn until_idle(writer: &IncludeWriter) {
        while lock(&writer.desk).busy {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn files(directory: &tempfile::TempDir) -> Vec<std::ffi::OsString> {
        std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    }

    #[tokio::test]
    #[expect(clippy::await_holding_lock, reason = "that is how the file system hangs")]
    async fn a_throttle_that_was_given_up_never_lands() {
        let (writer, directory, path) = writer();
        let hangs = Arc::clone(&writer.hangs);
        let held = lock(&hangs);
        let error = writer.put(&path, THROTTLE.to_owned(), None).await.unwrap_err();
        assert!(error.contains("did not answer"), "{error}");
        drop(held);
        until_idle(&writer).await;
        assert_eq!(files(&directory), Vec::<std::ffi::OsString>::new());
    }

    #[tokio::test]
    #[expect(clippy::await_holding_lock, reason = "that is how the file system hangs")]
    async fn a_release_lands_after_whatever_hung_before_it() {
        let (writer, directory, path) = writer();
        writer.put(&path, THROTTLE.to_owned(), None).await.unwrap();
        let hangs = Arc::clone(&writer.hangs);
        let held = lock(&hangs);
        assert!(writer.put(&path, format!("{THROTTLE}# again\n"), None).await.is_err());
        // It waits behind that one, and nobody has to ask again.
        assert!(writer.remove(&path).await.is_err());
        assert!(path.exists());
        drop(held);
        until_idle(&writer).await;
        assert_eq!(files(&directory), Vec::<std::ffi::OsString>::new());
    }

    #[tokio::test]
    #[expect(clippy::await_holding_lock, reason = "that is how the file system hangs")]
    async fn only_the_newest_of_those_that_wait_is_done() {
        let (writer, _directory, path) = writer();
        let hangs = Arc::clone(&writer.hangs);
        let held = lock(&hangs);
        let first = writer.put_harmless(&path, "# 1\n".to_owned(), None).await;
        let (second, third) = tokio::join!(
            writer.put_harmless(&path, "# 2\n".to_owned(), None),
            writer.put_harmless(&path, "# 3\n".to_owned(), None)
        );
        assert!(second.unwrap_err().contains("took this one's place"));
        assert!(first.is_err() && third.is_err());
        drop(held);
        until_idle(&writer).await;
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "# 3\n");
    }

    #[tokio::test]
    async fn a_refusal_is_told() {
        let (writer, _directory, path) = writer();
        std::fs::create_dir(&path).unwrap();
        assert!(writer.remove(&path).await.unwrap_err().contains("could not remove"));
        assert!(writer.put(&path, THROTTLE.to_owned(), None).await.unwrap_err().contains("could not write"));
    }
}

//! The receipt for an appended event.
//!
//! Both an async task and a plain thread can wait on it, without a runtime and without a panic when the two are mixed up; that is
//! why it is neither a oneshot channel of tokio nor one of std.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Condvar, Mutex, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use model::EventId;

use crate::AppendError;

type Outcome = Result<EventId, AppendError>;

/// Where the writer leaves the outcome of one event.
#[derive(Default)]
pub(crate) struct Slot {
    state: Mutex<State>,
    settled: Condvar,
}

#[derive(Default)]
struct State {
    outcome: Option<Outcome>,
    waker: Option<Waker>,
}

impl Slot {
    /// Leaves the outcome and wakes whoever waits. The first outcome stays.
    pub(crate) fn settle(&self, outcome: Outcome) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.outcome.is_some() {
            return;
        }
        state.outcome = Some(outcome);
        let waker = state.waker.take();
        drop(state);
        self.settled.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The receipt for an appended event. Drop it where nobody needs to know: the event is recorded all the same.
pub struct Ticket {
    slot: Arc<Slot>,
}

impl Ticket {
    pub(crate) fn new() -> (Self, Arc<Slot>) {
        let slot = Arc::new(Slot::default());
        (Self { slot: Arc::clone(&slot) }, slot)
    }

    /// Waits until the event is on the disk.
    ///
    /// # Errors
    /// When it will never be there: see [`AppendError`]. While the store fails and the backlog has room, this simply waits.
    pub async fn durable(self) -> Result<EventId, AppendError> {
        self.await
    }

    /// Like [`Ticket::durable`], blocking this thread. Not for the guard's runtime.
    ///
    /// # Errors
    /// See [`Ticket::durable`].
    pub fn wait(self) -> Result<EventId, AppendError> {
        let mut state = self.slot.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(outcome) = state.outcome.clone() {
                return outcome;
            }
            state = self.slot.settled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Like [`Ticket::wait`] for at most `timeout`; `None` when the event is not on the disk by then.
    pub fn wait_for(&self, timeout: Duration) -> Option<Result<EventId, AppendError>> {
        let deadline = Instant::now() + timeout;
        let mut state = self.slot.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if state.outcome.is_some() {
                return state.outcome.clone();
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            state = self.slot.settled.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Future for Ticket {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.slot.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outcome) = state.outcome.clone() {
            return Poll::Ready(outcome);
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        task::Wake,
        thread,
    };

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_task_is_woken_once_and_finds_the_first_outcome() {
        let (ticket, slot) = Ticket::new();
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut context = Context::from_waker(&waker);
        let mut future = Box::pin(ticket.durable());
        assert!(future.as_mut().poll(&mut context).is_pending());
        assert!(future.as_mut().poll(&mut context).is_pending());
        slot.settle(Ok(EventId(7)));
        slot.settle(Err(AppendError::Closed));
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert_eq!(future.as_mut().poll(&mut context), Poll::Ready(Ok(EventId(7))));
    }

    #[test]
    fn a_thread_waits_and_gives_up() {
        let (ticket, slot) = Ticket::new();
        assert_eq!(ticket.wait_for(Duration::from_millis(1)), None);
        let settler = thread::spawn(move || slot.settle(Err(AppendError::Closed)));
        assert_eq!(ticket.wait_for(Duration::from_secs(30)), Some(Err(AppendError::Closed)));
        assert_eq!(ticket.wait(), Err(AppendError::Closed));
        settler.join().unwrap();
    }
}

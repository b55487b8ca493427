//! The thread that samples the host: on its own, at a raised priority, at absolute deadlines, and waiting for nobody.

use std::{
    collections::VecDeque,
    io,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc as std_mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use model::{EventKind, Moment, Observation, Reading, event::SilentBy};
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime},
};
use tokio::sync::mpsc::{Sender, error::TrySendError};
use tracing::{debug, warn};

use super::sampler::{HostError, HostOptions, HostSampler};
use crate::clock;

/// A step of the wall clock by more than this is an event; NTP slews less than that between two samples.
pub const CLOCK_STEP: Duration = Duration::from_secs(2);
/// A window that is longer than the interval by more than this means that we were silent.
pub const SILENCE: Duration = Duration::from_secs(5);
/// The niceness that the thread asks for: above everything ordinary, so that it samples while the host is starved.
const NICENESS: i32 = -10;
/// Observations kept while the receiver lags; beyond them the oldest readings are dropped.
const MAX_PENDING: usize = 8;

/// A running sampling thread. Dropping it stops the thread and waits for it.
#[derive(Debug)]
pub struct HostThread {
    thread: Option<JoinHandle<()>>,
    stop: Arc<OwnedFd>,
    dropped: Arc<AtomicU64>,
    limitations: Vec<String>,
}

impl HostThread {
    /// What is missing on this host and what that costs.
    pub fn limitations(&self) -> &[String] {
        &self.limitations
    }

    /// Readings dropped since the start because the receiver lagged.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Whether it still samples; it ends by itself when the receiver is gone.
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

impl Drop for HostThread {
    fn drop(&mut self) {
        if rustix::io::write(&*self.stop, &1u64.to_ne_bytes()).is_ok()
            && let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            warn!("the host sampler had panicked");
        }
    }
}

/// Why the sampling thread could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The host can't be read.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The system refuses a timer, an event descriptor or a thread.
    #[error("can't start the host sampler: {0} (is the limit on open files or threads reached? see `ulimit -n -u`)")]
    System(#[from] io::Error),
}

/// Starts sampling every `interval`; the first reading comes after one.
///
/// # Errors
/// Where `/proc` can't be read, or the system has no timer or thread for us.
pub fn spawn(
    options: HostOptions,
    interval: Duration,
    observations: Sender<Observation>,
) -> Result<HostThread, SpawnError> {
    let sampler = HostSampler::new(options)?;
    let mut limitations = sampler.limitations();
    let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(io::Error::from)?);
    let dropped = Arc::new(AtomicU64::new(0));
    let mut worker = Worker {
        sampler,
        timer: periodic_timer(interval).map_err(io::Error::from)?,
        stop: Arc::clone(&stop),
        interval,
        outbox: Outbox {
            observations,
            pending: VecDeque::with_capacity(MAX_PENDING + 1),
            dropped: Arc::clone(&dropped),
        },
        watch: ClockWatch::new(),
    };
    let (ready, priority) = std_mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name("host-sampler".to_owned()).spawn(move || {
        // The calling thread only: Linux keeps priorities per thread.
        let raised = rustix::process::setpriority_process(None, NICENESS);
        // Whoever started us waits for this message or is gone.
        let _ = ready.send(raised);
        worker.run();
    })?;
    if let Ok(Err(error)) = priority.recv() {
        limitations.push(format!(
            "the sampling thread has no raised priority ({error}): on a starved host readings come late; give CAP_SYS_NICE or LimitNICE={NICENESS}"
        ));
    }
    Ok(HostThread { thread: Some(thread), stop, dropped, limitations })
}

/// Expires at multiples of the interval from now, whatever happens between: lateness does not add up.
fn periodic_timer(interval: Duration) -> rustix::io::Result<OwnedFd> {
    let interval = interval.max(Duration::from_millis(10));
    let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
    let time = Timespec {
        tv_sec: i64::try_from(interval.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(interval.subsec_nanos()),
    };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: time, it_value: time })?;
    Ok(timer)
}

struct Worker {
    sampler: HostSampler,
    timer: OwnedFd,
    stop: Arc<OwnedFd>,
    interval: Duration,
    outbox: Outbox,
    watch: ClockWatch,
}

impl Worker {
    fn run(&mut self) {
        loop {
            let mut descriptors = [PollFd::new(&self.timer, PollFlags::IN), PollFd::new(&*self.stop, PollFlags::IN)];
            match poll(&mut descriptors, None) {
                Ok(_) if !descriptors[1].revents().is_empty() => return,
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => {
                    warn!(%error, "the host sampler can't wait any more and ends");
                    return;
                }
            }
            let mut expirations = [0; 8];
            // Nothing to read means that nothing expired: a spurious wake-up.
            if rustix::io::read(&self.timer, &mut expirations).is_err() {
                continue;
            }
            if !self.tick() {
                debug!("nobody receives host readings any more");
                return;
            }
        }
    }

    /// False when the receiver is gone.
    fn tick(&mut self) -> bool {
        let reading = match self.sampler.sample() {
            Ok(reading) => reading,
            Err(error) => {
                warn!(%error, "no reading of the host");
                return !self.outbox.observations.is_closed();
            }
        };
        for event in self.watch.events(reading.at, reading.window, self.interval, clock::awake_since_boot()) {
            self.outbox.put(Observation::Event(reading.at, event));
        }
        self.outbox.put(Observation::Reading(Reading::Host(reading)));
        self.outbox.flush()
    }
}

/// What waits for a receiver that lags.
struct Outbox {
    observations: Sender<Observation>,
    pending: VecDeque<Observation>,
    dropped: Arc<AtomicU64>,
}

impl Outbox {
    fn put(&mut self, observation: Observation) {
        self.pending.push_back(observation);
        if self.pending.len() > MAX_PENDING {
            // Events are few and tell what readings can't: the oldest reading goes.
            let oldest = self.pending.iter().position(|item| matches!(item, Observation::Reading(_))).unwrap_or(0);
            self.pending.remove(oldest);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Hands over what there is room for; false when the receiver is gone.
    fn flush(&mut self) -> bool {
        while let Some(observation) = self.pending.pop_front() {
            match self.observations.try_send(observation) {
                Ok(()) => {}
                Err(TrySendError::Full(observation)) => {
                    self.pending.push_front(observation);
                    break;
                }
                Err(TrySendError::Closed(_)) => return false,
            }
        }
        true
    }
}

/// Sees steps of the wall clock, suspensions and starvation, by comparing three clocks.
struct ClockWatch {
    before: Moment,
    awake: Duration,
}

impl ClockWatch {
    fn new() -> Self {
        Self { before: clock::now(), awake: clock::awake_since_boot() }
    }

    /// What happened to the clocks between the sample before and `now`.
    fn events(&mut self, now: Moment, window: Duration, interval: Duration, awake: Duration) -> Vec<EventKind> {
        let mut events = Vec::new();
        let step_us = now.clock_step_us(self.before);
        if u128::from(step_us.unsigned_abs()) > CLOCK_STEP.as_micros() {
            events.push(EventKind::ClockStepped { by_ms: step_us / 1000 });
        }
        let silence = window.saturating_sub(interval);
        if silence > SILENCE {
            let asleep = now.since(self.before).saturating_sub(awake.saturating_sub(self.awake));
            let (cause, by) = if asleep * 2 > silence {
                (format!("the host was suspended for {:.1} s", asleep.as_secs_f64()), SilentBy::Suspended)
            } else {
                ("the sampling thread got no CPU, or was stopped".to_owned(), SilentBy::Starved)
            };
            events.push(EventKind::GuardWasSilent { silence, cause, by });
        }
        self.before = now;
        self.awake = awake;
        events
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use tokio::sync::mpsc;

    use super::*;

    fn moment(wall_ms: i64, boot_ms: u64) -> Moment {
        Moment { wall: Timestamp::from_millisecond(wall_ms).unwrap(), boot_us: boot_ms * 1000 }
    }

    #[test]
    fn clocks_that_go_apart_are_told() {
        let second = Duration::from_secs(1);
        let ms = Duration::from_millis;
        // (wall and boot after, awake after, events by name, a word of the last one's text)
        for (wall, boot, awake, names, word) in [
            (1_001_000, 11_000, 11_000, vec![], ""),
            (1_002_900, 11_000, 11_000, vec![], ""),
            (1_004_000, 11_000, 11_000, vec!["clock_stepped"], "3000"),
            (900_000, 11_000, 11_000, vec!["clock_stepped"], "-101000"),
            (1_009_000, 19_000, 19_000, vec!["guard_was_silent"], "no CPU"),
            (1_600_000, 610_000, 12_000, vec!["guard_was_silent"], "suspended"),
            (1_004_500, 14_500, 14_500, vec![], ""),
        ] {
            let mut watch = ClockWatch { before: moment(1_000_000, 10_000), awake: ms(10_000) };
            let now = moment(wall, boot);
            let events = watch.events(now, now.since(watch.before), second, ms(awake));
            assert_eq!(events.iter().map(EventKind::name).collect::<Vec<_>>(), names, "{wall} {boot}");
            assert!(events.is_empty() || format!("{events:?}").contains(word), "{events:?}");
        }
    }

    #[test]
    fn readings_come_at_the_interval_and_stop_with_the_handle() {
        let (sender, mut receiver) = mpsc::channel(16);
        let options = HostOptions { paths: vec!["/".into()], ..HostOptions::default() };
        let start = clock::now();
        let thread = spawn(options, Duration::from_millis(50), sender).unwrap();
        let mut moments = vec![start];
        while moments.len() < 6 {
            match receiver.blocking_recv().expect("the sampler goes on") {
                Observation::Reading(Reading::Host(reading)) => moments.push(reading.at),
                other => panic!("unexpected: {other:?}"),
            }
        }
        // Deadlines are absolute: five intervals take no less than five intervals.
        assert!(moments[5].since(start) >= Duration::from_millis(245));
        assert!(thread.is_running());
        drop(thread);
        while receiver.blocking_recv().is_some() {}
    }

    #[test]
    fn a_receiver_that_lags_loses_the_oldest_and_no_event() {
        let (sender, mut receiver) = mpsc::channel(1);
        let mut outbox = Outbox { observations: sender, pending: VecDeque::new(), dropped: Arc::default() };
        let mut sampler = HostSampler::new(HostOptions::default()).unwrap();
        let reading = sampler.sample().unwrap();
        outbox.put(Observation::Event(reading.at, EventKind::ClockStepped { by_ms: 5 }));
        for i in 0..20 {
            let mut reading = reading.clone();
            reading.run_queue = i;
            outbox.put(Observation::Reading(Reading::Host(reading)));
        }
        assert_eq!(outbox.dropped.load(Ordering::Relaxed), 13);
        let mut queues = Vec::new();
        while outbox.flush() {
            match receiver.try_recv() {
                Ok(Observation::Reading(Reading::Host(reading))) => queues.push(reading.run_queue),
                Ok(Observation::Event(_, kind)) => assert_eq!(kind.name(), "clock_stepped"),
                _ => break,
            }
        }
        assert_eq!(queues, (13..20).collect::<Vec<_>>());
        drop(receiver);
        outbox.put(Observation::Event(reading.at, EventKind::ClockStepped { by_ms: 5 }));
        assert!(!outbox.flush());
    }

    #[test]
    fn the_thread_ends_when_nobody_receives() {
        let (sender, receiver) = mpsc::channel(1);
        let thread = spawn(HostOptions::default(), Duration::from_millis(10), sender).unwrap();
        drop(receiver);
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while thread.is_running() {
            assert!(std::time::Instant::now() < deadline, "it goes on for nobody");
            std::thread::yield_now();
        }
    }
}

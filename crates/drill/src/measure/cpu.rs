//! Who uses the database's core: read from /proc by a thread of the drill, on the other core where there is one.

use std::{
    collections::HashMap,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use super::clock::boot_us;
use crate::DrillError;

/// How often the core is read: 20 times a second, so that a moment of saturation is known to 50 ms.
const CORE_PERIOD: Duration = Duration::from_millis(50);
/// Every how many readings of the core the processes are read: 4 times a second.
const PROCESSES_EVERY: usize = 5;
/// Readings that are kept at most: 10 minutes of one act.
const MAX_READINGS: usize = 12_000;
/// Depth to which a guard's children are followed.
const MAX_DEPTH: usize = 3;

/// The core's idle time so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CoreReading {
    pub(crate) boot_us: u64,
    /// Idle and waiting for I/O, in microseconds since boot; the kernel counts in ticks of 10 ms.
    pub(crate) idle_us: u64,
}

/// CPU time so far of those whom the drill watches, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GroupReading {
    pub(crate) boot_us: u64,
    /// Autovacuum workers, all that were ever seen.
    pub(crate) vacuum_us: u64,
    /// The other processes of PostgreSQL.
    pub(crate) postgres_us: u64,
    /// The three services.
    pub(crate) services_us: u64,
    /// The guard and its children.
    pub(crate) guard_us: u64,
}

/// All readings of an act.
#[derive(Clone, Debug, Default)]
pub(crate) struct CpuReadings {
    pub(crate) core: Vec<CoreReading>,
    pub(crate) groups: Vec<GroupReading>,
    /// Autovacuum workers that were seen, by pid and start time.
    pub(crate) vacuum_workers: usize,
    /// The largest resident size of the guard itself, in bytes.
    pub(crate) guard_resident_max: u64,
}

/// Whom to watch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watched {
    pub(crate) core: usize,
    pub(crate) postmaster: i32,
    pub(crate) services: Vec<i32>,
    pub(crate) guard: Option<i32>,
    /// The core to read from.
    pub(crate) sampler_core: Option<usize>,
}

/// The sampling thread; stops when dropped.
pub(crate) struct Sampler {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<CpuReadings>>,
}

impl Sampler {
    pub(crate) fn start(watched: Watched) -> Result<Self, DrillError> {
        // One reading beforehand, so that what can't be read is an error now and not a hole later.
        core_idle_us(watched.core)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("drill-sampler".into())
            .spawn(move || sample(&watched, &stopped))
            .map_err(|error| DrillError::Host { what: "the CPU counters".into(), why: error.to_string() })?;
        Ok(Self { stop, thread: Some(thread) })
    }

    pub(crate) fn finish(mut self) -> CpuReadings {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn sample(watched: &Watched, stop: &AtomicBool) -> CpuReadings {
    if let Some(core) = watched.sampler_core {
        // Where it is refused, the readings come from a busy core and later: still readings.
        let _ = crate::leash::bind_to(core);
    }
    let mut readings = CpuReadings::default();
    let mut processes = Processes::default();
    for round in 0..MAX_READINGS {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        if let Ok(idle_us) = core_idle_us(watched.core) {
            readings.core.push(CoreReading { boot_us: boot_us(), idle_us });
        }
        if round % PROCESSES_EVERY == 0 {
            readings.groups.push(processes.read(watched));
        }
        std::thread::sleep(CORE_PERIOD);
    }
    readings.groups.push(processes.read(watched));
    readings.vacuum_workers = processes.seen_vacuums.len();
    readings.guard_resident_max = processes.guard_resident_max;
    readings
}

/// A process that can't be mistaken for a later one: pid and start time.
type Identity = (i32, u64);

#[derive(Default)]
struct Processes {
    /// CPU time when last seen; what is gone keeps its last value, for the sums must never fall.
    seen_vacuums: HashMap<Identity, u64>,
    seen_others: HashMap<Identity, u64>,
    seen_services: HashMap<Identity, u64>,
    seen_guard: HashMap<Identity, u64>,
    guard_resident_max: u64,
}

impl Processes {
    fn read(&mut self, watched: &Watched) -> GroupReading {
        for pid in children(watched.postmaster).into_iter().chain([watched.postmaster]) {
            let seen = if is_vacuum_worker(pid) { &mut self.seen_vacuums } else { &mut self.seen_others };
            note(seen, pid);
        }
        for &pid in &watched.services {
            note(&mut self.seen_services, pid);
        }
        if let Some(guard) = watched.guard {
            for pid in family(guard, MAX_DEPTH) {
                note(&mut self.seen_guard, pid);
            }
            if let Ok(stat) = procfs::process::Process::new(guard).and_then(|process| process.stat()) {
                self.guard_resident_max = self.guard_resident_max.max(stat.rss * procfs::page_size());
            }
        }
        let sum = |seen: &HashMap<Identity, u64>| seen.values().sum();
        GroupReading {
            boot_us: boot_us(),
            vacuum_us: sum(&self.seen_vacuums),
            postgres_us: sum(&self.seen_others),
            services_us: sum(&self.seen_services),
            guard_us: sum(&self.seen_guard),
        }
    }
}

fn note(seen: &mut HashMap<Identity, u64>, pid: i32) {
    if let Ok(stat) = procfs::process::Process::new(pid).and_then(|process| process.stat()) {
        let us = (stat.utime + stat.stime) * 1_000_000 / procfs::ticks_per_second();
        seen.insert((pid, stat.starttime), us);
    }
}

/// PostgreSQL writes what a process is into its title; a worker is a nameless child for its first moments.
fn is_vacuum_worker(pid: i32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline"))
        .is_ok_and(|title| title.windows(17).any(|part| part == b"autovacuum worker"))
}

/// The children of all threads of a process (proc(5), `children`).
pub(crate) fn children(pid: i32) -> Vec<i32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|line| line.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// A process and its descendants.
pub(crate) fn family(pid: i32, depth: usize) -> Vec<i32> {
    let mut all = vec![pid];
    if depth > 0 {
        all.extend(children(pid).into_iter().flat_map(|child| family(child, depth - 1)));
    }
    all
}

fn core_idle_us(core: usize) -> Result<u64, DrillError> {
    let fail = |why: String| DrillError::Host { what: format!("cpu{core} in /proc/stat"), why };
    let text = fs::read_to_string("/proc/stat").map_err(|error| fail(error.to_string()))?;
    idle_ticks(&text, core)
        .map(|ticks| ticks * 1_000_000 / procfs::ticks_per_second())
        .ok_or_else(|| fail("no such line".into()))
}

/// Fields 4 and 5 of a core's line: idle and iowait (proc(5)).
fn idle_ticks(stat: &str, core: usize) -> Option<u64> {
    let name = format!("cpu{core} ");
    let line = stat.lines().find_map(|line| line.strip_prefix(&name))?;
    let mut fields = line.split_ascii_whitespace().skip(3);
    let idle: u64 = fields.next()?.parse().ok()?;
    let waiting: u64 = fields.next()?.parse().ok()?;
    Some(idle + waiting)
}

/// The share of the time in which the core was not idle, between two readings.
pub(crate) fn busy_share(from: CoreReading, to: CoreReading) -> f64 {
    let length = to.boot_us.saturating_sub(from.boot_us);
    if length == 0 {
        return 0.0;
    }
    #[expect(clippy::cast_precision_loss, reason = "microseconds of an act are far below 2^52")]
    let idle = to.idle_us.saturating_sub(from.idle_us) as f64 / length as f64;
    (1.0 - idle).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cores_line_is_found_and_not_mistaken() {
        let stat = "cpu  9 9 9 9 9\ncpu1 1 2 3 40 5 6\ncpu10 1 2 3 70 7 0\n";
        assert_eq!(idle_ticks(stat, 1), Some(45));
        assert_eq!(idle_ticks(stat, 10), Some(77));
        assert_eq!(idle_ticks(stat, 0), None);
    }

    #[test]
    fn busy_is_what_is_not_idle() {
        let at = |boot_us, idle_us| CoreReading { boot_us, idle_us };
        assert!((busy_share(at(0, 0), at(1_000_000, 250_000)) - 0.75).abs() < 1e-9);
        // The kernel's ticks may run ahead of our clock.
        assert!(busy_share(at(0, 0), at(1_000_000, 1_010_000)).abs() < 1e-9);
        assert!(busy_share(at(5, 0), at(5, 0)).abs() < 1e-9);
    }

    #[test]
    fn the_sampler_sees_this_process_work() {
        let me = i32::try_from(std::process::id()).unwrap();
        let sampler = Sampler::start(Watched { guard: Some(me), postmaster: me, ..Watched::default() }).unwrap();
        let until = std::time::Instant::now() + Duration::from_millis(400);
        let mut work = 0_u64;
        while std::time::Instant::now() < until {
            work = std::hint::black_box(work.wrapping_mul(31).wrapping_add(7));
        }
        let readings = sampler.finish();
        assert!(readings.core.len() >= 3, "{}", readings.core.len());
        let (first, last) = (readings.groups.first().unwrap(), readings.groups.last().unwrap());
        assert!(last.guard_us > first.guard_us, "{first:?} {last:?}");
        assert!(readings.guard_resident_max > 1 << 20);
    }
}

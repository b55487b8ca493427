//! One sample of the host: counters of the kernel against those of the sample before.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use model::{
    ByteSize, Moment, Share,
    reading::{CpuShares, FileSystem, HostReading, Pressure},
};

use super::{
    cgroup::Cgroups,
    family::{Family, Watched},
    kept_file::{Buffer, KeptFile},
    largest::Largest,
    oom::OomWatch,
    parse::{self, CpuSet, CpuTicks},
    process::ProcessTable,
};
use crate::clock;

/// Watched paths beyond this number are left out.
const MAX_PATHS: usize = 16;
/// How often affinity and control groups are looked up again: people change them, but not every second.
const REDISCOVER: Duration = Duration::from_secs(60);

/// What to look at, and where.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// Paths whose file systems are watched, such as the data directory; at most 16.
    pub paths: Vec<PathBuf>,
    /// `/proc`, or a recorded tree of it.
    pub proc_root: PathBuf,
    /// `/sys`, or a recorded tree of it.
    pub sys_root: PathBuf,
    /// The kernel's log, `/dev/kmsg`, which names whom it killed for want of memory.
    pub kernel_log: PathBuf,
    /// The processes to watch.
    pub watched: Watched,
}

impl Default for HostOptions {
    fn default() -> Self {
        Self {
            paths: Vec::new(),
            proc_root: PathBuf::from("/proc"),
            sys_root: PathBuf::from("/sys"),
            kernel_log: PathBuf::from("/dev/kmsg"),
            watched: Watched::default(),
        }
    }
}

/// A file of the kernel without which there is no reading of the host.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// It can't be read.
    #[error("can't read {path}: {source} (is /proc mounted in this container, and may this user read it?)", path = path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It holds something else than proc(5) says.
    #[error("{path} is not in the form that proc(5) describes (does something else than Linux's proc lie there?)", path = path.display())]
    Form {
        /// Which.
        path: PathBuf,
    },
}

/// Totals of pressure in microseconds.
type PressureTotals = Option<(u64, u64)>;

/// Counters as of one instant.
#[derive(Debug, Default)]
struct Counters {
    total: CpuTicks,
    per_cpu: Vec<(u32, CpuTicks)>,
    pressure: [PressureTotals; 3],
}

/// Samples the host. Keeps files open and buffers allocated, so that it still works where little else does.
#[derive(Debug)]
pub struct HostSampler {
    stat: KeptFile,
    memory: KeptFile,
    load: KeptFile,
    pressure: [KeptFile; 3],
    buffer: Buffer,
    paths: Vec<PathBuf>,
    proc_root: PathBuf,
    sys_root: PathBuf,
    table: ProcessTable,
    family: Family,
    cgroups: Cgroups,
    /// Of the postmaster, and whose.
    database_cgroups: Option<(model::Pid, Cgroups)>,
    oom: OomWatch,
    largest: Largest,
    affinity: Option<(model::Pid, CpuSet)>,
    rediscovered: Moment,
    before: (Moment, Counters),
    /// The counters before the last ones, kept for their allocation.
    spare: Counters,
}

impl HostSampler {
    /// Opens what is read and takes the counters that the first sample is measured against.
    ///
    /// # Errors
    /// Where `/proc/stat` or `/proc/meminfo` can't be read.
    pub fn new(options: HostOptions) -> Result<Self, HostError> {
        let HostOptions { mut paths, proc_root, sys_root, kernel_log, watched } = options;
        paths.truncate(MAX_PATHS);
        let kept = |name: &str| KeptFile::new(proc_root.join(name));
        let now = clock::now();
        let mut buffer = Buffer::new();
        let oom = OomWatch::new(&proc_root, &kernel_log, &mut buffer);
        let mut sampler = Self {
            stat: kept("stat"),
            memory: kept("meminfo"),
            load: kept("loadavg"),
            pressure: [kept("pressure/cpu"), kept("pressure/memory"), kept("pressure/io")],
            buffer,
            paths,
            table: ProcessTable::new(&proc_root),
            family: Family::new(watched),
            cgroups: Cgroups::find(&proc_root, &sys_root),
            database_cgroups: None,
            oom,
            largest: Largest::new(&proc_root),
            proc_root,
            sys_root,
            affinity: None,
            rediscovered: now,
            before: (now, Counters::default()),
            spare: Counters::default(),
        };
        read_memory(&mut sampler.memory, &mut sampler.buffer)?;
        let mut counters = Counters::default();
        sampler.read_counters(&mut counters)?;
        sampler.before = (clock::now(), counters);
        // Nothing is due yet, but whoever is there already has its counters taken.
        let now = sampler.before.0;
        sampler.family.sample(&mut sampler.table, now, now);
        Ok(sampler)
    }

    /// The host since the sample before.
    ///
    /// # Errors
    /// Where `/proc/stat` or `/proc/meminfo` can't be read; everything else is `None` or empty then.
    pub fn sample(&mut self) -> Result<HostReading, HostError> {
        let mut counters = std::mem::take(&mut self.spare);
        let run_queue = self.read_counters(&mut counters)?;
        let at = clock::now();
        let (then, ref before) = self.before;
        let window = at.since(then);
        let cpu = counters.total.since(before.total).shares();
        let pressure = [0, 1, 2].map(|i| pressure_since(before.pressure[i], counters.pressure[i], window));

        let processes = self.family.sample(&mut self.table, then, at);
        self.rediscover(at);
        let (database_cpus, database_cpu) = self.database_cpu(&counters).unzip();
        let [cpu_pressure, memory_pressure, io_pressure] = pressure;
        let oom = self.oom.look(&mut self.buffer).map(Box::new);
        let memory = read_memory(&mut self.memory, &mut self.buffer)?;
        let cgroup = self.cgroups.limits_with(self.database_cgroups.as_ref().map(|(_, groups)| groups));
        let of_group =
            if cgroup.binds_database { self.database_cgroups.as_ref().map(|(_, groups)| groups) } else { None };
        let in_group = || of_group.unwrap_or(&self.cgroups).under_memory_limit();
        let reading = HostReading {
            at,
            window,
            cpus: u32::try_from(counters.per_cpu.len()).unwrap_or(u32::MAX).max(1),
            cpu,
            database_cpus,
            database_cpu,
            run_queue,
            load: self.load.read(&mut self.buffer).ok().and_then(parse::load).unwrap_or_default(),
            cpu_pressure,
            memory_pressure,
            io_pressure,
            memory,
            file_systems: self.watched_paths().filter_map(file_system).collect(),
            cgroup,
            processes,
            oom,
            largest: self.largest.look(at, memory, cgroup, in_group).into(),
        };
        self.spare = std::mem::replace(&mut self.before, (at, counters)).1;
        Ok(reading)
    }

    /// The declared paths and the data directory, as soon as it is known.
    fn watched_paths(&self) -> impl Iterator<Item = &Path> {
        let declared = self.paths.iter().map(PathBuf::as_path);
        let data = self.family.data_directory().filter(|data| !self.paths.iter().any(|path| path == data));
        declared.chain(data)
    }

    /// What this host hides, each with what that costs.
    pub fn limitations(&self) -> Vec<String> {
        let mut limitations = Vec::new();
        if self.before.1.pressure.iter().all(Option::is_none) {
            limitations.push(
                "the kernel shows no pressure (PSI): stalls are judged by CPU and run queue alone; boot with psi=1 to have it"
                    .to_owned(),
            );
        }
        if !self.oom.names_victims() {
            limitations.push(
                "the kernel's log can't be read: whom it kills for want of memory is counted but not named; run as root, or grant \
                 CAP_SYSLOG"
                    .to_owned(),
            );
        }
        for path in &self.paths {
            if file_system(path).is_none() {
                limitations
                    .push(format!("the file system of {} can't be read: its space is not watched", path.display()));
            }
        }
        limitations
    }

    /// Fills `counters` and returns the run queue.
    fn read_counters(&mut self, counters: &mut Counters) -> Result<u32, HostError> {
        let path = self.stat.path().to_owned();
        let content = match self.stat.read(&mut self.buffer) {
            Ok(content) => content,
            Err(source) => return Err(HostError::Read { path, source }),
        };
        let (total, run_queue) = parse::stat(content, &mut counters.per_cpu).ok_or(HostError::Form { path })?;
        counters.total = total;
        for (file, totals) in self.pressure.iter_mut().zip(&mut counters.pressure) {
            *totals = file.read(&mut self.buffer).ok().and_then(parse::pressure);
        }
        Ok(run_queue)
    }

    /// What is of the postmaster when that changed, and everything that changes seldom from time to time.
    fn rediscover(&mut self, now: Moment) {
        let due = now.since(self.rediscovered) >= REDISCOVER;
        let postmaster = self.family.postmaster();
        if due || postmaster != self.affinity.as_ref().map(|(pid, _)| *pid) {
            self.affinity = postmaster.and_then(|pid| Some((pid, self.table.affinity(pid)?)));
        }
        if due || postmaster != self.database_cgroups.as_ref().map(|(pid, _)| *pid) {
            let find = |pid: model::Pid| Cgroups::find_of(&self.proc_root, &self.sys_root, &pid.to_string());
            self.database_cgroups = postmaster.map(|pid| (pid, find(pid)));
        }
        if due {
            self.cgroups = Cgroups::find(&self.proc_root, &self.sys_root);
            self.rediscovered = now;
        }
    }

    /// The CPUs that the database may run on: how many are online, and what they did.
    fn database_cpu(&self, counters: &Counters) -> Option<(u32, CpuShares)> {
        let (_, allowed) = self.affinity.as_ref()?;
        let before = &self.before.1.per_cpu;
        let mut number = 0;
        let mut used = CpuTicks::default();
        for &(cpu, ticks) in counters.per_cpu.iter().filter(|(cpu, _)| allowed.contains(*cpu)) {
            number += 1;
            // The kernel prints them in ascending order; one that just came online has no time before.
            if let Ok(index) = before.binary_search_by_key(&cpu, |(cpu, _)| *cpu) {
                used = used.plus(ticks.since(before[index].1));
            }
        }
        (number > 0).then(|| (number, used.shares()))
    }
}

fn read_memory(file: &mut KeptFile, buffer: &mut Buffer) -> Result<model::reading::Memory, HostError> {
    let path: &Path = file.path();
    let path = path.to_owned();
    match file.read(buffer) {
        Ok(content) => parse::memory(content).ok_or(HostError::Form { path }),
        Err(source) => Err(HostError::Read { path, source }),
    }
}

/// `None` where the kernel hides it now or did before.
fn pressure_since(before: PressureTotals, now: PressureTotals, window: Duration) -> Option<Pressure> {
    let ((some_before, full_before), (some, full)) = (before?, now?);
    let share = |now: u64, before: u64| Share::of(now.saturating_sub(before) as f64, window.as_micros() as f64);
    Some(Pressure { some: share(some, some_before), full: share(full, full_before) })
}

/// statvfs(3); `None` for a path that is not there.
fn file_system(path: &Path) -> Option<FileSystem> {
    let stat = rustix::fs::statvfs(path).ok()?;
    let bytes = |blocks: u64| ByteSize(blocks.saturating_mul(stat.f_frsize));
    Some(FileSystem {
        path: path.to_string_lossy().into_owned(),
        total: bytes(stat.f_blocks),
        available: bytes(stat.f_bavail),
        inodes: stat.f_files,
        inodes_free: stat.f_favail,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use model::reading::ProcessRole;

    use super::*;

    /// A recorded host with two CPUs, whose counters a test then moves.
    struct Recorded(tempfile::TempDir);

    impl Recorded {
        fn new() -> Self {
            let recorded = Self(tempfile::tempdir().unwrap());
            recorded
                .write("stat", "cpu 0 0 0 0 0 0 0 0\ncpu0 0 0 0 0 0 0 0 0\ncpu1 0 0 0 0 0 0 0 0\nprocs_running 1\n");
            recorded.write("meminfo", "MemTotal: 1000 kB\nMemAvailable: 250 kB\n");
            recorded.write("loadavg", "1.5 0.5 0.25 1/1 1\n");
            recorded
        }

        fn write(&self, path: &str, content: &str) {
            let path = self.0.path().join("proc").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }

        fn sampler(&self, watched: &Watched) -> Result<HostSampler, HostError> {
            HostSampler::new(HostOptions {
                paths: vec![self.0.path().to_owned(), "/nonexistent".into()],
                proc_root: self.0.path().join("proc"),
                sys_root: self.0.path().join("sys"),
                kernel_log: self.0.path().join("kmsg"),
                watched: watched.clone(),
            })
        }
    }

    #[test]
    fn a_recorded_host_reads_as_it_was() {
        let host = Recorded::new();
        let mut sampler = host.sampler(&Watched::default()).unwrap();
        host.write("stat", "cpu 50 0 0 150 0 0 0 0\ncpu0 50 0 0 50 0 0 0 0\ncpu1 0 0 0 100 0 0 0 0\nprocs_running 4\n");
        let reading = sampler.sample().unwrap();
        assert_eq!((reading.cpus, reading.run_queue, reading.load), (2, 4, [1.5, 0.5, 0.25]));
        assert_eq!((reading.cpu.user, reading.cpu.idle), (0.25, 0.75));
        assert_eq!(reading.memory.available, ByteSize(250 * 1024));
        assert_eq!((reading.database_cpus, reading.database_cpu), (None, None));
        assert_eq!(reading.cpu_pressure, None);
        assert_eq!(reading.file_systems.len(), 1);
        assert!(reading.file_systems[0].total.0 > 0);
        assert_eq!(sampler.limitations().len(), 3, "no PSI, no log, no second path");
    }

    #[test]
    fn the_databases_own_cpus_are_told_apart() {
        let host = Recorded::new();
        host.write("77/stat", "77 (postgres) S 1 1 1 0 -1 0 0 0 0 0 5 5 0 0 20 0 1 0 4242 1 10 0");
        host.write("77/status", "Cpus_allowed_list:\t1,7\n");
        host.write("77/task/77/children", "78 ");
        host.write("78/stat", "78 (postgres) R 77 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4243 1 10 0");
        host.write("78/schedstat", "1000 0 1\n");
        host.write("78/cmdline", "postgres: autovacuum worker app\0");
        let watched = Watched::default();
        watched.set_postmaster(Some(model::Pid(77)));
        watched.set_data_directory("/".into());
        let mut sampler = host.sampler(&watched).unwrap();

        host.write("stat", "cpu 95 0 0 105 0 0 0 0\ncpu0 5 0 0 95 0 0 0 0\ncpu1 90 0 0 10 0 0 0 0\nprocs_running 4\n");
        host.write("78/schedstat", "9000000000 0 1\n");
        let reading = sampler.sample().unwrap();
        let (cpus, cpu) = reading.cpu_for_database();
        assert_eq!((cpus, cpu.busy()), (1, Share(0.9)));
        assert_eq!(reading.processes[0].role, ProcessRole::Postgres("autovacuum worker".into()));
        assert_eq!(reading.processes[0].id, model::ProcessId { pid: model::Pid(78), start_ticks: 4243 });
        assert!(reading.processes.iter().any(|process| process.role == ProcessRole::Postmaster));
        let data_watched = |reading: &HostReading| reading.file_systems.iter().filter(|fs| fs.path == "/").count();
        assert_eq!((data_watched(&reading), reading.file_systems.len()), (1, 2), "{:?}", reading.file_systems);

        watched.set_postmaster(None);
        let reading = sampler.sample().unwrap();
        assert_eq!(data_watched(&reading), 1, "a server that is gone still needs room to come back");
        assert_eq!((reading.database_cpus, reading.database_cpu), (None, None));
        assert!(reading.processes.iter().all(|process| process.role == ProcessRole::Guard));
    }

    #[test]
    fn counters_that_run_backwards_do_no_harm() {
        let host = Recorded::new();
        host.write("pressure/cpu", "some total=900\nfull total=900\n");
        let mut sampler = host.sampler(&Watched::default()).unwrap();
        host.write("stat", "cpu 9 0 0 1 0 0 0 0\ncpu0 9 0 0 1 0 0 0 0\nprocs_running 1\n");
        assert_eq!(sampler.sample().unwrap().cpus, 1, "a CPU went offline");
        host.write("stat", "cpu 1 0 0 0 0 0 0 0\ncpu0 1 0 0 0 0 0 0 0\nprocs_running 1\n");
        host.write("pressure/cpu", "some total=1\n");
        let reading = sampler.sample().unwrap();
        assert_eq!(reading.cpu.busy(), Share(0.0));
        assert_eq!(reading.cpu_pressure, Some(Pressure::default()));
    }

    #[test]
    fn what_is_missing_is_named() {
        let host = Recorded::new();
        host.write("stat", "nonsense\n");
        let error = host.sampler(&Watched::default()).unwrap_err().to_string();
        assert!(error.contains("/stat is not in the form"), "{error}");
        fs::remove_file(host.0.path().join("proc/meminfo")).unwrap();
        let error = host.sampler(&Watched::default()).unwrap_err().to_string();
        assert!(error.contains("can't read") && error.contains("meminfo"), "{error}");
    }

    #[test]
    fn work_of_a_watched_process_shows() {
        let watched = Watched::default();
        let mut child = std::process::Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let pid = model::Pid(i32::try_from(child.id()).unwrap());
        watched.set_services(vec![(pid, "spinner".into())]);
        let options = HostOptions { paths: vec!["/".into()], watched, ..HostOptions::default() };
        let mut sampler = HostSampler::new(options).unwrap();
        std::thread::sleep(Duration::from_millis(500));
        let reading = sampler.sample().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();

        let spinner = reading.processes.iter().find(|process| process.id.pid == pid).unwrap();
        assert_eq!(spinner.role, ProcessRole::Service("spinner".into()));
        // It competes with other tests for the CPUs, but it never waits for anything else.
        assert!(spinner.cpu.0 > 0.05 && spinner.cpu.0 < 1.2, "{spinner:?}");
        assert!(reading.cpu.busy().0 * f64::from(reading.cpus) > spinner.cpu.0 * 0.5, "{reading:?}");
        assert!(reading.run_queue >= 1 && reading.memory.total > reading.memory.available);
        let sum = [reading.cpu.user, reading.cpu.nice, reading.cpu.system, reading.cpu.idle, reading.cpu.iowait]
            .iter()
            .sum::<f64>()
            + reading.cpu.irq
            + reading.cpu.steal;
        assert!((sum - 1.0).abs() < 1e-6, "{sum}");
    }
}

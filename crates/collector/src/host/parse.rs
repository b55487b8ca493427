//! Parsers of `/proc` (proc(5)), pure and without allocation. Whatever a field holds, no parser panics: what is not
//! understood is `None` or left out.

/// CPU time by state, in clock ticks, as a line of `/proc/stat` has it. Guest time is not here: the kernel counts it in `user`
/// and `nice` already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTicks {
    pub user: u64,
    pub nice: u64,
    pub system: u64,
    pub idle: u64,
    pub iowait: u64,
    pub irq: u64,
    pub softirq: u64,
    pub steal: u64,
}

impl CpuTicks {
    /// Per field; a counter that ran backwards (iowait does, and all do when a CPU comes back online) counts as no time.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            user: self.user.saturating_sub(earlier.user),
            nice: self.nice.saturating_sub(earlier.nice),
            system: self.system.saturating_sub(earlier.system),
            idle: self.idle.saturating_sub(earlier.idle),
            iowait: self.iowait.saturating_sub(earlier.iowait),
            irq: self.irq.saturating_sub(earlier.irq),
            softirq: self.softirq.saturating_sub(earlier.softirq),
            steal: self.steal.saturating_sub(earlier.steal),
        }
    }

    pub fn plus(self, other: Self) -> Self {
        Self {
            user: self.user.saturating_add(other.user),
            nice: self.nice.saturating_add(other.nice),
            system: self.system.saturating_add(other.system),
            idle: self.idle.saturating_add(other.idle),
            iowait: self.iowait.saturating_add(other.iowait),
            irq: self.irq.saturating_add(other.irq),
            softirq: self.softirq.saturating_add(other.softirq),
            steal: self.steal.saturating_add(other.steal),
        }
    }

    /// As parts of their sum. A window without a single tick was idle.
    pub fn shares(self) -> model::reading::CpuShares {
        let parts = [self.user, self.nice, self.system, self.idle, self.iowait, self.irq, self.softirq, self.steal]
            .map(|ticks| ticks as f64);
        let whole: f64 = parts.iter().sum();
        if whole <= 0.0 {
            return model::reading::CpuShares { idle: 1.0, ..Default::default() };
        }
        let [user, nice, system, idle, iowait, irq, softirq, steal] = parts.map(|part| part / whole);
        model::reading::CpuShares { user, nice, system, idle, iowait, irq: irq + softirq, steal }
    }
}

/// `/proc/stat`: all CPUs together, and tasks that run or wait to. Each CPU is appended to `per_cpu` (cleared before).
pub fn stat(content: &[u8], per_cpu: &mut Vec<(u32, CpuTicks)>) -> Option<(CpuTicks, u32)> {
    per_cpu.clear();
    let mut total = None;
    let mut running = None;
    for line in lines(content) {
        let mut words = words(line);
        match words.next() {
            Some(b"cpu") => total = Some(ticks(words)),
            Some(b"procs_running") => running = words.next().and_then(number).and_then(|n| u32::try_from(n).ok()),
            Some(name) => {
                if let Some(cpu) = name.strip_prefix(b"cpu").and_then(number).and_then(|n| u32::try_from(n).ok()) {
                    per_cpu.push((cpu, ticks(words)));
                }
            }
            None => {}
        }
    }
    Some((total?, running?))
}

fn ticks<'a>(mut words: impl Iterator<Item = &'a [u8]>) -> CpuTicks {
    let mut next = || words.next().and_then(number).unwrap_or(0);
    CpuTicks {
        user: next(),
        nice: next(),
        system: next(),
        idle: next(),
        iowait: next(),
        irq: next(),
        softirq: next(),
        steal: next(),
    }
}

/// Totals of a file of `/proc/pressure`, in microseconds: `some`, and `full` (zero for the CPU before Linux 5.13).
pub fn pressure(content: &[u8]) -> Option<(u64, u64)> {
    let mut some = None;
    let mut full = 0;
    for line in lines(content) {
        let mut words = words(line);
        let kind = words.next();
        let total = words.find_map(|word| word.strip_prefix(b"total=")).and_then(number);
        match kind {
            Some(b"some") => some = total,
            Some(b"full") => full = total.unwrap_or(0),
            _ => {}
        }
    }
    Some((some?, full))
}

/// `/proc/meminfo`, in KiB. `MemAvailable` is there since Linux 3.14; a container's replacement may lack swap.
pub fn memory(content: &[u8]) -> Option<model::reading::Memory> {
    let (mut total, mut available, mut swap_total, mut swap_free) = (None, None, 0, 0);
    for line in lines(content) {
        let mut words = words(line);
        let (Some(name), Some(kib)) = (words.next(), words.next().and_then(number)) else { continue };
        match name {
            b"MemTotal:" => total = Some(kib),
            b"MemAvailable:" => available = Some(kib),
            b"SwapTotal:" => swap_total = kib,
            b"SwapFree:" => swap_free = kib,
            _ => {}
        }
    }
    let kib = model::ByteSize::from_kib;
    Some(model::reading::Memory {
        total: kib(total?),
        available: kib(available?),
        swap_total: kib(swap_total),
        swap_free: kib(swap_free),
    })
}

/// `/proc/loadavg`: over 1, 5 and 15 minutes.
pub fn load(content: &[u8]) -> Option<[f64; 3]> {
    let mut words = words(content);
    let mut next = || std::str::from_utf8(words.next()?).ok()?.parse::<f64>().ok().filter(|load| load.is_finite());
    Some([next()?, next()?, next()?])
}

/// What we need of `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessStat {
    pub parent: i32,
    /// User and system time in clock ticks.
    pub cpu_ticks: u64,
    pub start_ticks: u64,
    pub rss_pages: u64,
}

/// `/proc/PID/stat`. The command in brackets may itself hold brackets, blanks and line feeds: what counts comes after the last
/// closing one.
pub fn process_stat(content: &[u8]) -> Option<ProcessStat> {
    let close = content.iter().rposition(|&byte| byte == b')')?;
    // Field 3 (state) is the first word after the command.
    let mut fields = words(&content[close + 1..]);
    let parent = fields.nth(1).and_then(number)?; // 4
    let user = fields.nth(9).and_then(number)?; // 14
    let system = fields.next().and_then(number)?; // 15
    let start_ticks = fields.nth(6).and_then(number)?; // 22
    let rss_pages = fields.nth(1).and_then(number).unwrap_or(0); // 24
    Some(ProcessStat {
        parent: i32::try_from(parent).ok()?,
        cpu_ticks: user.saturating_add(system),
        start_ticks,
        rss_pages,
    })
}

/// `/proc/PID/schedstat`: time on a CPU in nanoseconds. `None` where the kernel keeps no such count (it prints zeros then).
pub fn schedstat(content: &[u8]) -> Option<u64> {
    words(content).next().and_then(number).filter(|&nanoseconds| nanoseconds > 0)
}

/// `Cpus_allowed_list` of `/proc/PID/status`, as a list of ranges: `0-3,8`.
pub fn cpus_allowed(status: &[u8]) -> Option<CpuSet> {
    let line = lines(status).find_map(|line| line.strip_prefix(b"Cpus_allowed_list:"))?;
    let mut ranges = Vec::new();
    for part in line.trim_ascii().split(|&byte| byte == b',').take(CpuSet::MAX_RANGES) {
        let mut ends = part.splitn(2, |&byte| byte == b'-');
        let first = ends.next().and_then(number).and_then(|n| u32::try_from(n).ok())?;
        let last = match ends.next() {
            Some(last) => number(last).and_then(|n| u32::try_from(n).ok())?,
            None => first,
        };
        ranges.push((first, last));
    }
    Some(CpuSet { ranges })
}

/// A set of CPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuSet {
    ranges: Vec<(u32, u32)>,
}

impl CpuSet {
    /// More ranges than this can't come from a kernel with its 8,192 CPUs at most.
    const MAX_RANGES: usize = 4096;

    pub fn contains(&self, cpu: u32) -> bool {
        self.ranges.iter().any(|&(first, last)| (first..=last).contains(&cpu))
    }
}

/// What a process of PostgreSQL does, from its title (`/proc/PID/cmdline`), as `backend_type` would name it. `None` before the
/// process has set a title. Titles are `postgres: [cluster name: ]kind...`; those of sessions are
/// `postgres: [cluster name: ]user database host activity` (src/backend/utils/misc/ps_status.c).
pub fn role_from_title(cmdline: &[u8]) -> Option<&'static str> {
    /// Longer names first where one begins another.
    const KINDS: [&str; 15] = [
        "autovacuum launcher",
        "autovacuum worker",
        "background writer",
        "checkpointer",
        "walwriter",
        "walreceiver",
        "walsender",
        "walsummarizer",
        "startup",
        "archiver",
        "logger",
        "stats collector",
        "logical replication launcher",
        "parallel worker",
        "io worker",
    ];
    const OTHER_NAMES: [(&str, &str); 5] = [
        ("writer process", "background writer"),
        ("wal writer", "walwriter"),
        ("wal receiver", "walreceiver"),
        ("wal sender", "walsender"),
        ("bgworker: ", "background worker"),
    ];
    let title = std::str::from_utf8(cmdline).unwrap_or_default().trim_end_matches('\0');
    let rest = title.strip_prefix("postgres: ")?;
    let after_cluster = rest.split_once(": ").map_or("", |(_, after)| after);
    for text in [rest, after_cluster] {
        if let Some(kind) = KINDS.into_iter().find(|kind| text.starts_with(kind)) {
            return Some(kind);
        }
        if let Some((_, kind)) = OTHER_NAMES.into_iter().find(|(title, _)| text.starts_with(title)) {
            return Some(kind);
        }
    }
    Some("client backend")
}

fn lines(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    content.split(|&byte| byte == b'\n')
}

fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

/// A decimal number; `None` for anything else and for what does not fit.
pub fn number(word: &[u8]) -> Option<u64> {
    let digits = word.trim_ascii();
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |value, &byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use model::{
        ByteSize,
        reading::{CpuShares, Memory},
    };
    use proptest::prelude::*;

    use super::*;

    const STAT: &str = "cpu  10 1 20 300 5 2 3 4 9 9\ncpu0 4 1 10 150 5 1 1 2 0 0\ncpu3 6 0 10 150 0 1 2 2 0 0\n\
                        intr 1 2 3\nctxt 7\nbtime 1\nprocesses 3\nprocs_running 6\nprocs_blocked 1\n";

    #[test]
    fn stat_has_the_whole_and_each_cpu() {
        let mut per_cpu = vec![(9, CpuTicks::default())];
        let (total, running) = stat(STAT.as_bytes(), &mut per_cpu).unwrap();
        assert_eq!(running, 6);
        assert_eq!(total.user + total.nice + total.system + total.idle, 331);
        assert_eq!((total.irq, total.softirq, total.steal), (2, 3, 4));
        assert_eq!(per_cpu.iter().map(|(cpu, ticks)| (*cpu, ticks.user)).collect::<Vec<_>>(), [(0, 4), (3, 6)]);
    }

    #[test]
    fn shares_add_up_and_a_counter_that_runs_backwards_is_no_time() {
        let earlier = CpuTicks { user: 10, iowait: 50, ..Default::default() };
        let later = CpuTicks { user: 40, system: 10, idle: 40, iowait: 49, softirq: 20, ..Default::default() };
        let shares = later.since(earlier).shares();
        assert_eq!(shares, CpuShares { user: 0.3, system: 0.1, idle: 0.4, irq: 0.2, ..Default::default() });
        assert_eq!(earlier.since(earlier).shares(), CpuShares { idle: 1.0, ..Default::default() });
    }

    #[test]
    fn pressure_files() {
        for (content, expected) in [
            (
                "some avg10=0.00 avg60=0.00 avg300=0.00 total=123\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=45\n",
                Some((123, 45)),
            ),
            ("some avg10=1.5 avg60=0 avg300=0 total=9\n", Some((9, 0))),
            ("", None),
            ("full total=1\n", None),
            ("some total=x\n", None),
        ] {
            assert_eq!(pressure(content.as_bytes()), expected, "{content}");
        }
    }

    #[test]
    fn memory_of_hosts_and_containers() {
        let host = "MemTotal:  100 kB\nMemFree: 1 kB\nMemAvailable:   40 kB\nSwapTotal: 8 kB\nSwapFree: 2 kB\nHugePages_Total: 0\n";
        assert_eq!(
            memory(host.as_bytes()),
            Some(Memory {
                total: ByteSize(102_400),
                available: ByteSize(40_960),
                swap_total: ByteSize(8_192),
                swap_free: ByteSize(2_048),
            })
        );
        assert_eq!(memory(b"MemTotal: 100 kB\nMemAvailable: 4 kB\n").unwrap().swap_total, ByteSize(0));
        assert_eq!(memory(b"MemTotal: 100 kB\n"), None);
    }

    #[test]
    fn loads() {
        assert_eq!(load(b"0.52 1.00 12.25 2/345 6789\n"), Some([0.52, 1.0, 12.25]));
        assert_eq!(load(b"0.52 1.00"), None);
        assert_eq!(load(b"nan 1 1"), None);
    }

    #[test]
    fn a_command_may_hold_anything() {
        let fields = "S 7 1 1 0 -1 4194560 1 2 3 4 30 12 0 0 20 0 1 0 4242 1000000 77 18446744073709551615 1 1";
        for command in ["postgres", "a) S 1 (b", "x y\nz", ""] {
            assert_eq!(
                process_stat(format!("12 ({command}) {fields}").as_bytes()),
                Some(ProcessStat { parent: 7, cpu_ticks: 42, start_ticks: 4242, rss_pages: 77 }),
                "{command}"
            );
        }
        assert_eq!(process_stat(b"12 (postgres) S 7 1"), None);
    }

    #[test]
    fn schedstat_is_nothing_where_the_kernel_does_not_count() {
        assert_eq!(schedstat(b"3701884 0 3\n"), Some(3_701_884));
        assert_eq!(schedstat(b"0 0 0\n"), None);
        assert_eq!(schedstat(b""), None);
    }

    #[test]
    fn affinity_lists() {
        for (list, within, without) in [("0", vec![0], vec![1]), ("0-2,5", vec![0, 1, 2, 5], vec![3, 4, 6])] {
            let set = cpus_allowed(format!("Name:\tx\nCpus_allowed_list:\t{list}\nMems:\t0\n").as_bytes()).unwrap();
            assert!(within.iter().all(|&cpu| set.contains(cpu)), "{list}");
            assert!(!without.iter().any(|&cpu| set.contains(cpu)), "{list}");
        }
        assert_eq!(cpus_allowed(b"Cpus_allowed_list:\t1-x\n"), None);
        assert_eq!(cpus_allowed(b"Name: x\n"), None);
    }

    #[test]
    fn titles_name_the_role() {
        for (title, role) in [
            ("postgres: autovacuum worker app\0\0", Some("autovacuum worker")),
            ("postgres: autovacuum worker process   app", Some("autovacuum worker")),
            ("postgres: 15/main: autovacuum launcher \0", Some("autovacuum launcher")),
            ("postgres: main: checkpointer ", Some("checkpointer")),
            ("postgres: wal writer process", Some("walwriter")),
            ("postgres: io worker 0", Some("io worker")),
            ("postgres: app app [local] SELECT", Some("client backend")),
            ("postgres: main: app app 127.0.0.1(44) idle in transaction", Some("client backend")),
            ("/usr/lib/postgresql/15/bin/postgres\0-D\0/x", None),
            ("", None),
        ] {
            assert_eq!(role_from_title(title.as_bytes()), role, "{title}");
        }
    }

    proptest! {
        #[test]
        fn no_content_panics(content: Vec<u8>, tail in "[ 0-9a-z:=\\-,()\n]{0,200}") {
            for bytes in [content, format!("cpu {tail}").into_bytes(), format!("1 ({tail}").into_bytes(),
                          format!("Cpus_allowed_list:{tail}").into_bytes(), format!("some total={tail}").into_bytes()] {
                let mut per_cpu = Vec::new();
                if let Some((total, _)) = stat(&bytes, &mut per_cpu) {
                    let shares = total.shares();
                    prop_assert!((0.0..=1.0).contains(&shares.busy().0));
                }
                let _ = (pressure(&bytes), memory(&bytes), load(&bytes), process_stat(&bytes), schedstat(&bytes));
                let _ = (cpus_allowed(&bytes).map(|set| set.contains(3)), role_from_title(&bytes));
            }
        }

        #[test]
        fn numbers_are_read_as_printed(value: u64) {
            prop_assert_eq!(number(value.to_string().as_bytes()), Some(value));
        }
    }
}

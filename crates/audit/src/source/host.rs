//! The machine: /proc, /sys, cron's tables, units, and the file systems that the database lies on.

use std::{
    fs,
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    facts::{Asked, Disk, Host, Postmaster, Server, Stanza},
    finding::{Evidence, Place},
    words::{shown, shown_path},
};

/// Files of jobs that are looked through.
const JOB_FILES_MAX: usize = 2_000;
/// Bytes of each of them.
const JOB_BYTES_MAX: u64 = 256 << 10;
/// Processes that are looked at.
const PROCESSES_MAX: usize = 50_000;
/// How long pgBackRest may take to say what it has.
const PGBACKREST_MAX: Duration = Duration::from_secs(10);
/// Bytes of its answer.
const PGBACKREST_BYTES_MAX: u64 = 16 << 20;
/// Control groups above one another.
const GROUPS_MAX: usize = 32;

/// Programs that watch others, as the kernel names their processes (15 bytes at most).
const MONITORS: &[&str] =
    &["prometheus", "alertmanager", "grafana", "grafana-server", "uptime-kuma", "vmalert", "icinga2", "zabbix_server"];
/// What makes backups, by its words in a job.
const TOOLS: &[&str] = &[
    "pg_dump",
    "pg_dumpall",
    "pg_basebackup",
    "pgbackrest",
    "barman",
    "wal-g",
    "oxpecker backup",
    "pg_receivewal",
    "restic",
    "borg",
    "autopostgresqlbackup",
    "pghoard",
    "pg_probackup",
];
/// Where jobs stand.
const JOBS: &[&str] = &[
    "/etc/crontab",
    "/etc/cron.d",
    "/etc/cron.hourly",
    "/etc/cron.daily",
    "/etc/cron.weekly",
    "/var/spool/cron",
    "/var/spool/cron/crontabs",
    "/etc/systemd/system",
];

/// Looks at this machine. `server` is the database, `repository` the folder of our own backups, where they are known.
pub fn look(server: Option<&Server>, is_local: bool, repository: Option<&Path>) -> Host {
    let postmaster = postmaster(server, is_local);
    let here = postmaster.is_ok();
    Host {
        cores: read("/proc/stat").map(|text| {
            let cores = text.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count();
            u32::try_from(cores).unwrap_or(u32::MAX)
        }),
        memory: read("/proc/meminfo").and_then(|text| {
            let kib = text
                .lines()
                .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok());
            kib.map(|kib| kib << 10).ok_or_else(|| "/proc/meminfo has no MemTotal".to_owned())
        }),
        overcommit: read("/proc/sys/vm/overcommit_memory")
            .and_then(|text| text.trim().parse().map_err(|_| "vm.overcommit_memory is no number".to_owned())),
        disks: if here { disks(server, repository) } else { Err(elsewhere(&postmaster)) },
        monitors: monitors(),
        backup_jobs: jobs(),
        pgbackrest: pgbackrest(),
        postmaster,
    }
}

fn elsewhere(postmaster: &Asked<Postmaster>) -> String {
    postmaster.as_ref().err().cloned().unwrap_or_default()
}

fn read(path: impl AsRef<Path>) -> Asked<String> {
    let path = path.as_ref();
    fs::read_to_string(path).map_err(|error| format!("can't read {}: {error}", path.display()))
}

/// Our backend's parent, if our backend is a process of this machine under the number that the server gave.
fn postmaster(server: Option<&Server>, is_local: bool) -> Asked<Postmaster> {
    let server = server.ok_or("no server to look for")?;
    if !is_local {
        return Err("the server is on another machine".to_owned());
    }
    let hidden = || "the server's processes are not to be seen from here (another machine, or a container)".to_owned();
    let pid = server.postmaster.ok_or_else(hidden)?;
    let name = read(format!("/proc/{pid}/comm")).map_err(|_| hidden())?;
    if !name.trim().starts_with("postgres") && !name.trim().starts_with("postmaster") {
        return Err(hidden());
    }
    let status = read(format!("/proc/{pid}/status"))?;
    let allowed =
        status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).map_or(1, |list| count(list.trim()));
    let affinity = Evidence {
        place: at(&format!("/proc/{pid}/status"), 1),
        value: format!("cores that it may run on: {allowed}"),
    };
    let (quota, memory) = groups(pid);
    let (cores, cores_from) = match quota {
        Some((quota, evidence)) if quota < f64::from(allowed) => (quota, evidence),
        _ => (f64::from(allowed), affinity),
    };
    let oom = read(format!("/proc/{pid}/oom_score_adj"))?;
    let oom_score_adj = oom.trim().parse().map_err(|_| "oom_score_adj is no number".to_owned())?;
    Ok(Postmaster { pid, oom_score_adj, cores, cores_from, memory })
}

/// `0-3,8` has five.
fn count(list: &str) -> u32 {
    let ranges = list.split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(last.parse::<u32>().ok()?.saturating_sub(first.parse().ok()?).saturating_add(1))
    });
    ranges.sum()
}

type Bound<T> = Option<(T, Evidence)>;

/// The tightest CPU quota and memory limit of a process's control groups (cgroup v2).
fn groups(pid: u32) -> (Bound<f64>, Bound<u64>) {
    let Ok(text) = read(format!("/proc/{pid}/cgroup")) else { return (None, None) };
    let Some(path) = text.lines().find_map(|line| line.strip_prefix("0::")) else { return (None, None) };
    let root = Path::new("/sys/fs/cgroup");
    let folder = root.join(path.trim_start_matches('/'));
    let (mut quota, mut memory): (Bound<f64>, Bound<u64>) = (None, None);
    for folder in folder.ancestors().take_while(|folder| folder.starts_with(root)).take(GROUPS_MAX) {
        let of = |name: &str| {
            let file = folder.join(name);
            read(&file).ok().map(|text| (text.trim().to_owned(), at(&file.to_string_lossy(), 1)))
        };
        if let Some((text, place)) = of("cpu.max") {
            let mut words = text.split_whitespace().map(str::parse::<f64>);
            if let (Some(Ok(most)), Some(Ok(period))) = (words.next(), words.next()) {
                let cores = most / period.max(1.0);
                if quota.as_ref().is_none_or(|(least, _)| cores < *least) {
                    quota = Some((cores, Evidence { place, value: format!("cpu.max: {text}, {cores:.1} cores") }));
                }
            }
        }
        if let Some((text, place)) = of("memory.max")
            && let Ok(bytes) = text.parse::<u64>()
            && memory.as_ref().is_none_or(|(least, _)| bytes < *least)
        {
            memory = Some((bytes, Evidence { place, value: format!("memory.max: {}", crate::quantity::human(bytes)) }));
        }
    }
    (quota, memory)
}

fn disks(server: Option<&Server>, repository: Option<&Path>) -> Asked<Vec<Disk>> {
    let settings = server.ok_or("no server to look for")?.settings.as_ref().map_err(Clone::clone)?;
    let data = settings
        .text("data_directory")
        .ok_or("the role may not see data_directory; hint: GRANT pg_monitor (or pg_read_all_settings) to it")?;
    let data = PathBuf::from(data);
    let wal = data.join("pg_wal");
    let mut disks = vec![disk("data", &data)?];
    // Without the right to look into the data directory its log is taken to lie beside it.
    disks.extend(disk("wal", &wal).ok());
    disks.extend(repository.and_then(|path| disk("repository", path).ok()));
    Ok(disks)
}

fn disk(role: &'static str, path: &Path) -> Asked<Disk> {
    let failed = |error: std::io::Error| format!("can't look at {}: {error}", path.display());
    let device = fs::metadata(path).map_err(failed)?.dev();
    let room = rustix::fs::statvfs(path).map_err(|error| failed(error.into()))?;
    let bytes = |blocks: u64| blocks.saturating_mul(room.f_frsize);
    Ok(Disk {
        role,
        path: shown_path(&path.to_string_lossy()),
        device,
        size: bytes(room.f_blocks),
        free: bytes(room.f_bavail),
    })
}

fn processes() -> impl Iterator<Item = (u32, String)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten().take(PROCESSES_MAX);
    entries.filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        Some((pid, fs::read_to_string(entry.path().join("comm")).ok()?.trim().to_owned()))
    })
}

fn monitors() -> Vec<(String, u32)> {
    processes()
        .filter(|(_, name)| MONITORS.contains(&name.as_str()))
        .map(|(pid, name)| (shown(&name), pid))
        .take(100)
        .collect()
}

/// Lines of cron's tables and of units that name a tool of backups.
fn jobs() -> Vec<Evidence> {
    let mut files = Vec::new();
    for place in JOBS.iter().map(Path::new) {
        match fs::read_dir(place) {
            Ok(entries) => files.extend(entries.flatten().map(|entry| entry.path())),
            Err(_) => files.push(place.to_owned()),
        }
    }
    files.sort();
    files.truncate(JOB_FILES_MAX);
    files
        .iter()
        .filter(|path| fs::metadata(path).is_ok_and(|file| file.is_file()))
        .filter_map(|path| job(path))
        .collect()
}

fn job(path: &Path) -> Option<Evidence> {
    let mut text = String::new();
    fs::File::open(path).ok()?.take(JOB_BYTES_MAX).read_to_string(&mut text).ok()?;
    let says = |line: &str| !line.trim_start().starts_with('#') && TOOLS.iter().any(|tool| line.contains(tool));
    let (line, number) = text.lines().zip(1_u32..).find(|(line, _)| says(line))?;
    let tool = TOOLS.iter().find(|tool| line.contains(*tool))?;
    // The line may carry a password: only what it runs is shown.
    Some(Evidence { place: at(&path.to_string_lossy(), number), value: format!("runs {tool}") })
}

fn at(file: &str, line: u32) -> Place {
    Place { file: shown_path(file).into(), line }
}

/// `pgbackrest info`, where it is installed.
fn pgbackrest() -> Option<Asked<Vec<Stanza>>> {
    let child = Command::new("pgbackrest")
        .args(["info", "--output=json", "--log-level-console=off"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => return Some(Err(format!("pgbackrest does not start: {error}"))),
    };
    let out = child.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        let read = out.map(|out| out.take(PGBACKREST_BYTES_MAX).read_to_string(&mut text));
        read.is_some_and(|read| read.is_ok()).then_some(text)
    });
    let until = Instant::now() + PGBACKREST_MAX;
    let ended = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status.success(),
            Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(20)),
            _ => {
                // Both may fail only because it has just ended.
                _ = child.kill();
                _ = child.wait();
                return Some(Err(format!("pgbackrest info did not end within {} s", PGBACKREST_MAX.as_secs())));
            }
        }
    };
    let text = reader.join().ok().flatten();
    Some(match text {
        Some(text) if ended => stanzas(&text),
        _ => Err("pgbackrest info failed; hint: run the audit as a user that may read its repository".to_owned()),
    })
}

/// Reads what pgBackRest prints (its manual, "Info Command": a list of stanzas, each with `status` and `backup`).
fn stanzas(text: &str) -> Asked<Vec<Stanza>> {
    let value: serde_json::Value =
        serde_json::from_str(text).map_err(|error| format!("pgbackrest info is no JSON: {error}"))?;
    let list = value.as_array().ok_or("pgbackrest info is no list")?;
    let stanza = |value: &serde_json::Value| Stanza {
        name: shown(value["name"].as_str().unwrap_or("?")),
        message: if value["status"]["code"].as_i64() == Some(0) {
            String::new()
        } else {
            shown(value["status"]["message"].as_str().unwrap_or("not well"))
        },
        newest: value["backup"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|backup| backup["timestamp"]["stop"].as_i64())
            .max(),
    };
    Ok(list.iter().map(stanza).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores() {
        assert_eq!((count("0-3,8"), count("0"), count("0-1"), count("")), (5, 1, 2, 0));
    }

    #[test]
    fn what_pgbackrest_says() {
        let text = r#"[{"name": "main", "status": {"code": 0, "message": "ok"}, "backup": [{"timestamp": {"start": 1, "stop": 5}}, {"timestamp": {"stop": 9}}]},
            {"name": "empty", "status": {"code": 2, "message": "no valid backups"}, "backup": []}]"#;
        let stanzas = stanzas(text).unwrap();
        assert_eq!((stanzas[0].newest, stanzas[0].message.as_str()), (Some(9), ""));
        assert_eq!((stanzas[1].newest, stanzas[1].message.as_str()), (None, "no valid backups"));
        assert!(super::stanzas("nonsense").is_err());
    }

    #[test]
    fn this_machine_is_seen() {
        let host = look(None, false, None);
        assert!(host.cores.is_ok_and(|cores| cores > 0));
        assert!(host.memory.is_ok_and(|bytes| bytes > 1 << 20));
        assert!(host.postmaster.is_err() && host.disks.is_err());
    }
}

//! Which levers there are on this server, and why the others are not.
//!
//! Order of preference: the include file with SIGHUP to chosen workers (16+), the include file with SIGHUP to the launcher (13 to 15), the
//! include file with full reloads, ALTER SYSTEM. Where someone else owns the setting (command line, Patroni) there is none: it
//! is reported, never fought over.

use std::path::{Path, PathBuf};

use model::{
    Pid, ProcessId,
    event::{CostSetting, Lever},
};
use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use crate::{
    alter_system::Former,
    controller::Reach,
    host_process::{self, Role},
    include_file::{self, DELAY_NAME, LIMIT_NAME, PROBE_NAME},
    undo::bounded,
};

/// The least resting delay, in milliseconds, from which a running worker of 13 to 15 can be slowed enough. Its delay is fixed when it
/// starts its table and only the limit can be turned, down to one unit a nap: at 2 ms a worker was left 2 to 10 % of a core
/// (measured on 13 and 15), at 1 ms not slow enough.
pub const GOVERNABLE_DELAY_MS: f64 = 2.0;

/// What stands in for a resting delay below that on 13 to 15: 2,000,000 cost units a second, that is 2,000,000 cached or 100,000
/// dirtied pages a second, more than one process can work through, so not slower than any setting but a delay of 0; against that
/// it costs a nap of 5 ms for every 500 dirtied pages (about a sixth of the time in the dirtiest phase). With a longer delay resting would
/// cost more, with a shorter one the floor would be higher.
pub const RESTING: CostSetting = CostSetting { limit: 10_000, delay_ms: 5.0 };

/// The delay, in milliseconds, that holds use on 16+. A hash index's vacuum naps with a bucket's cleanup lock and GIN's with its
/// pending list locked, up to four delays long, so it stays short; the limit does the rest.
pub const HOLD_DELAY_MS: f64 = 10.0;

/// A lever and whether it can be used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeverStatus {
    /// Which.
    pub lever: Lever,
    /// Whether it can be used.
    pub available: bool,
    /// Why not, and what would make it available; or what it is good for.
    pub reason: String,
}

/// What was found out about the server.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Server {
    /// Its major version.
    pub major: u32,
    /// The postmaster, where it runs on this host and is visible.
    pub postmaster: Option<ProcessId>,
    /// Whether we may signal its processes.
    pub may_signal: bool,
    /// The launcher.
    pub launcher: Option<ProcessId>,
    /// Uid and gid that it runs as.
    pub owner: Option<(u32, u32)>,
    /// Databases that take connections.
    pub databases: u32,
    /// `autovacuum_naptime`, in seconds.
    pub naptime_s: f64,
    /// What its owner configured.
    pub configured: CostSetting,
    /// What `postgresql.auto.conf` says of our two settings, where the role may know it.
    pub former: Option<Former>,
    /// Its main configuration file, where the role may know it.
    pub config_file: Option<PathBuf>,
    /// The database that we are connected to.
    pub database: String,
    /// What the role lacks and what that costs.
    pub limitations: Vec<String>,
}

/// All levers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Availability {
    /// Every lever of [`Lever`], in order of preference.
    pub levers: Vec<LeverStatus>,
    /// The server.
    pub server: Server,
}

impl Availability {
    /// The lever to use.
    pub fn chosen(&self) -> Option<Lever> {
        self.levers.iter().find(|status| status.available).map(|status| status.lever)
    }

    /// Whom that lever reaches.
    pub fn reach(&self) -> Option<Reach> {
        Some(match self.chosen()? {
            Lever::WorkerSignal => Reach::Workers,
            Lever::LauncherSignal => Reach::Launcher,
            Lever::FullReload => Reach::Everyone,
            Lever::AlterSystem if !self.server.may_signal => Reach::Everyone,
            Lever::AlterSystem if self.server.major >= 16 => Reach::Workers,
            Lever::AlterSystem => Reach::Launcher,
        })
    }

    /// The resting setting that has to be put in place before running workers can be governed, if any.
    pub fn resting_needed(&self) -> Option<CostSetting> {
        (self.chosen() == Some(Lever::LauncherSignal) && self.server.configured.delay_ms < GOVERNABLE_DELAY_MS)
            .then_some(RESTING)
    }

    /// All reasons in one line.
    pub fn why_none(&self) -> String {
        self.levers.iter().map(|s| format!("{:?}: {}", s.lever, s.reason)).collect::<Vec<_>>().join("; ")
    }
}

/// What a configuration entry says, by `pg_file_settings`.
struct FileEntry {
    name: String,
    value: String,
    file: String,
    seq: i32,
}

/// Looks for the levers. With `may_write` the include file is written (with a setting that has no effect) to see whether the
/// server reads it and whether something overrides it; without, its configuration is only looked at.
///
/// # Errors
/// The server did not answer, in words.
pub async fn detect(client: &Client, include: &Path, may_write: bool) -> Result<Availability, String> {
    let basics = bounded(client.query_one(
        "SELECT current_setting('server_version_num')::int, pg_backend_pid(), current_database()::text, \
            (SELECT pid FROM pg_stat_activity WHERE backend_type = 'autovacuum launcher' LIMIT 1), \
            (SELECT count(*) FROM pg_database WHERE datallowconn)::int, \
            coalesce((SELECT rolsuper FROM pg_roles WHERE rolname = current_user), false), \
            has_function_privilege('pg_catalog.pg_reload_conf()', 'execute'), \
            coalesce(current_setting('allow_alter_system', true), 'on'), \
            EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'Patroni'), \
            pg_is_in_recovery(), \
            has_function_privilege('pg_catalog.pg_show_all_file_settings()', 'execute')",
        &[],
    ))
    .await?;
    let major = u32::try_from(basics.get::<_, i32>(0)).unwrap_or(0) / 10_000;
    let superuser: bool = basics.get(5);
    let may_reload: bool = basics.get(6);
    let settings = bounded(client.query(
        "SELECT name, setting, boot_val, source FROM pg_settings WHERE name IN ('autovacuum', 'autovacuum_naptime', \
            'autovacuum_vacuum_cost_limit', 'autovacuum_vacuum_cost_delay', 'vacuum_cost_limit', 'vacuum_cost_delay', \
            'data_directory', 'config_file')",
        &[],
    ))
    .await?;
    let row = |name: &str| settings.iter().find(|row| row.get::<_, &str>(0) == name);
    let text = |name: &str, column: usize| row(name).and_then(|row| row.get::<_, Option<String>>(column));
    let number = |name: &str, column: usize| text(name, column).and_then(|v| v.parse::<f64>().ok());

    let data_dir = text("data_directory", 1).map(PathBuf::from);
    let config_file = text("config_file", 1).map(PathBuf::from);
    let postmaster = local_postmaster(Pid(basics.get(1)), data_dir.as_deref());
    let may_signal = postmaster.is_some_and(|id| host_process::may_signal(id.pid));
    let owner = postmaster.and_then(|id| host_process::owner(id.pid));
    let launcher = basics
        .get::<_, Option<i32>>(3)
        .and_then(|pid| host_process::identify(Pid(pid)))
        .filter(|id| postmaster.is_some() && host_process::is_still(*id, Role::Launcher));

    let may_read_files: bool = basics.get(10);
    let probed = if may_write && postmaster.is_some() {
        include_file::replace(include, &include_file::probe_content(), owner).map_err(|error| error.to_string())
    } else {
        Ok(())
    };
    let entries = if may_read_files { Some(file_entries(client).await?) } else { None };
    if may_write && postmaster.is_some() && probed.is_ok() {
        include_file::replace(include, include_file::NEUTRAL, owner).map_err(|error| error.to_string())?;
    }

    let in_effect = CostSetting {
        limit: effective_limit(number(LIMIT_NAME, 1), number("vacuum_cost_limit", 1)),
        delay_ms: effective(number(DELAY_NAME, 1), number("vacuum_cost_delay", 1), 0.0),
    };
    let configured = entries.as_ref().map_or(in_effect, |entries| {
        let own = include.display().to_string();
        let last = |name: &str| {
            let owned_elsewhere = text(name, 3).is_some_and(|source| source == "command line");
            let entry = entries.iter().rev().find(|entry| entry.name == name && entry.file != own);
            match entry {
                Some(entry) if !owned_elsewhere => milliseconds(&entry.value),
                _ if owned_elsewhere => number(name, 1),
                _ => number(name, 2),
            }
        };
        CostSetting {
            limit: effective_limit(last(LIMIT_NAME), last("vacuum_cost_limit")),
            delay_ms: effective(last(DELAY_NAME), last("vacuum_cost_delay"), 0.0),
        }
    });

    let mut limitations = Vec::new();
    if postmaster.is_none() {
        limitations.push(
            "the server's processes are not visible from here: it is remote or in another PID namespace".to_owned(),
        );
    } else if !may_signal {
        limitations
            .push("the server's processes can't be signalled: run as root, as its user or with CAP_KILL".to_owned());
    }
    if include_file::is_on_tmpfs(include) == Some(false) {
        limitations.push(format!(
            "{} is not on a tmpfs: a throttle would outlive a reboot until the next start",
            include.display()
        ));
    }
    if configured != in_effect {
        limitations.push(format!(
            "the server's files say {configured}, it runs with {in_effect}: it was not reloaded since, or SELECT pg_reload_conf() is due"
        ));
    }
    let server = Server {
        major,
        postmaster,
        may_signal,
        launcher,
        owner,
        databases: u32::try_from(basics.get::<_, i32>(4)).unwrap_or(1).max(1),
        naptime_s: number("autovacuum_naptime", 1).unwrap_or(60.0),
        configured,
        former: entries.as_deref().map(former),
        config_file: config_file.clone(),
        database: basics.get(2),
        limitations,
    };

    let blocked = blocker(
        major,
        basics.get(9),
        text("autovacuum", 1).as_deref(),
        [LIMIT_NAME, DELAY_NAME].into_iter().find(|name| text(name, 3).as_deref() == Some("command line")),
        basics.get::<_, bool>(8) || data_dir.as_deref().is_some_and(is_patroni),
    );
    let included = match (&probed, &entries) {
        (Err(error), _) => Err(error.clone()),
        (Ok(()), Some(entries)) if may_write && postmaster.is_some() => probe_result(entries, include),
        (Ok(()), Some(entries)) => config_text(entries, config_file.as_deref(), include),
        (Ok(()), None) => config_text(&[], config_file.as_deref(), include),
    };
    if may_write && included.is_err() {
        // Nobody reads it, so it must not lie about.
        include_file::remove(include).map_err(|error| error.to_string())?;
    }
    let mut alter = alter_blocker(client, major, superuser, basics.get::<_, &str>(7), may_read_files).await?;
    if alter.is_ok() && !may_signal && !may_reload {
        alter = Err("the role may neither signal the server nor execute pg_reload_conf()".to_owned());
    }
    let levers = judge(&server, blocked.as_deref(), &included, alter, may_reload);
    Ok(Availability { levers, server })
}

fn judge(
    server: &Server,
    blocked: Option<&str>,
    included: &Result<(), String>,
    alter: Result<(), String>,
    may_reload: bool,
) -> Vec<LeverStatus> {
    const STUCK: &str = "a worker that starts a table meanwhile would keep its pace until that table's end (13 to 15): run the guard on \
        the database's host with permission to signal it";
    let (old, major) = (server.major < 16, server.major);
    let signal =
        if server.may_signal { Ok(()) } else { Err("the server's processes can't be signalled from here".to_owned()) };
    let need = |condition: bool, why: &str| if condition { Ok(()) } else { Err(why.to_owned()) };
    let verdict = |lever: Lever, checks: Vec<Result<(), String>>, good: &str| {
        let wrong = blocked.map(str::to_owned).or_else(|| checks.into_iter().find_map(Result::err));
        LeverStatus { lever, available: wrong.is_none(), reason: wrong.unwrap_or_else(|| good.to_owned()) }
    };
    let slow_enough = server.configured.delay_ms >= GOVERNABLE_DELAY_MS;
    vec![
        verdict(
            Lever::WorkerSignal,
            vec![
                need(!old, &format!("{major} has no way to change one running worker; 16 and later have")),
                signal.clone(),
                included.clone(),
            ],
            "holds chosen workers and leaves the others and the launcher alone",
        ),
        verdict(
            Lever::LauncherSignal,
            vec![
                need(old, &format!("from 16 the launcher no longer sets the workers' limits; this is {major}")),
                signal,
                need(server.launcher.is_some(), "the autovacuum launcher was not found"),
                included.clone(),
            ],
            "holds all workers together; used rarely, for each signal restarts the launcher's schedule",
        ),
        verdict(
            Lever::FullReload,
            vec![need(!old, STUCK), included.clone(), need(may_reload, "the role may not execute pg_reload_conf()")],
            "slows every worker, and each use restarts the launcher's schedule: rarely used",
        ),
        verdict(
            Lever::AlterSystem,
            vec![
                alter,
                need(!old || server.may_signal, STUCK),
                need(
                    !old || slow_enough,
                    "the resting delay is below 2 ms, and a resting setting is only put in place through the include file",
                ),
                need(!old || server.launcher.is_some(), "the autovacuum launcher was not found"),
            ],
            "fallback: what postgresql.auto.conf says is recorded before and written back; the dead man's switch can't do that",
        ),
    ]
}

fn blocker(
    major: u32,
    standby: bool,
    autovacuum: Option<&str>,
    command_line: Option<&str>,
    patroni: bool,
) -> Option<String> {
    if major < model::PgVersion::OLDEST_FULL {
        return Some(format!(
            "PostgreSQL {major} is observed only; its levers were never tested (hint: upgrade to 13 or later)"
        ));
    }
    if standby {
        return Some("the server is in recovery: nothing is vacuumed here".to_owned());
    }
    if let Some(name) = command_line {
        return Some(format!(
            "{name} is set on the server's command line, which nothing overrides (hint: move it to postgresql.conf)"
        ));
    }
    if patroni {
        return Some(
            "Patroni owns this server's configuration (hint: change vacuum's cost settings through Patroni)".to_owned(),
        );
    }
    (autovacuum == Some("off"))
        .then(|| "autovacuum is off: only anti-wraparound vacuums run, and those are never held".to_owned())
}

fn is_patroni(data_dir: &Path) -> bool {
    ["patroni.dynamic.json", "postgresql.base.conf"].iter().any(|name| data_dir.join(name).exists())
}

async fn alter_blocker(
    client: &Client,
    major: u32,
    superuser: bool,
    allowed: &str,
    may_read_files: bool,
) -> Result<Result<(), String>, String> {
    if allowed == "off" {
        return Ok(Err("allow_alter_system is off: someone else manages this server's configuration".to_owned()));
    }
    if !may_read_files {
        return Ok(Err(
            "the role may not read pg_file_settings, so what ALTER SYSTEM would overwrite can't be recorded".to_owned(),
        ));
    }
    if superuser {
        return Ok(Ok(()));
    }
    if major < 15 {
        return Ok(Err("ALTER SYSTEM needs a superuser before 15".to_owned()));
    }
    let query = "SELECT has_parameter_privilege($1, 'ALTER SYSTEM') AND has_parameter_privilege($2, 'ALTER SYSTEM')";
    let granted: bool = bounded(client.query_one(query, &[&LIMIT_NAME, &DELAY_NAME])).await?.get(0);
    Ok(if granted {
        Ok(())
    } else {
        Err(format!("the role may not (hint: GRANT ALTER SYSTEM ON PARAMETER {LIMIT_NAME}, {DELAY_NAME} TO it)"))
    })
}

async fn file_entries(client: &Client) -> Result<Vec<FileEntry>, String> {
    let query = "SELECT name, coalesce(setting, ''), sourcefile, seqno FROM pg_file_settings \
        WHERE name = ANY ($1) AND sourcefile IS NOT NULL ORDER BY seqno";
    let names = vec![LIMIT_NAME, DELAY_NAME, "vacuum_cost_limit", "vacuum_cost_delay", PROBE_NAME];
    let rows = bounded(client.query(query, &[&names])).await?;
    Ok(rows.iter().map(|r| FileEntry { name: r.get(0), value: r.get(1), file: r.get(2), seq: r.get(3) }).collect())
}

/// What `postgresql.auto.conf` says of our two settings.
fn former(entries: &[FileEntry]) -> Former {
    let auto = entries.iter().rev().filter(|entry| entry.file.ends_with("/postgresql.auto.conf"));
    let value = |name: &str| auto.clone().find(|entry| entry.name == name).map(|entry| entry.value.clone());
    Former { limit: value(LIMIT_NAME), delay: value(DELAY_NAME) }
}

/// Whether the include file is read, and last of all that sets our two settings.
fn probe_result(entries: &[FileEntry], include: &Path) -> Result<(), String> {
    let own = include.display().to_string();
    let Some(probe) = entries.iter().find(|entry| entry.name == PROBE_NAME && entry.file == own) else {
        return Err(missing_line(include));
    };
    overridden(entries, probe.seq, &own)
}

fn overridden(entries: &[FileEntry], after: i32, own: &str) -> Result<(), String> {
    let later =
        entries.iter().find(|e| e.seq > after && e.file != own && (e.name == LIMIT_NAME || e.name == DELAY_NAME));
    later.map_or(Ok(()), |entry| {
        let hint =
            if entry.file.ends_with("postgresql.auto.conf") { "ALTER SYSTEM RESET it" } else { "put our line last" };
        Err(format!("{} in {} overrides the include file (hint: {hint})", entry.name, entry.file))
    })
}

/// Without writing anything: does the main configuration file have the line?
fn config_text(entries: &[FileEntry], config_file: Option<&Path>, include: &Path) -> Result<(), String> {
    let Some(text) = config_file.and_then(|file| std::fs::read_to_string(file).ok()) else {
        return Err("the server's configuration file can't be read from here".to_owned());
    };
    if !include_file::text_includes(&text, include) {
        return Err(missing_line(include));
    }
    let auto = entries
        .iter()
        .find(|e| e.file.ends_with("postgresql.auto.conf") && (e.name == LIMIT_NAME || e.name == DELAY_NAME));
    auto.map_or(Ok(()), |entry| {
        Err(format!("{} in {} overrides the include file (hint: ALTER SYSTEM RESET it)", entry.name, entry.file))
    })
}

fn missing_line(include: &Path) -> String {
    format!(
        "the server does not read {} (hint: add the line \"{}\" to the end of postgresql.conf)",
        include.display(),
        include_file::line(include)
    )
}

/// The parent of our own backend, if it is a postmaster that works in that data directory (where the role may know it).
fn local_postmaster(backend: Pid, data_dir: Option<&Path>) -> Option<ProcessId> {
    let parent = host_process::stat(backend)?.parent;
    let id = host_process::identify(parent)?;
    let there = host_process::working_directory(parent);
    let same = match (data_dir, there) {
        (Some(expected), Some(actual)) => {
            std::fs::canonicalize(expected).is_ok_and(|e| e == actual) || expected == actual
        }
        // Either is hidden from us: the pid of a remote backend could be a local stranger's, but hardly a postmaster's child.
        _ => true,
    };
    (same && host_process::is_still(id, Role::Postmaster)).then_some(id)
}

fn effective(own: Option<f64>, fallback: Option<f64>, none: f64) -> f64 {
    own.filter(|v| *v >= 0.0).or(fallback).unwrap_or(none)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Clamped to the parameter's range.
fn effective_limit(own: Option<f64>, fallback: Option<f64>) -> u32 {
    effective(own.filter(|v| *v > 0.0), fallback, 200.0).clamp(1.0, 10_000.0) as u32
}

/// A time or a number as a configuration file has it, in milliseconds where it is a time.
fn milliseconds(value: &str) -> Option<f64> {
    let value = value.trim();
    let end = value.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-' | '+'))).unwrap_or(value.len());
    let number: f64 = value[..end].parse().ok()?;
    let factor = match value[end..].trim() {
        "" | "ms" => 1.0,
        "us" => 0.001,
        "s" => 1_000.0,
        "min" => 60_000.0,
        _ => return None,
    };
    Some(number * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_the_server_reads_them() {
        for (text, ms) in [
            ("20", Some(20.0)),
            ("2ms", Some(2.0)),
            ("500us", Some(0.5)),
            ("0", Some(0.0)),
            ("-1", Some(-1.0)),
            ("1 s", Some(1000.0)),
            ("x", None),
        ] {
            assert_eq!(milliseconds(text), ms, "{text}");
        }
    }

    #[test]
    fn a_later_entry_overrides_the_include_file() {
        let include = Path::new("/run/oxpecker/main/throttle.conf");
        let entry =
            |name: &str, file: &str, seq| FileEntry { name: name.into(), value: "1".into(), file: file.into(), seq };
        let own = "/run/oxpecker/main/throttle.conf";
        let table = [
            (vec![], false),
            (vec![entry(PROBE_NAME, own, 1)], true),
            (vec![entry(LIMIT_NAME, "/d/postgresql.conf", 1), entry(PROBE_NAME, own, 2)], true),
            (vec![entry(PROBE_NAME, own, 1), entry(LIMIT_NAME, "/d/postgresql.conf", 2)], false),
            (vec![entry(PROBE_NAME, own, 1), entry(DELAY_NAME, "/d/postgresql.auto.conf", 2)], false),
        ];
        for (entries, ok) in table {
            assert_eq!(probe_result(&entries, include).is_ok(), ok);
        }
    }

    #[test]
    fn owners_are_respected() {
        for (blocked, words) in [
            (blocker(12, false, Some("on"), None, false), "observed only"),
            (blocker(18, true, Some("on"), None, false), "in recovery"),
            (blocker(18, false, Some("on"), Some(DELAY_NAME), false), "command line"),
            (blocker(18, false, Some("on"), None, true), "Patroni"),
            (blocker(18, false, Some("off"), None, false), "autovacuum is off"),
        ] {
            assert!(blocked.unwrap().contains(words), "{words}");
        }
        assert_eq!(blocker(18, false, Some("on"), None, false), None);
    }
}

//! Which levers there are on this server, and why the others are not.
//!
//! Order of preference: the include file with SIGHUP to chosen workers (16+), the include file with SIGHUP to the launcher (13 to 15), the
//! include file with full reloads, ALTER SYSTEM. Where someone else owns the setting (command line, Patroni) there is none: it
//! is reported, never fought over.

mod configuration;
mod detect;

use std::path::PathBuf;

use model::{
    ProcessId,
    event::{CostSetting, Lever},
};
use serde::{Deserialize, Serialize};

use crate::{alter_system::Former, controller::Reach};
pub(crate) use detect::detect;

/// The least resting delay, in milliseconds, from which a running worker of 13 to 15 can be slowed enough. Its delay is fixed when it
/// starts its table and only the limit can be turned, down to one unit a nap: at 2 ms a worker was left 2 to 10 % of a core
/// (measured on 13 and 15), at 1 ms not slow enough.
pub const GOVERNABLE_DELAY_MS: f64 = 2.0;

/// What stands in for a resting delay below that on 13 to 15: 2,000,000 cost units a second, that is 2,000,000 cached or 100,000
/// dirtied pages a second, more than one process can work through, so not slower than any setting but a delay of 0; against that
/// it costs a nap of 5 ms for every 500 dirtied pages (about a sixth of the time in the dirtiest phase). With a longer delay resting would
/// cost more, with a shorter one the floor would be higher.
pub const RESTING: CostSetting = CostSetting { limit: 10_000, delay_ms: 5.0 };

/// The most that a setting allows, in figures. A page that is found costs 1 and one that is made dirty 20, unless
/// `vacuum_cost_page_hit` or `vacuum_cost_page_dirty` say otherwise.
pub fn ceiling(setting: CostSetting) -> String {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    // A limit of at most 10,000 over a fraction of a millisecond.
    let units = (f64::from(setting.limit) / setting.delay_ms * 1000.0) as u64;
    let dirtied = units / 20;
    format!(
        "{} cost units a second for all workers together: with stock page costs {} pages found in shared buffers, or {} made dirty \
         ({} MiB)",
        grouped(units),
        grouped(units),
        grouped(dirtied),
        grouped((dirtied * 8_192) >> 20)
    )
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::include_file::DELAY_NAME;

    fn server(major: u32) -> Server {
        Server {
            major,
            postmaster: None,
            may_signal: false,
            launcher: None,
            owner: None,
            databases: 1,
            naptime_s: 60.0,
            configured: CostSetting { limit: 200, delay_ms: 2.0 },
            former: None,
            config_file: None,
            database: "postgres".into(),
            limitations: Vec::new(),
        }
    }

    /// A server whose processes are out of reach: remote, in another PID namespace, or another user's.
    #[test]
    fn without_signals_the_reload_is_left_from_16_on() {
        let yes = || Ok::<(), String>(());
        let no = || Err("not so".to_owned());
        let everyone = Some((Lever::FullReload, Reach::Everyone));
        let fallback = Some((Lever::AlterSystem, Reach::Everyone));
        for (major, included, alter, may_reload, expected) in [
            (16, yes(), yes(), true, everyone),
            (18, yes(), no(), true, everyone),
            (18, yes(), yes(), false, fallback),
            (18, no(), yes(), true, fallback),
            (18, no(), no(), true, None),
            (18, yes(), no(), false, None),
            (15, yes(), yes(), true, None),
            (13, yes(), yes(), true, None),
        ] {
            let server = server(major);
            let levers = judge(&server, None, &included, alter.clone(), may_reload);
            let found = Availability { levers, server };
            let what = format!("{major} {included:?} {alter:?} {may_reload}: {:?}", found.levers);
            assert_eq!(found.chosen().zip(found.reach()), expected, "{what}");
            assert_eq!(found.levers.len(), 4, "{what}");
            assert!(found.levers.iter().all(|lever| !lever.reason.is_empty()), "{what}");
        }
        let owned = judge(&server(18), Some("Patroni owns it"), &yes(), yes(), true);
        assert!(owned.iter().all(|lever| !lever.available && lever.reason == "Patroni owns it"), "{owned:?}");
    }

    #[test]
    fn a_ceiling_is_told_in_figures() {
        assert_eq!(
            ceiling(RESTING),
            "2,000,000 cost units a second for all workers together: with stock page costs 2,000,000 pages found in shared buffers, \
             or 100,000 made dirty (781 MiB)"
        );
        assert!(ceiling(CostSetting { limit: 200, delay_ms: 20.0 }).starts_with("10,000 cost units"));
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

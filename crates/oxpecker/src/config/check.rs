//! What the shape of the configuration can't say: values that contradict one another, files that can't be read, secrets in the
//! wrong place.

use std::collections::BTreeSet;

use serde::Serialize;

use alerting::Secret;
use model::is_configured_name;

use super::{Config, Lines, own_rules, services};

/// Something that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Where: `service "site".health`.
    pub place: String,
    /// On which line of the file; `None` where it is not in the file, or there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// What.
    pub problem: String,
    /// What to do.
    pub hint: String,
}

/// Everything that is wrong. `lines`: those of the file that the configuration comes from.
pub fn check(config: &Config, lines: &Lines) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut problem = |place: String, problem: String, hint: &str| {
        found.push(Problem { line: lines.line(&place), place, problem, hint: hint.to_owned() });
    };
    if !is_configured_name(&config.postgres.name) {
        let text = format!("'{}' is no name", config.postgres.name);
        problem("postgres.name".into(), text, "use letters, digits, '-', '_' and '.': it becomes part of file names");
    }
    if let Some(url) = &config.postgres.url {
        // Who logs in where nobody is named does not matter here.
        match pg_connect::Target::parse(url, String::new) {
            Err(error) => {
                let error = error.to_string();
                let (what, _) = error.split_once("; hint: ").unwrap_or((&error, ""));
                let what = what.trim_start_matches("connection string: ");
                problem("postgres.url".into(), format!("not a connection string: {what}"), URL_HINT);
            }
            Ok(parsed) if parsed.password.is_some() => {
                problem(
                    "postgres.url".into(),
                    "holds a password".into(),
                    "put it into a file and name that with password_file",
                );
            }
            Ok(parsed) if parsed.hosts.len() > 1 => {
                let hint = "a guard sits beside one server: name that one, and run another guard beside the other";
                problem("postgres.url".into(), "names several servers".into(), hint);
            }
            Ok(parsed) if parsed.ssl_mode >= pg_connect::SslMode::Require && !parsed.is_local() => {
                if let Err(error) = pg_connect::client_config(&parsed) {
                    problem(
                        "postgres.url".into(),
                        format!("can't use {}: {}", error.path.display(), error.why),
                        error.hint,
                    );
                }
            }
            Ok(_) => {}
        }
    }
    bounds(config, &mut problem);
    if let Some(path) = &config.postgres.password_file
        && let Err(error) = Secret::from_file(path)
    {
        let error = error.to_string();
        let (what, hint) = error.split_once(". Hint: ").unwrap_or((&error, "the guard's user must be able to read it"));
        problem("postgres.password_file".into(), what.to_owned(), hint);
    }
    services::check::check(config, &mut problem);
    for (place, what, hint) in config.shedding_problems() {
        problem(place, what, hint);
    }
    for (place, what, hint) in config.relief_problems() {
        problem(place, what, hint);
    }
    backups(config, &mut problem);
    for (key, what, hint) in config.wal.problems(config.repository.url.as_deref()) {
        problem(key.into(), what, hint);
    }
    if let Err(error) = config.alert.rules.check() {
        problem(format!("alert.rules.{}", error.key), format!("{}: {}", error.value, error.why), error.hint);
    }
    for (place, what, hint) in own_rules::problems(&config.alert.own_rule) {
        problem(place, what, &hint);
    }
    let mut routes = BTreeSet::new();
    for route in &config.alert.route {
        if !is_configured_name(&route.name) || !routes.insert(&route.name) {
            problem(
                format!("alert.route {:?}", route.name),
                "no name, or one that is taken".into(),
                "each route needs its own name",
            );
        }
        if let Err(error) = route.resolve() {
            let (what, hint) =
                error.split_once(". Hint: ").unwrap_or((&error, "the guard's user must be able to read it"));
            problem(format!("alert.route {:?}", route.name), what.to_owned(), hint);
        }
    }
    match config.alert.members() {
        Err(error) => {
            let (what, hint) = error.split_once(". Hint: ").unwrap_or((&error, ""));
            problem("alert.members".into(), what.to_owned(), hint);
        }
        Ok(Some(_)) if config.service.iter().all(|service| service.impact.is_empty()) => problem(
            "alert.members".into(),
            "a route is for members, and no service says what they lose without it".into(),
            "declare it: [[service]] impact = [\"the entry gate\"]",
        ),
        Ok(_) => {}
    }
    if let Some(Err(error)) = config.alert.heartbeat.as_ref().map(super::Heartbeat::resolve) {
        let (what, hint) = error.split_once(". Hint: ").unwrap_or((&error, "the guard's user must be able to read it"));
        problem("alert.heartbeat".into(), what.to_owned(), hint);
    }
    if let Some(Err(error)) = config.alert.peer.as_ref().map(|peer| peer.resolve(&crate::guard::host_name())) {
        let (what, hint) = error.split_once(". Hint: ").unwrap_or((&error, "the guard's user must be able to read it"));
        problem("alert.peer".into(), what.to_owned(), hint);
    }
    if let Err(error) = config.console.check() {
        let (what, hint) = error.split_once(". Hint: ").unwrap_or((&error, "see [console]"));
        problem("console".into(), what.to_owned(), hint);
    }
    found
}

/// Values that TOML can write and that make no sense, or undo a protection.
fn bounds(config: &Config, problem: &mut impl FnMut(String, String, &str)) {
    let governor = &config.autovacuum;
    for (key, pace) in [("first_pace", governor.first_pace), ("floor_pace", governor.floor_pace)] {
        if !(pace.is_finite() && (MIN_PACE..=MAX_PACE).contains(&pace)) {
            let place = format!("autovacuum.{key}");
            problem(
                place,
                format!("{pace} is no pace"),
                "between 1 and 10000000 cost units a second; the default is a good start",
            );
        }
    }
    if !(1..=MAX_WRAPAROUND_AGE).contains(&governor.wraparound_age) {
        let text = format!("{} is no age below the server's own limit", governor.wraparound_age);
        problem(
            "autovacuum.wraparound_age".into(),
            text,
            "at most 1600000000: a vacuum that must save the database is never slowed",
        );
    }
    if governor.max_hold.0.is_zero() {
        problem("autovacuum.max_hold".into(), "zero".into(), "to hold nothing, set mode = \"observe\"");
    }
    let paths = [
        ("state_dir", config.state_dir.as_ref()),
        ("autovacuum.include_file", governor.include_file.as_ref()),
        ("postgres.data_dir", config.postgres.data_dir.as_ref()),
    ];
    for (key, path) in paths {
        if let Some(path) = path.filter(|p| !p.is_absolute()) {
            problem(
                key.into(),
                format!("{} is relative", path.display()),
                "write the whole path: the guard runs in another folder than you",
            );
        }
    }
    if config.journal.max_size.0 < journal::Retention::LEAST_SIZE.0 {
        let text = format!("{} is too small", model::ByteSize(config.journal.max_size.0));
        problem("journal.max_size".into(), text, "at least 8 MiB: an incident must fit");
    }
}

/// `[repository]` and `[backup]`. A key file that is not there yet is none: `backup init` makes it, and a guard without its repository
/// still has to sound other alarms.
fn backups(config: &Config, problem: &mut impl FnMut(String, String, &str)) {
    let Config { repository, backup, .. } = config;
    if let Err((what, hint)) = repository.directory() {
        problem("repository.url".into(), what, hint);
    }
    if repository.key_file.is_some() && repository.passphrase_file.is_some() {
        problem(
            "repository.passphrase_file".into(),
            "stands beside key_file".into(),
            "one of them opens the repository: leave the other out",
        );
    }
    let paths = [
        ("repository.key_file", repository.key_file.as_ref()),
        ("repository.passphrase_file", repository.passphrase_file.as_ref()),
        ("backup.scratch_dir", backup.scratch_dir.as_ref()),
    ];
    for (key, path) in paths {
        if let Some(path) = path.filter(|p| !p.is_absolute()) {
            problem(
                key.into(),
                format!("{} is relative", path.display()),
                "write the whole path: the guard runs in another folder than you",
            );
        }
    }
    if backup.schedule.is_some() && repository.url.is_none() {
        let hint = "name one: [repository] url = \"file:///srv/backup/oxpecker\"";
        problem("backup.schedule".into(), "has no repository to write to".into(), hint);
    }
    if let Err(error) = backup.schedule(&config.postgres.name) {
        let (what, hint) = error.split_once("; hint: ").unwrap_or((&error, "such as 10m"));
        problem("backup.jitter".into(), what.to_owned(), hint);
    }
    if let Some(jobs) = backup.jobs.filter(|jobs| jobs.get() > MAX_JOBS) {
        problem("backup.jobs".into(), format!("{jobs} are too many"), "at most 16; the default fits the host's CPUs");
    }
    if backup.max_age.is_some_and(|age| age.0.is_zero()) {
        problem("backup.max_age".into(), "zero".into(), "such as 36h; leave it out for two intervals of the schedule");
    }
    for library in backup.proof_preload.iter().filter(|library| !is_configured_name(library)) {
        problem(
            "backup.proof_preload".into(),
            format!("{library:?} is no library's name"),
            "as in shared_preload_libraries, one by one",
        );
    }
    for (at, query) in backup.proof.iter().enumerate().filter(|(_, q)| q.database.is_empty() || q.sql.trim().is_empty())
    {
        let place = format!("backup.proof, number {}", at + 1);
        problem(place, format!("{query:?} asks for nothing"), "each needs a database and a query");
    }
}

/// The most files that are read at a time: each has a pack in memory.
const MAX_JOBS: u16 = 16;

/// Cost units a second below which a vacuum would never end, and above which there is no limit left.
const MIN_PACE: f64 = 1.0;
const MAX_PACE: f64 = 1e7;
/// The age at which PostgreSQL 14 and later drop all delays by themselves (vacuum_failsafe_age).
const MAX_WRAPAROUND_AGE: u64 = 1_600_000_000;

const URL_HINT: &str = "write it as libpq does, such as postgresql:///postgres?host=/run/postgresql&user=oxpecker";

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let config: Config = toml::from_str(text).unwrap();
        check(&config, &Lines::default()).into_iter().map(|p| format!("{}: {}", p.place, p.problem)).collect()
    }

    #[test]
    fn nothing_is_wrong_with_the_defaults() {
        assert_eq!(problems(""), Vec::<String>::new());
    }

    #[test]
    fn contradictions_are_found() {
        for (text, says) in [
            ("[postgres]\nname = \"../x\"", "postgres.name: '../x' is no name"),
            ("[postgres]\nurl = \"postgresql://u:secret@h/db\"", "postgres.url: holds a password"),
            ("[postgres]\nurl = \"host=h sslmode=verify-ca sslrootcert=/no/such\"", "postgres.url: can't use /no/such"),
            ("[postgres]\nurl = \"host=h sslmode=maybe\"", "postgres.url: not a connection string: sslmode is none of"),
            ("[postgres]\nurl = \"host=a,b\"", "postgres.url: names several servers"),
            ("state_dir = \"x\"", "state_dir: x is relative"),
            ("[autovacuum]\nfirst_pace = nan", "autovacuum.first_pace: NaN is no pace"),
            ("[autovacuum]\nwraparound_age = 10000000000", "autovacuum.wraparound_age"),
            ("[autovacuum]\nmax_hold = \"0s\"", "autovacuum.max_hold: zero"),
            ("[journal]\nmax_size = \"1 MiB\"", "journal.max_size"),
            ("[repository]\nurl = \"s3://bucket\"", "repository.url: s3:// can't be used yet"),
            ("[repository]\nkey_file = \"/a\"\npassphrase_file = \"/b\"", "stands beside key_file"),
            ("[repository]\nkey_file = \"a\"", "repository.key_file: a is relative"),
            ("[backup]\nschedule = \"0 3 * * *\"", "backup.schedule: has no repository"),
            ("[backup]\nschedule = \"0 3 * * *\"\njitter = \"2d\"", "backup.jitter"),
            ("[backup]\njobs = 100", "backup.jobs: 100 are too many"),
            ("[backup]\nmax_age = \"0s\"", "backup.max_age: zero"),
            ("[backup]\nproof_preload = [\"../x\"]", "backup.proof_preload"),
            ("[[backup.proof]]\ndatabase = \"app\"\nsql = \"\"", "backup.proof, number 1"),
            ("[postgres]\nurl = \"mysql://h\"", "postgres.url: not a connection string"),
            ("[postgres]\npassword_file = \"/no/such\"", "postgres.password_file: cannot read the secret in /no/such"),
            ("[[service]]\nname = \"a\"\nhealth = {}", "needs exactly one of http, tcp"),
            ("[[service]]\nname = \"a\"\nhealth = { http = \"gopher://x\" }", "service \"a\".health"),
            ("[[service]]\nname = \"a\"\ndriver = \"process\"", "service \"a\".command: a process needs"),
            ("[postgres]\nstop_signal = \"SIGINT\"", "postgres.stop_signal: a key of the driver process, but"),
            ("[[service]]\nname = \"a\"\nhealth = { tcp = \"x\" }", "'x'"),
            ("[alert.rules.cpu-saturated]\nbusy_percent = 120.0", "alert.rules."),
            ("[[alert.route]]\nname = \"r\"\nwebhook = {}", "needs exactly one of url_file and url_env"),
            (
                "[[alert.route]]\nname = \"r\"\nwebhook = { url_env = \"OXPECKER_TEST_NONE\" }",
                "no variable OXPECKER_TEST_NONE",
            ),
        ] {
            let found = problems(text);
            assert!(found.iter().any(|p| p.contains(says)), "{text}: {found:?}");
        }
    }
}

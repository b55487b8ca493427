//! What the shape of the configuration can't say: values that contradict one another, files that can't be read, secrets in the
//! wrong place.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use alerting::Secret;

use super::{Config, Service};

/// Something that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Where: `service "site".health`.
    pub place: String,
    /// What.
    pub problem: String,
    /// What to do.
    pub hint: String,
}

/// Everything that is wrong.
pub fn check(config: &Config) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut problem = |place: String, problem: String, hint: &str| {
        found.push(Problem { place, problem, hint: hint.to_owned() });
    };
    if !is_name(&config.postgres.name) {
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
    let mut names: BTreeSet<&str> = BTreeSet::from([config.postgres.name.as_str()]);
    for service in &config.service {
        if !is_name(&service.name) || !names.insert(&service.name) {
            problem(
                format!("service {:?}", service.name),
                "no name, or one that is taken".into(),
                "each name once, also the database's",
            );
        }
        if let Err(error) = service.health.check() {
            problem(
                format!("service {:?}.health", service.name),
                error,
                "the guard asks this itself, every `interval`",
            );
        }
        if service.health.interval.0.is_zero() || service.health.timeout.0.is_zero() {
            problem(
                format!("service {:?}.health", service.name),
                "an interval or time-out of zero".into(),
                "such as 2s",
            );
        }
    }
    for service in &config.service {
        for needed in service.depends_on.iter().filter(|n| !names.contains(n.as_str())) {
            let place = format!("service {:?}.depends_on", service.name);
            problem(
                place,
                format!("nothing is called {needed:?}"),
                &format!("known: {}", names.iter().copied().collect::<Vec<_>>().join(", ")),
            );
        }
    }
    if let Some(cycle) = cycle(&config.service) {
        problem(
            "service.depends_on".into(),
            format!("a cycle: {}", cycle.join(" -> ")),
            "one of these must be able to start first",
        );
    }
    backups(config, &mut problem);
    for (key, what, hint) in config.wal.problems(config.repository.url.as_deref()) {
        problem(key.into(), what, hint);
    }
    if let Err(error) = config.alert.rules.check() {
        problem(format!("alert.rules.{}", error.key), format!("{}: {}", error.value, error.why), error.hint);
    }
    let mut routes = BTreeSet::new();
    for route in &config.alert.route {
        if !is_name(&route.name) || !routes.insert(&route.name) {
            problem(
                format!("alert.route {:?}", route.name),
                "no name, or one that is taken".into(),
                "each route needs its own name",
            );
        }
        if let Err(error) = route.webhook.resolve() {
            let (what, hint) =
                error.split_once(". Hint: ").unwrap_or((&error, "the guard's user must be able to read it"));
            problem(format!("alert.route {:?}.webhook", route.name), what.to_owned(), hint);
        }
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
    for library in backup.proof_preload.iter().filter(|library| !is_name(library)) {
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

fn is_name(name: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.len() <= 63 && !name.starts_with('.') && name.chars().all(known)
}

/// A cycle of needs, if there is one, first and last the same.
fn cycle(services: &[Service]) -> Option<Vec<String>> {
    let needs: BTreeMap<&str, &[String]> =
        services.iter().map(|s| (s.name.as_str(), s.depends_on.as_slice())).collect();
    let mut done = BTreeSet::new();
    for service in services {
        let mut path = Vec::new();
        if let Some(cycle) = walk(&service.name, &needs, &mut done, &mut path) {
            return Some(cycle);
        }
    }
    None
}

fn walk<'a>(
    name: &'a str,
    needs: &BTreeMap<&'a str, &'a [String]>,
    done: &mut BTreeSet<&'a str>,
    path: &mut Vec<&'a str>,
) -> Option<Vec<String>> {
    if let Some(start) = path.iter().position(|p| *p == name) {
        let mut cycle: Vec<String> = path[start..].iter().map(|p| (*p).to_owned()).collect();
        cycle.push(name.to_owned());
        return Some(cycle);
    }
    if !done.insert(name) {
        return None;
    }
    path.push(name);
    let found = needs.get(name).into_iter().flat_map(|n| n.iter()).find_map(|next| walk(next, needs, done, path));
    path.pop();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let config: Config = toml::from_str(text).unwrap();
        check(&config).into_iter().map(|p| format!("{}: {}", p.place, p.problem)).collect()
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
            ("[[service]]\nname = \"a\"\nhealth = {}", "needs exactly one of http and tcp"),
            ("[[service]]\nname = \"a\"\nhealth = { http = \"https://x\" }", "https"),
            ("[[service]]\nname = \"a\"\nhealth = { tcp = \"x\" }", "'x'"),
            ("[[service]]\nname = \"main\"\nhealth = { tcp = \"x:1\" }", "one that is taken"),
            ("[[service]]\nname = \"a\"\nhealth = { tcp = \"x:1\" }\ndepends_on = [\"b\"]", "nothing is called \"b\""),
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

    #[test]
    fn a_cycle_is_shown() {
        let text = "[[service]]\nname = \"vault\"\nhealth = { tcp = \"x:1\" }\ndepends_on = [\"bot\"]\n\
                    [[service]]\nname = \"site\"\nhealth = { tcp = \"x:1\" }\ndepends_on = [\"main\"]\n\
                    [[service]]\nname = \"bot\"\nhealth = { tcp = \"x:1\" }\ndepends_on = [\"site\", \"vault\"]";
        assert_eq!(problems(text), ["service.depends_on: a cycle: vault -> bot -> vault"]);
    }
}

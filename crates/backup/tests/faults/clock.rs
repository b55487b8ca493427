//! The wall clock is set: backups are told apart and put in order by the log, never by their times.
//!
//! A real clock can't be set for one test alone, so the worker is this very program as a child, under libfaketime.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use repository::{log::policy, store::LocalStore};

use super::*;
use crate::common::open;

/// Tells the child what to back up to where.
const TASK: &str = "OXPECKER_TEST_CLOCK_TASK";
/// Where libfaketime reads how far off the clock is.
const CLOCK: &str = "FAKETIME_TIMESTAMP_FILE";

/// Not a test: what the children run. Midway it sets its clock three days back, where it is told to.
#[test]
#[ignore = "run by the other tests of this file"]
fn child() -> Done {
    let Ok(task) = std::env::var(TASK) else { return Ok(()) };
    let [url, path, jump] = task.split('\n').collect::<Vec<_>>()[..] else { panic!("what is {task:?}?") };
    let clock = PathBuf::from(std::env::var_os(CLOCK).ok_or("no clock")?);
    let jumps = At::new(50, |_: &AtomicBool| {
        if jump == "back" {
            fs::write(&clock, "-3d").unwrap();
        }
    });
    let repository = open(std::sync::Arc::new(LocalStore::open(Path::new(path))?));
    backup::create(&backup::CreateOptions::new(url, "main"), &repository, &jumps)?;
    assert!(jumps.count.load(Ordering::Relaxed) > 50);
    Ok(())
}

#[allow(clippy::print_stderr, reason = "a skipped test says why")]
fn libfaketime() -> Option<PathBuf> {
    let multiarch = fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path().join("faketime"));
    let found = multiarch.map(|directory| directory.join("libfaketimeMT.so.1")).find(|library| library.is_file());
    if found.is_none() {
        eprintln!("skipped: libfaketime is not installed (package faketime)");
    }
    found
}

on_majors!(a_clock_that_is_set_back_confuses_nobody, 18);

fn a_clock_that_is_set_back_confuses_nobody(installation: &Installation) -> Done {
    let Some(library) = libfaketime() else { return Ok(()) };
    let (source, repo, place) = (source(installation), Repo::new(), place());
    let clock = place.path().join("clock");
    let under = |offset: &str, jump: &str| {
        fs::write(&clock, offset).unwrap();
        let task = [&source.url("postgres"), &repo.path().display().to_string(), jump].join("\n");
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "clock::child", "--ignored", "--nocapture"]).env(TASK, task);
        command.env("LD_PRELOAD", &library).env(CLOCK, &clock);
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        let output = command.output().unwrap();
        let said = || format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{offset} {jump}: {}", said());
    };
    let days = |days: i64| Timestamp::now() + SignedDuration::from_hours(24 * days);
    under("+3d", "");
    under("+0", "back");
    Sql::connect(&source.url("postgres")).run("CREATE TABLE later AS SELECT generate_series(1, 1000) g");
    create(&source, &repo);

    let repository = repo.reopen();
    let times: Vec<(Timestamp, Timestamp)> = repository
        .backups()
        .iter()
        .map(|backup| {
            let time = |name: &str| backup.info[name].as_str().unwrap().parse().unwrap();
            (time("start_time"), time("stop_time"))
        })
        .collect();
    assert_eq!(times.len(), 3);
    assert!(times[0].0 > days(2), "made by a clock that was ahead: {times:?}");
    assert!(times[1].1 < days(-2), "ended by a clock that was behind: {times:?}");
    // Nothing expires by a clock that is behind what it has shown before.
    let keep = policy::Keep::default();
    let plan = |now| repository.with_state(|state| policy::plan(state, "main", &keep, now, &TimeZone::UTC));
    assert!(plan(Timestamp::now()).is_err());
    assert!(plan(days(4)).is_ok());
    // The newest is the one that was made last.
    comes_back(&repo, installation, &contents(&source.url("postgres")));
    Ok(())
}

//! kill -9 before each system call that changes what is on a disk, by strace's injection: the program has no hook for it, and none can be
//! forgotten.

use super::*;

/// Calls of one kind, as `strace -e` takes them (`?` for those that not every architecture has), and before which of them the child dies,
/// counted in each of its threads, until a child lives because there are no more.
type Calls = (&'static str, &'static [u32]);

const NAMES: &str = "?rename,?renameat,?renameat2";
const LINKS: &str = "?link,?linkat";
const REMOVALS: &str = "?unlink,?unlinkat";
const SYNCS: &str = "fsync,fdatasync,syncfs";
const DIRECTORIES: &str = "?mkdir,?mkdirat";

/// Of a restore: its marker, its files, and the steps of its end.
const RESTORE: &[Calls] = &[
    (NAMES, &[1, 2, 3, 4]),
    (REMOVALS, &[1, 2, 3]),
    (SYNCS, &[1, 2, 3, 4, 5, 6, 7, 8]),
    (DIRECTORIES, &[1, 2, 9]),
    ("ftruncate", &[1, 2, 50]),
    ("pwrite64", &[1, 2, 60]),
    ("?chmod,fchmod,?fchmodat", &[1, 2, 40]),
];

/// Of a backup into a local repository: temporary file, sync, link, sync of the directory, removal.
const CREATE: &[Calls] = &[
    (LINKS, &[1, 2, 3, 5, 8]),
    (SYNCS, &[1, 2, 3, 4, 5, 6, 9, 14]),
    (REMOVALS, &[1, 2, 3, 5, 8]),
    (DIRECTORIES, &[1, 2, 4]),
];

/// `None`, with the reason printed, where strace is absent or may not trace.
#[allow(clippy::print_stderr, reason = "a skipped test says why")]
fn strace() -> Option<()> {
    match Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status() {
        Ok(status) if status.success() => Some(()),
        Ok(status) => {
            eprintln!("skipped: strace may not trace here ({status})");
            None
        }
        Err(error) => {
            eprintln!("skipped: strace: {error} (package strace)");
            None
        }
    }
}

/// Runs a child that dies before its n-th of these calls; true when it did.
fn dies_before(calls: &str, nth: u32, task: &[&str]) -> bool {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={calls}")]);
    command.args(["-e", &format!("inject={calls}:signal=KILL:when={nth}"), "--"]);
    command.arg(std::env::current_exe().unwrap());
    dies_under(command, task)
}

fn filled(installation: &Installation) -> scratch::ScratchCluster {
    let source = cluster(installation).setting("autovacuum", "off").start().unwrap();
    Sql::connect(&source.url("postgres"))
        .run("CREATE TABLE thing AS SELECT g AS id, md5(g::text) AS text FROM generate_series(1, 30000) g; CHECKPOINT");
    source
}

on_majors!(a_restore_killed_before_any_change_goes_on, 15);

fn a_restore_killed_before_any_change_goes_on(installation: &Installation) -> Done {
    let Some(()) = strace() else { return Ok(()) };
    let (source, repo, place) = (filled(installation), Repo::new(), place());
    let expected = contents(&source.url("postgres"));
    let created = create(&source, &repo);
    let target = place.path().join("data");
    let (path, id, to) = (repo.path().display().to_string(), created.id.to_string(), target.display().to_string());
    for (calls, points) in RESTORE {
        let mut deaths = 0;
        for nth in *points {
            if !dies_before(calls, *nth, &["restore", &id, &to, &path, "0"]) {
                break;
            }
            deaths += 1;
            let (marker, aside) = (target.join(backup::restore::MARKER), place.path().join("marker"));
            let marked = marker.exists();
            if target.join("global/pg_control").exists() {
                // A server could be started, so all of it must be there. The marker alone is in no manifest.
                if marked {
                    std::fs::rename(&marker, &aside)?;
                }
                verify(&target, installation.major());
                if marked {
                    std::fs::rename(&aside, &marker)?;
                } else {
                    // Killed behind its last step: to whoever comes next it is a data directory like others.
                    std::fs::remove_dir_all(&target)?;
                }
            }
        }
        assert!(deaths > 0, "no restore was killed before {calls}");
        if !target.join("global/pg_control").exists() || target.join(backup::restore::MARKER).exists() {
            restore(&created, &repo, &target);
        }
        verify(&target, installation.major());
        let server = start(installation, &target);
        assert_eq!(contents(&server.url("postgres")), expected, "{calls}");
        drop(server);
        if calls == &NAMES {
            // What was killed at the last steps; all of them would take the time of ten tests.
            amcheck(&target, installation.major());
        }
        std::fs::remove_dir_all(&target)?;
    }
    Ok(())
}

on_majors!(a_backup_killed_before_any_change_is_made_by_the_next_run, 18);

fn a_backup_killed_before_any_change_is_made_by_the_next_run(installation: &Installation) -> Done {
    let Some(()) = strace() else { return Ok(()) };
    let (source, repo, place) = (filled(installation), Repo::new(), place());
    let expected = contents(&source.url("postgres"));
    let (path, url) = (repo.path().display().to_string(), source.url("postgres"));
    for (calls, points) in CREATE {
        let mut deaths = 0;
        for nth in *points {
            // Something to store each time.
            Sql::connect(&url).run("UPDATE thing SET id = id");
            if !dies_before(calls, *nth, &["create", &url, &path, "write", "0"]) {
                break;
            }
            deaths += 1;
            let report = repo.reopen().check(true, &|_| {})?;
            assert!(report.damaged.is_empty(), "{calls} {nth}: {report:?}");
        }
        assert!(deaths > 0, "no backup was killed before {calls}");
    }
    let created = create(&source, &repo);
    let target = place.path().join("data");
    restore(&created, &repo, &target);
    verify(&target, installation.major());
    let server = start(installation, &target);
    assert_eq!(contents(&server.url("postgres")), expected);
    drop(server);
    amcheck(&target, installation.major());
    repo.repository.collect()?;
    let report = repo.reopen().check(true, &|_| {})?;
    assert!(report.damaged.is_empty() && report.findings.is_empty(), "{report:?}");
    Ok(())
}

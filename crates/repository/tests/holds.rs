//! Holds of readers that were killed: what a host knows to be gone is released by a prune, the rest by a person.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "test helpers, which clippy does not take for tests"
)]

mod support;

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use repository::{
    BackupId, Options, Repository, RepositoryError, SessionId, Standing,
    log::{Expired, Opening, Purpose},
    store::LocalStore,
};
use serde_json::json;
use support::*;

/// Names the directory of the repository to the child of these tests, and marks it as one.
const DIRECTORY: &str = "OXPECKER_TEST_HOLD_DIRECTORY";

fn in_directory(directory: &Path) -> Repository {
    let store = Arc::new(LocalStore::create(&directory.join("repository")).unwrap());
    let options = Options { remembered: Some(directory.join("tip")), ..options() };
    match Repository::create(store.clone(), &options, &secret(), "test", json!(null)) {
        Ok(made) => made,
        Err(_) => Repository::open(store, &options, &secret()).unwrap(),
    }
}

/// Not a test: what the others start as a process of its own, and kill.
#[test]
fn child_that_holds() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let repository = in_directory(Path::new(&directory));
    let oldest = repository.backups()[0].id;
    let hold = repository.hold(oldest, json!({"restore": "child"})).unwrap();
    println!("HOLDS {}", hold.session());
    std::io::stdout().flush().unwrap();
    // Until it is killed; if whoever started it dies, its end of the pipe does too.
    let _ended = std::io::stdin().read(&mut [0]);
}

/// Starts a process that holds the oldest backup.
fn holder(directory: &Path) -> (Child, SessionId) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_holds", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        // The harness writes the test's name before it, on the same line.
        if let Some((_, session)) = line.unwrap().split_once("HOLDS ") {
            return (child, session.trim().parse().unwrap());
        }
    }
    panic!("the child held nothing: {:?}", child.wait());
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn expire(repository: &Repository, backup: BackupId) -> Result<usize, RepositoryError> {
    repository.expire(&[Expired { backup, reason: "test".to_owned() }])
}

#[test]
fn a_killed_readers_hold_is_released_by_the_next_prune() {
    let directory = tempfile::tempdir().unwrap();
    let repository = in_directory(directory.path());
    let first = backup(&repository, &files(1, 10));
    backup(&repository, &files(2, 10));
    let (child, session) = holder(directory.path());

    // It lives: nobody takes its backup, not by a prune and not by hand.
    repository.refresh().unwrap();
    let [hold] = &repository.holds()[..] else { panic!("{:?}", repository.holds()) };
    assert_eq!((hold.session, &hold.backups[..], hold.standing), (session, &[first][..], Standing::Running));
    assert_eq!(hold.told, json!({"restore": "child"}));
    assert_eq!(hold.holder.as_ref().unwrap().pid, child.id());
    assert_eq!(repository.release_dead_holds().unwrap(), []);
    repository.collect().unwrap();
    let error = repository.release_hold(session).unwrap_err();
    assert!(error.to_string().contains(&format!("process {}", child.id())), "{error}");
    assert!(expire(&repository, first).is_err());

    kill(child);
    assert_eq!(repository.check(false, &|_| {}).unwrap().holds[0].standing, Standing::Gone);
    let released = repository.release_dead_holds().unwrap();
    assert_eq!(released.iter().map(|hold| hold.session).collect::<Vec<_>>(), [session]);
    assert_eq!(repository.release_dead_holds().unwrap(), [], "once");
    assert_eq!(expire(&repository, first).unwrap(), 1);
}

#[test]
fn a_collection_releases_dead_holds_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    let repository = in_directory(directory.path());
    let first = backup(&repository, &files(1, 10));
    backup(&repository, &files(2, 10));
    let children: Vec<_> = (0..3).map(|_| holder(directory.path()).0).collect();
    let mine = repository.hold(first, json!("mine")).unwrap();
    children.into_iter().for_each(kill);
    repository.collect().unwrap();
    let left: Vec<_> = repository.holds().into_iter().map(|hold| hold.session).collect();
    assert_eq!(left, [mine.session()]);
    drop(mine);
    assert_eq!(repository.holds(), []);
}

#[test]
fn of_other_hosts_holds_a_person_decides() {
    let store = memory();
    let repository = create(&store);
    let first = backup(&repository, &files(1, 10));
    backup(&repository, &files(2, 10));
    // As another host's program writes it, an old program, and one that wrote nonsense.
    let elsewhere = json!({"host": "db9", "machine": "x", "boot": "y", "namespaces": "z", "pid": 1, "start": 1});
    let infos =
        [json!({"holder": elsewhere, "told": "theirs"}), json!({"restore": 17}), json!({"holder": {"pid": "a"}})];
    let mut sessions = Vec::new();
    for info in infos {
        let session = SessionId::random().unwrap();
        let (cluster, bases) = ("main".to_owned(), vec![first]);
        let opening = Opening { session, purpose: Purpose::Hold, cluster, bases, info };
        repository.with_log(|log| log.begin(&opening, None)).unwrap();
        sessions.push(session);
    }
    assert_eq!(repository.release_dead_holds().unwrap(), []);
    let holds = repository.check(false, &|_| {}).unwrap().holds;
    assert_eq!(holds.iter().map(|hold| hold.session).collect::<Vec<_>>(), sessions, "oldest first");
    assert!(holds.iter().all(|hold| hold.standing == Standing::Unknown));
    assert_eq!((holds[0].holder.as_ref().unwrap().host.as_str(), &holds[0].told), ("db9", &json!("theirs")));
    assert_eq!(holds[1].told, json!({"restore": 17}));

    assert!(matches!(expire(&repository, first), Err(RepositoryError::Log(_))));
    for session in &sessions {
        assert_eq!(repository.release_hold(*session).unwrap().session, *session);
    }
    assert!(matches!(repository.release_hold(sessions[0]), Err(RepositoryError::NoHold { .. })));
    assert_eq!(expire(&repository, first).unwrap(), 1);
}

//! One guard per state directory.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use journal::{Holder, StateDir, StateDirError};
use model::Pid;

/// Names the directory to the child.
const CHILD_DIR: &str = "OXPECKER_TEST_STATE_DIR";

fn own_pid() -> Pid {
    Pid(i32::try_from(std::process::id()).unwrap())
}

#[test]
fn a_directory_has_one_guard() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("a/b");
    assert_eq!(StateDir::holder(&dir).unwrap(), Holder::Nobody);
    let held = StateDir::claim(&dir).unwrap();
    assert_eq!(held.path(), dir);
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(StateDir::holder(&dir).unwrap(), Holder::Guard(Some(own_pid())));

    let refused = StateDir::claim(&dir).unwrap_err();
    assert!(matches!(refused, StateDirError::Held { pid, .. } if pid == Some(own_pid())), "{refused}");
    let message = refused.to_string();
    assert!(message.contains(&format!("pid {}", own_pid())) && message.contains("hint: "), "{message}");

    drop(held);
    assert_eq!(StateDir::holder(&dir).unwrap(), Holder::Nobody);
    StateDir::claim(&dir).unwrap();
}

#[test]
#[ignore = "the process that another test kills"]
fn holder_child() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else {
        println!("skipped: only as a child of another test");
        return;
    };
    let _held = StateDir::claim(Path::new(&dir)).unwrap();
    // Until it is killed, or its parent is gone.
    let _ = std::io::stdin().read_line(&mut String::new());
}

#[test]
fn the_lock_vanishes_with_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "state_dir::holder_child", "--ignored", "--nocapture"])
        .env(CHILD_DIR, dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let pid = Pid(i32::try_from(child.id()).unwrap());
    let deadline = Instant::now() + Duration::from_secs(60);
    while StateDir::holder(dir.path()).unwrap() != Holder::Guard(Some(pid)) {
        assert!(Instant::now() < deadline, "the child never had the directory");
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(matches!(StateDir::claim(dir.path()), Err(StateDirError::Held { pid: Some(found), .. }) if found == pid));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(StateDir::holder(dir.path()).unwrap(), Holder::Nobody);
    StateDir::claim(dir.path()).unwrap();
}

#[test]
fn who_only_asks_never_keeps_a_guard_from_starting() {
    let dir = tempfile::tempdir().unwrap();
    drop(StateDir::claim(dir.path()).unwrap());
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::SeqCst) {
                StateDir::holder(dir.path()).unwrap();
            }
        });
        let claims: Vec<_> = (0..50).map(|_| StateDir::claim(dir.path()).map(drop)).collect();
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        for claim in claims {
            claim.unwrap();
        }
    });
}

#[test]
fn a_directory_that_can_not_serve_is_refused_with_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    fs::create_dir(dir.path().join("open")).unwrap();
    fs::set_permissions(dir.path().join("open"), fs::Permissions::from_mode(0o777)).unwrap();
    for (name, words) in
        [("file", "a file is in the way"), ("file/below", "a file is in the way"), ("open", "chmod 700")]
    {
        let message = StateDir::claim(&dir.path().join(name)).unwrap_err().to_string();
        assert!(message.contains(words) && message.contains("hint: "), "{name}: {message}");
    }
    let proc = StateDir::claim(Path::new("/proc/oxpecker")).unwrap_err().to_string();
    assert!(proc.contains("can't create the state directory /proc/oxpecker"), "{proc}");
}

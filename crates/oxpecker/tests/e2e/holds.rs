//! Holds: what becomes of a backup whose reader was killed where nobody here can see that it is dead.

use std::{path::Path, process::Command};

use repository::{BackupId, Repository, Secret, store::LocalStore};
use serde_json::Value;

use crate::harness::{Place, cluster, oxpecker, said};

/// Another host, as far as anybody can tell: namespaces and a name of its own. In it the restore dies of SIGXFSZ at the first file that
/// grows above a mebibyte, which is early: a segment of WAL has sixteen.
const ELSEWHERE: &str = "echo elsewhere > /proc/sys/kernel/hostname; \
                         prlimit --fsize=1048576 --core=0 \"$@\"; test $? -gt 128 && echo killed";

fn killed_elsewhere(place: &Place, target: &Path) -> bool {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--pid", "--fork", "--mount-proc", "--uts", "sh", "-c", ELSEWHERE, "sh"]);
    command.arg(oxpecker().get_program()).arg("--config").arg(place.path().join("oxpecker.toml"));
    let output = command.arg("restore").arg("--pgdata").arg(target).output().unwrap();
    let text = said(&output);
    if text.contains("unshare: ") {
        println!("skipped: no namespaces here: {text}");
        return false;
    }
    assert!(text.contains("killed"), "{text}");
    true
}

#[track_caller]
fn json(place: &Place, code: i32, arguments: &[&str]) -> Value {
    let output = place.ask(&[arguments, &["--output", "json"]].concat());
    assert_eq!(output.status.code(), Some(code), "{}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn says(place: &Place, code: i32, arguments: &[&str], parts: &[&str]) {
    let text = said(&place.ask(arguments));
    assert!(text.starts_with(&format!("exit {code}\n")), "{text}");
    for part in parts {
        assert!(text.contains(part), "does not say {part:?}: {text}");
    }
}

#[test]
fn a_hold_that_nobody_can_judge_is_listed_and_released_by_hand() {
    let Some(cluster) = cluster(&[]) else { return };
    let place = Place::new();
    let (directory, key) = (place.path().join("repository"), place.path().join("repository.key"));
    let more = format!(
        "\n[repository]\nurl = \"file://{}\"\nkey_file = {key:?}\n\
         [backup]\nkeep = {{ last = 1, daily = 0, weekly = 0, monthly = 0, point_in_time = \"0s\" }}\n",
        directory.display()
    );
    place.configure(&cluster.url("postgres"), &more);
    json(&place, 0, &["backup", "init"]);
    let old = json(&place, 0, &["backup", "create"])["id"].as_str().unwrap().to_owned();
    if !killed_elsewhere(&place, &place.path().join("data")) {
        return;
    }
    json(&place, 0, &["backup", "create"]);

    let planned = json(&place, 0, &["backup", "prune", "--dry-run"]);
    let [hold] = &planned["holds"].as_array().unwrap()[..] else { panic!("{planned}") };
    assert_eq!((&hold["standing"], &hold["holder"]["host"]), (&"unknown".into(), &"elsewhere".into()), "{hold}");
    assert_eq!(hold["backups"], serde_json::json!([old]));
    assert_eq!(json(&place, 0, &["backup", "check"])["report"]["holds"], planned["holds"]);
    let session = hold["session"].as_str().unwrap();
    let shown = [&session[..8], "restore: process", "on elsewhere", "can't be seen from here", "--release-hold"];
    says(&place, 0, &["backup", "check"], &shown);
    says(&place, 0, &["backup", "prune", "--dry-run"], &[&shown[..], &["in use"]].concat());

    // It goes on holding until a person names it.
    assert_eq!(json(&place, 0, &["backup", "prune", "--yes"])["done"]["expired"], 0);
    let release = |id| ["backup", "prune", "--yes", "--release-hold", id];
    says(&place, 2, &release("00"), &["names 0 holds", "hint:"]);
    says(&place, 2, &release(""), &["names 0 holds, not one", "hint:"]);
    says(&place, 2, &["backup", "prune", "--dry-run", "--release-hold", session], &["cannot be used with"]);

    // One of a process that runs on this host: this one.
    let open = LocalStore::open(&directory).unwrap();
    let opened =
        Repository::open(std::sync::Arc::new(open), &repository::Options::default(), &Secret::key_file(&key).unwrap());
    let repository = opened.unwrap();
    let own = repository.hold(old.parse::<BackupId>().unwrap(), serde_json::json!({ "proof": 1 })).unwrap();
    let running = own.session().to_string();
    let pid = format!("process {} of this host, which runs", std::process::id());
    // Both are named; as one can't be released, neither is.
    let both = [&release(session)[..], &["--release-hold", &running]].concat();
    says(&place, 3, &both, &[&pid, "hint:"]);
    assert_eq!(json(&place, 0, &["backup", "check"])["report"]["holds"].as_array().map(Vec::len), Some(2));
    drop(own);

    let pruned = json(&place, 0, &release(&session[..8]));
    assert_eq!(pruned["released_holds"][0]["session"], *session, "{pruned}");
    assert_eq!((&pruned["done"]["expired"], &pruned["holds"]), (&1.into(), &serde_json::json!([])), "{pruned}");
    says(&place, 0, &["backup", "check"], &["the one backup can be restored"]);
    says(&place, 2, &release(session), &["names 0 holds"]);
}

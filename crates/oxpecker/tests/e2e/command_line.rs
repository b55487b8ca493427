//! Wrong usage and wrong configuration: a clear message with a hint and the right exit code.

use std::{fs, os::unix::fs::PermissionsExt as _};

use crate::harness::{Place, oxpecker, run_in, said};

#[track_caller]
fn check(place: &Place, arguments: &[&str], code: i32, says: &[&str]) {
    let output = run_in(place.path(), arguments);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    for part in says {
        assert!(text.contains(part), "{arguments:?} does not say {part:?}: {text}");
    }
}

#[test]
fn mistakes_end_with_2_and_a_hint() {
    let place = Place::new();
    fs::write(place.path().join("bad.toml"), "[autovacum]\nmode = \"act\"\n").unwrap();
    fs::write(place.path().join("broken.toml"), "mode = \n").unwrap();
    fs::write(place.path().join("secret.toml"), "[postgres]\nurl = \"postgresql://u:pw@h/d\"\n").unwrap();
    check(
        &place,
        &["--config", "bad.toml", "config", "check"],
        2,
        &["bad.toml", "line 1", "autovacum", "did you mean `autovacuum`?"],
    );
    check(&place, &["--config", "bad.toml", "run"], 2, &["did you mean `autovacuum`?"]);
    check(&place, &["--config", "broken.toml", "status"], 2, &["broken.toml", "line 1"]);
    check(&place, &["--config", "none.toml", "run"], 2, &["none.toml", "hint:"]);
    check(&place, &["--config", ".", "config", "check"], 2, &["can't read the configuration", "hint:"]);
    check(&place, &["--config", "secret.toml", "config", "check"], 2, &["holds a password", "password_file"]);
    check(&place, &["--config", "secret.toml", "run"], 2, &["holds a password"]);
    check(&place, &["stauts"], 2, &["status"]);
    check(&place, &["run", "--mode", "atc"], 2, &["expected observe, advise or act"]);
    check(&place, &["drill", "run", "no-such-drill"], 2, &["no-such-drill", "vacuum-storm"]);
    check(&place, &["demo", "--load", "0"], 2, &["5..=95"]);
    check(&place, &["demo", "--pg-bin", "/nonexistent"], 2, &["/nonexistent", "hint:"]);
    check(&place, &["incident", "report"], 2, &["hint:"]);
}

#[test]
fn a_secret_is_never_shown() {
    let place = Place::new();
    fs::write(place.path().join("oxpecker.toml"), "[postgres]\nurl = \"postgresql://u:s3cret@h/d\"\n").unwrap();
    for arguments in [&["config", "show"][..], &["config", "check"], &["config", "show", "--output", "json"], &["run"]]
    {
        let text = said(&run_in(place.path(), arguments));
        assert!(!text.contains("s3cret"), "{arguments:?}: {text}");
    }
}

#[test]
fn an_unreadable_file_names_itself() {
    if rustix::process::geteuid().is_root() {
        println!("skipped: root may read everything");
        return;
    }
    let place = Place::new();
    let file = place.path().join("oxpecker.toml");
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
    check(&place, &["config", "check"], 2, &["oxpecker.toml", "Permission denied", "hint:"]);
}

#[test]
fn what_is_shown_can_be_read_back() {
    let place = Place::new();
    let text = "mode = \"advise\"\n[postgres]\nname = \"db\"\n[[service]]\nname = \"site\"\ndepends_on = [\"db\"]\nimpact = [\"entry gate\"]\n\
                health = { http = \"http://127.0.0.1:8000/healthz\", timeout = \"500ms\" }\n";
    fs::write(place.path().join("oxpecker.toml"), text).unwrap();
    let shown = run_in(place.path(), &["config", "show"]);
    assert_eq!(shown.status.code(), Some(0), "{}", said(&shown));
    fs::write(place.path().join("again.toml"), &shown.stdout).unwrap();
    let again = run_in(place.path(), &["--config", "again.toml", "config", "show"]);
    let body = |output: &std::process::Output| {
        String::from_utf8_lossy(&output.stdout).lines().filter(|l| !l.starts_with('#')).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(body(&shown), body(&again), "{}", said(&again));
    assert!(body(&shown).contains("timeout = \"500ms\""), "{}", body(&shown));
}

#[test]
fn the_environment_goes_before_the_file_and_flags_before_both() {
    let place = Place::new();
    fs::write(place.path().join("oxpecker.toml"), "mode = \"advise\"\n").unwrap();
    let output = oxpecker()
        .current_dir(place.path())
        .args(["config", "show", "--output", "json"])
        .env("OXPECKER_MODE", "act")
        .env("OXPECKER_POSTGRES_NAME", "from-env")
        .output()
        .unwrap();
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&shown["config"]["mode"], &shown["config"]["postgres"]["name"]), (&"act".into(), &"from-env".into()));
    assert_eq!(shown["schema"], 1);
}

#[test]
fn status_without_a_guard_says_so() {
    let place = Place::new();
    place.configure("postgresql:///postgres?host=/nonexistent", "");
    let output = place.ask(&["status"]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("no guard runs") && text.contains("oxpecker run"), "{text}");
    assert_eq!(place.json(&["status"])["guard"], serde_json::Value::Null);
}

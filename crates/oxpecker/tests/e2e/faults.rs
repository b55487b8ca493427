//! What goes wrong around a guard, and what it makes of it.

use std::{fs, process::Command, thread, time::Duration};

use journal::StateDir;
use model::EventKind;
use scratch::ScratchCluster;

use crate::harness::{Guard, PATIENCE, Place, cluster, oxpecker, run_in, said};

#[test]
fn a_second_guard_on_one_state_directory_is_refused() {
    let Some(cluster) = cluster(&[]) else { return };
    let place = Place::new();
    place.configure(&cluster.url("postgres"), "");
    let guard = Guard::start(&place);
    let second = place.ask(&["run"]);
    let text = said(&second);
    assert_eq!(second.status.code(), Some(3), "{text}");
    assert!(text.contains(&guard.pid().to_string()) && text.contains("hint:"), "{text}");
    guard.kill9();
    // A dead guard's lock is no lock.
    assert!(Guard::start(&place).stop().success());
}

#[test]
fn a_journal_of_a_newer_format_is_refused_and_left_alone() {
    let place = Place::new();
    place.configure("postgresql:///postgres?host=/nonexistent&user=nobody", "");
    drop(StateDir::claim(&place.state_dir()).unwrap());
    let file = place.state_dir().join("journal.sqlite");
    let database = rusqlite::Connection::open(&file).unwrap();
    database
        .execute_batch(&format!(
            "PRAGMA application_id = {}; PRAGMA user_version = 9999; CREATE TABLE t (x)",
            journal::APPLICATION_ID
        ))
        .unwrap();
    drop(database);
    let before = fs::read(&file).unwrap();
    let output = place.ask(&["run"]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("newer") && text.contains("hint:"), "{text}");
    assert_eq!(before, fs::read(&file).unwrap());
}

#[test]
fn a_damaged_journal_is_set_aside_and_the_guard_guards() {
    let place = Place::new();
    place.configure("postgresql:///postgres?host=/nonexistent&user=nobody", "");
    drop(StateDir::claim(&place.state_dir()).unwrap());
    fs::write(place.state_dir().join("journal.sqlite"), b"this was a journal once, before the disk failed").unwrap();
    let guard = Guard::start(&place);
    place.await_status("the loss is said", |s| s["limitations"].to_string().contains("damaged"));
    place.await_event("new events", 0, |k| matches!(k, EventKind::GuardStarted { .. }));
    let mut entries = fs::read_dir(place.state_dir()).unwrap().filter_map(Result::ok);
    let aside = entries.find(|e| e.file_name().to_string_lossy().starts_with("damaged-")).unwrap();
    let kept = fs::read(aside.path().join("journal.sqlite")).unwrap();
    assert!(kept.starts_with(b"this was a journal"));
    assert!(guard.stop().success());
}

#[test]
fn a_route_that_can_reach_nobody_is_a_limitation() {
    let place = Place::new();
    let secret = place.secret("hook", "https://127.0.0.1:1/hook/t0psecret");
    place.configure(
        "postgresql:///postgres?host=/nonexistent&user=nobody",
        &format!("\n[[alert.route]]\nname = \"pager\"\nwebhook = {{ url_file = {secret:?} }}\n"),
    );
    let mut command = oxpecker();
    command.env("SSL_CERT_FILE", "/nonexistent").env("SSL_CERT_DIR", "/nonexistent");
    let guard = Guard::start_with(&place, command, &["run"]);
    let status = place.await_status("it is said", |s| s["limitations"].to_string().contains("the route pager"));
    let text = status["limitations"].to_string();
    assert!(text.contains("ca-certificates") && !text.contains("t0psecret"), "{text}");
    assert!(guard.stop().success());
}

#[test]
fn a_server_that_is_absent_is_alerted_and_its_coming_noticed() {
    let Some(cluster) = cluster(&[]) else { return };
    let place = Place::new();
    let mut cluster = cluster;
    place.configure(&cluster.url("postgres"), "");
    cluster.stop_fast().unwrap();
    let guard = Guard::start(&place);
    place.await_event("the alert", 0, |k| matches!(k, EventKind::Alerted { alert } if alert.rule.0 == "postgres-down"));
    let status = place.await_status("down", |s| s["server"]["state"] == "down");
    assert_eq!(status["server"]["reason"], "not_listening");
    assert_eq!(place.ask(&["status"]).status.code(), Some(1));
    cluster.start_again().unwrap();
    place.await_status("up", |s| s["server"]["state"] == "up" && s["alerts"].as_array().is_some_and(Vec::is_empty));
    cluster.kill9().unwrap();
    place.await_status("down again", |s| s["server"]["state"] == "down");
    assert!(guard.stop().success());
}

#[test]
fn the_outages_own_version_is_observed_and_what_is_missing_said() {
    let installation = match scratch::installation(12) {
        Ok(installation) => installation,
        Err(error) => return println!("skipped: {error}"),
    };
    let cluster = ScratchCluster::builder(&installation).start().unwrap();
    let place = Place::new();
    place.configure(&cluster.url("postgres"), "mode = \"act\"");
    let guard = Guard::start(&place);
    let status = place.await_status("readings of 12", |s| !s["activity"].is_null() && !s["wal"].is_null());
    let limitations = status["limitations"].to_string();
    assert!(limitations.contains("12") && limitations.contains("13"), "{limitations}");
    let vacuum = said(&place.ask(&["vacuum", "status"]));
    assert!(vacuum.contains("13"), "{vacuum}");
    assert!(guard.stop().success());
}

#[test]
fn a_full_disk_loses_no_alert_and_is_said() {
    let Some(cluster) = cluster(&[]) else { return };
    let mut cluster = cluster;
    let place = Place::new();
    place.configure(&cluster.url("postgres"), "");
    fs::create_dir(place.state_dir()).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=512k,mode=0700", "tmpfs"])
        .arg(place.state_dir())
        .output()
        .is_ok_and(|o| o.status.success());
    if !mounted {
        println!("skipped: a small file system can't be mounted here (that takes root)");
        return;
    }
    struct Unmount(std::path::PathBuf);
    impl Drop for Unmount {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        }
    }
    let _unmount = Unmount(place.state_dir());
    let guard = Guard::start(&place);
    place.await_status("a reading", |s| !s["activity"].is_null());
    let filler = place.state_dir().join("filler");
    // Until nothing fits any more, not even a page.
    let _ = fs::write(&filler, vec![0; 1 << 20]);
    place.await_status("trouble with the journal", |s| s["journal"]["ok"] == false);
    cluster.stop_fast().unwrap();
    let status = place.await_status("the alert all the same", |s| s["alerts"].to_string().contains("postgres-down"));
    assert_eq!(status["journal"]["ok"], false);
    assert!(place.log().contains("PostgreSQL"), "the log has the alert: {}", place.log());
    assert_eq!(place.ask(&["status"]).status.code(), Some(1));
    // With room again, nothing is missing.
    fs::remove_file(&filler).unwrap();
    place.await_event(
        "the alert in the journal",
        0,
        |k| matches!(k, EventKind::Alerted { alert } if alert.rule.0 == "postgres-down"),
    );
    place.await_status("a journal that works", |s| s["journal"]["ok"] == true);
    assert!(guard.stop().success());
}

#[test]
fn a_webhook_that_hangs_holds_nothing_up() {
    let Some(cluster) = cluster(&[]) else { return };
    let mut cluster = cluster;
    // Takes connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let place = Place::new();
    let secret = place.secret("hook", &format!("http://{}/", silent.local_addr().unwrap()));
    place.configure(
        &cluster.url("postgres"),
        &format!("\n[[alert.route]]\nname = \"deaf\"\nwebhook = {{ url_file = {secret:?} }}\n"),
    );
    let guard = Guard::start(&place);
    place.await_status("a reading", |s| !s["activity"].is_null());
    cluster.stop_fast().unwrap();
    place.await_event("the failure", 0, |k| matches!(k, EventKind::AlertFailed { .. }));
    let status = place.await_status("an answer", |s| s["server"]["state"] == "down");
    assert!(status["host"].is_object());
    let stopped = std::time::Instant::now();
    assert!(guard.stop().success());
    assert!(stopped.elapsed() < PATIENCE / 2, "an orderly stop is bounded");
    // What was not delivered waits for the next guard.
    let waiting = fs::read_dir(place.state_dir().join("outbox")).unwrap().count();
    assert!(waiting > 0, "the alert is still in the outbox");
    drop(silent);
}

#[test]
fn a_guard_that_was_stopped_for_a_while_says_how_long() {
    let Some(cluster) = cluster(&[]) else { return };
    let place = Place::new();
    place.configure(&cluster.url("postgres"), "");
    let guard = Guard::start(&place);
    place.await_status("a reading", |s| !s["activity"].is_null());
    guard.signal(rustix::process::Signal::STOP);
    thread::sleep(Duration::from_secs(8));
    guard.signal(rustix::process::Signal::CONT);
    let event = place.await_event("the silence", 0, |k| matches!(k, EventKind::GuardWasSilent { .. }));
    let EventKind::GuardWasSilent { silence, .. } = event.kind else { unreachable!() };
    assert!(silence >= Duration::from_secs(5), "{silence:?}");
    assert!(guard.stop().success());
}

#[test]
fn release_without_anything_to_release_is_fine() {
    let place = Place::new();
    place.configure("postgresql:///postgres?host=/nonexistent&user=nobody", "");
    let output = run_in(place.path(), &["--config", "oxpecker.toml", "release"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}

#[tokio::test]
async fn without_permission_for_a_lever_it_says_which_and_why() {
    let Some(cluster) = cluster(&[]) else { return };
    let url = cluster.url("postgres");
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    let task = tokio::spawn(connection);
    client.batch_execute("create role watcher login; grant pg_monitor to watcher").await.unwrap();
    drop(client);
    task.await.unwrap().unwrap();
    let place = Place::new();
    let socket = cluster.socket_dir();
    let url = format!("host={} port={} user=watcher dbname=postgres", socket.display(), cluster.tcp_port());
    place.configure(&url, "mode = \"act\"");
    let guard = Guard::start(&place);
    let status =
        place.await_status("the levers", |s| s["governor"]["levers"].as_array().is_some_and(|l| !l.is_empty()));
    let levers = status["governor"]["levers"].as_array().unwrap();
    assert!(levers.iter().all(|l| l["available"] == false), "{levers:?}");
    let alter_system = levers.iter().find(|l| l["lever"] == "alter_system").unwrap();
    assert!(alter_system["reason"].to_string().contains("ALTER SYSTEM"), "{alter_system}");
    // It still observes everything that it may see.
    assert_eq!(status["server"]["state"], "up");
    let text = said(&place.ask(&["vacuum", "status"]));
    assert!(text.contains("unavailable"), "{text}");
    assert!(guard.stop().success());
}

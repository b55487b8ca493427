//! The services against a real PostgreSQL, as the processes that they are in a drill.

#![allow(clippy::unwrap_used, reason = "only tests here, also outside of functions marked as such")]

mod common;

use std::time::{Duration, Instant};

use common::{Helper, get, post};
use scratch::ScratchCluster;
use tokio_postgres::NoTls;

const TABLES: &str = "
    CREATE TABLE members (id bigint PRIMARY KEY, account bigint, channel bigint, created timestamptz, note text);
    CREATE TABLE messages (id bigint PRIMARY KEY, account bigint, channel bigint, created timestamptz, note text);
    CREATE TABLE sessions (id bigint PRIMARY KEY, joins bigint NOT NULL, seen timestamptz NOT NULL);
    INSERT INTO members VALUES (7, 70, 1, now(), 'seven');
    INSERT INTO messages VALUES (1, 70, 1, now() - interval '1 minute', 'older'), (2, 70, 1, now(), 'newer');
    INSERT INTO sessions VALUES (7, 0, now());";

async fn prepare(cluster: &ScratchCluster) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(&cluster.url("postgres"), NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(TABLES).await.unwrap();
    client
}

fn becomes(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test]
async fn services_answer_and_fail_with_what_they_need() {
    let Some(installation) = common::postgres() else { return };
    let mut cluster = ScratchCluster::builder(&installation).tmpfs(true).start().unwrap();
    let client = prepare(&cluster).await;
    let url = cluster.url("postgres");
    let site = Helper::start("site", &serde_json::json!({ "core": null, "postgres": url }));
    let bot = Helper::start("bot", &serde_json::json!({ "core": null, "site": site.port }));
    let gate = Helper::start("gate", &serde_json::json!({ "core": null, "site": site.port, "bot": bot.port }));

    let (status, body) = get(site.port, "/members/7");
    assert_eq!(status, 200, "{body}");
    let member: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(member["note"], "seven");
    assert_eq!(member["messages"], serde_json::json!(["newer", "older"]));
    assert_eq!(get(site.port, "/members/8").0, 200);
    assert_eq!(get(bot.port, "/commands/7").0, 200);
    assert_eq!(get(gate.port, "/enter/7"), (200, "welcome".into()));
    assert_eq!(post(site.port, "/joins/7").0, 200);
    let joins: i64 = client.query_one("SELECT joins FROM sessions WHERE id = 7", &[]).await.unwrap().get(0);
    assert_eq!(joins, 2, "the gate's join and ours");
    for port in [site.port, bot.port, gate.port] {
        assert_eq!(get(port, "/healthz"), (200, "ok".into()));
    }

    // Without PostgreSQL nobody is well, and with it again everybody is, without a restart.
    cluster.stop_immediate().unwrap();
    for (port, path) in [(site.port, "/members/7"), (bot.port, "/commands/7"), (gate.port, "/enter/7")] {
        assert!(get(port, path).0 >= 500, "{path}");
        assert!(get(port, "/healthz").0 >= 500, "{path}");
    }
    cluster.start_again().unwrap();
    becomes("the gate is well again", || get(gate.port, "/healthz").0 == 200);

    // Without the site, bot and gate fail.
    site.end();
    assert_eq!(get(bot.port, "/commands/7").0, 502);
    assert_eq!(get(bot.port, "/healthz").0, 502);
    assert_eq!(get(gate.port, "/healthz").0, 502);
}

#[test]
fn a_helper_ends_when_its_standard_input_is_closed() {
    let bot = Helper::start("bot", &serde_json::json!({ "core": null, "site": 1 }));
    assert!(bot.end().success());
}

#[test]
fn a_helper_refuses_what_it_does_not_know() {
    let drill = common::drill();
    for (kind, spec, words) in
        [("butler", "{}", "no such helper"), ("site", "{}", "missing field"), ("bot", "x", "expected value")]
    {
        let output = std::process::Command::new(&drill).args(["drill-service", kind, spec]).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(words) && error.contains("hint:"), "{error}");
    }
}

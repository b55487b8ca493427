//! A real Alertmanager (Debian's package) as the receiver: what it makes of our alerts is what it tells its own receiver.

use std::{
    io::{BufRead as _, BufReader},
    thread,
};

use serde_json::Value;

use super::*;

/// A running Alertmanager on a port of its own, killed on drop.
struct Alertmanager {
    child: Child,
    url: String,
    _dir: tempfile::TempDir,
}

impl Alertmanager {
    /// One that tells `sink` at once, also of what ended. `None` where none is installed.
    fn start(sink: &str) -> Option<Self> {
        const PROGRAM: &str = "prometheus-alertmanager";
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("alertmanager.yml");
        let text = format!(
            "route: {{ receiver: sink, group_by: ['...'], group_wait: 0s, group_interval: 1s, repeat_interval: 1h }}\n\
             receivers: [{{ name: sink, webhook_configs: [{{ url: '{sink}', send_resolved: true }}] }}]\n"
        );
        fs::write(&config, text).unwrap();
        let child = Command::new(PROGRAM)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.path={}", dir.path().join("data").display()))
            .args(["--web.listen-address=127.0.0.1:0", "--cluster.listen-address="])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) => {
                println!("skipped: {PROGRAM} can't be started: {error}; hint: install the package of that name");
                return None;
            }
        };
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut said = Vec::new();
        let address = log.find_map(|line| {
            let found = line.split_once("address=").filter(|_| line.contains("Listening on"));
            let address = found.map(|(_, address)| address.trim().to_owned());
            said.push(line);
            address
        });
        let address = address.unwrap_or_else(|| panic!("it does not say where it listens: {said:#?}"));
        // A full pipe would stop it.
        thread::spawn(move || log.for_each(drop));
        Some(Self { child, url: format!("http://{address}"), _dir: dir })
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The alerts that Alertmanager told its receiver of, in its own words.
async fn told(sink: &MockServer) -> Vec<Value> {
    let bodies = posts(sink).await.into_iter().map(|post| serde_json::from_slice::<Value>(&post.body).unwrap());
    bodies.flat_map(|body| body["alerts"].as_array().cloned().unwrap_or_default()).collect()
}

async fn told_of(sink: &MockServer, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let told = told(sink).await;
        if let Some(one) = told.iter().find(|one| is(one)) {
            return one.clone();
        }
        assert!(Instant::now() < deadline, "not told of {what}: {told:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn to(url: &str) -> Vec<Route> {
    let webhook = Webhook { url: Secret::new(url), bearer: None, headers: BTreeMap::new(), template: None };
    vec![Route {
        name: "am".into(),
        min_severity: Severity::Info,
        matches: BTreeMap::new(),
        escalate_after: None,
        members: false,
        carrier: Carrier::Alertmanager(webhook),
    }]
}

#[tokio::test]
async fn alertmanager_hears_when_an_alert_begins_and_when_it_ends() {
    let sink = answering(ResponseTemplate::new(200)).await;
    let Some(alertmanager) = Alertmanager::start(&sink.uri()) else { return };
    let place = Place::new();
    let mut started = start(&place.outbox(), to(&alertmanager.url), place.worker());
    let mut firing = alert("k1", AlertState::Firing);
    firing.labels.insert("app-name".into(), "kiosk \"1\"".into());
    started.delivery.submit(firing.clone());
    assert_eq!(delivered(&mut started.outcomes).await.1, "am");
    let one = told_of(&sink, "the begin", |one| one["status"] == "firing").await;
    assert_eq!(one["labels"]["alertname"], "vacuum-starves-host");
    assert_eq!(one["labels"]["severity"], "critical");
    assert_eq!(one["labels"]["app_name"], "kiosk \"1\"");
    assert_eq!(one["annotations"]["summary"], "summary of k1");
    assert_eq!(one["annotations"]["key"], "k1");
    let at = |value: &Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    // Alertmanager keeps milliseconds.
    assert_eq!(at(&one["startsAt"]).as_millisecond(), firing.since.wall.as_millisecond());

    let resolved = Alert { state: AlertState::Resolved, decided: now(), ..firing };
    started.delivery.submit(resolved);
    delivered(&mut started.outcomes).await;
    let other = told_of(&sink, "the end", |one| one["status"] == "resolved").await;
    assert_eq!(other["fingerprint"], one["fingerprint"], "it is the same alert");
    started.delivery.shutdown().await;
}

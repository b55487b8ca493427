//! `oxpecker audit` as a person runs it: files, a live server, the network, the exit codes.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::harness::{Place, cluster, run_in, said};

fn corpus(set: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../audit/tests/corpus").join(set)
}

fn checks(report: &Value) -> Vec<&str> {
    report["findings"].as_array().unwrap().iter().map(|finding| finding["check"].as_str().unwrap()).collect()
}

#[test]
fn the_outage_is_found_and_the_well_kept_set_is_left_alone() {
    let place = Place::new();
    let path = corpus("outage").display().to_string();
    let outage = run_in(place.path(), &["audit", &path, "--output", "json"]);
    assert_eq!(outage.status.code(), Some(1), "{}", said(&outage));
    let report: Value = serde_json::from_slice(&outage.stdout).unwrap();
    assert_eq!(checks(&report)[..2], ["database-unlimited", "no-backup"], "what would have hurt first comes first");
    for finding in report["findings"].as_array().unwrap() {
        assert!(finding["remedy"]["text"].as_str().is_some_and(|text| !text.is_empty()), "{finding}");
    }
    let kept = run_in(place.path(), &["audit", &corpus("well-kept").display().to_string()]);
    assert_eq!(kept.status.code(), Some(0), "{}", said(&kept));
    // A file that can't be read is no finding, and no silence.
    fs::write(place.path().join("broken.yaml"), "a: [1\n").unwrap();
    let broken = run_in(place.path(), &["audit", "broken.yaml"]);
    assert_eq!(broken.status.code(), Some(4), "{}", said(&broken));
    let never = run_in(place.path(), &["audit", &path, "--fail-on", "never"]);
    assert_eq!(never.status.code(), Some(0), "{}", said(&never));
}

#[test]
fn a_live_server_and_its_repository_are_audited() {
    let Some(cluster) = cluster(&[]) else { return };
    let place = Place::new();
    let (repository, key) = (place.path().join("repository"), place.path().join("repository.key"));
    let more = format!("\n[repository]\nurl = \"file://{}\"\nkey_file = {key:?}\n", repository.display());
    place.configure(&cluster.url("postgres"), &more);
    let report = place.json(&["audit", "--live"]);
    // The repository is named in the configuration, and is not there yet.
    let open = report["not_assessed"].to_string();
    assert!(open.contains("backup-old") && open.contains("no path was given"), "{open}");
    assert!(checks(&report).contains(&"no-timeouts"), "{report}");

    place.json(&["backup", "init"]);
    let report = place.json(&["audit", "--live"]);
    let found = checks(&report);
    assert!(found.contains(&"backup-old"), "a repository without a backup is none: {found:?}");
    assert!(found.contains(&"backup-on-same-volume"), "both lie in one temporary folder's file system: {found:?}");

    place.json(&["backup", "create"]);
    let report = place.json(&["audit", "--live"]);
    let found = checks(&report);
    assert!(!found.contains(&"backup-old") && found.contains(&"backup-never-restored"), "{found:?}");
    drop(cluster);
    let gone = place.json(&["audit", "--live"]);
    assert!(gone["not_assessed"].to_string().contains("the live database"), "{gone}");
    assert!(!checks(&gone).contains(&"no-timeouts"));
}

#[test]
fn the_network_is_asked_only_when_told() {
    let place = Place::new();
    fs::write(place.path().join("expected-routes.txt"), "a.example.org -> https://b.example.org\n").unwrap();
    let quiet = run_in(place.path(), &["audit", "expected-routes.txt"]);
    assert!(said(&quiet).contains("--probe"), "{}", said(&quiet));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        let mut byte = [0; 1];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count > 0) {
            head.extend_from_slice(&byte);
        }
        _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
    });
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let plain = format!("a.example.org:80=127.0.0.1:{port}");
    let encrypted = format!("a.example.org:443={nobody}");
    let asked = run_in(
        place.path(),
        &["audit", "expected-routes.txt", "--probe", "--resolve", &plain, "--resolve", &encrypted],
    );
    server.join().unwrap();
    assert_eq!(asked.status.code(), Some(1), "{}", said(&asked));
    assert!(said(&asked).contains("redirect-wrong") && said(&asked).contains("status 200"), "{}", said(&asked));
    let wrong = run_in(place.path(), &["audit", "--probe", "--resolve", "nonsense"]);
    assert_eq!(wrong.status.code(), Some(2), "{}", said(&wrong));
}

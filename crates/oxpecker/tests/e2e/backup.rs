//! Repository, backup, restore, keys: the real program on a real server.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use scratch::ScratchCluster;
use serde_json::Value;

use crate::harness::{Place, cluster, oxpecker, said};

/// A place with a configuration that names a repository and a key file in it.
fn place(url: &str, more: &str) -> Place {
    let place = Place::new();
    let (repository, key) = (place.path().join("repository"), place.path().join("repository.key"));
    let sections = format!("\n[repository]\nurl = \"file://{}\"\nkey_file = {key:?}\n{more}", repository.display());
    place.configure(url, &sections);
    place
}

#[track_caller]
fn expect(output: &Output, code: i32, says: &[&str]) {
    let text = said(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for part in says {
        assert!(text.contains(part), "does not say {part:?}: {text}");
    }
}

#[track_caller]
fn fine(place: &Place, arguments: &[&str]) -> Value {
    let output = place.ask(&[arguments, &["--output", "json"]].concat());
    expect(&output, 0, &[]);
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["schema"], 1, "{value}");
    value
}

/// With something on stdin, as from a pipe.
fn piped(place: &Place, arguments: &[&str], stdin: &str) -> Output {
    let mut command = oxpecker();
    command.arg("--config").arg(place.path().join("oxpecker.toml")).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

async fn sql(cluster: &ScratchCluster, text: &str) -> String {
    let (client, connection) = tokio_postgres::connect(&cluster.url("postgres"), tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut answer = String::new();
    for message in client.simple_query(text).await.unwrap() {
        if let tokio_postgres::SimpleQueryMessage::Row(row) = message {
            answer = row.get(0).unwrap_or_default().to_owned();
        }
    }
    connection.abort();
    answer
}

#[tokio::test]
async fn what_is_destroyed_comes_back() {
    let Some(mut cluster) = cluster(&[]) else { return };
    let digest = "SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM people t";
    sql(&cluster, "CREATE TABLE people AS SELECT g AS id, md5(g::text) AS name FROM generate_series(1, 20000) g").await;
    let place = place(&cluster.url("postgres"), "");

    let made = fine(&place, &["backup", "init"]);
    assert_eq!((&made["kind"], &made["protection"]["protected"]), (&"backup_init".into(), &false.into()), "{made}");
    let key = place.path().join("repository.key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    expect(&place.ask(&["backup", "list"]), 0, &["no backup", "oxpecker backup create", "NOT PROTECTED"]);

    let backup = fine(&place, &["backup", "create"]);
    let id = backup["id"].as_str().unwrap().to_owned();
    assert!(backup["stored_bytes"].as_u64().unwrap() > 0 && backup["corrupt_pages_count"] == 0, "{backup}");
    // Both lie below the same temporary directory here, as a repository beside its database would.
    assert_eq!(backup["protection"]["shares_with_database"], "the same file system", "{backup}");
    let before = sql(&cluster, digest).await;
    sql(&cluster, "DELETE FROM people").await;

    let text = said(&place.ask(&["backup", "list"]));
    assert!(text.contains(&id[..8]) && text.contains("not yet") && text.contains("the same file system"), "{text}");
    let listed = fine(&place, &["backup", "list"]);
    let one = &listed["backups"][0];
    assert_eq!((&one["id"], &one["cluster"], &one["proven"]), (&id.as_str().into(), &"main".into(), &Value::Null));
    assert_eq!(one["source"], "direct");
    assert!(one["stop_lsn"].is_string() && one["bytes"].as_u64() > Some(1 << 20), "{one}");
    expect(&place.ask(&["backup", "show", &id[..8]]), 0, &[&id, "PostgreSQL", "restores to", "not yet"]);
    expect(&place.ask(&["backup", "check", "--deep"]), 0, &["the one backup can be restored"]);

    let pgdata = cluster.data_dir();
    let pgdata = pgdata.to_str().unwrap();
    expect(&place.ask(&["restore", "--pgdata", pgdata]), 3, &["is not empty", "hint:"]);
    cluster.kill9().unwrap();
    fs::remove_dir_all(pgdata).unwrap();
    let planned = fine(&place, &["restore", "latest", "--pgdata", pgdata, "--dry-run"]);
    assert!(planned["dry_run"] == true && !Path::new(pgdata).exists(), "{planned}");
    let restored = fine(&place, &["restore", &id[..8], "--pgdata", pgdata]);
    let start = restored["start_command"].as_str().unwrap().to_owned();

    // The very command that is printed.
    let started = Command::new("sh").args(["-c", &start]).stdin(Stdio::null()).output().unwrap();
    let running = Running(pgdata.to_owned());
    assert!(started.status.success(), "{start}\n{}", said(&started));
    assert_eq!(sql(&cluster, digest).await, before);
    assert_eq!(sql(&cluster, "SHOW archive_mode").await, "off");
    drop(running);
}

#[tokio::test]
async fn a_backup_is_proven_and_so_is_another_tools() {
    let Some(cluster) = cluster(&[]) else { return };
    sql(&cluster, "CREATE TABLE people AS SELECT g AS id FROM generate_series(1, 1000) g").await;
    let query = |expect: &str| {
        format!(
            "[[backup.proof]]\ndatabase = \"postgres\"\nsql = \"select count(*) from people\"\nexpect = \"{expect}\"\n"
        )
    };
    let place = place(&cluster.url("postgres"), &query("1000"));
    let scratch = tempfile::Builder::new().prefix("oxp-proof").tempdir().unwrap();
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let scratch = scratch.path().to_str().unwrap();
    fine(&place, &["backup", "init"]);
    let planned = fine(&place, &["backup", "create", "--dry-run"]);
    assert!(planned["dry_run"] == true && planned["plan"]["bytes"].as_u64() > Some(1 << 20), "{planned}");
    assert_eq!(fine(&place, &["backup", "list"])["backups"].as_array().map(Vec::len), Some(0));
    let id = fine(&place, &["backup", "create"])["id"].as_str().unwrap().to_owned();

    let proven = fine(&place, &["backup", "prove", "--scratch", scratch]);
    let receipt = &proven["receipt"];
    assert_eq!((&receipt["verdict"], &receipt["subject"]["id"]), (&"proven".into(), &id.as_str().into()), "{proven}");
    assert_eq!((&receipt["queries"][0]["outcome"], &receipt["queries"][0]["got"]), (&"passed".into(), &"1000".into()));
    let listed = &fine(&place, &["backup", "list"])["backups"][0];
    assert!(listed["proven"] == true && listed["recovery_time_ms"].as_u64() > Some(0), "{listed}");
    expect(&place.ask(&["backup", "list"]), 0, &["up again in"]);
    expect(&place.ask(&["backup", "show", &id]), 0, &["proven", "up again"]);

    // What a tool of the user's restores, without a repository of ours.
    let copy = place.path().join("copy");
    fine(&place, &["restore", "--pgdata", copy.to_str().unwrap()]);
    place.configure(&cluster.url("postgres"), &format!("\n{}", query("1")));
    let command = format!("cp -a {}/. {{pgdata}}", copy.display());
    let programs = cluster.installation().bin_dir.display().to_string();
    let arguments = ["backup", "prove", "--with", &command, "--scratch", scratch, "--pg-bin", &programs];
    let output = place.ask(&arguments);
    expect(&output, 1, &["FAILED", "\"1000\"", "expected \"1\""]);
    place.configure(&cluster.url("postgres"), &format!("\n{}", query("1000")));
    let with = fine(&place, &arguments);
    assert_eq!(with["receipt"]["verdict"], "proven", "{with}");
    expect(&place.ask(&["backup", "prove", "--with", "true", "--scratch", scratch]), 2, &["{pgdata}", "hint:"]);
    assert_eq!(fs::read_dir(scratch).unwrap().count(), 0, "nothing is left in the scratch directory");
}

/// A server that a printed command started.
struct Running(String);

impl Drop for Running {
    fn drop(&mut self) {
        let file = Path::new(&self.0).join("postmaster.pid");
        let pid = || fs::read_to_string(&file).ok()?.lines().next()?.parse().ok();
        let pid = pid().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
            let gone = |_: &u32| rustix::process::test_kill_process(pid).is_err();
            let _ = (0..500).find(|n| {
                std::thread::sleep(std::time::Duration::from_millis(20));
                gone(n)
            });
        }
    }
}

#[test]
fn mistakes_with_the_repository_have_their_codes_and_hints() {
    let place = place("postgresql:///postgres?host=/nonexistent", "");
    expect(&place.ask(&["backup", "list"]), 2, &["there is no repository at", "oxpecker backup init"]);
    expect(&place.ask(&["restore", "--pgdata", "/nonexistent/x"]), 2, &["there is no repository at"]);
    fine(&place, &["backup", "init"]);
    let key = fs::read(place.path().join("repository.key")).unwrap();
    expect(&place.ask(&["backup", "init"]), 3, &["there is a repository", "hint:"]);
    assert_eq!(fs::read(place.path().join("repository.key")).unwrap(), key, "the key of what is there stays");
    expect(&place.ask(&["backup", "create"]), 4, &["PostgreSQL", "hint:"]);
    expect(&place.ask(&["backup", "show"]), 2, &["no backup of the cluster \"main\"", "backup create"]);
    expect(&place.ask(&["restore", "abc", "--pgdata", "/nonexistent/x"]), 2, &["abc", "oxpecker backup list"]);
    let mapping = ["restore", "--pgdata", "/nonexistent/x", "--tablespace-mapping", "a"];
    expect(&place.ask(&mapping), 2, &["OLD=NEW"]);

    let wrong = place.secret("wrong", "correct horse battery staple");
    let wrong = wrong.to_str().unwrap();
    expect(&place.ask(&["backup", "list", "--passphrase-file", wrong]), 2, &["no key slot", "1 of kind key file"]);
    let other = place.secret("other.key", &"a1".repeat(32));
    expect(&place.ask(&["backup", "list", "--key-file", other.to_str().unwrap()]), 2, &["no key slot", "hint:"]);
    expect(&place.ask(&["backup", "list", "--passphrase-file", "/nonexistent"]), 2, &["/nonexistent", "hint:"]);
    let short = place.secret("short", "short");
    expect(&place.ask(&["backup", "list", "--passphrase-file", short.to_str().unwrap()]), 2, &["fewer than 12"]);
    let elsewhere = ["backup", "list", "--repository", "file:///nonexistent/repository"];
    expect(&place.ask(&elsewhere), 2, &["there is no repository at /nonexistent/repository"]);
    expect(&place.ask(&["backup", "list", "--repository", "s3://bucket"]), 2, &["s3://", "hint:"]);
    for misspelt in
        ["[backup]\nshedule = \"0 3 * * *\"", "[repository]\nkeyfile = \"/x\"", "[backup]\nkeep = { dayly = 1 }"]
    {
        fs::write(place.path().join("bad.toml"), misspelt).unwrap();
        let output = crate::harness::run_in(place.path(), &["--config", "bad.toml", "backup", "list"]);
        expect(&output, 2, &["bad.toml", "did you mean"]);
    }
}

#[test]
fn nobody_is_asked_where_nobody_is() {
    let place = Place::new();
    place.configure("postgresql:///postgres?host=/nonexistent", "");
    expect(&place.ask(&["backup", "list"]), 2, &["no repository is configured", "hint:"]);
    let url = format!("file://{}", place.path().join("repository").display());
    expect(&place.ask(&["backup", "init", "--repository", &url]), 2, &["nothing says what shall open", "key_file"]);
    let passphrase = place.secret("passphrase", "correct horse battery staple\n");
    let passphrase = passphrase.to_str().unwrap();
    expect(&place.ask(&["backup", "init", "--repository", &url, "--passphrase-file", passphrase]), 0, &["passphrase"]);
    expect(
        &place.ask(&["backup", "list", "--repository", &url]),
        2,
        &["nothing says what opens", "OXPECKER_REPOSITORY_PASSPHRASE"],
    );
    let mut command = oxpecker();
    command.current_dir(place.path()).args(["backup", "list", "--repository", &url]);
    command.env("OXPECKER_REPOSITORY_PASSPHRASE", "correct horse battery staple");
    expect(&command.output().unwrap(), 0, &["no backup"]);
    expect(
        &place.ask(&["key", "remove", "no hexadecimal", "--repository", &url, "--passphrase-file", passphrase]),
        2,
        &["key slots"],
    );
}

#[test]
fn keys_are_added_confirmed_removed_and_rotated() {
    let place = place("postgresql:///postgres?host=/nonexistent", "");
    fine(&place, &["backup", "init"]);
    let exported = fine(&place, &["key", "export"]);
    let recovery = exported["recovery_key"].as_str().unwrap().to_owned();
    assert_eq!(fine(&place, &["key", "list"])["recovery_key_confirmed"], false);
    expect(&place.ask(&["key", "list"]), 0, &["NOT CONFIRMED", "key file"]);
    // A typing error, another key's shape, and the right one.
    let typo = format!("{}{}", if recovery.starts_with('0') { "1" } else { "0" }, &recovery[1..]);
    expect(&piped(&place, &["key", "confirm"], &typo), 2, &["checksum", "hint:"]);
    expect(&piped(&place, &["key", "confirm"], "  \n"), 2, &["no recovery key"]);
    expect(&piped(&place, &["key", "confirm"], &format!("{}\n", recovery.to_lowercase())), 0, &["confirmed"]);
    assert_eq!(fine(&place, &["key", "list"])["recovery_key_confirmed"], true);

    // The paper alone opens it, on a host that has nothing else.
    let paper = place.secret("paper", &recovery);
    let url = format!("file://{}", place.path().join("repository").display());
    let bare = Place::new();
    let opened = bare.path().join("none.toml");
    fs::write(&opened, "").unwrap();
    let arguments =
        ["--config", "none.toml", "key", "list", "--repository", &url, "--passphrase-file", paper.to_str().unwrap()];
    let mut command = oxpecker();
    command.env("XDG_STATE_HOME", bare.path()).current_dir(bare.path()).args(arguments);
    expect(&command.output().unwrap(), 0, &["recovery key", "confirmed"]);

    let second = place.path().join("second.key");
    let second = second.to_str().unwrap();
    let added = fine(&place, &["key", "add", "--new-key-file", second, "--label", "the other host"]);
    assert_eq!(added["key_file_made"], true);
    expect(&place.ask(&["key", "list", "--key-file", second]), 0, &["the other host"]);
    let slot = added["slot"].as_str().unwrap();
    expect(&place.ask(&["key", "remove", slot]), 3, &["nobody is here to agree", "--yes"]);
    expect(&place.ask(&["key", "remove", &slot[..8], "--yes"]), 0, &["is removed", "key rotate"]);
    expect(&place.ask(&["key", "list", "--key-file", second]), 2, &["no key slot"]);

    expect(&place.ask(&["key", "rotate"]), 3, &["These open the repository now", "--yes"]);
    let rotated = fine(&place, &["key", "rotate", "--yes", "--keep-passphrase-file", paper.to_str().unwrap()]);
    assert_eq!(rotated["recovery_key_confirmed"], true, "{rotated}");
    let rotated = fine(&place, &["key", "rotate", "--yes"]);
    assert_eq!(
        (&rotated["recovery_key_confirmed"], rotated["void"].as_array().map(Vec::len)),
        (&false.into(), Some(1))
    );
    expect(&place.ask(&["key", "list", "--passphrase-file", paper.to_str().unwrap()]), 2, &["no key slot"]);
    let only = fine(&place, &["key", "list"])["slots"][0]["id"].as_str().unwrap().to_owned();
    expect(
        &place.ask(&["key", "remove", &only, "--yes"]),
        3,
        &["no key slot would be left", "hint: add a passphrase or a key file"],
    );
}

#[test]
fn pruning_shows_its_plan_and_asks() {
    let Some(cluster) = cluster(&[]) else { return };
    let place = place(
        &cluster.url("postgres"),
        "[backup]\nkeep = { last = 1, daily = 0, weekly = 0, monthly = 0, point_in_time = \"0s\" }\n",
    );
    fine(&place, &["backup", "init"]);
    let ids: Vec<String> =
        (0..2).map(|_| fine(&place, &["backup", "create"])["id"].as_str().unwrap().to_owned()).collect();
    expect(&place.ask(&["backup", "prune", "--dry-run"]), 0, &["GOES", "stays", "newest", "--dry-run"]);
    let planned = fine(&place, &["backup", "prune", "--dry-run"]);
    assert_eq!((&planned["dry_run"], &planned["done"]), (&true.into(), &Value::Null));
    let kept = |value: &Value| -> Vec<(String, bool)> {
        let all = value["backups"].as_array().unwrap().iter();
        all.map(|b| (b["id"].as_str().unwrap().to_owned(), b["kept"].as_bool().unwrap())).collect()
    };
    assert_eq!(kept(&planned), [(ids[1].clone(), true), (ids[0].clone(), false)]);
    expect(&place.ask(&["backup", "prune"]), 3, &["GOES", "nobody is here to agree", "--yes"]);
    assert_eq!(fine(&place, &["backup", "list"])["backups"].as_array().map(Vec::len), Some(2));
    let pruned = fine(&place, &["backup", "prune", "--yes"]);
    assert_eq!(pruned["done"]["expired"], 1, "{pruned}");
    let left = fine(&place, &["backup", "list"]);
    assert_eq!(
        (left["backups"].as_array().map(Vec::len), &left["backups"][0]["id"]),
        (Some(1), &ids[1].as_str().into())
    );
    expect(&place.ask(&["backup", "check", "--deep"]), 0, &["the one backup"]);
    expect(&place.ask(&["backup", "prune"]), 0, &["0 backups expired"]);
}

#[test]
fn damage_in_the_repository_is_a_finding() {
    let Some(cluster) = cluster(&[]) else { return };
    let place = place(&cluster.url("postgres"), "");
    fine(&place, &["backup", "init"]);
    fine(&place, &["backup", "create"]);
    let pack = largest(&place.path().join("repository").join("pack"));
    let mut bytes = fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::set_permissions(&pack, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&pack, bytes).unwrap();
    expect(&place.ask(&["backup", "check", "--deep"]), 1, &["damaged", "NO BACKUP CAN BE RESTORED WHOLE"]);
    let report = place.json(&["backup", "check", "--deep"]);
    assert_eq!((&report["clean"], report["report"]["restorable"].as_array().map(Vec::len)), (&false.into(), Some(0)));
    let target = place.path().join("data");
    let target = target.to_str().unwrap();
    expect(&place.ask(&["restore", "--pgdata", target, "--jobs", "1"]), 4, &["hint:"]);
    assert!(!Path::new(target).join("global/pg_control").exists(), "what is half restored can't start");
}

fn largest(directory: &Path) -> std::path::PathBuf {
    let mut files = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => directories.push(entry.path()),
                false => files.push(entry.path()),
            }
        }
    }
    files.into_iter().max_by_key(|file| fs::metadata(file).unwrap().len()).unwrap()
}

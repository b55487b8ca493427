//! Mistakes that people make with backups: what is said of each, and the exit code. None needs a server.

use std::{
    ffi::OsString,
    fs::{self, File},
    os::unix::{ffi::OsStringExt as _, fs::PermissionsExt as _, fs::symlink},
    process::{Command, Output, Stdio},
};

use crate::harness::{Place, oxpecker, said};

/// A place with a repository in it.
fn made() -> Place {
    let place = Place::new();
    let (repository, key) = (place.path().join("repository"), place.path().join("key"));
    let more = format!("\n[repository]\nurl = \"file://{}\"\nkey_file = {key:?}\n", repository.display());
    place.configure("postgresql:///postgres?host=/nonexistent", &more);
    let output = place.ask(&["backup", "init"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    place
}

fn command(place: &Place, arguments: &[OsString]) -> Command {
    let mut command = oxpecker();
    command.current_dir(place.path()).arg("--config").arg(place.path().join("oxpecker.toml")).args(arguments);
    command
}

/// What every error of ours is: words with a hint on stderr, nothing on stdout, no trace of the language it is written in.
#[track_caller]
fn expect(output: &Output, code: i32, says: &[&str]) {
    let text = said(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(output.stdout.is_empty() && text.contains("error: "), "{text}");
    assert!(text.contains("hint: ") || text.contains("try '--help'"), "no advice: {text}");
    for part in says {
        assert!(text.contains(part), "does not say {part:?}: {text}");
    }
    for part in ["panicked", "unwrap", "Err(", "Some(", "StoreError", "IoError", "kind:"] {
        assert!(!text.contains(part), "shows {part:?}: {text}");
    }
}

#[test]
fn each_mistake_has_its_words_and_its_code() {
    let place = made();
    let at = |name: &str| place.path().join(name).display().to_string();
    let url = |name: &str| format!("file://{}", at(name));
    fs::write(at("file"), "a file").unwrap();
    fs::write(at("bytes"), b"\xff\xfe no text, and as long as a key file is").unwrap();
    fs::create_dir(at("empty")).unwrap();
    fs::create_dir(at("full")).unwrap();
    fs::write(at("full/something"), "").unwrap();
    fs::create_dir_all(at("data/base")).unwrap();
    fs::write(at("data/PG_VERSION"), "17\n").unwrap();
    symlink("/nonexistent", at("dangling")).unwrap();
    let long = "x".repeat(300);
    let label = "x".repeat(201);

    let rows: &[(&[&str], i32, &[&str])] = &[
        // The repository.
        (&["backup", "list", "--repository", &url("nothing")], 2, &["there is no repository at", "backup init"]),
        (&["backup", "list", "--repository", &url("empty")], 2, &["there is no repository at", "backup init"]),
        (&["backup", "list", "--repository", &url("file")], 2, &["can't open the directory", "Not a directory"]),
        (&["backup", "list", "--repository", &url("file/x")], 2, &["can't open the directory", "Not a directory"]),
        (&["backup", "list", "--repository", "repository"], 2, &["no address", "file:///"]),
        (&["backup", "list", "--repository", ""], 2, &["no address", "file:///"]),
        (&["backup", "init", "--repository", &url("file"), "--key-file", "new"], 2, &["Not a directory"]),
        (&["backup", "init", "--repository", &url("data/base/r"), "--key-file", "new"], 3, &["data directory"]),
        (&["backup", "init", "--repository", &url("full"), "--key-file", "new"], 3, &["something is there"]),
        (&["backup", "init", "--repository", "file:///proc/x", "--key-file", "new"], 2, &["/proc/x"]),
        (
            &["backup", "init", "--repository", &url("new"), "--key-file", &at("no/key")],
            2,
            &["can't make the key file"],
        ),
        // What opens it.
        (&["backup", "list", "--key-file", &at("empty")], 2, &["can't read the key file", "Is a directory"]),
        (&["backup", "list", "--key-file", &at("file")], 2, &["has 6 bytes", "right file?"]),
        (&["backup", "list", "--key-file", &at("bytes")], 2, &["no key slot"]),
        (&["backup", "list", "--passphrase-file", &at("bytes")], 2, &["UTF-8", "one line of text"]),
        (&["backup", "list", "--passphrase-file", &at("empty")], 2, &["Is a directory"]),
        (&["backup", "list", "--key-file", "a", "--passphrase-file", "b"], 2, &["cannot be used with"]),
        // Backups and where they go.
        (&["backup", "show", "zz"], 2, &["\"zz\" names 0 backups"]),
        (&["backup", "show", "LATEST"], 2, &["no backup of the cluster \"main\""]),
        (&["backup", "prove", "0", "--with", "true {pgdata}"], 2, &["cannot be used with"]),
        (&["backup", "prove", "--pg-bin", &at("empty")], 2, &["no `postgres` in"]),
        (&["backup", "prove", "--scratch", &at("file")], 2, &["is no directory"]),
        (&["restore"], 2, &["--pgdata"]),
        (&["restore", "--pgdata", &at("file")], 2, &["can't restore to", "is no directory"]),
        (&["restore", "--pgdata", &at("file/x/y")], 2, &["can't restore to", "is no directory"]),
        (&["restore", "--pgdata", &at("dangling")], 2, &["a symbolic link to no directory"]),
        (&["restore", "--pgdata", &at("dangling/x")], 2, &["a symbolic link to no directory"]),
        (&["restore", "--pgdata", &at(&long)], 2, &["too long", "a shorter path"]),
        (&["restore", "--pgdata", &at("repository/data")], 3, &["it lies in the repository"]),
        (&["restore", "--pgdata", &at("new"), "--at", "yesterday-ish"], 2, &["--at"]),
        (&["restore", "--pgdata", &at("new"), "--jobs", "0"], 2, &["--jobs"]),
        (&["backup", "prune", "--release-hold", "abc", "--dry-run"], 2, &["cannot be used with"]),
        // Keys.
        (&["key", "remove", "zz"], 2, &["names 0 key slots"]),
        (&["key", "add", "--new-key-file", "a", "--new-passphrase-file", "b"], 2, &["cannot be used with"]),
        (&["key", "add", "--new-key-file", &at("new"), "--label", &label], 2, &["up to 200 characters"]),
        (&["key", "export", "--label", "red \x1b[31m"], 2, &["one line"]),
        (&["key", "rotate", "--yes", "--keep-key-file", &at("nothing")], 2, &["No such file"]),
    ];
    for (arguments, code, says) in rows {
        let arguments: Vec<OsString> = arguments.iter().map(Into::into).collect();
        expect(&command(&place, &arguments).output().unwrap(), *code, says);
    }
    assert!(!place.path().join("new").exists(), "nothing half made is left");
    for option in ["--pgdata", "--scratch", "--key-file", "--new-key-file"] {
        let strange = OsString::from_vec(b"strange\xff".to_vec());
        let command_for = |words: &[&str]| {
            let words = words.iter().map(OsString::from).chain([option.into(), strange.clone()]);
            command(&place, &words.collect::<Vec<_>>())
        };
        let (words, made): (&[&str], bool) = match option {
            "--pgdata" => (&["restore"], false),
            "--scratch" => (&["backup", "prove"], false),
            "--key-file" => (&["backup", "init", "--repository", &url("other"), "--output", "json"], true),
            _ => (&["key", "add", "--output", "json"], true),
        };
        let output = command_for(words).output().unwrap();
        if made {
            // A name is a name: what is shown of it is as near as JSON comes.
            assert_eq!(output.status.code(), Some(0), "{}", said(&output));
            let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            assert!(document.to_string().contains("strange\u{fffd}"), "{document}");
        } else {
            expect(&output, 2, &["is not UTF-8"]);
        }
    }
}

#[test]
fn who_may_not_is_told_what_and_where() {
    let place = made();
    let repository = place.path().join("repository");
    fs::set_permissions(&repository, fs::Permissions::from_mode(0o000)).unwrap();
    let mut powerless = Command::new("setpriv");
    if rustix::process::geteuid().is_root() {
        // Root without the power to pass by modes.
        powerless.args(["--bounding-set", "-dac_override,-dac_read_search"]);
    }
    powerless.arg("--").arg(oxpecker().get_program()).args(["backup", "list", "--repository"]);
    powerless.arg(format!("file://{}", repository.display())).arg("--key-file").arg(place.path().join("key"));
    let output = powerless.current_dir(place.path()).stdin(Stdio::null()).output().unwrap();
    fs::set_permissions(&repository, fs::Permissions::from_mode(0o750)).unwrap();
    if String::from_utf8_lossy(&output.stderr).starts_with("setpriv: ") {
        println!("skipped: root can't give up its power here: {}", said(&output));
        return;
    }
    let shown = repository.display().to_string();
    expect(&output, 2, &["can't open the directory", &shown, "Permission denied", "which user"]);
}

#[test]
fn whoever_reads_what_is_said_may_go() {
    let place = made();
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    let list = |words: &[&str]| command(&place, &words.iter().map(Into::into).collect::<Vec<_>>());
    for format in ["text", "json"] {
        for words in [&["backup", "list"][..], &["backup", "check"], &["key", "list"], &["key", "export"]] {
            let mut onto_a_full_disk = list(&[words, &["--output", format]].concat());
            let output = onto_a_full_disk.stdout(full()).stderr(Stdio::piped()).output().unwrap();
            expect(&output, 4, &["can't be written to standard output", "No space left"]);
            // A reader that has gone before anything is written.
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            let mut into_nothing = list(&[words, &["--output", format]].concat());
            let output = into_nothing.stdout(writer).stderr(Stdio::piped()).output().unwrap();
            assert_eq!(output.status.code(), Some(0), "{}", said(&output));
            assert!(output.stderr.is_empty(), "{}", said(&output));
        }
    }
    // The words of an error are lost, its code is not.
    let status = list(&["backup", "show", "zz"]).stderr(full()).stdout(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(2));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = list(&["backup", "show", "zz"]).stderr(writer).stdout(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(2));
}

/// Nothing that guards depends on its own disk: not even on that of its log.
#[test]
fn a_guard_outlives_its_log() {
    let place = Place::new();
    place.configure("postgresql:///postgres?host=/nonexistent", "");
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    let mut guard = command(&place, &["run".into(), "-v".into()]).stdout(full()).stderr(full()).spawn().unwrap();
    let status = place.await_status("a guard that can't log", |status| status["pid"].is_number());
    let ended = guard.try_wait().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_child(&guard), rustix::process::Signal::TERM).unwrap();
    assert_eq!((ended, guard.wait().unwrap().code()), (None, Some(0)), "{status}");
}

//! What the program asks a person at a terminal, and what becomes of each answer.

use std::{path::Path, process::Stdio, time::Instant};

use serde_json::Value;

use crate::{
    harness::{PATIENCE, Place, oxpecker, said},
    terminal::{CTRL_C, CTRL_D, ENTER, Terminal},
};

const PASSPHRASE: &str = "correct horse battery staple";
const ANOTHER: &str = "a quite different passphrase";

/// A place with a configuration that names a repository, and nothing that opens it.
fn empty() -> Place {
    let place = Place::new();
    let url = format!("file://{}", place.path().join("repository").display());
    place.configure("postgresql:///postgres?host=/nonexistent", &format!("\n[repository]\nurl = \"{url}\"\n"));
    place
}

fn at(place: &Place, arguments: &[&str]) -> Terminal {
    Terminal::start(place.path(), arguments)
}

fn enter(text: &str) -> String {
    format!("{text}{ENTER}")
}

/// A repository and the key file that opens it, which is quick: no guess at a key file has to be made dear.
fn made() -> (Place, String) {
    let place = empty();
    let file = place.path().join("key").display().to_string();
    let output = place.ask(&["backup", "init", "--key-file", &file]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    (place, file)
}

fn json(place: &Place, file: &str, arguments: &[&str]) -> Value {
    place.json(&[arguments, &["--key-file", file]].concat())
}

#[test]
fn a_new_passphrase_is_asked_for_twice_and_never_shown() {
    let place = empty();
    let mut terminal = at(&place, &["backup", "init"]);
    terminal.shows("New passphrase: ").types(&enter(PASSPHRASE));
    terminal.shows("The same again: ").types(&enter(PASSPHRASE));
    terminal.ends().expect(0, &["made the repository", "opened by: passphrase", "NOT PROTECTED"], &["horse"]);

    let mut terminal = at(&place, &["backup", "list"]);
    terminal.shows("Passphrase or recovery key: ").types(&enter(PASSPHRASE));
    terminal.ends().expect(0, &["no backup in"], &["horse"]);
    let mut terminal = at(&place, &["backup", "list"]);
    terminal.shows("Passphrase or recovery key: ").types(&enter(ANOTHER));
    terminal.ends().expect(2, &["no key slot", "hint:"], &["different"]);
    // A mistake that was rubbed out is none.
    let mut terminal = at(&place, &["backup", "list"]);
    terminal.shows("Passphrase or recovery key: ").types(&format!("{PASSPHRASE}xx\x7f\x7f{ENTER}"));
    terminal.ends().expect(0, &["no backup in"], &["horse"]);
}

#[test]
fn whoever_breaks_off_or_mistypes_makes_nothing() {
    let twice = |first: &str, second: &str| (enter(first), Some(second.to_owned()));
    let once = |keys: &str| (keys.to_owned(), None);
    for ((first, second), code, says) in [
        (twice(PASSPHRASE, &enter(ANOTHER)), 2, "the two passphrases differ"),
        (twice(PASSPHRASE, ENTER), 2, "the two passphrases differ"),
        (twice(PASSPHRASE, CTRL_C), 3, "broken off at the prompt: nothing more was done"),
        (twice(PASSPHRASE, CTRL_D), 3, "the input ended at the prompt: nothing more was done"),
        (once(ENTER), 2, "has 0 characters, fewer than 12"),
        (once(&enter("too short")), 2, "has 9 characters, fewer than 12"),
        (once(&format!("half a passphrase{CTRL_C}")), 3, "broken off at the prompt: nothing more was done"),
        (once("\x1c"), 3, "broken off at the prompt: nothing more was done"),
        (once(CTRL_D), 3, "the input ended at the prompt: nothing more was done"),
        (once(&enter("with a Ctrl-Z \x1a in it")), 2, "a control character"),
    ] {
        let place = empty();
        let mut terminal = at(&place, &["backup", "init"]);
        terminal.shows("New passphrase: ").types(&first);
        if let Some(second) = second {
            terminal.shows("The same again: ").types(&second);
        }
        terminal.ends().expect(code, &[says], &["horse", "different", "too short", "half", "with a"]);
        assert!(!place.path().join("repository").exists(), "{says}");
        assert_eq!(std::fs::read_dir(place.path()).unwrap().filter(|e| is_more(e.as_ref().unwrap())).count(), 0);
    }
}

/// More than the configuration and the state directory.
fn is_more(entry: &std::fs::DirEntry) -> bool {
    entry.file_name() != "oxpecker.toml" && entry.file_name() != "state"
}

#[test]
fn a_recovery_key_is_typed_from_the_paper() {
    let (place, file) = made();
    let key = json(&place, &file, &["key", "export"])["recovery_key"].as_str().unwrap().to_owned();
    let wrong = format!("{}{}", if key.starts_with('0') { "1" } else { "0" }, &key[1..]);
    let confirmed = || json(&place, &file, &["key", "list"])["recovery_key_confirmed"] == true;
    for (keys, code, says) in [
        (enter(&wrong), 2, "checksum"),
        (enter(&key[..key.len() - 5]), 2, "hint:"),
        (enter("   "), 2, "no recovery key was given"),
        (format!("{}{CTRL_C}", &key[..6]), 3, "broken off at the prompt"),
        (CTRL_D.to_owned(), 3, "the input ended at the prompt"),
    ] {
        let mut terminal = at(&place, &["key", "confirm", "--key-file", &file]);
        terminal.shows("The recovery key, from the paper: ").types(&keys);
        terminal.ends().expect(code, &[says], &[]);
        assert!(!confirmed(), "{says}");
    }
    let mut terminal = at(&place, &["key", "confirm", "--key-file", &file]);
    // Whoever copies from paper sees what is typed.
    terminal.shows("The recovery key, from the paper: ").types(&enter(&key.to_lowercase()));
    terminal.ends().expect(0, &["confirmed: this key opens the repository", &key.to_lowercase()[..8]], &[]);
    assert!(confirmed());
    // It opens the repository where a passphrase is asked for, and is not shown there.
    let mut terminal = at(&place, &["key", "list"]);
    terminal.shows("Passphrase or recovery key: ").types(&enter(&key));
    terminal.ends().expect(0, &["recovery key", "confirmed"], &[&key, &key[..8]]);
}

#[test]
fn keys_are_added_removed_and_rotated_by_whoever_agrees() {
    let (place, file) = made();
    let slots = || json(&place, &file, &["key", "list"])["slots"].as_array().unwrap().clone();
    for (keys, code, says) in [
        (CTRL_C.to_owned(), 3, "broken off"),
        (CTRL_D.to_owned(), 3, "the input ended"),
        (enter("short"), 2, "fewer than 12"),
    ] {
        let mut terminal = at(&place, &["key", "add", "--key-file", &file]);
        terminal.shows("New passphrase: ").types(&keys);
        terminal.ends().expect(code, &[says], &["short"]);
    }
    assert_eq!(slots().len(), 1);
    let mut terminal = at(&place, &["key", "add", "--key-file", &file, "--label", "a colleague"]);
    terminal.shows("New passphrase: ").types(&enter(ANOTHER));
    terminal.shows("The same again: ").types(&enter(ANOTHER));
    terminal.ends().expect(0, &["slot ", "a colleague"], &["different"]);
    let both = slots();
    assert_eq!(both.len(), 2);

    let second = both.iter().find(|slot| slot["label"] == "a colleague").unwrap()["id"].as_str().unwrap();
    for command in [&["key", "remove", second][..], &["key", "rotate"]] {
        for (keys, says) in [
            (enter("n"), "nothing was changed"),
            (enter(""), "nothing was changed"),
            (enter("yesterday"), "nothing was changed"),
            (CTRL_C.to_owned(), "broken off at the prompt: nothing more was done"),
            (CTRL_D.to_owned(), "the input ended at the prompt: nothing more was done"),
        ] {
            let mut terminal = at(&place, &[command, &["--key-file", &file]].concat());
            terminal.shows("[y/N] ").types(&keys);
            terminal.ends().expect(3, &["a colleague", says], &[]);
            assert_eq!(slots(), both, "{command:?} {keys:?}");
        }
    }
    let mut terminal = at(&place, &["key", "rotate", "--key-file", &file]);
    terminal.shows("These open the repository now").shows("[y/N] ").types(&enter("Yes"));
    terminal.ends().expect(0, &["sealed with a new key", "void:", "a colleague"], &[]);
    assert_eq!(slots().len(), 1);
}

/// Each command that asks, where stdin is a pipe that nobody writes to: it says at once what to give instead.
#[test]
fn a_pipe_is_not_waited_for() {
    let (place, file) = made();
    let bare = empty();
    let slot = json(&place, &file, &["key", "list"])["slots"][0]["id"].as_str().unwrap().to_owned();
    let rows: [(&Path, &[&str], i32, &str); 6] = [
        (bare.path(), &["backup", "init"], 2, "key_file"),
        (place.path(), &["backup", "list"], 2, "--passphrase-file"),
        (place.path(), &["restore", "--pgdata", "/nonexistent/x"], 2, "--passphrase-file"),
        (place.path(), &["key", "add", "--key-file", &file], 2, "--new-passphrase-file"),
        (place.path(), &["key", "remove", &slot, "--key-file", &file], 3, "--yes"),
        (place.path(), &["key", "rotate", "--key-file", &file], 3, "--yes"),
    ];
    for (dir, arguments, code, says) in rows {
        let mut command = oxpecker();
        command.current_dir(dir).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let silent = child.stdin.take();
        let began = Instant::now();
        let ended = loop {
            if child.try_wait().unwrap().is_some() {
                break true;
            }
            if began.elapsed() > PATIENCE {
                child.kill().unwrap();
                break false;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        };
        let output = child.wait_with_output().unwrap();
        drop(silent);
        let text = said(&output);
        assert!(ended, "{arguments:?} waits for stdin: {text}");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains("hint:") && text.contains(says), "{arguments:?}: {text}");
    }
    assert!(!bare.path().join("repository").exists());
}

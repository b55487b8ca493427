//! A real boot that ends without a word: a node is killed and booted again, and what is left of it is read from its own files.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and says why it skips")]

use std::fs;

use jiff::Timestamp;
use model::event::{Confidence, DeathCause};
use scratch::node::Node;
use services::{
    boot,
    evidence::host::{Asked, host},
};

#[test]
fn a_node_that_is_killed_died_of_nothing_that_it_wrote_down() {
    let Ok(builder) = Node::builder().map_err(|error| println!("skipped: {error}")) else { return };
    let mut node = builder.boot().unwrap();
    // From the next boot on its journal is kept.
    fs::create_dir_all(node.root().join("var/log/journal")).unwrap();
    node.kill9().unwrap();
    node.boot_again().unwrap();
    let began = Timestamp::now();
    let boot_id = node.run("cat", &["/proc/sys/kernel/random/boot_id"]).unwrap().trim().to_owned();
    node.run("systemd-cat", &["-t", "oxpecker", "echo", "a last word"]).unwrap();
    node.run("journalctl", &["--sync"]).unwrap();
    node.kill9().unwrap();
    node.boot_again().unwrap();
    assert_ne!(node.run("cat", &["/proc/sys/kernel/random/boot_id"]).unwrap().trim(), boot_id);

    let asked = Asked { root: node.root(), boot_id, newest_record: Some(began), guard_stopped: false };
    // Its kernel is the host's, which did not die: only the node's own files are its own.
    let facts = host(&asked);
    let log = facts.log.read().unwrap_or_else(|| panic!("{:?}", facts.log));
    assert!(log.newest >= Some(began) && log.marks.is_empty(), "{log:?}");
    let death = boot::host(&facts);
    assert_eq!((death.established, death.after), (None, log.newest), "{death:#?}");
    let stopped = death.hypotheses.iter().find(|one| one.cause == DeathCause::Stopped).unwrap();
    assert_eq!(stopped.confidence, Confidence::Excluded, "{stopped:?}");
}

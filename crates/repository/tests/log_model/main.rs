//! The log's protocol under many writers: they race, crash at any operation, lose replies, sleep through their own replacement, and
//! their requests arrive late. An observer that sees the bare store checks after every operation that changes anything that no committed reference
//! was ever hit.
//!
//! Every run is decided by its seed: the threads take turns, one operation of the store at a time, and a failure names the seed.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "test helpers, which clippy does not take for tests")]

mod actors;
mod seal;
mod world;

use std::sync::Arc;

use actors::{Habits, Role};
use world::{Tally, World};

fn run(seed: u64, habits: Habits) -> Result<Tally, String> {
    let roles = [
        Role::Writer("red"),
        Role::Writer("red"),
        Role::Writer("blue"),
        Role::Reader,
        Role::Collector,
        Role::Collector,
        Role::Receiver,
    ];
    let world = Arc::new(World::new(seed, roles.len()));
    std::thread::scope(|scope| {
        for (id, role) in roles.into_iter().enumerate() {
            let world = Arc::clone(&world);
            scope.spawn(move || actors::live(&world, id, role, habits));
        }
    });
    world.finish()?;
    actors::clean_up(&world)?;
    world.verdict()
}

/// What must have happened for the runs to prove anything.
const NEEDED: &[&str] = &[
    "commit",
    "draft",
    "revival",
    "takeover",
    "close",
    "prove",
    "expire",
    "condemn",
    "delete",
    "deleted",
    "orphan",
    "late arrival",
    "wal-expire",
    "cut",
    "WAL removed",
    "refused: SessionEnded",
    "refused: PackDeleting",
    "refused: NoPack",
    "refused: WalExpired",
    "refused: WalNeeded",
    "refused: WalHeld",
];

fn runs(seeds: std::ops::Range<u64>) {
    let mut all = Tally::new();
    for seed in seeds {
        match run(seed, Habits::default()) {
            Ok(tally) => tally.into_iter().for_each(|(what, count)| *all.entry(what).or_default() += count),
            Err(what) => panic!("seed {seed}: {what}"),
        }
    }
    println!("{all:#?}");
    for what in NEEDED {
        assert!(all.contains_key(*what), "no {what} in all runs: {all:?}");
    }
}

#[test]
fn no_removal_ever_hits_a_committed_reference() {
    runs(0..200);
}

#[test]
fn slow_no_removal_in_thousands_of_runs() {
    runs(10_000..11_800);
}

#[test]
fn slow_no_removal_in_thousands_of_other_runs() {
    runs(20_000..21_800);
}

/// The model must see a fault when there is one.
fn is_found(habits: Habits) {
    let found = (0..400).find_map(|seed| run(seed, habits).err());
    let what = found.expect("four hundred runs of a broken protocol, and the observer saw nothing");
    assert!(what.contains("is gone") || what.contains("stays"), "{what}");
}

#[test]
fn a_collector_that_deletes_what_is_only_condemned_is_found() {
    is_found(Habits { deletes_unannounced: true, ..Habits::default() });
}

#[test]
fn a_cleaner_that_takes_open_sessions_for_dead_is_found() {
    is_found(Habits { cleans_in_work: true, ..Habits::default() });
}

#[test]
fn a_writer_that_commits_before_its_packs_are_there_is_found() {
    is_found(Habits { commits_early: true, ..Habits::default() });
}

#[test]
fn a_pruner_that_removes_more_wal_than_the_log_let_go_is_found() {
    is_found(Habits { prunes_unannounced: true, ..Habits::default() });
}

//! Disks that are full, on either side, and one that takes no writes: file systems of their own, in a mount namespace of their own.

use std::{process::Command, sync::Arc, thread, time::Duration};

use repository::{KdfCost, Options, Repository, Secret, store::LocalStore};
use scratch::ScratchCluster;
use wal::receive::Event;

use crate::{
    apart::{apart, mounted, ran},
    support::*,
};

pub fn of_the_store_is_full(major: u32) {
    apart("store-full", major);
}

pub fn of_the_store_takes_no_writes(major: u32) {
    apart("store-read-only", major);
}

pub fn of_the_server_is_full(major: u32) {
    apart("pg-wal-full", major);
}

/// A repository on a file system of its own.
fn on_a_disk(options: &str) -> Option<(tempfile::TempDir, Repository)> {
    let place = tempfile::tempdir().unwrap();
    if !mounted(place.path(), options) {
        println!("skipped: no file system of one's own is to be had here");
        return None;
    }
    let store = Arc::new(LocalStore::create(&place.path().join("repository")).unwrap());
    let options = Options { cost: KdfCost::CHEAP, ..Options::default() };
    let secret = Secret::passphrase("correct horse battery").unwrap();
    Some((place, Repository::create(store, &options, &secret, "test", serde_json::Value::Null).unwrap()))
}

fn remount(place: &std::path::Path, options: &str) {
    assert!(ran("mount", &format!("-o remount,{options} {}", place.display())));
}

/// Receives into it, makes it fail, writes on, mends it: says `words` while it fails, holds up nobody, and has everything in the end.
fn fails_and_is_mended(major: u32, disk: &str, breaks: &str, mended: &str, words: &str) {
    let Some(builder) = keeping(major) else { return };
    let mut cluster = builder.start().unwrap();
    let Some((place, repository)) = on_a_disk(disk) else { return };
    let wal = wal_of(&repository, &cluster);
    let from = now(&cluster);
    let receiver = Receiver::start(&options(&cluster), &repository);
    receiver.until_connected(&cluster);
    write(&cluster);
    receiver.until_acknowledged(&cluster, now(&cluster));
    if !breaks.is_empty() {
        remount(place.path(), breaks);
    }
    let fails = |receiver: &Receiver| {
        receiver.told().iter().any(|event| matches!(event, Event::StoreFailing { error, .. } if error.contains(words) && error.contains("hint: ")))
    };
    for _ in 0..60 {
        switch(&cluster);
        if fails(&receiver) {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    receiver.until("it says why", &cluster, || fails(&receiver));
    // A server that is asked to stop does, and comes back.
    cluster.stop_fast().unwrap();
    cluster.start_again().unwrap();
    switch(&cluster);
    remount(place.path(), mended);
    let end = switch(&cluster);
    receiver.until_acknowledged(&cluster, end);
    assert_stored(&wal, 1, &cluster, from, end);
    let told = receiver.stop();
    assert!(!told.iter().any(|event| matches!(event, Event::Gap { .. } | Event::SlotLost { .. })), "{told:#?}");
}

pub fn store_full(major: u32) {
    fails_and_is_mended(major, "size=6m", "", "size=128m", "No space left on device");
}

pub fn store_read_only(major: u32) {
    fails_and_is_mended(major, "size=128m", "ro", "rw", "Read-only file system");
}

/// Writes until the server has no room for its WAL and dies of it.
fn fill(cluster: &ScratchCluster) {
    for _ in 0..200 {
        let written = try_sql(
            cluster,
            &[
                "insert into history select i, repeat(md5(random()::text), 8) from generate_series(1, 3000) i",
                "select pg_switch_wal()",
            ],
        );
        if written.is_err() {
            return;
        }
    }
    panic!("it never fills");
}

pub fn pg_wal_full(major: u32) {
    let Some(builder) = keeping(major) else { return };
    let mut cluster = builder.start().unwrap();
    write(&cluster);
    cluster.stop_fast().unwrap();
    let pg_wal = cluster.data_dir().join("pg_wal");
    let aside = copy_of(&pg_wal);
    if !mounted(&pg_wal, "size=16m,mode=0700") {
        return println!("skipped: no file system of one's own is to be had here");
    }
    let copied = Command::new("cp").arg("-a").arg(aside.path().join("data/.")).arg(&pg_wal).status().unwrap();
    assert!(copied.success());
    cluster.give(&pg_wal).unwrap();
    cluster.start_again().unwrap();
    let (_, repository) = repository();
    let wal = wal_of(&repository, &cluster);
    let from = now(&cluster);
    let receiver = Receiver::start(&options(&cluster), &repository);
    receiver.until_connected(&cluster);
    fill(&cluster);
    receiver.until_told("that the server is gone", &cluster, |event| matches!(event, Event::Disconnected { .. }));
    // A person makes room, and starts it again.
    remount(&pg_wal, "size=256m");
    let _ = cluster.kill9();
    cluster.start_again().unwrap();
    let end = switch(&cluster);
    receiver.until_acknowledged(&cluster, end);
    assert_stored(&wal, 1, &cluster, from, end);
    let told = receiver.stop();
    assert!(!told.iter().any(|event| matches!(event, Event::Gap { .. } | Event::SlotLost { .. })), "{told:#?}");
    drop(cluster);
    // The mount is in the directory that goes with the cluster: it ends with this process's namespace.
}

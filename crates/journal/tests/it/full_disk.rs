//! A disk that is really full.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use journal::{AppendError, Journal, JournalHealth, JournalOptions, Lost, Recording, StateDir};
use model::{ByteSize, EventKind};

use crate::support::*;

/// A tmpfs of its own, gone with the value.
struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    /// `None`, with a reason printed, where we may not mount.
    fn new(options: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(dir.path()).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self { dir }),
            Ok(output) => {
                println!("skipped: no tmpfs to be had: {}", String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                println!("skipped: mount can't be run: {error}");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Takes all the space that is left.
    fn fill(&self) -> PathBuf {
        let path = self.path().join("ballast");
        let mut size = 1 << 20;
        let mut all = Vec::new();
        while size > 0 {
            all.resize(all.len() + size, 0);
            if fs::write(&path, &all).is_err() {
                all.truncate(all.len() - size);
                size /= 2;
            }
        }
        // The last attempt failed half way, which left the file as large as can be.
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.dir.path()).status();
    }
}

#[test]
fn a_full_disk_loses_no_alert_and_says_what_it_lost() {
    let Some(disk) = SmallDisk::new("size=1m,mode=700") else { return };
    let options = JournalOptions { backlog: ByteSize(100 << 10), ..hasty() };
    let journal = Journal::open(disk.path(), options).unwrap();
    journal.append(at(0), &noted("before")).wait().unwrap();
    let ballast = disk.fill();

    let body = "x".repeat(4000);
    let started = Instant::now();
    let tickets: Vec<_> = (0..300).map(|n| journal.append(at(n), &noted(format!("{n} {body}")))).collect();
    assert!(started.elapsed() < Duration::from_secs(2), "appending took {:?}", started.elapsed());
    let failing = until(&journal, "the failure", |health| !health.is_ok());
    assert!(matches!(&failing.recording, Recording::Failing { error, .. } if error.contains("full")), "{failing:?}");
    let refused = tickets
        .iter()
        .filter(|ticket| matches!(ticket.wait_for(Duration::ZERO), Some(Err(AppendError::BacklogFull { .. }))))
        .count() as u64;
    assert!(refused > 100, "{refused} refused: the disk was not full");

    fs::remove_file(ballast).unwrap();
    until(&journal, "recovery", |health| health.is_ok() && health.waiting_events == 0);
    let outcomes: Vec<_> = tickets.into_iter().map(|ticket| ticket.wait_for(PATIENCE).expect("an outcome")).collect();
    let kept: Vec<_> =
        outcomes.iter().enumerate().filter_map(|(n, outcome)| Some((n, *outcome.as_ref().ok()?))).collect();
    assert_eq!(kept.len() as u64 + refused, 300);
    journal.close(PATIENCE).unwrap();
    assert_eq!(journal.health().lost, Lost { events: refused, readings: 0 });

    let stored = all_events(disk.path());
    for (n, id) in &kept {
        let event = stored.iter().find(|event| event.id == *id).expect("a promised event");
        assert!(text(event).starts_with(&format!("{n} ")), "{}", text(event));
    }
    let reports: Vec<_> = stored
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::RecordingFailed { lost, .. } => Some(*lost),
            _ => None,
        })
        .collect();
    // More than one where a checkpoint of its own WAL made a little room meanwhile, which was soon full again.
    assert_eq!(reports.iter().sum::<u64>(), refused, "{reports:?}");
    assert!(reports.iter().filter(|lost| **lost > 0).count() >= 1, "{reports:?}");
    assert_eq!(stored.len(), kept.len() + 1 + reports.len(), "nothing twice, nothing else");
}

#[test]
fn a_guard_starts_on_a_full_disk_and_records_when_there_is_space() {
    let Some(disk) = SmallDisk::new("size=1m,mode=700") else { return };
    let ballast = disk.fill();
    let dir = StateDir::claim(disk.path()).unwrap();
    let journal = Journal::open(dir.path(), hasty()).unwrap();
    assert!(!journal.health().is_ok());
    let ticket = journal.append(at(1), &noted("from the start"));
    assert_eq!(ticket.wait_for(Duration::from_millis(100)), None, "it is not there and not given up");
    fs::remove_file(ballast).unwrap();
    ticket.wait_for(PATIENCE).expect("an outcome").unwrap();
    until(&journal, "recovery", JournalHealth::is_ok);
    journal.close(PATIENCE).unwrap();
    let texts: Vec<_> = all_events(disk.path()).iter().map(|event| text(event).to_owned()).collect();
    assert_eq!(texts, ["from the start", "recording_failed"]);
}

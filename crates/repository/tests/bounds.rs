//! Memory stays bounded whatever the size of a backup; what it costs is printed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "test helpers, which clippy does not take for tests"
)]

mod support;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use repository::{Entry, Extent, FRAME_PLAIN_TARGET, Options, Repository, store::LocalStore, store::Store};
use serde_json::Value;
use support::*;

/// The most memory that this process ever used, in MiB. nextest gives every test a process of its own.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

const WRITERS: usize = 4;
const FILES: usize = 64;
const FRAMES: usize = 64;

/// A frame of which a third is noise: about what pages of a database shrink to.
fn fill(frame: &mut [u8], seed: usize) {
    let (noise_part, rest) = frame.split_at_mut(FRAME_PLAIN_TARGET / 3);
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(noise_part);
    let len = noise_part.len();
    rest[..len].copy_from_slice(noise_part);
}

/// Both clocks: on a busy host the wall's says little.
struct Clocks(Instant, Duration);

fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap()
}

impl Clocks {
    fn start() -> Self {
        Self(Instant::now(), cpu())
    }

    fn rate(&self, bytes: u64) -> String {
        let per = |time: Duration| u128::from(bytes) / time.as_micros().max(1);
        format!("{} MB/s, {} MB per second of CPU, peak {} MiB", per(self.0.elapsed()), per(cpu() - self.1), peak_mib())
    }
}

fn run(repository: &Repository) -> repository::BackupId {
    let session = begin(repository);
    std::thread::scope(|scope| {
        for writer_number in 0..WRITERS {
            let session = &session;
            scope.spawn(move || {
                let mut writer = session.writer().unwrap();
                let mut plain = vec![0; FRAME_PLAIN_TARGET];
                for file in (writer_number..FILES).step_by(WRITERS) {
                    let mut extents = Vec::new();
                    for frame in 0..FRAMES {
                        fill(&mut plain, file * FRAMES + frame);
                        extents.push(Extent::Frame(writer.put(&plain).unwrap()));
                    }
                    let size = extents.iter().map(Extent::len).sum();
                    session.entry(&Entry { name: format!("{file}").into(), meta: Vec::new(), size, extents }).unwrap();
                }
            });
        }
    });
    session.commit(&Value::Null).unwrap()
}

#[test]
fn slow_memory_stays_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(LocalStore::open(directory.path()).unwrap());
    let options = Options { pack_target: repository::PACK_TARGET, ..options() };
    let repository = Repository::create(store, &options, &secret(), "test", Value::Null).unwrap();
    let bytes = (FILES * FRAMES * FRAME_PLAIN_TARGET) as u64;

    let start = Clocks::start();
    run(&repository);
    println!("first backup of {} MiB: {}", bytes >> 20, start.rate(bytes));
    assert!(peak_mib() < 200, "{} MiB for four writers", peak_mib());

    let start = Clocks::start();
    let second = run(&repository);
    println!("second backup, unchanged: {}", start.rate(bytes));
    let backups = repository.backups();
    assert!(backups[1].stored_bytes * 100 < backups[0].stored_bytes, "{backups:?}");

    let start = Clocks::start();
    let reader = repository.read(second).unwrap();
    let mut read = 0;
    for entry in reader.entries().map(Result::unwrap) {
        let frames: Vec<_> = entry
            .extents
            .iter()
            .filter_map(|extent| if let Extent::Frame(frame) = extent { Some(*frame) } else { None })
            .collect();
        reader
            .frames(&frames, |_, plain| {
                read += plain.len() as u64;
                Ok::<_, repository::RepositoryError>(())
            })
            .unwrap();
    }
    assert_eq!(read, bytes);
    println!("read by one thread: {}", start.rate(bytes));

    let start = Clocks::start();
    let report = repository.check(true, &|_| {}).unwrap();
    assert!(report.is_clean() && report.packs > 10, "{report:?}");
    println!("deep check: {}", start.rate(bytes));
    assert!(peak_mib() < 200, "{} MiB", peak_mib());
}

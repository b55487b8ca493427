//! How fast pages are checked: `cargo run --release -p pg-format --example checksum_speed`.

use std::{
    hint::black_box,
    io::Write,
    time::{Duration, Instant},
};

use model::Lsn;
use pg_format::page::{Bounds, PageVerdict, checksum, verify};

/// More than the caches of most machines hold of a core's share, so that memory is part of it.
const BYTES: usize = 64 << 20;
const PAGE: usize = 8192;
const FOR: Duration = Duration::from_secs(2);

fn main() -> std::io::Result<()> {
    let mut pages: Vec<u8> =
        (0..BYTES / 4).flat_map(|word: usize| word.wrapping_mul(2_654_435_761).to_le_bytes()[..4].to_vec()).collect();
    for (block, page) in (0..).zip(pages.chunks_exact_mut(PAGE)) {
        page[..24].copy_from_slice(&[0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 24, 0, 0, 32, 0, 32, 4, 32, 0, 0, 0, 0]);
        let sum = checksum(page, block);
        page[8..10].copy_from_slice(&sum.to_le_bytes());
    }
    let bounds = Bounds { start: Lsn(2), insert: Lsn(3), checksums: true };
    let (start, mut bytes) = (Instant::now(), 0u64);
    while start.elapsed() < FOR {
        for (block, page) in (0..).zip(black_box(&pages).chunks_exact(PAGE)) {
            if verify(page, block, &bounds) != PageVerdict::Good {
                return Err(std::io::Error::other("a page that was made well is bad"));
            }
            bytes += PAGE as u64;
        }
    }
    let mib = bytes >> 20;
    let seconds = start.elapsed().as_secs_f64();
    #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = mib as f64 / 1024.0 / seconds;
    writeln!(std::io::stdout(), "{rate:.1} GiB/s")
}

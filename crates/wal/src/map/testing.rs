//! WAL made up for tests: segments of a few records each.

use model::Lsn;
use pg_format::{
    Major,
    wal::{
        Fork, Relation, SegmentSize, Stream,
        testing::{WalWriter, body},
    },
};
use repository::{KdfCost, Options, Repository, Secret, store::MemoryStore, wal::Wal};

use crate::Cluster;

pub(crate) const CLUSTER: Cluster = Cluster {
    system_identifier: 7_301_924_918_273_645_021,
    segment: match SegmentSize::new(1 << 20) {
        Ok(size) => size,
        Err(_) => panic!(),
    },
};
pub(crate) const RELATION: Relation = Relation { tablespace: 1663, database: 5, number: 16_384 };
const HEAP: u8 = 10;

/// Segments one behind the other.
pub(crate) struct Segments {
    previous: u64,
}

impl Segments {
    pub(crate) const fn new() -> Self {
        Self { previous: 1 }
    }

    /// Changes the page of the segment's number, and two more.
    pub(crate) fn segment(&mut self, timeline: u32, number: u64) -> Vec<u8> {
        self.with(timeline, number, |_| {})
    }

    /// As well as what `more` writes.
    pub(crate) fn with(&mut self, timeline: u32, number: u64, more: impl FnOnce(&mut WalWriter)) -> Vec<u8> {
        let stream = Stream {
            major: Major::V17,
            segment_size: CLUSTER.segment,
            block_size: 8192,
            system_identifier: Some(CLUSTER.system_identifier),
        };
        let mut writer = WalWriter::new(stream, CLUSTER.segment.start_of(number).0);
        (writer.previous, writer.timeline) = (self.previous, timeline);
        for block in [u32::try_from(number).unwrap(), 1_000_000, timeline + 2_000_000] {
            writer.record(HEAP, 0, &body(&[(RELATION, Fork::Main, block)], &[7; 300]));
        }
        more(&mut writer);
        writer.switch();
        self.previous = writer.previous;
        writer.bytes
    }
}

/// What an extension writes that nobody knows.
pub(crate) fn unknown(writer: &mut WalWriter) {
    writer.record(130, 0, &body(&[], b"who knows"));
}

pub(crate) fn wal() -> (MemoryStore, Wal) {
    let store = MemoryStore::default();
    let options = Options { cost: KdfCost::CHEAP, ..Options::default() };
    let secret = Secret::passphrase("correct horse battery").unwrap();
    let repository =
        Repository::create(std::sync::Arc::new(store.clone()), &options, &secret, "test", serde_json::Value::Null)
            .unwrap();
    let wal = CLUSTER.open(&repository).unwrap();
    (store, wal)
}

pub(crate) fn start(number: u64) -> Lsn {
    CLUSTER.segment.start_of(number)
}

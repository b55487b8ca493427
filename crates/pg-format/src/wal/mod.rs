//! Write-ahead log: names of segments, page headers, records, and whether a range of it is whole.
//!
//! Sources: PostgreSQL's access/xlog_internal.h, access/xlogrecord.h and xlogreader.c.

mod check;
mod decode;
mod error;
mod history;
mod kind;
mod page;
mod record;
mod segment;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use check::{RangeCheck, RangeReport, check_range};
pub use decode::{BODY_KEPT_MAX, Decoder, Flow, Stream};
pub use error::WalError;
pub use history::{HistoryEntry, HistoryError, TimelineHistory};
pub use kind::{Kind, ParameterChange, Relations, rmgr};
pub use page::{LongPageHeader, PageHeader};
pub use record::{BlockRef, Compression, Fork, Image, Record, RecordHeader, RecordParts, Relation};
pub use segment::{BadSegmentSize, SegmentName, SegmentSize, WalFile};

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

pub use check::{RangeCheck, RangeReport, check_range};
pub use decode::{Decoder, Flow, Stream};
pub use error::WalError;
pub use history::{HistoryEntry, HistoryError, TimelineHistory};
pub use kind::{Kind, ParameterChange, rmgr};
pub use page::{LongPageHeader, PageHeader};
pub use record::{BlockRef, Fork, Image, Record, RecordHeader, RecordParts, Relation};
pub use segment::{BadSegmentSize, SegmentName, SegmentSize, WalFile};

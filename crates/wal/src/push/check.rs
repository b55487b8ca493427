//! Whether a file is the segment that its name says.

use std::path::Path;

use pg_format::{
    Major,
    wal::{LongPageHeader, PageHeader, SegmentName},
};

use super::PushError;
use crate::Cluster;

/// Looks at the length and the first page: a file that was cut off, or of another cluster, must not become what a recovery reads.
pub(super) fn segment(path: &Path, bytes: &[u8], name: SegmentName, cluster: Cluster) -> Result<(), PushError> {
    let fail = |why: String| Err(PushError::Content { path: path.to_owned(), why });
    if bytes.len() as u64 != cluster.segment.bytes() {
        return fail(format!("it has {} bytes, and segments have {}", bytes.len(), cluster.segment.bytes()));
    }
    let (Some(page), Some(long)) = (PageHeader::parse(bytes), LongPageHeader::parse(bytes)) else {
        return fail("it does not begin like a segment".to_owned());
    };
    let start = cluster.segment.start_of(name.number);
    if Major::from_wal_magic(page.magic).is_none() {
        fail(format!("its magic number {:04X} is of no PostgreSQL that is known", page.magic))
    } else if long.system_identifier != cluster.system_identifier {
        fail(format!(
            "it belongs to the cluster {}, and pg_control says {}",
            long.system_identifier, cluster.system_identifier
        ))
    } else if page.address != start {
        fail(format!("it holds WAL from {}, and by its name from {start}", page.address))
    } else if page.timeline > name.timeline {
        fail(format!("it holds WAL of timeline {}, and by its name of {}", page.timeline, name.timeline))
    } else {
        Ok(())
    }
}

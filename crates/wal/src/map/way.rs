//! Of which timeline a segment is read.

use pg_format::wal::{SegmentSize, TimelineHistory};
use repository::wal::{Wal, WalError};

/// The way to a timeline, as a replay reads it: the segment in which a timeline branched off is read of that timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    line: u32,
    /// Ancestors: each with the first segment that is not read of it.
    ancestors: Vec<(u32, u64)>,
}

impl Way {
    /// The way to `line`, by its stored history. Without one it begins where its own segments do.
    ///
    /// # Errors
    /// The store failed, or the history's object is damaged.
    pub fn load(wal: &Wal, size: SegmentSize, line: u32) -> Result<Self, WalError> {
        let history = if line > 1 { wal.get_history(line)? } else { None };
        let text = history.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok());
        Ok(Self::of(line, &text.and_then(|text| TimelineHistory::parse(text).ok()).unwrap_or_default(), size))
    }

    /// The way to `line`, which has this history.
    #[must_use]
    pub fn of(line: u32, history: &TimelineHistory, size: SegmentSize) -> Self {
        let ancestors = history.entries.iter().filter(|entry| entry.timeline < line);
        Self { line, ancestors: ancestors.map(|entry| (entry.timeline, size.number_of(entry.switch))).collect() }
    }

    /// Where it leads.
    #[must_use]
    pub const fn line(&self) -> u32 {
        self.line
    }

    /// The timeline of which `segment` is read.
    #[must_use]
    pub fn line_of(&self, segment: u64) -> u32 {
        self.ancestors.iter().find(|(_, end)| segment < *end).map_or(self.line, |(line, _)| *line)
    }

    /// Its timelines from that of `segment` on.
    pub fn lines_from(&self, segment: u64) -> impl Iterator<Item = u32> + '_ {
        let first = self.line_of(segment);
        let ancestors = self.ancestors.iter().map(|(line, _)| *line);
        ancestors.chain([self.line]).filter(move |line| *line >= first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_of_a_way() {
        let size = SegmentSize::DEFAULT;
        let history = TimelineHistory::parse("1\t0/3000000\tx\n3\t0/3800000\tx\n4\t0/5000028\tx\n").unwrap();
        let way = Way::of(5, &history, size);
        let lines: Vec<_> = (0..8).map(|segment| way.line_of(segment)).collect();
        assert_eq!(lines, [1, 1, 1, 4, 4, 5, 5, 5]);
        assert_eq!(way.lines_from(2).collect::<Vec<_>>(), [1, 3, 4, 5]);
        assert_eq!(way.lines_from(4).collect::<Vec<_>>(), [4, 5]);
        let alone = Way::of(1, &TimelineHistory::default(), size);
        assert_eq!((alone.line(), alone.line_of(7), alone.lines_from(9).collect::<Vec<_>>()), (1, 1, vec![1]));
    }
}

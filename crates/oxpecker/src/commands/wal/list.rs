//! `oxpecker wal list`: what WAL is there, by a listing and a few looks; `wal verify` reads it.

use model::{ByteSize, Lsn};
use repository::wal::{LineSeen, Run, Wal};
use wal::{
    inspect::{place, runs},
    map,
};

use super::streams::{cluster, failure, others, streams};
use crate::{
    cli::{Global, StreamArgs},
    exit::{FINE, Failure, Outcome},
    output,
    repo::Settings,
};

/// A timeline, as it is shown.
struct Line {
    seen: LineSeen,
    runs: Vec<Run>,
    /// All before it has expired.
    floor: u64,
    /// Of which WAL there are page maps.
    maps: Vec<(Lsn, Lsn)>,
}

/// Shows what is there.
pub fn list(global: &Global, args: &StreamArgs) -> Outcome {
    let settings = Settings::load(global, &args.repository)?;
    let repository = settings.open()?;
    let streams = streams(&settings, &repository, args)?;
    let (mut text, mut documents) = (String::new(), Vec::new());
    for (name, wal) in &streams {
        let lines = lines(name, wal)?;
        if lines.is_empty() {
            continue;
        }
        text.push_str(&table(name, wal.segment_bytes(), &lines));
        documents.push(document(name, wal.segment_bytes(), &lines));
    }
    if documents.is_empty() {
        text.push_str("no WAL is there: `oxpecker wal receive`, or archive_command = 'oxpecker wal push %p'\n");
    }
    text.push_str(&others(&repository, &streams)?);
    let document = serde_json::json!({ "place": settings.directory, "systems": documents });
    output::result(global.output, "wal_list", &document, || text)?;
    Ok(FINE)
}

fn lines(name: &str, wal: &Wal) -> Result<Vec<Line>, Failure> {
    let cluster = cluster(name, wal)?;
    let mut lines = Vec::new();
    for seen in wal.lines().map_err(failure)? {
        let floor = wal.floor(seen.line);
        let runs = runs(wal, &seen).map_err(failure)?;
        let maps = map::listed(&cluster, &seen);
        lines.push(Line { seen, runs, floor, maps });
    }
    Ok(lines)
}

fn range(segment_bytes: u64, run: &Run) -> (Lsn, Lsn) {
    (place(segment_bytes, run.first, 0), place(segment_bytes, run.end, run.tail_bytes))
}

fn table(system: &str, segment_bytes: u64, lines: &[Line]) -> String {
    let rows = lines.iter().flat_map(|line| {
        let history = match (line.seen.line, line.seen.history) {
            (1, _) => "",
            (_, true) => "yes",
            (_, false) => "MISSING",
        };
        let mut rows: Vec<[String; 6]> = Vec::new();
        for (at, run) in line.runs.iter().enumerate() {
            let (from, to) = range(segment_bytes, run);
            let gap = match line.runs.get(at + 1) {
                Some(next) => format!("GAP up to {}", place(segment_bytes, next.first, 0)),
                None => String::new(),
            };
            let first = |text: String| if at == 0 { text } else { String::new() };
            rows.push([
                first(line.seen.line.to_string()),
                from.to_string(),
                to.to_string(),
                gap,
                first(history.to_owned()),
                first(ByteSize(line.seen.bytes).to_string()),
            ]);
        }
        if rows.is_empty() {
            let nothing = String::new;
            let bytes = ByteSize(line.seen.bytes).to_string();
            rows.push([line.seen.line.to_string(), nothing(), nothing(), nothing(), history.to_owned(), bytes]);
        }
        rows
    });
    let head = ["timeline", "from", "up to", "", "history", "stored"];
    let mut text = format!("WAL of system {system}, in segments of {}\n", ByteSize(segment_bytes));
    text.push_str(&output::table(head, &[1, 2, 5], rows));
    if let Some((line, run)) = lines.iter().rev().find_map(|line| Some((line, line.runs.last()?))) {
        let (_, to) = range(segment_bytes, run);
        text.push_str(&format!("durable up to {to} of timeline {}\n", line.seen.line));
    }
    for line in lines {
        for (from, to) in &line.maps {
            text.push_str(&format!("page maps of timeline {}: {from} to {to}\n", line.seen.line));
        }
    }
    text
}

fn document(system: &str, segment_bytes: u64, lines: &[Line]) -> serde_json::Value {
    let timelines: Vec<_> = lines
        .iter()
        .map(|line| {
            let ranges: Vec<_> = line.runs.iter().map(|run| range(segment_bytes, run)).collect();
            let gaps: Vec<_> = ranges.windows(2).map(|pair| (pair[0].1, pair[1].0)).collect();
            let pair = |(from, to): &(Lsn, Lsn)| serde_json::json!({ "from": from, "to": to });
            serde_json::json!({
                "timeline": line.seen.line,
                "ranges": ranges.iter().map(pair).collect::<Vec<_>>(),
                "gaps": gaps.iter().map(pair).collect::<Vec<_>>(),
                "page_maps": line.maps.iter().map(pair).collect::<Vec<_>>(),
                "durable_to": ranges.last().map(|(_, to)| to),
                "history": line.seen.history,
                "expired_before": (line.floor > 0).then(|| place(segment_bytes, line.floor, 0)),
                "segments": line.seen.segments,
                "objects": line.seen.objects,
                "stored_bytes": line.seen.bytes,
            })
        })
        .collect();
    serde_json::json!({ "system_id": system, "segment_bytes": segment_bytes, "timelines": timelines })
}

//! `oxpecker wal verify`: reads all WAL, and says what can be replayed and what can't.

use std::{collections::BTreeMap, time::Instant};

use model::{ByteSize, Lsn};
use repository::{
    BackupRecord, Fault,
    wal::{Inspector, Wal, WalFinding, WalReport},
};
use wal::{
    gap::{self, Gap},
    inspect::{Pages, place, replays_to},
    map::{self, Kept, Made, Maps},
};

use super::streams::{cluster, failure, others, streams};
use crate::{
    cli::{Global, VerifyArgs},
    exit::{FINDING, FINE, Failure, Outcome},
    output,
    repo::Settings,
    work::{self, Work},
};

/// Findings that are shown to a person; JSON has them all.
const FINDINGS_SHOWN: usize = 50;

/// Looks at the pages, and shows how far it is.
struct Looking<'a> {
    pages: Pages,
    maps: Maps,
    work: &'a Work,
    began: Instant,
}

impl Inspector for Looking<'_> {
    fn segment(&mut self, line: u32, segment: u64, bytes: &[u8]) -> Result<(), String> {
        self.pages.segment(line, segment, bytes)
    }

    fn history(&mut self, line: u32, bytes: &[u8]) -> Result<(), String> {
        self.pages.history(line, bytes)
    }

    fn map(&mut self, line: u32, range: u64, version: u32, bytes: &[u8]) -> Result<(), String> {
        self.maps.look(line, range, version, bytes)
    }

    fn progress(&mut self, read: u64, total: u64) {
        let per_second = read as f64 / self.began.elapsed().as_secs_f64().max(0.001);
        let left = std::time::Duration::try_from_secs_f64(total.saturating_sub(read) as f64 / per_second).ok();
        self.work.show("verifying", read, total, per_second, left);
    }
}

/// What was found in the WAL of one system.
struct Found {
    system: String,
    segment_bytes: u64,
    report: WalReport,
    /// Timelines that nobody can get to, because nothing says where they come from.
    unreachable: Vec<u32>,
    /// What receivers have noted to lack for good, by timeline.
    noted: Vec<(u32, Gap)>,
    /// How far each backup can be replayed, by timeline.
    windows: Vec<(BackupRecord, Vec<(u32, Lsn)>)>,
    maps: Vec<LineMaps>,
}

/// Page maps of a timeline.
struct LineMaps {
    line: u32,
    /// From where to where they are whole.
    there: Vec<(Lsn, Lsn)>,
    /// Ranges whose maps lack, though they could be made; none where that was asked for.
    lacking: Vec<(Lsn, Lsn)>,
    /// What became of those that lacked.
    made: Vec<Made>,
}

impl Found {
    fn is_clean(&self) -> bool {
        self.report.is_clean() && self.unreachable.is_empty() && self.noted.is_empty()
    }
}

/// Verifies.
pub fn verify(global: &Global, args: &VerifyArgs) -> Outcome {
    let VerifyArgs { maps, streams: args } = args;
    work::step_down();
    let settings = Settings::load(global, &args.repository)?;
    let repository = settings.open()?;
    let streams = streams(&settings, &repository, args)?;
    let backups = repository.backups();
    let work = Work::begin(global, None)?;
    let found: Result<Vec<Found>, Failure> =
        streams.iter().map(|(name, wal)| of_system((name, wal), &backups, &work, *maps)).collect();
    work.end();
    let found = found?;
    let clean = found.iter().all(Found::is_clean);
    let mut text: String = found.iter().map(in_words).collect();
    if found.iter().all(|found| found.report.objects == 0) {
        text.push_str("no WAL is there\n");
    }
    text.push_str(&others(&repository, &streams)?);
    let document = serde_json::json!({
        "place": settings.directory, "clean": clean, "systems": found.iter().map(document).collect::<Vec<_>>(),
    });
    output::result(global.output, "wal_verify", &document, || text)?;
    Ok(if clean { FINE } else { FINDING })
}

fn of_system(
    (name, wal): (&str, &Wal),
    backups: &[BackupRecord],
    work: &Work,
    make_maps: bool,
) -> Result<Found, Failure> {
    let segment_bytes = wal.segment_bytes();
    let cluster = cluster(name, wal)?;
    let size = cluster.segment;
    let (pages, maps) = (Pages::new(name, size), Maps::new(name, size));
    let mut looking = Looking { pages, maps, work, began: Instant::now() };
    let report = wal.verify(&mut looking).map_err(failure)?;
    let histories = looking.pages.histories();
    let runs = report.runs();
    let without = report.lines.iter().filter(|line| line.seen.line > 1 && !line.runs.is_empty());
    let unreachable = without.map(|line| line.seen.line).filter(|line| !histories.contains_key(line)).collect();
    // A timeline on which a backup was made needs no history to begin with.
    let begun = |line: &u32| backups.iter().any(|backup| backup.wal.as_ref().is_some_and(|wal| wal.line == *line));
    let unreachable: Vec<u32> = Vec::into_iter(unreachable).filter(|line| !begun(line)).collect();
    let mut noted = Vec::new();
    for line in &report.lines {
        for run in &line.runs {
            let gap = gap::noted(wal, line.seen.line, run.end).map_err(failure)?;
            noted.extend(gap.map(|gap| (line.seen.line, gap)));
        }
    }
    let windows = backups
        .iter()
        .filter_map(|backup| {
            let start = backup.wal.as_ref().filter(|start| start.stream == name)?;
            Some((backup.clone(), replays_to(&runs, histories, start)))
        })
        .collect();
    let mut maps = Vec::new();
    for line in &report.lines {
        let mut of = LineMaps {
            line: line.seen.line,
            there: looking.maps.of(line.seen.line),
            lacking: Vec::new(),
            made: Vec::new(),
        };
        if make_maps {
            let (began, range) = (Instant::now(), map::RANGE * segment_bytes);
            let tell = |done: usize, all: usize| {
                let (done, all) = (done as u64 * range, all as u64 * range);
                work.show("mapping", done, all, done as f64 / began.elapsed().as_secs_f64().max(0.001), None);
            };
            of.made = map::fill(wal, &cluster, &line.seen, &line.runs, tell);
        } else {
            let lacking = map::lacking(&cluster, &line.seen, &line.runs, line.floor);
            of.lacking = lacking.into_iter().map(|(_, from, to)| (from, to)).collect();
        }
        maps.push(of);
    }
    Ok(Found { system: name.to_owned(), segment_bytes, report, unreachable, noted, windows, maps })
}

fn in_words(found: &Found) -> String {
    let (report, bytes) = (&found.report, found.segment_bytes);
    if report.objects == 0 && report.is_clean() {
        return String::new();
    }
    let mut text =
        format!("WAL of system {}: {} objects, {} read\n", found.system, report.objects, ByteSize(report.bytes));
    for line in &report.lines {
        for run in &line.runs {
            let (from, to) = (place(bytes, run.first, 0), place(bytes, run.end, run.tail_bytes));
            text.push_str(&format!("timeline {}: {from} to {to}: every byte is what was written\n", line.seen.line));
        }
    }
    for finding in report.findings.iter().take(FINDINGS_SHOWN) {
        text.push_str(&of_finding(finding, bytes));
    }
    let hidden = report.findings.len().saturating_sub(FINDINGS_SHOWN) as u64 + report.findings_left_out;
    if hidden > 0 {
        text.push_str(&format!("and {hidden} more\n"));
    }
    for line in &found.unreachable {
        text.push_str(&format!(
            "MISSING: the history of timeline {line}: no backup of another timeline can be replayed to it. Push {line:08X}.history from the server's pg_wal\n"
        ));
    }
    for (timeline, gap) in &found.noted {
        text.push_str(&format!(
            "MISSING: timeline {timeline}, {} to {}: a receiver noted that the server has it no more (it goes on on timeline {}). Recovery ends there; make a new backup\n",
            gap.from, gap.to, gap.next
        ));
    }
    for (backup, reach) in &found.windows {
        let id = &backup.id.to_string()[..8];
        let reach: Vec<String> = reach.iter().map(|(timeline, to)| format!("{to} of timeline {timeline}")).collect();
        match (reach.is_empty(), backup.wal_cut) {
            (false, _) => text.push_str(&format!("backup {id} can be replayed up to {}\n", reach.join(", "))),
            (true, true) => text.push_str(&format!("backup {id}: the WAL behind it has expired\n")),
            (true, false) => text.push_str(&format!("backup {id}: no WAL leads on from it\n")),
        }
    }
    found.maps.iter().for_each(|maps| text.push_str(&of_maps(maps)));
    if report.leftovers > 0 {
        text.push_str(&format!("{} objects are left over: `oxpecker backup prune` removes them\n", report.leftovers));
    }
    text
}

fn of_maps(maps: &LineMaps) -> String {
    let line = maps.line;
    let mut text = String::new();
    for (from, to) in &maps.there {
        text.push_str(&format!("timeline {line}: {from} to {to}: there are page maps\n"));
    }
    if let (Some((from, _)), Some((_, to))) = (maps.lacking.first(), maps.lacking.last()) {
        let count = maps.lacking.len();
        text.push_str(&format!(
            "timeline {line}: {count} page maps lack between {from} and {to}: `oxpecker wal verify --maps` makes them\n"
        ));
    }
    for made in &maps.made {
        let said = match &made.result {
            Ok(Kept::There(_)) => "the page map was made".to_owned(),
            Ok(Kept::Other { start }) => format!("there is a page map from {start} on"),
            Err(error) => error.to_string(),
        };
        text.push_str(&format!("timeline {line}: {} to {}: {said}\n", made.from, made.to));
    }
    text
}

fn of_finding(finding: &WalFinding, bytes: u64) -> String {
    let fault = match finding.fault {
        Fault::Missing => "MISSING",
        Fault::Damaged => "DAMAGED",
        Fault::Contradicts => "CONTRADICTS",
        Fault::Foreign => "foreign",
        Fault::Unreadable => "UNREADABLE",
    };
    let lost = match (finding.line, finding.lost) {
        (Some(line), Some((from, until))) => {
            let (from, until) = (place(bytes, from, 0), place(bytes, until, 0));
            format!("timeline {line}, {from} to {until} can't be replayed: ")
        }
        _ => String::new(),
    };
    format!("{fault}: {lost}{}: {}\n", finding.object, finding.what)
}

fn document(found: &Found) -> serde_json::Value {
    let bytes = found.segment_bytes;
    let timelines: Vec<_> = found
        .report
        .lines
        .iter()
        .map(|line| {
            let ranges: Vec<_> = line
                .runs
                .iter()
                .map(|run| {
                    serde_json::json!({
                        "from": place(bytes, run.first, 0), "to": place(bytes, run.end, run.tail_bytes),
                    })
                })
                .collect();
            serde_json::json!({ "timeline": line.seen.line, "ranges": ranges, "history": line.seen.history })
        })
        .collect();
    let findings: Vec<_> = found
        .report
        .findings
        .iter()
        .map(|finding| {
            let mut value = serde_json::json!({
                "fault": finding.fault, "object": finding.object, "what": finding.what, "timeline": finding.line,
            });
            if let Some((from, until)) = finding.lost {
                value["lost"] = serde_json::json!({ "from": place(bytes, from, 0), "to": place(bytes, until, 0) });
            }
            value
        })
        .collect();
    let windows: Vec<_> = found
        .windows
        .iter()
        .map(|(backup, reach)| {
            let reach: BTreeMap<String, Lsn> = reach.iter().map(|(line, to)| (line.to_string(), *to)).collect();
            serde_json::json!({ "backup": backup.id, "expired": backup.wal_cut, "replays_to": reach })
        })
        .collect();
    let gaps: Vec<_> =
        found.noted.iter().map(|(timeline, gap)| serde_json::json!({ "timeline": timeline, "gap": gap })).collect();
    let pairs = |spans: &[(Lsn, Lsn)]| -> Vec<_> {
        spans.iter().map(|(from, to)| serde_json::json!({ "from": from, "to": to })).collect()
    };
    let maps: Vec<_> = found
        .maps
        .iter()
        .map(|maps| {
            let made = maps.made.iter().map(|made| {
                let why = made.result.as_ref().err().map(ToString::to_string);
                serde_json::json!({ "from": made.from, "to": made.to, "made": why.is_none(), "why": why })
            });
            serde_json::json!({
                "timeline": maps.line, "ranges": pairs(&maps.there), "lacking": pairs(&maps.lacking), "made": made.collect::<Vec<_>>(),
            })
        })
        .collect();
    serde_json::json!({
        "system_id": found.system,
        "segment_bytes": bytes,
        "timelines": timelines,
        "findings": findings,
        "findings_left_out": found.report.findings_left_out,
        "histories_missing": found.unreachable,
        "gaps_noted": gaps,
        "backups": windows,
        "page_maps": maps,
        "objects": found.report.objects,
        "bytes": found.report.bytes,
        "leftovers": found.report.leftovers,
    })
}

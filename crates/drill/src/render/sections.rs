//! The parts of the page around the chart.

use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};

use super::words::{Paint, count, latency, paragraph, percent};
use crate::{
    options::ActKind,
    result::{ActResult, DrillResult, Failure, Summary, TableOutcome, Target, VerdictLine},
};

/// What was played, on what.
pub(super) fn setting(result: &DrillResult, width: usize) -> String {
    let (host, load) = (&result.host, &result.load);
    let mix: Vec<String> =
        load.mix_percent.iter().map(|(target, percent)| format!("{} {percent} %", target.name())).collect();
    let bytes: u64 = result.tables.iter().map(|table| table.bytes).sum();
    let (live, dead, indexes) =
        result.tables.first().map_or((0, 0, 0), |table| (table.live, table.dead, table.indexes));
    let names: Vec<&str> = result.tables.iter().map(|table| table.name.as_str()).collect();
    let cores = if host.database_core == host.load_core {
        "database, services, guard and load share the only core".to_owned()
    } else {
        format!("database, services and guard on core {}, load on core {}", host.database_core, host.load_core)
    };
    let autogroup = match host.autogroup {
        Some(true) => ", autogroup scheduling on",
        Some(false) => ", autogroup scheduling off",
        None => "",
    };
    let mut text = format!("The vacuum storm, replayed on PostgreSQL {}\n\n", result.server.version);
    let mut say = |label: &str, words: String| text.push_str(&paragraph(&format!("  {label:<11}"), &words, width));
    say("host", format!("Linux {}{autogroup}; {cores}; data on {}; seed {}", host.kernel, host.storage, result.seed));
    say(
        "users",
        format!(
            "{:.0} requests/s = {} of the measured capacity of {:.0}/s ({}), Poisson arrivals that do not wait for answers; \
             latency counts from the intended arrival",
            load.rate_per_s,
            percent(load.share),
            load.capacity_per_s,
            mix.join(", ")
        ),
    );
    say("time-outs", load.timeouts.clone());
    say(
        "storm",
        format!(
            "{}: each {} live and {} dead rows, {indexes} indexes; {} MB together",
            names.join(", "),
            count(live),
            count(dead),
            count(bytes >> 20)
        ),
    );
    for setting in &result.server.settings {
        let acts = if setting.acts == "all" { String::new() } else { format!(" in act {}", setting.acts) };
        say(
            "not stock",
            format!("{} = {}{acts} (stock {}): {}", setting.name, setting.value, setting.stock, setting.why),
        );
    }
    text
}

/// The acts as columns.
pub(super) fn side_by_side(result: &DrillResult, width: usize) -> String {
    let acts = &result.acts;
    let mut table = Table::new();
    let line = LineStyle::new('─', '─', '─', '─');
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(u16::try_from(width).unwrap_or(u16::MAX));
    table.load_style(TableStyle::new().header_separator(line).bottom_border(line));
    let head = std::iter::once(String::new()).chain(acts.iter().map(|act| act.act.title().to_owned()));
    table.set_header(head);
    let mut row = |label: &str, cell: &dyn Fn(&ActResult) -> String| {
        table.add_row(std::iter::once(label.to_owned()).chain(acts.iter().map(cell)));
    };
    row("p50, all services", &|act| latency(act.all.p50_ms));
    row("p95", &|act| latency(act.all.p95_ms));
    row("p99", &|act| latency(act.all.p99_ms));
    row("max", &|act| latency(act.all.max_ms));
    for target in Target::ALL {
        row(&format!("p99, {}", target.name()), &|act| latency(service(act, target).p99_ms));
    }
    row("requests", &|act| count(act.all.requests));
    row("failed", &|act| count(act.all.failed));
    for (failure, words) in [
        (Failure::TimedOut, "  no answer in time"),
        (Failure::ServerError, "  error answered"),
        (Failure::Disconnected, "  disconnected"),
        (Failure::NotSent, "  not even sent"),
    ] {
        if acts.iter().any(|act| act.all.failures.contains_key(&failure)) {
            row(words, &|act| count(act.all.failures.get(&failure).copied().unwrap_or(0)));
        }
    }
    for target in Target::ALL {
        if acts.iter().any(|act| service(act, target).failed > 0) {
            row(&format!("  of {}'s requests", target.name()), &|act| count(service(act, target).failed));
        }
    }
    row("core busy", &|act| percent(act.cpu.busy));
    row("  vacuum workers", &|act| percent(act.cpu.vacuum));
    row("  other PostgreSQL", &|act| percent(act.cpu.postgres));
    row("  services", &|act| percent(act.cpu.services));
    if acts.iter().any(|act| act.guard.is_some()) {
        row("  guard", &|act| if act.guard.is_some() { percent(act.cpu.guard) } else { "–".into() });
    }
    row("  anybody else", &|act| percent(act.cpu.others()));
    row("vacuum's CPU time", &|act| {
        act.vacuum.as_ref().map_or("–".into(), |vacuum| format!("{:.1} s", vacuum.cpu_s))
    });
    for name in result.tables.iter().map(|table| &table.name) {
        row(&format!("vacuum of {name}"), &|act| {
            let vacuum = act.vacuum.as_ref();
            let found = vacuum.and_then(|vacuum| vacuum.tables.iter().find(|table| table.table == *name));
            found.map_or("–".into(), |table| progress(table, act.window_s))
        });
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let window = acts.iter().find(|act| act.act.has_storm()).map_or(0, |act| act.window_s);
    let legend = format!(
        "Over the {window} s from the storm's release. Failed requests are in the percentiles with the time until they \
         failed. Unfinished vacuums: the share of the table's pages that was scanned and the passes over its indexes when \
         the load ended, and when they were done if that was seen."
    );
    format!("{table}\n{}", paragraph("  ", &legend, width))
}

fn service(act: &ActResult, target: Target) -> Summary {
    act.services.iter().find(|(name, _)| *name == target).map(|(_, summary)| summary.clone()).unwrap_or_default()
}

/// `done at 14 s`, `at 62 %, 2 passes`.
fn progress(table: &TableOutcome, window_s: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "seconds of an act")]
    let window = window_s as f64;
    match (table.finished_after_s, &table.phase) {
        (Some(after), _) if after <= window => format!("done at {after:.0} s"),
        (later, phase) => {
            let at = if phase.is_none() {
                "not begun".to_owned()
            } else {
                format!("at {}, {} passes", percent(table.scanned), table.index_passes)
            };
            later.map_or_else(|| at.clone(), |after| format!("{at}\ndone at {after:.0} s"))
        }
    }
}

/// What the guard saw and when.
pub(super) fn detection(result: &DrillResult, width: usize) -> String {
    let Some(guard) = result.act(ActKind::Guarded).and_then(|act| act.guard.as_ref()) else { return String::new() };
    let mut text = "The guard\n".to_owned();
    let mut say = |words: String| text.push_str(&paragraph("  ", &words, width));
    match &result.detection {
        None => say(match result.act(ActKind::Guarded).and_then(|act| act.cpu.saturated.first()) {
            None => "The core was never saturated for a whole second: there was nothing to detect.".into(),
            Some(saturation) => {
                format!(
                    "The core was saturated {:.1} s after the release, for {:.1} s, and no alert tells of it.",
                    saturation.from_s,
                    saturation.to_s - saturation.from_s
                )
            }
        }),
        Some(seen) if seen.told_before => {
            say(format!(
                "The core was saturated {:.1} s after the release. The guard had already told of it {:.1} s before, and that episode was \
                 still open:",
                seen.saturated_s, -seen.decided_after_s
            ));
            say(format!("“{}”", seen.summary));
        }
        Some(seen) => {
            say(format!(
                "The core was saturated {:.1} s after the release. The guard decided {:+.1} s from then; the webhook had it {:+.1} s from then:",
                seen.saturated_s, seen.decided_after_s, seen.delivered_after_s
            ));
            say(format!("“{}”", seen.summary));
        }
    }
    say(format!(
        "Ready {:.1} s after its start; {:.1} MB resident at most; alerts delivered: {}, of them before the storm: {}.",
        guard.ready_after_s,
        megabytes(guard.resident_max_bytes),
        guard.alerts.len(),
        guard.alerts_before_storm
    ));
    text
}

fn unthrottled(vacuums: i64) -> String {
    match vacuums {
        0 => "no vacuum".to_owned(),
        1 => "1 unthrottled vacuum".to_owned(),
        several => format!("{several} unthrottled vacuums"),
    }
}

/// What the backup was worth.
pub(super) fn rescue(result: &DrillResult, width: usize) -> String {
    let Some(rescue) = &result.rescue else { return String::new() };
    let mut text = "The backup\n".to_owned();
    let mut say = |words: String| text.push_str(&paragraph("  ", &words, width));
    say(format!(
        "Taken while {} ran: {:.0} MB in {:.1} s, of which the repository stores {:.0} MB, compressed and \
         encrypted, WAL included.",
        unthrottled(rescue.vacuums_running),
        megabytes(rescue.data_bytes),
        rescue.backup_s,
        megabytes(rescue.repository_bytes)
    ));
    say(format!(
        "Then {} transactions were committed, and the table {} was dropped by mistake. {:.1} s later the repository held the WAL to go back to the \
         moment before.",
        rescue.ledger_before, rescue.dropped, rescue.reach_s
    ));
    say(format!(
        "The server was killed and its data directory removed. Restored to that moment in {:.1} s, it let a person look {:.1} s after its start, \
         with {} of the {} commits since the backup, and {} of {} rows{}.",
        rescue.restore_s,
        rescue.start_s,
        rescue.ledger_after,
        rescue.ledger_before,
        rescue.rows_after,
        rescue.rows_before,
        if rescue.same { ", each as it was" } else { ", NOT as they were" }
    ));
    say(format!("Proven in {:.1} s: restored once more behind a fence, recovered and checked.", rescue.proof_s));
    text
}

fn megabytes(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let bytes = bytes as f64;
    bytes / 1e6
}

/// Facts, then judgements.
pub(super) fn verdict(result: &DrillResult, width: usize, paint: Paint) -> String {
    let mut text = String::new();
    for note in &result.verdict.notes {
        text.push_str(&paragraph("  • ", note, width));
    }
    if !result.verdict.notes.is_empty() {
        text.push('\n');
    }
    for line in &result.verdict.lines {
        text.push_str(&claim(line, width, paint));
    }
    text
}

/// One judgement.
pub(super) fn claim(line: &VerdictLine, width: usize, paint: Paint) -> String {
    let words = paragraph("  ? ", &format!("{}: {}", line.claim, line.because), width);
    let mark = if line.passed { paint.good("✓") } else { paint.bad("✗") };
    words.replacen('?', &mark, 1)
}

/// The last lines, which stay on the screen.
pub(super) fn ending(result: &DrillResult, paint: Paint) -> String {
    let mut text = String::new();
    if let Some(report) = &result.report {
        text.push_str(&format!("Report of the incident: {}\n", report.display()));
    }
    if let Some(kept) = &result.kept {
        text.push_str(&format!("The cluster stays: {}\nTo remove it:      {}\n", kept.connect, kept.remove));
    }
    let failed = result.verdict.lines.iter().filter(|line| !line.passed).count();
    let word = if result.verdict.passed { paint.good("PASSED") } else { paint.bad("FAILED") };
    let why = match (failed, result.act(ActKind::Guarded).is_some()) {
        (0, true) => "better than throttling off, seen in time, all put back".into(),
        (0, false) => "but without act 2 there was no guard to judge".into(),
        (1, _) => "one of the claims above did not hold".into(),
        (failed, _) => format!("{failed} of the claims above did not hold"),
    };
    text.push_str(&format!("{word} in {:.0} s: {why}\n", result.took_s));
    text
}

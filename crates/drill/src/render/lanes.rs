//! Act 3 over time: a lane for each service, once for each way back, on one scale.

use super::words::{Paint, count, paragraph};
use crate::cold_start::{ColdKind, ColdLane, ColdSide, ColdStart};

/// Columns left of the lanes.
const MARGIN: usize = 13;
/// What the last number of the axis and its unit may take behind the lanes.
const AXIS_TAIL: usize = 6;
/// Columns of a lane at most: more says no more.
const COLUMNS_MAX: usize = 90;
/// Seconds between two marks of the axis: the first of these that leaves room for their numbers.
const STEPS: [f64; 8] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0];
/// Columns between two marks at least.
const STEP_COLUMNS: f64 = 8.0;

/// What a column of a lane shows: the weightiest of what happened in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cell {
    /// Not started, or waited with.
    Down,
    /// On its way.
    Starting,
    /// It serves.
    Ready,
    /// It ended in error.
    Crashed,
}

/// All of it; nothing where it was not played.
pub(super) fn cold_start(played: &ColdStart, width: usize, paint: Paint) -> String {
    let mut text = paint.strong("Act 3: the cold restart") + "\n";
    let killed = played.sides.iter().map(|side| side.killed).min().unwrap_or(0);
    let scale = f64::from(played.scale);
    let recovery = played.wal_bytes.map_or_else(String::new, |bytes| {
        format!(
            " PostgreSQL is real, and has {} MB of WAL to replay: that takes what it takes.",
            count(bytes / 1_000_000)
        )
    });
    let clock = match played.scale {
        1 => String::new(),
        scale => format!(
            " The clock runs 1:{scale} on both sides: start times, back-off and settle time are a {scale}th, all seconds here are measured ones times {scale}. \
             What starting a process, a probe and PostgreSQL's recovery really take is not shortened, and so counts {scale} times."
        ),
    };
    text.push_str(&paragraph(
        "  ",
        &format!(
            "SIGKILL to all {} services, {killed} processes at least, PostgreSQL's with them; then all comes back, once without an order and once by \
             oxpecker. Start times are drawn (log-normal, sigma {}, seed {}), the same on both sides. A service loads for a third of its start time, then ends \
             with an error where what it needs does not answer.{recovery}{clock}",
            played.starts_in_s.len(),
            played.sigma,
            played.seed
        ),
        width,
    ));
    let end = played.sides.iter().map(|side| end_s(side) * scale).fold(1.0, f64::max);
    let columns = width.saturating_sub(MARGIN + AXIS_TAIL).clamp(20, COLUMNS_MAX);
    #[expect(clippy::cast_precision_loss, reason = "columns of a terminal")]
    let per_column = end / columns as f64;
    for side in &played.sides {
        text.push('\n');
        text.push_str(&paragraph("  ", &headline(side, played), width));
        for lane in &side.lanes {
            let drawn: String = cells(lane, scale, per_column, columns, end_s(side) * scale)
                .into_iter()
                .map(|cell| painted(cell, paint))
                .collect();
            text.push_str(&format!("  {:<width$}{drawn}\n", lane.service, width = MARGIN - 2));
        }
    }
    text.push_str(&axis(end, per_column, columns));
    text.push_str(&paragraph("  ", "░ starts   █ serves   × ended in an error   · down, or waited with", width));
    text
}

/// Until when a side is drawn, in seconds as measured.
fn end_s(side: &ColdSide) -> f64 {
    let moments =
        side.lanes.iter().flat_map(|lane| &lane.runs).map(|run| run.ended_s.or(run.ready_s).unwrap_or(run.started_s));
    side.stable_s.unwrap_or_else(|| moments.fold(0.0, f64::max))
}

/// How it went, in one line.
pub(crate) fn headline(side: &ColdSide, played: &ColdStart) -> String {
    let scale = f64::from(played.scale);
    let who = match side.how {
        ColdKind::Unordered => "without an order, with Kubernetes' back-off (at once, 10 s, 20 s … 5 min)",
        ColdKind::Ordered => "by oxpecker, in order, each once what it needs is stable",
    };
    let stable = side
        .stable_s
        .map_or_else(|| "never all stable".to_owned(), |stable| format!("all stable after {:.0} s", stable * scale));
    let limits = side.limit_s.zip(side.settled_limit_s).map_or_else(String::new, |(limit, settled)| match side.how {
        ColdKind::Unordered => format!(" (critical path: {:.0} s)", limit * scale),
        ColdKind::Ordered => {
            format!(" (critical path: {:.0} s; with its settle times: {:.0} s)", limit * scale, settled * scale)
        }
    });
    format!("{who}: {stable}{limits}, {} wasted {}", side.wasted, if side.wasted == 1 { "start" } else { "starts" })
}

/// A lane's columns; behind `end_s` there is nothing.
fn cells(lane: &ColdLane, scale: f64, per_column: f64, columns: usize, end_s: f64) -> Vec<Option<Cell>> {
    let column = |at_s: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative, and bounded by the columns"
        )]
        let column = (at_s.max(0.0) / per_column) as usize;
        column.min(columns.saturating_sub(1))
    };
    let last = column(end_s);
    let mut cells: Vec<Option<Cell>> = (0..columns).map(|at| (at <= last).then_some(Cell::Down)).collect();
    let mut draw = |from_s: f64, to_s: f64, cell: Cell| {
        for one in &mut cells[column(from_s)..=column(to_s).min(last)] {
            *one = (*one).max(Some(cell));
        }
    };
    for run in &lane.runs {
        let (started, ended) = (run.started_s * scale, run.ended_s.map(|ended| ended * scale));
        let until = ended.unwrap_or(end_s);
        let ready = run.ready_s.map(|ready| ready * scale);
        if started > end_s {
            continue;
        }
        draw(started, ready.unwrap_or(until).max(started), Cell::Starting);
        if let Some(ready) = ready.filter(|ready| *ready <= end_s) {
            draw(ready, until.max(ready), Cell::Ready);
        }
        if let Some(ended) = ended.filter(|ended| *ended <= end_s) {
            draw(ended, ended, Cell::Crashed);
        }
    }
    cells
}

fn painted(cell: Option<Cell>, paint: Paint) -> String {
    match cell {
        None => String::new(),
        Some(Cell::Down) => "·".to_owned(),
        Some(Cell::Starting) => paint.warn("░"),
        Some(Cell::Ready) => paint.good("█"),
        Some(Cell::Crashed) => paint.bad("×"),
    }
}

fn axis(end_s: f64, per_column: f64, columns: usize) -> String {
    let step = STEPS.into_iter().find(|step| step / per_column >= STEP_COLUMNS).unwrap_or(500.0);
    let mut line = " ".repeat(MARGIN);
    let mut at_s = 0.0;
    while at_s <= end_s {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative, and bounded by the columns"
        )]
        let column = MARGIN + ((at_s / per_column) as usize).min(columns);
        let used = line.chars().count();
        if column >= used {
            line.push_str(&" ".repeat(column - used));
            line.push_str(&format!("{at_s:.0}"));
        }
        at_s += step;
    }
    line + " s\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cold_start::ColdRun, render::samples};

    fn lane(runs: &[(f64, Option<f64>, Option<f64>)]) -> ColdLane {
        let run = |&(started_s, ready_s, ended_s): &(f64, Option<f64>, Option<f64>)| ColdRun {
            started_s,
            ready_s,
            ended_s,
            lacked: None,
        };
        ColdLane { service: "site".into(), runs: runs.iter().map(run).collect() }
    }

    #[test]
    fn a_lane_shows_each_run() {
        let paint = Paint { colour: false };
        for (runs, drawn) in [
            (&[][..], "··········"),
            (&[(0.0, Some(3.0), None)][..], "░░░███████"),
            (&[(2.0, Some(4.0), None)][..], "··░░██████"),
            (&[(0.0, None, Some(1.0)), (1.0, None, Some(2.0)), (6.0, Some(8.0), None)][..], "░××···░░██"),
            (&[(0.0, None, None)][..], "░░░░░░░░░░"),
            // It served, and was ended.
            (&[(0.0, Some(2.0), Some(5.0)), (7.0, None, None)][..], "░░███×·░░░"),
            // What came after the end is not drawn.
            (&[(12.0, Some(15.0), None)][..], "··········"),
        ] {
            // A tenth of the time on a clock of 1:10, a second a column; ten seconds end in the tenth column.
            let tenth = |run: &(f64, Option<f64>, Option<f64>)| {
                (run.0 / 10.0, run.1.map(|at| at / 10.0), run.2.map(|at| at / 10.0))
            };
            let lane = lane(&runs.iter().map(tenth).collect::<Vec<_>>());
            let cells = cells(&lane, 10.0, 0.999_999, 10, 9.9);
            assert_eq!(cells.into_iter().map(|cell| painted(cell, paint)).collect::<String>(), drawn, "{runs:?}");
        }
    }

    #[test]
    fn a_side_that_ends_earlier_is_shorter() {
        let cells = cells(&lane(&[(0.0, Some(1.0), None)]), 1.0, 1.0, 10, 4.5);
        assert_eq!(cells.iter().filter(|cell| cell.is_some()).count(), 5);
    }

    #[test]
    fn the_axis_has_round_numbers_with_room_between() {
        assert_eq!(axis(20.0, 1.0, 20), format!("{}0         10        20 s\n", " ".repeat(MARGIN)));
        assert_eq!(
            axis(96.0, 1.2, 80).split_whitespace().collect::<Vec<_>>(),
            ["0", "10", "20", "30", "40", "50", "60", "70", "80", "90", "s"]
        );
    }

    #[test]
    fn both_ways_on_one_scale() {
        insta::assert_snapshot!(cold_start(&samples::cold_start(), 100, Paint { colour: false }));
    }
}

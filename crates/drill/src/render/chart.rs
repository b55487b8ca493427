//! Latency over time: one band per act, all on the same logarithmic scale, so that bands can be compared by eye.

use super::words::{Paint, count, latency};
use crate::{
    options::ActKind,
    result::{ActResult, DrillResult},
};

/// The rows of a band from top to bottom: a bar that enters a row has reached its lower bound, in milliseconds.
const DECADES: [(f64, &str); 4] = [(1_000.0, "  1 s "), (100.0, "100 ms"), (10.0, " 10 ms"), (1.0, "  1 ms")];
/// Eighths of a cell.
const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Columns left of the bars.
const MARGIN: usize = 9;
/// Columns per second at most.
const MAX_COLUMNS: usize = 4;
/// From here on a bar is drawn as a warning, in milliseconds.
const SLOW_MS: f64 = 100.0;
/// From here on as bad.
const BAD_MS: f64 = 1_000.0;

pub(super) fn chart(result: &DrillResult, width: usize, paint: Paint) -> String {
    let longest = result.acts.iter().map(|act| act.seconds.len()).max().unwrap_or(0);
    if longest == 0 {
        return String::new();
    }
    // A long act is thinned to what the terminal has room for: of the seconds that share a column the worst is drawn.
    let room = width.saturating_sub(MARGIN);
    let seconds_per_column = longest.div_ceil(room);
    let columns_per_second = if seconds_per_column > 1 { 1 } else { (room / longest).clamp(1, MAX_COLUMNS) };
    let scale = Scale { seconds_per_column, columns_per_second };
    let mut text = paint.strong("Latency over time") + ": p99 of each second, all services, logarithmic\n";
    for act in &result.acts {
        text.push('\n');
        text.push_str(&band(act, scale, paint));
    }
    text.push_str(&axis(result, longest, scale));
    text
}

#[derive(Clone, Copy)]
struct Scale {
    seconds_per_column: usize,
    columns_per_second: usize,
}

impl Scale {
    /// The column in which a second begins.
    fn column(self, second: usize) -> usize {
        second / self.seconds_per_column * self.columns_per_second
    }
}

fn band(act: &ActResult, scale: Scale, paint: Paint) -> String {
    let failed = match act.all.failed {
        0 => "no request failed".to_owned(),
        failed => format!("{} requests failed", count(failed)),
    };
    let mut text = format!("  {}: p99 {}, {failed}\n", paint.strong(act.act.title()), latency(act.all.p99_ms));
    let groups: Vec<(f64, bool)> = act
        .seconds
        .chunks(scale.seconds_per_column)
        .map(|group| {
            let worst = group.iter().map(|second| second.all.p99_ms).fold(0.0, f64::max);
            (worst, group.iter().any(|second| second.all.failed > 0))
        })
        .collect();
    for (floor_ms, label) in DECADES {
        text.push_str(label);
        text.push_str(" ┤ ");
        for &(p99_ms, _) in &groups {
            let bar = block(p99_ms, floor_ms).to_string().repeat(scale.columns_per_second);
            let painted = match p99_ms {
                // Blanks stay bare, so that the end of the line can be trimmed.
                _ if bar.trim().is_empty() => bar,
                ms if ms >= BAD_MS => paint.bad(&bar),
                ms if ms >= SLOW_MS => paint.warn(&bar),
                _ => paint.good(&bar),
            };
            text.push_str(&painted);
        }
        trim(&mut text);
    }
    if act.all.failed > 0 {
        text.push_str("failed   ");
        for &(_, failed) in &groups {
            let mark = if failed { "×" } else { " " }.repeat(scale.columns_per_second);
            text.push_str(&if failed { paint.bad(&mark) } else { mark });
        }
        trim(&mut text);
    }
    text
}

fn trim(text: &mut String) {
    text.truncate(text.trim_end_matches(' ').len());
    text.push('\n');
}

/// The block of the row that begins at `floor_ms` and ends at ten times that.
fn block(p99_ms: f64, floor_ms: f64) -> char {
    if p99_ms < floor_ms {
        return BLOCKS[0];
    }
    let eighths = ((p99_ms / floor_ms).log10() * 8.0).floor().clamp(0.0, 7.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=7 just above")]
    let index = eighths as usize + 1;
    BLOCKS[index]
}

/// Seconds, and the marks below them.
fn axis(result: &DrillResult, longest: usize, scale: Scale) -> String {
    let mut line = " ".repeat(MARGIN);
    for second in (0..=longest).step_by(5 * scale.seconds_per_column) {
        let column = MARGIN + scale.column(second);
        let used = line.chars().count();
        if column >= used {
            line.push_str(&" ".repeat(column - used));
            line.push_str(&second.to_string());
        }
    }
    line.push_str(" s\n");
    let storm = result.acts.iter().find(|act| act.act.has_storm());
    let Some(storm) = storm else { return line };
    let mut marks = vec![(storm.window_from_s, "▲ storm released".to_owned())];
    if let (Some(seen), Some(guarded)) = (&result.detection, result.act(ActKind::Guarded)) {
        let after_s = seen.saturated_s + seen.decided_after_s;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds of an act, not negative")]
        let at_s = guarded.window_from_s + after_s.max(0.0) as u64;
        marks.push((at_s, format!("▲ act 2: the guard's alert, {after_s:.1} s after the release")));
    }
    for (second, words) in marks {
        let column = MARGIN + scale.column(usize::try_from(second).unwrap_or(0));
        line.push_str(&format!("{}{words}\n", " ".repeat(column)));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_grows_through_the_decades() {
        for (ms, bar) in [
            (0.0, "    "),
            (1.0, "   ▁"),
            (9.9, "   █"),
            (10.0, "  ▁█"),
            (150.0, " ▂██"),
            (1_000.0, "▁███"),
            (5_000.0, "▆███"),
            (60_000.0, "████"),
        ] {
            let drawn: String = DECADES
                .iter()
                .map(|&(floor, _)| {
                    let block = block(ms, floor);
                    if ms >= floor * 10.0 { '█' } else { block }
                })
                .collect();
            assert_eq!(drawn, bar, "{ms}");
        }
    }
}

//! The storm at several loads: the clients' latency with no vacuum, with stock settings, with throttling off and governed, in one
//! run, the four in turn, three times each; and how fast the storm was detected with the core at 100 %.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{
    Args, program,
    report::{Table, median},
};
use crate::shell;

/// Shares of the measured capacity, in per cent.
const LOADS: [u32; 3] = [20, 55, 80];
/// Seconds of each storm.
const STORM_S: u32 = 15;

/// The acts as the drill names them.
const ACTS: [(&str, &str); 4] =
    [("baseline", "no vacuum"), ("stock", "stock"), ("unthrottled", "throttling off"), ("guarded", "governed")];

/// Measures and prints.
pub fn run(args: &Args) -> Result<()> {
    let rounds_wanted = usize::from(args.rounds);
    let mut detected = Vec::new();
    let mut delivered = Vec::new();
    let mut latency =
        Table::new(&["load", "act", "p50 ms", "p99 ms", "p99 / no vacuum", "p99 / off", "failed", "tables vacuumed"]);
    for load in LOADS {
        let mut rounds: Vec<Value> = Vec::new();
        for round in 1..=rounds_wanted {
            shell::say(&format!("  load {load} %, round {round} of {rounds_wanted}"));
            let result = drill(load)?;
            // What was told before the core was saturated says nothing of how fast that was seen.
            let told_before = result["detection"]["told_before"] == Value::Bool(true);
            if let Some(detection) = result["detection"].as_object().filter(|_| !told_before) {
                detected.extend(detection.get("decided_after_s").and_then(Value::as_f64));
                delivered.extend(detection.get("delivered_after_s").and_then(Value::as_f64));
            }
            rounds.push(result);
        }
        let of = |act: &str, read: &dyn Fn(&Value) -> Option<f64>| -> Vec<f64> {
            rounds
                .iter()
                .filter_map(|r| r["acts"].as_array()?.iter().find(|a| a["act"] == act).and_then(read))
                .collect()
        };
        for (act, title) in ACTS {
            let p50 = median(&mut of(act, &|a| a["all"]["p50_ms"].as_f64()));
            let p99s = of(act, &|a| a["all"]["p99_ms"].as_f64());
            // Pair by pair, so that a machine that drifts between rounds does not count.
            let ratio = |other: &str| {
                let others = of(other, &|a| a["all"]["p99_ms"].as_f64());
                median(&mut p99s.iter().zip(&others).map(|(a, b)| a / b).collect::<Vec<f64>>())
            };
            let failed: f64 = of(act, &|a| a["all"]["failed"].as_f64()).iter().sum();
            let done = of(act, &|a| {
                let tables = a["vacuum"]["tables"].as_array()?;
                let window = a["window_s"].as_f64()?;
                let finished =
                    tables.iter().filter(|t| t["finished_after_s"].as_f64().is_some_and(|s| s <= window)).count();
                u32::try_from(finished).ok().map(f64::from)
            });
            let done =
                if act == "baseline" { "-".to_owned() } else { format!("{:.0} of 3", median(&mut done.clone())) };
            latency.row(&[
                &format!("{load} %"),
                title,
                &format!("{p50:.1}"),
                &format!("{:.0}", median(&mut p99s.clone())),
                &format!("{:.2}", ratio("baseline")),
                &format!("{:.2}", ratio("unthrottled")),
                &format!("{failed:.0}"),
                &done,
            ]);
        }
    }
    latency.print(&format!("Clients in the storm, {STORM_S} s each, medians of {rounds_wanted} round(s) in turn"));
    let mut detection = Table::new(&["from the first saturated moment to", "median s", "worst s", "goal s", ""]);
    for (what, values) in [("the decision", &mut detected), ("the webhook", &mut delivered)] {
        let worst = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let verdict = if worst <= 3.0 { "reached" } else { "MISSED" };
        detection.row(&[what, &format!("{:.2}", median(values)), &format!("{worst:.2}"), "3", verdict]);
    }
    let storms = LOADS.len() * rounds_wanted;
    detection.print(&format!("Detection with the core at 100 %, {} of {storms} storms detected", delivered.len()));
    Ok(())
}

/// One drill. Its exit code 1 is a finding and no error: misses are printed.
fn drill(load: u32) -> Result<Value> {
    let dir = tempfile::tempdir()?;
    let mut command = Command::new(program::path()?);
    command.args([
        "drill",
        "run",
        "vacuum-storm",
        "--without-backup",
        "--output",
        "json",
        "--quiet",
        "--load",
        &load.to_string(),
    ]);
    command.args(["--act", &STORM_S.to_string(), "--report-dir"]).arg(dir.path());
    let output = command.stdin(Stdio::null()).output().context("starting the drill")?;
    if !matches!(output.status.code(), Some(0 | 1)) {
        bail!("the drill failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).context("reading the drill's result")
}

//! Runs the drill as the binary does, for working on it: `drill [--acts a,b] [--rows N] [--storm S] [--pg MAJOR] [--oxpecker PATH]`, or `drill cold-start [SCALE]`.
//! Also answers as `drill-service`, which is how its own child processes are started.

use std::{io::Write as _, path::PathBuf, process::ExitCode, time::Duration};

use drill::{ActKind, DrillOptions, HelperCommand, ProgressEvent};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let mut options = match args.next().as_deref() {
        Some("drill-service") => {
            let (kind, spec) = (args.next().unwrap_or_default(), args.next().unwrap_or_default());
            return finish(drill::helper(&kind, &spec));
        }
        Some("cold-start") => return cold_start(args.next().as_deref()),
        first => parse(first.map(str::to_owned).into_iter().chain(args)),
    };
    let mut json = false;
    if let Ok((_, wants_json)) = &options {
        json = *wants_json;
    }
    let outcome = options.as_mut().map_err(|error| error.clone()).and_then(|(options, _)| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
        let cancel = async {
            // Without a handler there is nobody who could cancel.
            let _ = tokio::signal::ctrl_c().await;
        };
        runtime.block_on(drill::run(options, &mut tell, cancel)).map_err(|error| error.to_string())
    });
    let result = match outcome {
        Ok(result) => result,
        Err(error) => return finish(Err(error)),
    };
    let width = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).unwrap_or(120);
    let text = if json {
        serde_json::to_string_pretty(&result).unwrap_or_default()
    } else {
        drill::render(&result, width, std::env::var_os("NO_COLOR").is_none())
    };
    let written = std::io::stdout().write_all(text.as_bytes());
    ExitCode::from(u8::from(written.is_err() || !result.verdict.passed))
}

/// What a flag changes in the options.
type Change = Box<dyn Fn(&mut DrillOptions)>;

fn parse(args: impl Iterator<Item = String>) -> Result<(DrillOptions, bool), String> {
    let me = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut postgres = scratch::newest_installation().map_err(|error| error.to_string())?;
    let mut changes: Vec<Change> = Vec::new();
    let (mut args, mut json, mut oxpecker) = (args, false, me.clone());
    while let Some(flag) = args.next() {
        if flag == "--json" || flag == "--keep" {
            json |= flag == "--json";
            let keep = flag == "--keep";
            changes.push(Box::new(move |options| options.keep |= keep));
            continue;
        }
        let value = args.next().ok_or_else(|| format!("{flag} needs a value"))?;
        let number = || value.parse::<u32>().map_err(|error| format!("{flag} {value}: {error}"));
        match flag.as_str() {
            "--rows" => {
                let rows = number()?;
                changes.push(Box::new(move |options| options.rows = rows));
            }
            "--storm" => {
                let length = Duration::from_secs(number()?.into());
                changes.push(Box::new(move |options| options.storm = length));
            }
            "--load" => {
                let share = f64::from(number()?) / 100.0;
                changes.push(Box::new(move |options| options.load_share = share));
            }
            "--pg" => postgres = scratch::installation(number()?).map_err(|error| error.to_string())?,
            "--oxpecker" => oxpecker = PathBuf::from(&value),
            "--acts" => {
                let acts = value
                    .split(',')
                    .map(|act| serde_json::from_value(act.into()).map_err(|error| error.to_string()))
                    .collect::<Result<Vec<ActKind>, _>>()?;
                changes.push(Box::new(move |options| options.acts.clone_from(&acts)));
            }
            _ => return Err(format!("{flag} is unknown")),
        }
    }
    let mut options = DrillOptions::new(oxpecker, postgres);
    options.helper = HelperCommand { program: me, args: vec!["drill-service".into()] };
    for change in changes {
        change(&mut options);
    }
    Ok((options, json))
}

fn tell(event: ProgressEvent) {
    let line = match event {
        ProgressEvent::Began { number, of, title, expected } => {
            format!("[{number}/{of}] {title} (about {expected:.0?})")
        }
        ProgressEvent::Goes { elapsed, now, .. } => format!("      {:>3.0} s  {now}", elapsed.as_secs_f64()),
        ProgressEvent::Ended { took, outcome } => format!("      {outcome} ({took:.1?})"),
        ProgressEvent::Note(note) => format!("      {note}"),
        _ => return,
    };
    // Nobody reads it any more: the drill goes on for its exit code.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Act 3 alone: `drill cold-start [SCALE]`; the result as JSON, and drawn on stderr.
fn cold_start(scale: Option<&str>) -> ExitCode {
    let played = || -> Result<drill::ColdStart, String> {
        let (mut options, _) = parse(std::iter::empty())?;
        if let Some(scale) = scale {
            options.cold_start_scale = scale.parse().map_err(|error| format!("{scale}: {error}"))?;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
        let cancel = async {
            // Without a handler there is nobody who could cancel.
            let _ = tokio::signal::ctrl_c().await;
        };
        runtime.block_on(drill::cold_start(&options, &mut tell, cancel)).map_err(|error| error.to_string())
    };
    let played = match played() {
        Ok(played) => played,
        Err(error) => return finish(Err(error)),
    };
    let _ = std::io::stderr().write_all(drill::render_cold_start(&played, 110, false).as_bytes());
    let json = serde_json::to_string_pretty(&played).unwrap_or_default();
    ExitCode::from(u8::from(std::io::stdout().write_all(json.as_bytes()).is_err()))
}

fn finish(outcome: Result<(), impl std::fmt::Display>) -> ExitCode {
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    let _ = writeln!(std::io::stderr(), "error: {error}");
    ExitCode::from(4)
}

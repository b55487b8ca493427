//! `oxpecker demo` and `oxpecker drill list|run`.

use std::{
    env, fs,
    io::{self, IsTerminal as _},
    pin::Pin,
    time::Duration,
};

use drill::{DrillError, DrillOptions, Progress, ProgressEvent};
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use scratch::Installation;
use serde::Serialize;

use super::block_on;
use crate::{
    cli::{DemoArgs, Format, Global},
    exit::{FINDING, FINE, Failure, Outcome},
    guard::Signals,
    output,
};

/// What can be replayed: its name and what it is.
const DRILLS: [(&str, &str); 4] = [
    (
        "vacuum-storm",
        "autovacuum takes the database's only core, as in the outage: stock settings, throttling off, guarded",
    ),
    (COLD_START, "everything is killed with SIGKILL, PostgreSQL too: brought back without an order, then by oxpecker"),
    (SURGE, "one client opens sessions until nobody else gets in: unwatched, then with relief for the role that leaks"),
    (OOM, "a service grows until the memory is gone: unwatched, then with the shedding ladder; needs root"),
];
const COLD_START: &str = "cold-start";
const SURGE: &str = "connection-surge";
const OOM: &str = "oom";

/// The result is laid out for this many columns where there is no terminal.
const COLUMNS: u16 = 100;

const STORY: &str = "\
One small server, one PostgreSQL, three services that need it, and users who do
not wait. Then autovacuum wakes up. First as it was; then the same storm again,
with oxpecker riding along. At the end a whole graph of services is killed and
brought back: without an order, and in order. Everything below is measured in this run.
";

/// `oxpecker demo`: the drill with the story around it.
pub fn demo(global: &Global, args: &DemoArgs) -> Outcome {
    if global.output == Format::Text && !global.quiet {
        output::note(STORY);
    }
    run(global, DRILLS[0].0, args)
}

/// `oxpecker drill list`.
pub fn list(global: &Global) -> Outcome {
    let drills: Vec<_> = DRILLS.iter().map(|(name, what)| serde_json::json!({ "name": name, "what": what })).collect();
    output::result(global.output, "drills", &serde_json::json!({ "drills": drills }), || {
        DRILLS.iter().map(|(name, what)| format!("{name}  {what}\n")).collect()
    })?;
    Ok(FINE)
}

/// `oxpecker drill run NAME`.
pub fn run(global: &Global, name: &str, args: &DemoArgs) -> Outcome {
    if !DRILLS.iter().any(|(known, _)| *known == name) {
        let known: Vec<&str> = DRILLS.iter().map(|(known, _)| *known).collect();
        return Err(Failure::usage(anyhow::anyhow!(
            "there is no drill called {name:?}; there is {}",
            known.join(", ")
        ))
        .hint("`oxpecker drill list` says what each does"));
    }
    match name {
        COLD_START => {
            let told =
                Told { kind: "cold_start", render: drill::render_cold_start, is_well: drill::ColdStart::is_well };
            play(global, &options(args)?, &told, async |options, progress, cancel| {
                drill::cold_start(options, progress, cancel).await
            })
        }
        SURGE => {
            let told = Told {
                kind: "connection_surge",
                render: drill::render_surge,
                is_well: |played: &drill::Surge| played.verdict.passed,
            };
            play(global, &options(args)?, &told, async |options, progress, cancel| {
                drill::connection_surge(options, progress, cancel).await
            })
        }
        OOM => {
            let told =
                Told { kind: "oom", render: drill::render_oom, is_well: |played: &drill::Oom| played.verdict.passed };
            play(global, &options(args)?, &told, async |options, progress, cancel| {
                drill::out_of_memory(options, progress, cancel).await
            })
        }
        _ => {
            let told = Told {
                kind: "drill_result",
                render: drill::render,
                is_well: |played: &drill::DrillResult| played.verdict.passed,
            };
            play(global, &with_report(options(args)?, args)?, &told, async |options, progress, cancel| {
                drill::run(options, progress, cancel).await
            })
        }
    }
}

/// How a drill's result is told.
struct Told<T> {
    /// Its name in JSON.
    kind: &'static str,
    /// As text: so many columns, with colours or without.
    render: fn(&T, usize, bool) -> String,
    /// Whether all that it should show did show.
    is_well: fn(&T) -> bool,
}

/// Ends when somebody wants the drill to end.
type Cancel = Pin<Box<dyn Future<Output = ()>>>;

/// Plays a drill with its progress shown. A signal ends it, and all that it made.
fn play<T: Serialize>(
    global: &Global,
    options: &DrillOptions,
    told: &Told<T>,
    drill: impl AsyncFnOnce(&DrillOptions, &mut dyn Progress, Cancel) -> Result<T, DrillError>,
) -> Outcome {
    let mut progress = Shown::new(global);
    let played = block_on(async {
        let mut signals = Signals::listen()?;
        let cancel = async move {
            let _ = signals.next().await;
        };
        drill(options, &mut |event| progress.show(event), Box::pin(cancel)).await.map_err(failure)
    })?;
    progress.end();
    let played = played?;
    output::result(global.output, told.kind, &played, || {
        let (width, colour) = page();
        (told.render)(&played, width, colour)
    })?;
    Ok(if (told.is_well)(&played) { FINE } else { FINDING })
}

fn failure(error: DrillError) -> Failure {
    match error {
        DrillError::Options { .. } => Failure::usage(error),
        _ => Failure::from(error),
    }
}

/// Columns of the result's page, and whether it has colours.
fn page() -> (usize, bool) {
    let (width, colour) =
        if io::stdout().is_terminal() { (columns(), env::var_os("NO_COLOR").is_none()) } else { (COLUMNS, false) };
    (usize::from(width), colour)
}

fn columns() -> u16 {
    rustix::termios::tcgetwinsize(io::stdout())
        .map(|size| size.ws_col)
        .ok()
        .filter(|columns| *columns > 0)
        .unwrap_or(COLUMNS)
}

fn options(args: &DemoArgs) -> Result<DrillOptions, Failure> {
    let postgres = match &args.pg_bin {
        Some(dir) => Installation::at(dir).ok_or_else(|| {
            Failure::usage(anyhow::anyhow!("there is no PostgreSQL server in {}", dir.display()))
                .hint("name the folder that holds `postgres` and `initdb`, such as /usr/lib/postgresql/15/bin")
        })?,
        None => scratch::installations().into_iter().find(|i| (13..=18).contains(&i.major())).ok_or_else(|| {
            Failure::usage(anyhow::anyhow!("no PostgreSQL 13 to 18 is installed"))
                .hint("install a server (Debian: postgresql), or run `make demo`, which does it for you")
        })?,
    };
    let mut options = DrillOptions::new(env::current_exe()?, postgres);
    options.load_share = f64::from(args.load) / 100.0;
    options.storm = Duration::from_secs(args.act.into());
    options.keep = args.keep;
    options.rescue = !args.without_backup;
    options.cold_start = !args.without_cold_start;
    options.cold_start_scale = args.clock;
    if let Some(seed) = args.seed {
        options.seed = seed;
    }
    if let Some(rows) = args.rows {
        options.rows = rows;
    }
    Ok(options)
}

/// The same, with a place for the report that it writes.
fn with_report(mut options: DrillOptions, args: &DemoArgs) -> Result<DrillOptions, Failure> {
    let dir = &args.report_dir;
    fs::create_dir_all(dir).map_err(|e| {
        Failure::usage(anyhow::Error::new(e).context(format!("can't create {}", dir.display())))
            .hint("name another folder with --report-dir")
    })?;
    options.report = dir.join(format!("incident-{}.md", Timestamp::now().strftime("%Y%m%dT%H%M%SZ")));
    Ok(options)
}

/// Progress on stderr: a bar on a terminal, plain lines elsewhere.
struct Shown {
    quiet: bool,
    bar: Option<ProgressBar>,
    current: String,
}

impl Shown {
    fn new(global: &Global) -> Self {
        let bar = (io::stderr().is_terminal() && !global.quiet).then(|| {
            let style = ProgressStyle::with_template("{prefix:.bold} {wide_msg}\n  [{bar:40}] {percent:>3} %");
            let bar = ProgressBar::new(1000);
            if let Ok(style) = style {
                bar.set_style(style.progress_chars("=> "));
            }
            bar
        });
        Self { quiet: global.quiet, bar, current: String::new() }
    }

    fn show(&mut self, event: ProgressEvent) {
        match event {
            ProgressEvent::Began { number, of, title, expected } => {
                self.current = format!("[{number}/{of}] {title}");
                match &self.bar {
                    Some(bar) => {
                        bar.set_position(0);
                        bar.set_prefix(self.current.clone());
                        bar.set_message(format!("about {} s", expected.as_secs()));
                    }
                    None => self.line(&format!("{} (about {} s)", self.current, expected.as_secs())),
                }
            }
            ProgressEvent::Goes { elapsed, expected, now } => {
                if let Some(bar) = &self.bar {
                    let left = expected.saturating_sub(elapsed).as_secs();
                    let part = elapsed.as_secs_f64() / expected.as_secs_f64().max(0.001);
                    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=1000")]
                    bar.set_position((part * 1000.0).clamp(0.0, 1000.0) as u64);
                    bar.set_message(if now.is_empty() {
                        format!("{left} s left")
                    } else {
                        format!("{left} s left · {now}")
                    });
                }
            }
            ProgressEvent::Ended { took, outcome } => {
                let text = format!("{}: {outcome} ({:.1} s)", self.current, took.as_secs_f64());
                match &self.bar {
                    Some(bar) => bar.println(text),
                    None => self.line(&format!("  {outcome} ({:.1} s)", took.as_secs_f64())),
                }
            }
            ProgressEvent::Note(text) => match &self.bar {
                Some(bar) => bar.println(text),
                None => self.line(&text),
            },
            _ => {}
        }
    }

    fn line(&self, text: &str) {
        if !self.quiet {
            output::note(text);
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

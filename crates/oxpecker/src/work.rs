//! Long work on behalf of a person or the guard: how far it is, stopping it, stepping back.

use std::{
    fs,
    io::{self, IsTerminal as _},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use backup::{Note, Progress, Stage, Update};
use indicatif::{ProgressBar, ProgressStyle};
use jiff::{Timestamp, tz::TimeZone};
use model::{
    ByteSize,
    reading::{ActivityReading, HostReading},
};
use serde::Deserialize;

use crate::{
    cli::{Format, Global},
    guard::{self, Request},
    output,
};

/// Where there is no terminal, a line about the progress comes so often.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// How often a guard, where there is one, is asked how PostgreSQL and the host are.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// How long a thread sleeps before each extent while others are under pressure.
const STEP_BACK: Duration = Duration::from_millis(200);
/// PostgreSQL answers the guard's own small query within 5 ms on an idle host. It is the best sign that others wait: this process's
/// own work shows in the host's figures, too.
const CANARY_SLOW: Duration = Duration::from_millis(250);
/// The share of the time in which all tasks wait for memory.
const MEMORY_STALL: f64 = 0.1;

/// Added to the badness by which the kernel chooses whom to kill when memory is short: this process before the database.
const OOM_SCORE: &str = "500";
const OOM_FILE: &str = "/proc/self/oom_score_adj";
/// The lowest priority. Without an I/O priority of its own a process has the one that follows from it, which is the lowest "best effort"
/// (ioprio_set(2): (nice + 20) / 5).
const NICE: i32 = 19;

/// Gives back what a worker inherits of the guard's protection: what it starts, or holds in memory, is not the alarm. To be called before threads
/// are started.
pub fn ordinary() {
    if rustix::process::getpriority_process(None).is_ok_and(|niceness| niceness < 0)
        && let Err(error) = rustix::process::setpriority_process(None, 0)
    {
        tracing::warn!(%error, "this worker keeps the guard's priority");
    }
    let score = fs::read_to_string(OOM_FILE).ok().and_then(|text| text.trim().parse::<i32>().ok());
    if score.is_some_and(|score| score < 0)
        && let Err(error) = fs::write(OOM_FILE, "0")
    {
        tracing::warn!(%error, "this worker is spared as the guard is when memory is short");
    }
}

/// Makes this process the first to go when the host is short of anything. To be called before threads are started: they inherit it.
pub fn step_down() {
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::warn!(%error, "this process keeps its priority");
    }
    if let Err(error) = fs::write(OOM_FILE, OOM_SCORE) {
        tracing::warn!(%error, "this process is no more likely to be killed than others when memory is short");
    }
}

/// What the threads share.
#[derive(Debug, Default)]
struct Shared {
    cancelled: AtomicBool,
    pause_ms: AtomicU64,
}

/// Tells how far the work is, and the work what it shall do.
pub struct Work {
    shared: Arc<Shared>,
    bar: Option<ProgressBar>,
    lines: bool,
    told: Mutex<Told>,
    watcher: Option<(Sender<()>, JoinHandle<()>)>,
}

#[derive(Debug, Default)]
struct Told {
    stage: Option<Stage>,
    line: Option<Instant>,
    warnings: Vec<String>,
    corrupt: Vec<String>,
    plan: Option<Plan>,
}

/// What is to be done, as it was said beforehand.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Plan {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What it will take, at most, as far as can be told.
    pub space_needed: u64,
    /// What is free there.
    pub space_free: Option<u64>,
    /// How `space_needed` was found.
    pub basis: &'static str,
}

impl Plan {
    /// In words.
    pub fn in_words(&self) -> String {
        let free = self.space_free.map_or_else(String::new, |free| format!(", {} are free", ByteSize(free)));
        format!(
            "{} in {} files; takes up to {} ({}){free}",
            ByteSize(self.bytes),
            self.files,
            ByteSize(self.space_needed),
            self.basis
        )
    }
}

impl Work {
    /// Begins. SIGINT and SIGTERM ask the work to stop, a second one ends the process at once. With `state_dir`, the guard there is
    /// asked whether to step back.
    ///
    /// # Errors
    /// Where the system refuses a signal handler or a thread.
    pub fn begin(global: &Global, state_dir: Option<&Path>) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        listen(Arc::clone(&shared))?;
        let watcher = state_dir.map(|dir| watch(dir, Arc::clone(&shared))).transpose()?;
        let bar = (io::stderr().is_terminal() && !global.quiet).then(|| {
            let bar = ProgressBar::new(0);
            if let Ok(style) = ProgressStyle::with_template("{prefix:.bold} [{bar:30}] {percent:>3} %  {wide_msg}") {
                bar.set_style(style.progress_chars("=> "));
            }
            bar
        });
        // Whoever reads JSON from stdout still sees lines on stderr, unless quiet.
        let lines = bar.is_none() && !global.quiet && global.output == Format::Text;
        Ok(Self { shared, bar, lines, told: Mutex::default(), watcher })
    }

    /// Says a line.
    pub fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None if self.lines => output::note(text),
            None => {}
        }
    }

    /// Warnings that were told.
    pub fn warnings(&self) -> Vec<String> {
        self.told().warnings.clone()
    }

    /// What was said to be done.
    pub fn plan(&self) -> Option<Plan> {
        self.told().plan
    }

    /// Asks the work to stop.
    pub fn cancel(&self) {
        self.shared.cancelled.store(true, Ordering::Relaxed);
    }

    /// Takes the bar away.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// Shows how far it is: `done` of `total` bytes.
    pub fn show(&self, stage: &'static str, done: u64, total: u64, rate: f64, remaining: Option<Duration>) {
        let message = words(done, total, rate, remaining);
        match &self.bar {
            Some(bar) => {
                bar.set_prefix(stage);
                bar.set_length(total.max(1));
                bar.set_position(done);
                bar.set_message(message);
            }
            None if self.lines => {
                let mut told = self.told();
                if told.line.get_or_insert_with(Instant::now).elapsed() < LINE_EVERY {
                    return;
                }
                told.line = Some(Instant::now());
                drop(told);
                output::note(&format!("{stage}: {message}"));
            }
            None => {}
        }
    }

    /// Names a stage once. What takes longer than [`LINE_EVERY`] has lines of its own.
    fn begin_stage(&self, stage: &'static str, is_last: bool) {
        self.told().line = Some(Instant::now());
        match &self.bar {
            Some(bar) => {
                bar.set_prefix(stage);
                bar.set_message("");
            }
            None if self.lines && !is_last => output::note(stage),
            None => {}
        }
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.end();
        if let Some((stop, thread)) = self.watcher.take() {
            drop(stop);
            drop(thread.join());
        }
    }
}

impl Progress for Work {
    fn update(&self, update: &Update) {
        let changed = self.told().stage.replace(update.stage) != Some(update.stage);
        let stage = stage_words(update.stage);
        if changed {
            self.begin_stage(stage, update.stage == Stage::Done);
        }
        if matches!(update.stage, Stage::Copying | Stage::Writing) {
            self.show(stage, update.bytes_done, update.bytes_total, update.bytes_per_second, update.remaining);
        }
    }

    fn note(&self, note: &Note) {
        match note {
            Note::Plan { files, bytes, space_needed, space_free, basis } => {
                let (files, bytes, space_needed, space_free) = (*files, *bytes, *space_needed, *space_free);
                let plan = Plan { files, bytes, space_needed, space_free, basis };
                self.told().plan = Some(plan);
                self.say(&plan.in_words());
            }
            Note::CorruptPage { path, block, why } => {
                let text = format!("damaged page: {path}, block {block}: {why}");
                self.say(&text);
                self.told().corrupt.push(text);
            }
            Note::Warning(text) => {
                self.say(&format!("warning: {text}"));
                self.told().warnings.push(text.clone());
            }
            Note::Started(lsn) => tracing::debug!(%lsn, "the backup's WAL begins here"),
        }
    }

    fn pace(&self) -> Duration {
        Duration::from_millis(self.shared.pause_ms.load(Ordering::Relaxed))
    }

    fn cancelled(&self) -> bool {
        self.shared.cancelled.load(Ordering::Relaxed)
    }
}

fn stage_words(stage: Stage) -> &'static str {
    match stage {
        Stage::Preparing => "looking",
        Stage::Checkpoint => "waiting for PostgreSQL's checkpoint",
        Stage::Copying => "copying",
        Stage::Wal => "copying the write-ahead log",
        Stage::Committing => "committing",
        Stage::Writing => "writing",
        Stage::Syncing => "forcing it to disk",
        Stage::Done => "done",
    }
}

fn words(done: u64, total: u64, rate: f64, remaining: Option<Duration>) -> String {
    let mut text = format!("{} of {}", ByteSize(done), ByteSize(total));
    // In the first moments nobody knows a rate: none is not naught.
    if rate >= 1.0 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate is no negative number, and saturates"
        )]
        let rate = ByteSize(rate as u64);
        text.push_str(&format!(", {rate}/s"));
    }
    if let Some(left) = remaining {
        text.push_str(&format!(", {} left", duration(left)));
    }
    text
}

/// A moment for people, with the host's zone.
pub fn moment(at: Timestamp) -> String {
    at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M %Z").to_string()
}

/// A duration for people: `1.5 s`, `45 s`, `3 min`, `2 h 10 min`, `3 d 4 h`.
pub fn duration(duration: Duration) -> String {
    let s = duration.as_secs();
    match s {
        0..=9 => format!("{:.1} s", duration.as_secs_f64()),
        10..=99 => format!("{s} s"),
        100..=5999 => format!("{} min", s / 60),
        6000..=172_799 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}

/// Turns the first signal into a wish, and the second into an end: whoever presses twice means it.
fn listen(shared: Arc<Shared>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _inside = runtime.enter();
        guard::Signals::listen()?
    };
    // It ends with the process: nothing waits for it.
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            loop {
                // Also a hang-up: whose terminal has gone is nobody's work any more.
                signals.next().await;
                if shared.cancelled.swap(true, Ordering::Relaxed) {
                    std::process::exit(crate::exit::FAILED.into());
                }
                output::note("stopping in an orderly way; ask once more to stop at once");
            }
        });
    })?;
    Ok(())
}

/// What a guard says of the state of things, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Seen {
    host: Option<HostReading>,
    activity: Option<ActivityReading>,
}

impl Seen {
    fn pause(&self) -> Duration {
        let slow = self.activity.as_ref().is_some_and(|activity| activity.took >= CANARY_SLOW);
        let stall = self.host.as_ref().and_then(|host| host.memory_pressure);
        let pressed = slow || stall.is_some_and(|stall| stall.full.0 >= MEMORY_STALL);
        if pressed { STEP_BACK } else { Duration::ZERO }
    }
}

fn watch(state_dir: &Path, shared: Arc<Shared>) -> io::Result<(Sender<()>, JoinHandle<()>)> {
    let (stop, stopped) = channel::<()>();
    let state_dir = state_dir.to_owned();
    let thread = thread::Builder::new().name("pressure".to_owned()).spawn(move || {
        while stopped.recv_timeout(ASK_EVERY) == Err(RecvTimeoutError::Timeout) {
            // Without a guard nobody knows how PostgreSQL fares; the low priority has to do.
            let pause = guard::ask::<Seen>(&state_dir, Request::Status).map_or(Duration::ZERO, |seen| seen.pause());
            let pause = u64::try_from(pause.as_millis()).unwrap_or(0);
            if shared.pause_ms.swap(pause, Ordering::Relaxed) != pause {
                tracing::info!("{}", if pause > 0 { "others wait: stepping back" } else { "going on at full speed" });
            }
        }
    })?;
    Ok((stop, thread))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_for_people() {
        for (s, text) in
            [(0, "0.0 s"), (2, "2.0 s"), (45, "45 s"), (185, "3 min"), (7800, "2 h 10 min"), (273_600, "3 d 4 h")]
        {
            assert_eq!(duration(Duration::from_secs(s)), text);
        }
    }

    #[test]
    fn progress_has_rate_and_remaining_time() {
        let text = words(1 << 30, 4 << 30, f64::from(100 << 20), Some(Duration::from_secs(31)));
        assert_eq!(text, "1.0 GiB of 4.0 GiB, 100 MiB/s, 31 s left");
        assert_eq!(words(0, 0, 0.0, None), "0 B of 0 B");
        assert_eq!(words(0, 4 << 30, 0.0, None), "0 B of 4.0 GiB");
        assert_eq!(words(0, 4 << 30, f64::NAN, None), "0 B of 4.0 GiB");
    }

    #[test]
    fn what_a_guard_without_readings_says_is_no_pressure() {
        let seen: Seen =
            serde_json::from_value(serde_json::json!({ "host": null, "activity": null, "pid": 1 })).unwrap();
        assert_eq!(seen.pause(), Duration::ZERO);
    }
}

//! `oxpecker service apply`: brings all back, and tells how it goes.

use std::time::{Duration, Instant};

use services::{
    execute::{Ended, Executor, Round, boot_id},
    plan::{Action, Outcome as Stand},
    state::State,
};

use super::{LOOK_EVERY, Place, block_on, failure, show, words};
use crate::{
    cli::{ApplyArgs, Global, LookArgs},
    exit::{FAILED, FINDING, FINE, Failure, Outcome},
    guard::Signals,
    output,
};

/// How long acts may take to be handed over when somebody breaks off.
const FINISH: Duration = Duration::from_secs(30);
/// How often is told what is waited for while nothing happens.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Brings them back.
pub fn apply(global: &Global, args: &ApplyArgs) -> Outcome {
    if args.dry_run {
        return show::plan(global, &LookArgs { look_for: None });
    }
    let place = Place::load(global)?;
    let mut executor = Executor::act(&place.dir, &boot_id(), place.scene()?).map_err(failure)?;
    if args.again {
        executor.reset().map_err(failure)?;
    }
    let mut told = Told { began: Instant::now(), quiet: global.quiet, spoke: Instant::now(), ended: vec![] };
    let last = block_on(async {
        let mut signals = Signals::listen()?;
        tokio::select! {
            last = carry_out(&place, &mut executor, &mut told) => return last,
            _ = signals.next() => {}
        }
        // In the runtime in which they were begun: what an act waits for is known to no other.
        let done = executor.finish(FINISH).await;
        let how = if done { "what was begun is handed over" } else { "what was begun may be half done" };
        Err(Failure { code: FAILED, error: anyhow::anyhow!("broken off: {how}"), hint: None }
            .hint("the same command goes on where this one ended"))
    })??;
    let took = told.began.elapsed();
    let shown = show::Shown::new(&place, &executor, &last, took)?;
    let well = last.plan.outcome == Stand::Done && last.statuses.iter().all(words::is_well);
    let mut document = shown.document();
    document["took_s"] = took.as_secs_f64().into();
    document["did"] = told.ended.iter().map(did).collect();
    output::result(global.output, "service_apply", &document, || {
        let sentence = told.sentence(&last, well);
        output::prose(&if well { sentence } else { format!("{}\n{sentence}", shown.text()) })
    })?;
    let failed = told.ended.iter().any(|ended| ended.failure.is_some());
    Ok(match (well, failed) {
        (true, _) => FINE,
        (false, false) => FINDING,
        (false, true) => FAILED,
    })
}

fn did(ended: &Ended) -> serde_json::Value {
    serde_json::json!({
        "service": ended.service,
        "action": ended.action,
        "took_s": ended.took.as_secs_f64(),
        "failure": ended.failure,
    })
}

/// What this command did, and how it says so.
struct Told {
    began: Instant,
    quiet: bool,
    spoke: Instant,
    ended: Vec<Ended>,
}

async fn carry_out(place: &Place, executor: &mut Executor, told: &mut Told) -> Result<Round, Failure> {
    let mut first = true;
    loop {
        let round = executor.round().await.map_err(failure)?;
        if std::mem::take(&mut first) && !told.quiet {
            output::note(&show::Shown::new(place, executor, &round, Duration::ZERO)?.headline());
        }
        told.round(executor, &round);
        if round.plan.outcome != Stand::Working && round.began.is_empty() {
            return Ok(round);
        }
        executor.wait(LOOK_EVERY).await.map_err(failure)?;
    }
}

impl Told {
    fn round(&mut self, executor: &Executor, round: &Round) {
        for ended in &round.ended {
            self.note(&match &ended.failure {
                None => format!("{} is stable, {} after the {}", ended.service, words::span(ended.took), ended.action),
                Some(why) => format!("{} of {} failed: {}", ended.action, ended.service, words::plain(why)),
            });
            self.ended.push(ended.clone());
        }
        for one in &round.began {
            let again = if one.step.attempt > 1 { format!(", attempt {}", one.step.attempt) } else { String::new() };
            self.note(&format!("{} {}{again}: {}", one.step.action, one.step.service, one.step.reason));
        }
        if self.spoke.elapsed() >= TELL_EVERY {
            self.waiting(executor, round);
        }
    }

    /// What is waited for, so that nobody takes patience for a hang.
    fn waiting(&mut self, executor: &Executor, round: &Round) {
        let graph = executor.graph();
        let on_their_way = round.plan.in_flight.iter().filter_map(|(name, _)| {
            let id = graph.id(name)?;
            let status = &round.statuses[id.index()];
            (status.state != State::Stable).then(|| format!("{name} ({})", words::is(status, executor, id)))
        });
        let waited: Vec<String> = on_their_way.collect();
        if waited.is_empty() {
            let next = round.plan.steps.iter().map(|step| step.at.saturating_sub(round.plan.made_at)).min();
            self.note(&format!("the next step is due in {}", words::span(next.unwrap_or_default())));
        } else {
            self.note(&format!("waiting for {}", words::names(waited)));
        }
    }

    fn note(&mut self, text: &str) {
        self.spoke = Instant::now();
        if !self.quiet {
            output::note(&format!("{:>7.1} s  {text}", self.began.elapsed().as_secs_f64()));
        }
    }

    /// How it ended, in one sentence.
    fn sentence(&self, last: &Round, well: bool) -> String {
        let done =
            |action: Action| self.ended.iter().filter(|one| one.action == action && one.failure.is_none()).count();
        let failed = self.ended.iter().filter(|one| one.failure.is_some()).count();
        let parts = [
            (done(Action::Start), "started"),
            (done(Action::Restart), "restarted"),
            (done(Action::Provision), "provisioned again"),
            (failed, "attempts failed"),
        ];
        let parts: Vec<String> =
            parts.iter().filter(|(number, _)| *number > 0).map(|(number, what)| format!("{number} {what}")).collect();
        let did = if parts.is_empty() { "nothing was done".to_owned() } else { parts.join(", ") };
        let all = words::services(last.statuses.len());
        let took = words::span(self.began.elapsed());
        if well {
            let stopped = last.statuses.iter().filter(|one| matches!(one.state, State::Stopped { .. })).count();
            let but = if stopped > 0 { format!(", but for {stopped} stopped on purpose") } else { String::new() };
            return format!("All {all} are stable{but}, after {took}: {did}.");
        }
        let stable = last.statuses.iter().filter(|one| one.state == State::Stable).count();
        let why = match last.plan.outcome {
            Stand::NeedsApproval => "an approval is needed",
            Stand::Escalated => "a person is needed",
            Stand::Done | Stand::Working => "something is not as it is meant to be",
        };
        format!("{stable} of {all} are stable after {took}: {did}; {why}.")
    }
}

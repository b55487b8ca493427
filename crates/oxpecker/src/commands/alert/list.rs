//! `oxpecker alert list`: what is open, who was told, who works on it, and what is silenced. From the files of the guard, so that it also works while
//! none runs.

use std::{fmt::Write as _, path::Path};

use alerting::{
    Silence,
    hush::{Book, Hush},
    outbox::{self, Recovered},
};
use jiff::Timestamp;
use model::{Alert, Severity, alert::rule};
use serde::Serialize;

use crate::{
    cli::Global,
    exit::{FINDING, FINE, Outcome},
    guard::{self, AskError, Request},
    output, work,
};

/// Steps that are shown of each alert: the first things to do.
const STEPS_SHOWN: usize = 3;

#[derive(Serialize)]
struct Open<'a> {
    #[serde(flatten)]
    alert: &'a Alert,
    /// Routes that took it.
    told: Vec<&'a str>,
    /// Routes to which it is on its way.
    on_its_way: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    acknowledged: Option<&'a alerting::Ack>,
    #[serde(skip_serializing_if = "Option::is_none")]
    silenced: Option<&'a Silence>,
}

/// Lists them; exit 1 where one is open that nobody works on and nobody silenced.
pub fn list(global: &Global) -> Outcome {
    let (state, dir) = super::outbox_dir(global)?;
    let found = outbox::peek(&dir)?;
    let now = Timestamp::now();
    let (hush, problem) = match Book::new(&dir).read() {
        Ok(hush) => (hush, None),
        Err(error) => (Hush::default(), Some(error.to_string())),
    };
    for problem in found.problems.iter().chain(&problem) {
        output::note(problem);
    }
    let open = open(&found, &hush, now);
    let guard_runs = guard_runs(&state);
    let silences: Vec<&Silence> = hush.silences.iter().filter(|silence| now < silence.until).collect();
    let document = serde_json::json!({ "guard_runs": guard_runs, "open": open, "silences": silences });
    output::result(global.output, "alert_list", &document, || in_words(&open, &silences, guard_runs, now))?;
    Ok(if open.iter().all(|one| one.acknowledged.is_some() || one.silenced.is_some()) { FINE } else { FINDING })
}

/// The worst first, of those the oldest.
fn open<'a>(found: &'a Recovered, hush: &'a Hush, now: Timestamp) -> Vec<Open<'a>> {
    let mut open: Vec<Open<'a>> = found
        .open
        .iter()
        // What members are told is no alert: nobody is to take it on.
        .filter(|alert| alert.rule.0 != rule::MEMBERS_WORD)
        .map(|alert| {
            let waits = |route: &str| found.pending.iter().any(|p| p.alert.key == alert.key && p.route == route);
            let told = found.told.get(&alert.key).into_iter().flatten().map(String::as_str);
            let (on_its_way, told) = told.partition(|route| waits(route));
            let (acknowledged, silenced) = (hush.ack(&alert.key), hush.silence(alert, now));
            Open { alert, told, on_its_way, acknowledged, silenced }
        })
        .collect();
    open.sort_by_key(|one| (std::cmp::Reverse(one.alert.severity), one.alert.since.wall));
    open
}

fn guard_runs(state: &Path) -> bool {
    !matches!(guard::ask::<serde_json::Value>(state, Request::Status), Err(AskError::NoGuard(_)))
}

fn in_words(open: &[Open<'_>], silences: &[&Silence], guard_runs: bool, now: Timestamp) -> String {
    let mut text = match open.len() {
        0 => "No alert is open.\n".to_owned(),
        1 => "One alert is open.\n".to_owned(),
        n => format!("{n} alerts are open.\n"),
    };
    if !guard_runs {
        text.push_str(
            "NO GUARD RUNS: this is what the last one left, and nothing new is noticed. Start it: oxpecker run\n",
        );
    }
    for one in open {
        tell(&mut text, one, now);
    }
    if !silences.is_empty() {
        text.push_str("\nSilenced:\n");
        for silence in silences {
            let Silence { id, matches, until, by, why, .. } = silence;
            let what = super::hush::labels(matches);
            let _ = writeln!(text, "  {id}  {what}, until {} ({by}: {why})", work::moment(*until));
        }
    }
    output::prose(&text)
}

fn tell(text: &mut String, one: &Open<'_>, now: Timestamp) {
    let alert = one.alert;
    let severity = match alert.severity {
        Severity::Critical => "CRITICAL".to_owned(),
        other => other.to_string(),
    };
    let open_for = work::duration(now.duration_since(alert.since.wall).try_into().unwrap_or_default());
    let _ = writeln!(text, "\n{severity}  {}, for {open_for} (since {})", alert.rule, work::moment(alert.since.wall));
    let _ = writeln!(text, "  {}", alert.summary);
    for detail in &alert.details {
        let _ = writeln!(text, "  - {detail}");
    }
    if !alert.next_steps.is_empty() {
        text.push_str("  Do first:\n");
    }
    for (at, step) in alert.next_steps.iter().take(STEPS_SHOWN).enumerate() {
        let _ = writeln!(text, "    {}. {step}", at + 1);
    }
    let mut who = Vec::new();
    if !one.told.is_empty() {
        who.push(format!("told: {}", one.told.join(", ")));
    }
    if !one.on_its_way.is_empty() {
        who.push(format!("NOT YET TAKEN by {}", one.on_its_way.join(", ")));
    }
    if let Some(silence) = one.silenced {
        who.push(format!("silenced by {} until {}", silence.by, work::moment(silence.until)));
    }
    match one.acknowledged {
        Some(ack) => who.push(format!("{} has it since {}", ack.by, work::moment(ack.at))),
        None => who.push("nobody has it yet".to_owned()),
    }
    let _ = writeln!(text, "  {}", who.join("; "));
    let _ = writeln!(text, "  {}", alert.key);
}

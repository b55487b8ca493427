//! The judgement: pure, so that each of its rules has a test that fails it.

use crate::{
    cold_start::{ColdKind, ColdSide, ColdStart},
    detect::{self, MAX_AHEAD_S, MAX_DETECTION_S},
    options::ActKind,
    result::{ActResult, Detection, Rescue, Verdict, VerdictLine},
};

/// Guarded must be below this share of what throttling off shows: less could be chance.
pub(crate) const BETTER: f64 = 0.8;
/// From this share of failed requests on the p99 is the time at which users gave up waiting: it says nothing of how long they would
/// have waited, and can't be compared.
const CENSORED: f64 = 0.01;

/// From this share of the core on, used by processes that are not the drill's, the result is called into question.
const STRANGERS: f64 = 0.15;

/// What the judge is given.
pub(crate) struct Evidence<'a> {
    pub(crate) acts: &'a [ActResult],
    pub(crate) detection: Option<&'a Detection>,
    /// The last act.
    pub(crate) rescue: Option<&'a Rescue>,
    /// Act 3.
    pub(crate) cold_start: Option<&'a ColdStart>,
    /// What was found running after everything had been stopped.
    pub(crate) left: &'a [String],
    /// Whether left-overs were looked for (not with `--keep`, where something is left on purpose).
    pub(crate) looked_for_left: bool,
}

pub(crate) fn judge(evidence: &Evidence<'_>) -> Verdict {
    let find = |kind| evidence.acts.iter().find(|act| act.act == kind);
    let mut lines = Vec::new();
    for act in evidence.acts.iter().filter(|act| act.act.has_storm()) {
        lines.push(storm_came(act));
    }
    if let Some(guarded) = find(ActKind::Guarded) {
        if let Some(off) = find(ActKind::Unthrottled) {
            lines.push(better(off, guarded));
            lines.push(no_more_failures(off, guarded));
        }
        lines.push(detected(find(ActKind::Unthrottled), guarded, evidence.detection));
        lines.push(put_back(guarded));
        lines.push(took_all_along(guarded));
    }
    if let Some(rescue) = evidence.rescue {
        lines.push(restored(rescue));
    }
    if let Some(played) = evidence.cold_start {
        lines.extend(cold_start(played));
    }
    if evidence.looked_for_left {
        lines.push(nothing_left(evidence.left));
    }
    Verdict { passed: !lines.is_empty() && lines.iter().all(|line| line.passed), lines, notes: notes(evidence.acts) }
}

/// An act without its storm proves nothing, least of all for a guard that prevented it by switching autovacuum off.
fn storm_came(act: &ActResult) -> VerdictLine {
    let vacuum = act.vacuum.as_ref();
    let seen = vacuum.and_then(|vacuum| vacuum.first_seen_s);
    VerdictLine {
        claim: format!("the storm came ({})", act.act),
        passed: seen.is_some(),
        because: match (seen, vacuum) {
            (Some(after), Some(vacuum)) => {
                format!("first worker after {after:.1} s, {} workers, {:.1} s of CPU", vacuum.workers, vacuum.cpu_s)
            }
            _ => "no autovacuum worker was seen on the big tables".into(),
        },
    }
}

#[expect(clippy::cast_precision_loss, reason = "requests of an act")]
fn better(off: &ActResult, guarded: &ActResult) -> VerdictLine {
    let failed = |act: &ActResult| act.all.failed as f64 / (act.all.requests.max(1)) as f64;
    let p99 = format!("{:.0} ms against {:.0} ms, all services, the whole window", guarded.all.p99_ms, off.all.p99_ms);
    let share = BETTER * 100.0;
    if failed(off) >= CENSORED {
        return VerdictLine {
            claim: format!(
                "guarded fails below {share:.0} % of the requests that throttling off fails (more than {:.0} % of all, so that its \
                 p99 is the time-out)",
                CENSORED * 100.0
            ),
            passed: failed(guarded) < failed(off) * BETTER,
            because: format!("{:.1} % against {:.1} % failed; p99 {p99}", failed(guarded) * 100.0, failed(off) * 100.0),
        };
    }
    VerdictLine {
        claim: format!("guarded p99 is below {share:.0} % of throttling off's"),
        passed: guarded.all.p99_ms < off.all.p99_ms * BETTER,
        because: p99,
    }
}

fn no_more_failures(off: &ActResult, guarded: &ActResult) -> VerdictLine {
    let (off, guarded) = (off.all.failed, guarded.all.failed);
    VerdictLine {
        claim: "guarded fails no more requests than throttling off".into(),
        passed: guarded <= off,
        because: format!("{guarded} against {off} failed requests"),
    }
}

fn restored(rescue: &Rescue) -> VerdictLine {
    VerdictLine {
        claim:
            "what was dropped and destroyed came back, up to the moment before the mistake, and the backup is proven"
                .into(),
        passed: rescue.same
            && rescue.rows_before > 0
            && rescue.ledger_before > 0
            && rescue.ledger_after == rescue.ledger_before,
        because: format!(
            "{} of {} rows, compared by their contents; {} of {} commits made after the backup",
            rescue.rows_after, rescue.rows_before, rescue.ledger_after, rescue.ledger_before
        ),
    }
}

/// Act 3: in order means that nothing was started in vain.
pub(crate) fn cold_start(played: &ColdStart) -> Vec<VerdictLine> {
    let scale = f64::from(played.scale);
    let mut lines = Vec::new();
    let Some(ordered) = played.side(ColdKind::Ordered) else { return lines };
    let stable = |side: &ColdSide| {
        side.stable_s.map_or_else(|| "never".to_owned(), |stable| format!("after {:.0} s", stable * scale))
    };
    lines.push(VerdictLine {
        claim: "killed with SIGKILL, all came back in order, and nothing was started in vain".into(),
        passed: ordered.stable_s.is_some() && ordered.gave_up.is_none() && ordered.wasted + ordered.early == 0,
        because: match &ordered.gave_up {
            Some(why) => format!("it ended with a call for a person: {why}"),
            None => format!(
                "all {} stable {}, {} wasted starts, {} before what they need served",
                ordered.lanes.len(),
                stable(ordered),
                ordered.wasted,
                ordered.early
            ),
        },
    });
    if let Some(unordered) = played.side(ColdKind::Unordered) {
        lines.push(VerdictLine {
            // Which is sooner is stated, not judged: on a busy host, and by the luck of a back-off, it may be the other.
            claim: "fewer wasted starts than without an order".into(),
            passed: ordered.wasted < unordered.wasted,
            because: format!(
                "{} against {}; stable {} against {}",
                ordered.wasted,
                unordered.wasted,
                stable(ordered),
                stable(unordered)
            ),
        });
    }
    lines
}

/// A guard that keeps the core from being saturated at all has nothing to detect: that is better still, where the same storm without
/// it did saturate the core. So is one that ends each saturation before an alert of it was due.
fn detected(off: Option<&ActResult>, guarded: &ActResult, detection: Option<&Detection>) -> VerdictLine {
    #[expect(clippy::cast_precision_loss, reason = "seconds of an act")]
    let window_s = guarded.window_s as f64;
    let alert = guarded.guard.as_ref().and_then(|guard| detect::first(&guard.alerts, window_s));
    let alert = alert.map_or_else(
        || "no alert about the CPU or a vacuum".into(),
        |alert| format!("first alert decided {:.1} s after the release", alert.decided_s),
    );
    let began = |act: &ActResult| act.cpu.saturated.first().map(|saturation| saturation.from_s);
    if let (Some(off), None) = (off.and_then(began), began(guarded)) {
        return VerdictLine {
            claim: "saturation prevented: guarded, the core was never saturated for a whole second".into(),
            passed: true,
            because: format!("with throttling off it was so {off:.1} s after the release; {alert}"),
        };
    }
    let longest = |act: &ActResult| act.cpu.saturated.iter().map(|span| span.to_s - span.from_s).fold(0.0, f64::max);
    if let (Some(off), None) = (off.map(longest).filter(|span| *span >= MAX_DETECTION_S), detection)
        && longest(guarded) < MAX_DETECTION_S
        && began(guarded).is_some()
    {
        return VerdictLine {
            claim: format!(
                "saturation cut short: guarded, it was over within {MAX_DETECTION_S:.0} s, before an alert was due"
            ),
            passed: true,
            because: format!("it lasted {:.1} s at most, with throttling off {off:.1} s; {alert}", longest(guarded)),
        };
    }
    VerdictLine {
        claim: format!("detected within {MAX_DETECTION_S:.0} s of the core's saturation"),
        passed: detection.is_some_and(|detection| {
            detection.told_before || (-MAX_AHEAD_S..=MAX_DETECTION_S).contains(&detection.decided_after_s)
        }),
        because: match (detection, began(guarded)) {
            (Some(seen), _) if seen.told_before => {
                format!("already told {:.1} s before, by an alert that had not been resolved", -seen.decided_after_s)
            }
            (Some(seen), _) => {
                format!("decided {:+.1} s, at the webhook {:+.1} s", seen.decided_after_s, seen.delivered_after_s)
            }
            (None, Some(from)) => {
                format!("saturated {from:.1} s after the release, and no alert tells of it; {alert}")
            }
            (None, None) => format!(
                "the core was never saturated for a whole second, and nothing shows that the guard did it; {alert}"
            ),
        },
    }
}

fn put_back(guarded: &ActResult) -> VerdictLine {
    let guard = guarded.guard.as_ref();
    VerdictLine {
        claim: "the guard stopped cleanly and put vacuum's settings back".into(),
        passed: guard.is_some_and(|guard| guard.stopped_cleanly && guard.settings_before == guard.settings_after),
        because: guard.map_or_else(
            || "there was no guard".into(),
            |guard| {
                let how = if guard.stopped_cleanly { "" } else { "it did not stop when asked; " };
                if guard.settings_before == guard.settings_after {
                    format!("{how}{}", guard.settings_after)
                } else {
                    format!("{how}before {}, after {}", guard.settings_before, guard.settings_after)
                }
            },
        ),
    }
}

/// Settings of new sessions don't show a throttle that was left in a file or in the guard's records.
fn took_all_along(guarded: &ActResult) -> VerdictLine {
    let guard = guarded.guard.as_ref();
    let found = guard.map_or_else(
        || vec!["there was no guard".into()],
        |guard| {
            let left = &guard.remains;
            let mut found = Vec::new();
            for (what, names) in [
                ("its include file still sets", &left.include_settings),
                ("its state directory still has", &left.records),
                ("its sessions are still there:", &left.sessions),
            ] {
                if !names.is_empty() {
                    found.push(format!("{what} {}", names.join(", ")));
                }
            }
            if left.settings_reloaded != guard.settings_before {
                found.push(format!("before {}, after a reload {}", guard.settings_before, left.settings_reloaded));
            }
            found
        },
    );
    VerdictLine {
        claim: "the guard left no throttle behind".into(),
        passed: found.is_empty(),
        because: if found.is_empty() {
            "no setting in its file, no record, no session; a reload changes nothing".into()
        } else {
            found.join("; ")
        },
    }
}

fn nothing_left(left: &[String]) -> VerdictLine {
    VerdictLine {
        claim: "nothing was left running".into(),
        passed: left.is_empty(),
        because: if left.is_empty() {
            "no process below the scratch directories, no port of theirs in use".into()
        } else {
            left.join("; ")
        },
    }
}

fn notes(acts: &[ActResult]) -> Vec<String> {
    let mut notes = Vec::new();
    for act in acts {
        let name = match act.act {
            ActKind::Baseline => "No vacuum",
            ActKind::Stock => "Stock settings",
            ActKind::Unthrottled => "Throttling off",
            ActKind::Guarded => "Guarded",
        };
        let (failed, requests) = (act.all.failed, act.all.requests);
        let words = match (act.act.has_storm(), failed) {
            (true, 0) => format!("the storm caused no failed requests, of {requests}."),
            (true, _) => format!("the storm caused failed requests: {failed} of {requests}."),
            (false, _) => format!("{failed} of {requests} requests failed."),
        };
        notes.push(format!("{name}: {words}"));
        if let Some(vacuum) = act.vacuum.as_ref().filter(|_| act.act == ActKind::Unthrottled)
            && !vacuum.tables.is_empty()
            && vacuum.finished_in_window(act.window_s) == vacuum.tables.len()
        {
            notes.push("With throttling off the storm ended within the act: raise --rows for a longer one.".into());
        }
        if let Some(guard) = act.guard.as_ref().filter(|guard| guard.alerts_before_storm > 0) {
            notes.push(format!("Alerts that fired before the storm: {}.", guard.alerts_before_storm));
        }
        if act.cpu.others() > STRANGERS {
            notes.push(format!(
                "{name}: something outside of the drill used {:.0} % of the database's core. End it and run again: the acts are \
                 not comparable so.",
                act.cpu.others() * 100.0
            ));
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::samples;

    fn verdict(change: impl Fn(&mut Vec<ActResult>, &mut Option<Detection>, &mut Vec<String>)) -> Verdict {
        let result = samples::result();
        let (mut acts, mut detection, mut left) = (result.acts, result.detection, Vec::new());
        change(&mut acts, &mut detection, &mut left);
        judge(&Evidence {
            acts: &acts,
            detection: detection.as_ref(),
            rescue: None,
            cold_start: None,
            left: &left,
            looked_for_left: true,
        })
    }

    fn guarded(acts: &mut [ActResult]) -> &mut ActResult {
        acts.iter_mut().find(|act| act.act == ActKind::Guarded).unwrap()
    }

    fn remains(acts: &mut [ActResult]) -> &mut crate::result::Remains {
        &mut guarded(acts).guard.as_mut().unwrap().remains
    }

    #[test]
    fn a_good_run_passes() {
        let verdict = verdict(|_, _, _| {});
        assert!(verdict.passed, "{verdict:#?}");
        assert_eq!(verdict.lines.len(), 9);
    }

    #[test]
    fn every_rule_can_fail_and_fails_alone() {
        type Change = fn(&mut Vec<ActResult>, &mut Option<Detection>, &mut Vec<String>);
        let changes: [(&str, Change); 16] = [
            ("p99", |acts, _, _| guarded(acts).all.p99_ms = 1e6),
            ("p99", |acts, _, _| {
                // Just not better enough.
                let off = acts.iter().find(|act| act.act == ActKind::Unthrottled).unwrap().all.p99_ms;
                guarded(acts).all.p99_ms = off * BETTER;
            }),
            ("fails no more", |acts, _, _| guarded(acts).all.failed = 1_000_000),
            ("detected", |_, detection, _| *detection = None),
            ("detected", |_, detection, _| detection.as_mut().unwrap().decided_after_s = 3.01),
            ("put vacuum's settings back", |acts, _, _| {
                guarded(acts).guard.as_mut().unwrap().settings_after = "limit 1".into();
            }),
            ("put vacuum's settings back", |acts, _, _| guarded(acts).guard.as_mut().unwrap().stopped_cleanly = false),
            ("detected", |_, detection, _| detection.as_mut().unwrap().decided_after_s = -1.01),
            ("detected", |acts, detection, _| {
                // Never saturated, not even without the guard: nothing is shown.
                *detection = None;
                acts.iter_mut().for_each(|act| act.cpu.saturated.clear());
            }),
            ("no throttle behind", |acts, _, _| remains(acts).include_settings.push("vacuum_cost_limit = 1".into())),
            ("no throttle behind", |acts, _, _| remains(acts).records.push("throttle.json".into())),
            ("no throttle behind", |acts, _, _| remains(acts).sessions.push("oxpecker dead man's switch".into())),
            ("no throttle behind", |acts, _, _| remains(acts).settings_reloaded = "limit 1".into()),
            ("storm came", |acts, _, _| guarded(acts).vacuum.as_mut().unwrap().first_seen_s = None),
            ("storm came", |acts, _, _| guarded(acts).vacuum = None),
            ("left running", |_, _, left| left.push("postgres (pid 1)".into())),
        ];
        for (claim, change) in changes {
            let verdict = verdict(change);
            let failed: Vec<_> = verdict.lines.iter().filter(|line| !line.passed).collect();
            assert!(!verdict.passed, "{claim}");
            assert!(failed.len() == 1 && failed[0].claim.contains(claim), "{claim}: {failed:#?}");
        }
    }

    #[test]
    fn where_users_gave_up_waiting_failures_are_compared_not_latencies() {
        let with = |guarded_failed, off_failed| {
            verdict(|acts, _, _| {
                let off = acts.iter_mut().find(|act| act.act == ActKind::Unthrottled).unwrap();
                (off.all.requests, off.all.failed, off.all.p99_ms) = (10_000, off_failed, 5_005.0);
                let guarded = guarded(acts);
                (guarded.all.requests, guarded.all.failed, guarded.all.p99_ms) = (10_000, guarded_failed, 4_990.0);
            })
        };
        assert!(with(79, 100).passed);
        for (guarded_failed, off_failed, claim) in [(80, 100, "guarded fails below"), (0, 99, "p99")] {
            let verdict = with(guarded_failed, off_failed);
            let failed: Vec<_> = verdict.lines.iter().filter(|line| !line.passed).collect();
            assert!(failed.len() == 1 && failed[0].claim.contains(claim), "{failed:#?}");
        }
    }

    #[test]
    fn a_saturation_that_was_prevented_passes_and_is_called_so() {
        let verdict = verdict(|acts, detection, _| {
            *detection = None;
            guarded(acts).cpu.saturated.clear();
        });
        assert!(verdict.passed, "{verdict:#?}");
        let line = verdict.lines.iter().find(|line| line.claim.starts_with("saturation prevented")).unwrap();
        assert_eq!(
            line.because,
            "with throttling off it was so 1.4 s after the release; first alert decided 2.6 s after the release"
        );
        assert!(!verdict.lines.iter().any(|line| line.claim.contains("detected")));
    }

    #[test]
    fn a_saturation_that_was_cut_short_passes_and_one_that_lasts_does_not() {
        let with = |guarded_s: f64, off_s: f64| {
            verdict(|acts, detection, _| {
                *detection = None;
                let span = |length| vec![crate::result::Saturation { from_s: 1.0, to_s: 1.0 + length }];
                acts.iter_mut().for_each(|act| act.cpu.saturated = span(off_s));
                guarded(acts).cpu.saturated = span(guarded_s);
            })
        };
        let verdict = with(2.5, 15.0);
        assert!(verdict.passed, "{verdict:#?}");
        assert!(verdict.lines.iter().any(|line| line.claim.starts_with("saturation cut short")));
        assert!(!with(3.0, 15.0).passed, "an alert was due");
        assert!(!with(2.5, 2.9).passed, "nothing shows that the guard did it");
    }

    #[test]
    fn a_saturation_that_was_told_before_passes_and_is_called_so() {
        let verdict = verdict(|_, detection, _| {
            let seen = detection.as_mut().unwrap();
            (seen.decided_after_s, seen.delivered_after_s, seen.told_before) = (-7.0, -6.9, true);
        });
        assert!(verdict.passed, "{verdict:#?}");
        let line = verdict.lines.iter().find(|line| line.claim.contains("detected")).unwrap();
        assert_eq!(line.because, "already told 7.0 s before, by an alert that had not been resolved");
    }

    #[test]
    fn stock_settings_without_failures_are_said_to_have_none() {
        let verdict = verdict(|acts, _, _| acts.iter_mut().for_each(|act| act.all.failed = 0));
        assert!(
            verdict.notes.iter().any(|note| note.starts_with("Stock settings: the storm caused no failed requests")),
            "{:#?}",
            verdict.notes
        );
    }

    #[test]
    fn a_restore_that_lost_something_fails() {
        let result = samples::result();
        let whole = result.rescue.unwrap();
        let of = |rescue: &Rescue| {
            judge(&Evidence {
                acts: &[],
                detection: None,
                rescue: Some(rescue),
                cold_start: None,
                left: &[],
                looked_for_left: false,
            })
        };
        assert!(of(&whole).passed);
        let ledger = whole.ledger_before;
        for changed in [
            Rescue { same: false, ..whole.clone() },
            Rescue { rows_before: 0, rows_after: 0, ..whole.clone() },
            Rescue { ledger_after: ledger - 1, ..whole.clone() },
            Rescue { ledger_after: ledger + 1, ..whole },
        ] {
            assert!(!of(&changed).passed);
        }
    }

    #[test]
    fn a_cold_restart_that_was_no_better_fails() {
        let change = |change: fn(&mut ColdStart)| {
            let mut played = samples::cold_start();
            change(&mut played);
            cold_start(&played).into_iter().map(|line| line.passed).collect::<Vec<_>>()
        };
        for (what, expected, passed) in [
            ("well", [true, true], change(|_| {})),
            ("wasted", [false, true], change(|played| played.sides[1].wasted = 1)),
            ("early", [false, true], change(|played| played.sides[1].early = 1)),
            ("gave up", [false, true], change(|played| played.sides[1].gave_up = Some("site".into()))),
            ("never", [false, true], change(|played| played.sides[1].stable_s = None)),
            ("slower", [true, true], change(|played| played.sides[1].stable_s = Some(1e6))),
            ("the other wasted none", [true, false], change(|played| played.sides[0].wasted = 0)),
            ("the other never", [true, true], change(|played| played.sides[0].stable_s = None)),
        ] {
            assert_eq!(passed, expected, "{what}");
        }
        let mut alone = samples::cold_start();
        alone.sides.remove(0);
        assert_eq!(cold_start(&alone).len(), 1);
        alone.sides.clear();
        assert!(cold_start(&alone).is_empty());
    }

    #[test]
    fn a_busy_host_is_named() {
        let busy = verdict(|acts, _, _| acts[0].cpu.busy = 1.0);
        assert!(busy.notes.iter().any(|note| note.contains("outside of the drill used 45 %")), "{:#?}", busy.notes);
        assert!(!verdict(|_, _, _| {}).notes.iter().any(|note| note.contains("outside")));
    }

    #[test]
    fn no_evidence_is_no_pass() {
        let evidence =
            Evidence { acts: &[], detection: None, rescue: None, cold_start: None, left: &[], looked_for_left: false };
        assert!(!judge(&evidence).passed);
    }
}

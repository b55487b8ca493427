//! With a hold: end it, change it, or leave it.

use std::time::Duration;

use model::{Cores, ProcessId, Share, event::ReleaseReason};

use super::{
    Act, Facts, Hold, Limits, MAX_HELD, State, Verified, ages_known,
    choose::{self, Reach, Worker},
    oldest,
    pressure::Picture,
    waiting_hot_table,
};

/// How often disobedient workers are told again: a worker that starts its table rebalances all with stale values (13 to 15), and one
/// that waited for a lock may have read the file too late.
const TELL_AGAIN: u32 = 3;
/// The largest step of one change.
const STEP: f64 = 2.0;
/// The largest step up while half of the CPUs' time is free.
const STEP_WIDE: f64 = 4.0;
/// The step of levers that must be used rarely.
const STEP_COARSE: f64 = 4.0;
/// Pressure or latency below this part of what it was before counts as relief.
const RELIEF: f64 = 0.75;
/// CPU below this part of what it was before counts as obedience.
const OBEDIENT: f64 = 0.5;
/// CPU that a worker at the floor may still use, in cores: enough to count as obedience on its own.
const SLOW: f64 = 0.1;
/// Cooldown after a hold that a hot table ended: the time that a slot may need to come free.
const HOT_COOLDOWN: Duration = Duration::from_secs(10);
/// The same where no worker can be spared because the lever holds all.
const HOT_COOLDOWN_COLLECTIVE: Duration = Duration::from_secs(60);

pub(super) fn decide(
    facts: &Facts<'_>,
    next: &mut State,
    mut hold: Hold,
    picture: Option<&Picture>,
    limits: &Limits,
) -> (Act, Option<Verified>) {
    let held = facts.now.since(hold.since);
    let mut verified = None;
    let act = 'act: {
        if !facts.may_act {
            break 'act release(ReleaseReason::GuardStopping, held, "acting was switched off".to_owned());
        }
        let Some(picture) = picture else {
            break 'act release(
                ReleaseReason::ReadingsLost,
                held,
                "readings are missing or too old to act on".to_owned(),
            );
        };
        if held >= limits.max_hold {
            let detail = format!("held for {} s, the longest that is allowed", held.as_secs());
            break 'act release(ReleaseReason::TimeBound, held, detail);
        }
        if let Some((database, age)) = oldest(facts).filter(|(_, age)| *age >= limits.wraparound_age) {
            let detail = format!("database {database} is {age} transactions old");
            break 'act release(ReleaseReason::WraparoundNear, held, detail);
        }
        if !ages_known(facts, limits) {
            break 'act release(ReleaseReason::ReadingsLost, held, super::AGES_UNKNOWN.to_owned());
        }
        let collective = facts.lever.reach != Reach::Workers;
        if collective && let Some(w) = facts.workers.iter().find(|w| choose::is_untouchable(w.protection)) {
            let detail = format!("worker {} prevents wraparound, and this lever slows all workers", w.process.pid);
            break 'act release(ReleaseReason::WraparoundNear, held, detail);
        }
        let staying: Vec<ProcessId> = hold.workers.iter().copied().filter(|id| stays(facts, *id, limits)).collect();
        if staying.is_empty() {
            let detail = "the held workers finished their large tables".to_owned();
            break 'act release(ReleaseReason::WorkersGone, held, detail);
        }
        // With one worker spared a slot will come free; letting go of all again would only flap.
        if let Some(table) = hot_table_waits(facts, limits).filter(|_| !next.spare_one) {
            let detail = format!("all autovacuum slots are taken while the small table {table} waits for a worker");
            break 'act release(ReleaseReason::HotTableWaiting, held, detail);
        }
        hold.saturated_since = if picture.saturated(limits) { hold.saturated_since.or(Some(facts.now)) } else { None };
        let cpu: f64 = with_ids(facts, &staying).map(|w| w.cpu.0).sum();
        if obeys(&hold, cpu, staying.len()) {
            hold.told_again = 0;
        }
        if !hold.verified && held >= limits.verify_after {
            let obeyed = obeys(&hold, cpu, staying.len());
            if obeyed || hold.told_again >= TELL_AGAIN {
                hold.verified = true;
                verified = Some(Verified {
                    cpu_before: Cores(hold.cpu_before),
                    cpu_after: Cores(cpu),
                    busy_before: Share(hold.busy_before),
                    busy_after: Share(picture.busy),
                    obeyed,
                });
            }
            if !obeyed && hold.told_again >= TELL_AGAIN {
                let detail =
                    format!("the workers still use {} of a core; they were told {TELL_AGAIN} times", Cores(cpu));
                break 'act release(ReleaseReason::NotHelping, held, detail);
            }
        }
        // While vacuum runs that is not held yet, nothing is known of what holding it all would do.
        let all_held = joining(facts, &staying, picture, limits).is_empty() || next.spare_one;
        if all_held && useless(facts, next, &hold, picture, limits) {
            let detail = format!(
                "the CPUs stay {:.0} % busy though vacuum is down to {:.0} % of a core, and nobody waits less: the cause is another one",
                picture.busy * 100.0,
                cpu * 100.0
            );
            break 'act release(ReleaseReason::NotHelping, held, detail);
        }
        let open = choose::open_pace(facts);
        if hold.pace >= open && !picture.saturated(limits) {
            let since = *hold.open_since.get_or_insert(facts.now);
            if facts.now.since(since) >= limits.calm_for {
                let detail = format!("the CPUs are {:.0} % busy with vacuum at full pace", picture.busy * 100.0);
                break 'act release(ReleaseReason::PressureOver, held, detail);
            }
        } else {
            hold.open_since = None;
        }
        adjust(facts, &mut hold, picture, &staying, next.spare_one, limits)
    };
    if let Act::Release { reason, .. } = &act {
        next.hold = None;
        next.pressed_since = None;
        let reach = facts.lever.reach;
        next.cooldown_until = Some(facts.now.plus(cooldown(*reason, reach, next, limits).max(facts.lever.quiet)));
        next.spare_one = *reason == ReleaseReason::HotTableWaiting && reach == Reach::Workers;
    } else {
        next.hold = Some(hold);
    }
    (act, verified)
}

fn release(reason: ReleaseReason, held: Duration, detail: String) -> Act {
    Act::Release { reason, held, detail }
}

fn cooldown(reason: ReleaseReason, reach: Reach, next: &mut State, limits: &Limits) -> Duration {
    if reason == ReleaseReason::NotHelping {
        let doubled = limits.cooldown_unhelped.saturating_mul(1_u32 << next.unhelped_in_a_row.min(16));
        next.unhelped_in_a_row = next.unhelped_in_a_row.saturating_add(1);
        return doubled.min(limits.cooldown_max);
    }
    next.unhelped_in_a_row = 0;
    match reason {
        ReleaseReason::HotTableWaiting if reach == Reach::Workers => HOT_COOLDOWN,
        ReleaseReason::HotTableWaiting => HOT_COOLDOWN_COLLECTIVE,
        ReleaseReason::TimeBound | ReleaseReason::WraparoundNear => limits.cooldown_unhelped,
        _ => limits.cooldown,
    }
}

/// Whether a held worker is still one that may be held. With a collective lever only its disappearance counts, for it can't be
/// let go alone.
fn stays(facts: &Facts<'_>, id: ProcessId, limits: &Limits) -> bool {
    facts
        .workers
        .iter()
        .find(|w| w.process == id)
        .is_some_and(|w| facts.lever.reach != Reach::Workers || (w.protection.is_none() && choose::is_large(w, limits)))
}

fn with_ids<'a>(facts: &Facts<'a>, ids: &[ProcessId]) -> impl Iterator<Item = &'a Worker> {
    facts.workers.iter().filter(move |w| ids.contains(&w.process))
}

fn hot_table_waits<'a>(facts: &Facts<'a>, limits: &Limits) -> Option<&'a model::TableName> {
    let slots = usize::try_from(facts.activity?.autovacuum_slots).unwrap_or(usize::MAX);
    let held_up = facts.workers.iter().all(|w| choose::is_large(w, limits));
    (facts.workers.len() >= slots.max(1) && held_up).then(|| waiting_hot_table(facts, limits)).flatten()
}

fn obeys(hold: &Hold, cpu: f64, workers: usize) -> bool {
    cpu <= hold.cpu_before * OBEDIENT || cpu <= SLOW * workers as f64
}

/// Saturated all the time since the hold began, and neither stalls nor latency got better.
fn useless(facts: &Facts<'_>, next: &State, hold: &Hold, picture: &Picture, limits: &Limits) -> bool {
    let saturated = hold.saturated_since.is_some_and(|since| facts.now.since(since) >= limits.unhelped_for)
        && facts.now.since(hold.since) >= limits.unhelped_for;
    let relieved =
        |before: Option<f64>, now: Option<f64>| before.zip(now).is_some_and(|(before, now)| now <= before * RELIEF);
    saturated && !relieved(hold.pressure_before, picture.pressure) && !relieved(hold.canary_before_ms, next.canary_ms)
}

fn adjust(
    facts: &Facts<'_>,
    hold: &mut Hold,
    picture: &Picture,
    staying: &[ProcessId],
    spare_one: bool,
    limits: &Limits,
) -> Act {
    let cpu: f64 = with_ids(facts, staying).map(|w| w.cpu.0).sum();
    let gap = limits.adjust_every.max(facts.lever.quiet);
    let free = facts.now.since(hold.adjusted) >= gap;
    // Measured wholly since the last change, or it says nothing about it.
    let due = free && picture.window_start.boot_us >= hold.adjusted.boot_us;
    let mut workers = staying.to_vec();
    let mut reasons = Vec::new();
    if workers.len() < hold.workers.len() && facts.lever.reach == Reach::Workers {
        let gone: Vec<String> =
            hold.workers.iter().filter(|id| !workers.contains(id)).map(|id| id.pid.to_string()).collect();
        reasons.push(format!("worker {} is let go: it finished its large table or must not be held", gone.join(", ")));
    }
    // Telling one more worker disturbs nobody where each is told alone; every second that it runs free has to be made up for.
    let may_join = free || facts.lever.reach == Reach::Workers;
    if may_join && !spare_one && reasons.is_empty() && picture.saturated(limits) {
        for w in joining(facts, &workers, picture, limits) {
            let cpu = if w.unmeasured { "at its start".to_owned() } else { format!("with {} of a core", w.cpu) };
            reasons.push(format!("worker {} joined {cpu}", w.process.pid));
            hold.cpu_before += w.cpu.0;
            workers.push(w.process);
        }
    }
    let mut pace = hold.pace;
    let mut again = false;
    if due && reasons.is_empty() {
        let disobedient = facts.now.since(hold.since) >= limits.verify_after
            && hold.pace < choose::open_pace(facts) / STEP
            && picture.saturated(limits)
            && hold.told_again < TELL_AGAIN
            && !obeys(hold, cpu, workers.len());
        if disobedient {
            hold.told_again += 1;
            again = true;
            reasons.push(format!("told again: the workers still use {} of a core", Cores(cpu)));
        } else if let Some((wanted, why)) = wanted_pace(facts, hold, picture, limits) {
            pace = wanted;
            reasons.push(why);
        }
    }
    let setting = choose::setting(facts, pace);
    if reasons.is_empty() {
        return Act::Nothing;
    }
    (hold.pace, hold.adjusted) = (pace, facts.now);
    if setting == hold.setting && workers == hold.workers && !again {
        // A step too small to change the setting still counts, or a low pace would never get off the ground.
        return Act::Nothing;
    }
    let reason = reasons.join("; ");
    hold.workers.clone_from(&workers);
    hold.setting = setting;
    Act::Adjust { workers, setting, reason }
}

/// Governable workers that are not held and are part of the pressure now, or will be in a moment: another large table's vacuum that
/// starts on saturated CPUs.
fn joining<'a>(facts: &Facts<'a>, held: &[ProcessId], picture: &Picture, limits: &Limits) -> Vec<&'a Worker> {
    let mut new: Vec<&Worker> = facts
        .workers
        .iter()
        .filter(|w| {
            w.protection.is_none()
                && choose::is_large(w, limits)
                && !held.contains(&w.process)
                && (w.cpu.0 >= limits.joining * picture.cpus || (w.unmeasured && w.heap_blocks.is_some()))
        })
        .collect();
    new.sort_by(|a, b| b.cpu.0.total_cmp(&a.cpu.0).then(a.process.cmp(&b.process)));
    new.truncate(MAX_HELD.saturating_sub(held.len()));
    new
}

fn wanted_pace(facts: &Facts<'_>, hold: &Hold, picture: &Picture, limits: &Limits) -> Option<(f64, String)> {
    let coarse = !facts.lever.quiet.is_zero();
    let busy = picture.busy * 100.0;
    let floor = choose::lowest_pace(facts, limits);
    if picture.saturated(limits) {
        let patient = hold.saturated_since.is_some_and(|since| facts.now.since(since) < limits.floor_patience);
        // One cost unit a nap is the least that can be set.
        let lowest = if patient { floor } else { floor.min(1000.0 / facts.lever.delay_ms) };
        let wanted = (hold.pace / if coarse { STEP_COARSE } else { STEP }).max(lowest);
        return (wanted < hold.pace).then(|| (wanted, format!("slower: the CPUs are {busy:.0} % busy")));
    }
    if picture.busy > limits.room {
        return None;
    }
    let widest = if coarse {
        STEP_COARSE
    } else if picture.busy < limits.room / 1.5 {
        STEP_WIDE
    } else {
        STEP
    };
    let room = limits.target * picture.cpus - picture.others();
    let factor = if picture.vacuum > 0.01 { (room / picture.vacuum).min(widest) } else { widest };
    let wanted = (hold.pace * factor).min(choose::open_pace(facts));
    (wanted >= hold.pace * 1.1 || (wanted > hold.pace && wanted >= choose::open_pace(facts))).then(|| {
        (
            wanted,
            format!("faster: the CPUs are {busy:.0} % busy, vacuum uses {:.0} % of a core", picture.vacuum * 100.0),
        )
    })
}

//! What became of the acts: before anything is decided, what the ladder remembers is laid beside what is seen.

use model::{Mode, Moment};

use crate::{
    facts::{Effect, Facts, Hand},
    ladder::allowed,
    rung::Rung,
    settings::Settings,
    standing,
    state::{Held, State, Tried},
};

/// One word for a rung's effect, of all its levers together.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Seen {
    Off,
    Underway,
    InForce,
    Elsewhere(String),
    Failed(String),
}

/// What a rung's levers do. For services only those in `of` count, where it names any.
pub(crate) fn seen(rung: Rung, facts: &Facts<'_>, of: &[model::ServiceName]) -> Seen {
    let word = |hand: &Hand| match &hand.effect {
        Effect::Off => Seen::Off,
        Effect::Underway => Seen::Underway,
        Effect::InForce => Seen::InForce,
        Effect::Elsewhere(whose) => Seen::Elsewhere(whose.clone()),
        Effect::Failed(why) => Seen::Failed(why.clone()),
    };
    match rung {
        Rung::ThrottleVacuum => word(&facts.vacuum),
        Rung::PauseOwnWork => word(&facts.own_work),
        Rung::CancelVacuum => word(&facts.cancel),
        Rung::StopPostgres => word(&facts.postgres),
        Rung::StopServices(shed) => {
            let counts = |name| of.is_empty() || of.contains(name);
            let services = facts.services.iter().filter(|service| service.shed == shed && counts(&service.name));
            let all: Vec<Seen> = services.map(|service| word(&service.hand)).collect();
            let first = |wanted: fn(&&Seen) -> bool| all.iter().find(wanted).cloned();
            // One that is still on its way is waited for; one that is stopped makes the rung count, whatever became of the others.
            first(|seen| **seen == Seen::Underway)
                .or_else(|| first(|seen| **seen == Seen::InForce))
                .or_else(|| first(|seen| matches!(seen, Seen::Failed(_))))
                .or_else(|| first(|seen| matches!(seen, Seen::Elsewhere(_))))
                .unwrap_or(Seen::Off)
        }
    }
}

/// Lays `next` beside the facts. What there is to tell goes to `notes`.
pub(crate) fn reconcile(facts: &Facts<'_>, next: &mut State, settings: &Settings, notes: &mut Vec<String>) {
    let now = facts.now;
    // What was only proposed counts no more once it may be done.
    let ladder = crate::ladder::rungs(facts, settings);
    next.held.retain(|held| held.carried_out || allowed(held.rung, &ladder, settings) < Mode::Act);
    let held = std::mem::take(&mut next.held);
    for held in held {
        if !held.carried_out {
            next.hold(held);
            continue;
        }
        let seen = seen(held.rung, facts, &held.services);
        if let Some(kept) = judge(held, seen, now, settings, next, notes) {
            next.hold(kept);
        }
    }
    if let (Effect::Failed(why), Some(tried)) =
        (&facts.cancel.effect, next.tried.iter_mut().find(|tried| tried.rung == Rung::CancelVacuum))
    {
        tried.words = format!("failed: {why},");
    }
    adopt(facts, next, &ladder, notes);
    follow_others(facts, next, settings, &ladder);
}

/// What becomes of a rung that was taken; `None` where it is over.
fn judge(
    mut held: Held,
    seen: Seen,
    now: Moment,
    settings: &Settings,
    next: &mut State,
    notes: &mut Vec<String>,
) -> Option<Held> {
    let rung = held.rung;
    if held.returning.is_some() {
        return match seen {
            Seen::Off | Seen::Elsewhere(_) => {
                next.rest(rung, now);
                None
            }
            // Asked for again after a while: see [`Settings::retry_after`].
            Seen::Failed(_) | Seen::Underway | Seen::InForce => Some(held),
        };
    }
    match (seen, held.in_force) {
        (Seen::InForce, None) => {
            held.in_force = Some(now);
            Some(held)
        }
        (Seen::InForce | Seen::Underway, _) => Some(held),
        (Seen::Failed(why), None) => {
            notes.push(format!("{rung} failed: {why}"));
            give_up(rung, format!("failed: {why},"), now, next);
            None
        }
        (Seen::Off, None) if now.since(held.asked) < settings.shows_within => Some(held),
        (Seen::Off, None) => {
            notes.push(format!("{rung} was asked for and nothing came of it"));
            give_up(rung, "was asked for and nothing came of it".to_owned(), now, next);
            None
        }
        // Something else made it so while ours was on its way: as good as ours, and not ours to take back.
        (Seen::Elsewhere(_), None) => None,
        (Seen::Off | Seen::Elsewhere(_) | Seen::Failed(_), Some(_)) => {
            notes.push(format!("{rung} is over: somebody else ended it"));
            next.rest(rung, now);
            None
        }
    }
}

fn give_up(rung: Rung, words: String, now: Moment, next: &mut State) {
    next.tried.retain(|tried| tried.rung != rung);
    next.tried.push(Tried { rung, at: now, words });
    next.rest(rung, now);
}

/// What is in force by us and was forgotten, since the state was lost: it must be given back some day.
fn adopt(facts: &Facts<'_>, next: &mut State, ladder: &[Rung], notes: &mut Vec<String>) {
    let all = [Rung::ThrottleVacuum, Rung::PauseOwnWork, Rung::StopPostgres];
    let services = facts.services.iter().map(|service| Rung::StopServices(service.shed));
    let mut rungs: Vec<Rung> = all.into_iter().chain(services).chain(ladder.iter().copied()).collect();
    rungs.sort_unstable();
    rungs.dedup();
    for rung in rungs {
        if !rung.stays() || next.held.iter().any(|held| held.rung == rung && held.carried_out) {
            continue;
        }
        if seen(rung, facts, &[]) == Seen::InForce {
            next.held.retain(|held| held.rung != rung);
            notes.push(format!("{rung} is in force by us, though nothing was written of it"));
            let stopped = |shed: u32| {
                let of_it = facts.services.iter().filter(move |service| service.shed == shed);
                of_it.filter(|service| service.hand.effect == Effect::InForce).map(|service| service.name.clone())
            };
            let services = match rung {
                Rung::StopServices(shed) => stopped(shed).collect(),
                _ => Vec::new(),
            };
            next.hold(Held {
                rung,
                asked: facts.now,
                in_force: Some(facts.now),
                services,
                carried_out: true,
                returning: None,
            });
        }
    }
}

/// Since when rungs are in force by another's decision: they too have time to help.
fn follow_others(facts: &Facts<'_>, next: &mut State, settings: &Settings, ladder: &[Rung]) {
    let elsewhere =
        |rung: Rung| matches!(standing::of(rung, facts, next, settings, None), standing::Standing::Elsewhere(_));
    let now_elsewhere: Vec<Rung> = ladder.iter().copied().filter(|rung| elsewhere(*rung)).collect();
    next.elsewhere.retain(|(rung, _)| now_elsewhere.contains(rung));
    for rung in now_elsewhere {
        if !next.elsewhere.iter().any(|(known, _)| *known == rung) {
            next.elsewhere.push((rung, facts.now));
        }
    }
}

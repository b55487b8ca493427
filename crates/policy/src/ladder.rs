//! The decision: climb, hold or step down.

use std::time::Duration;

use model::{Mode, Moment};
use serde::{Deserialize, Serialize};

use crate::{
    facts::Facts,
    pressure::{Cause, Level, Picture},
    reconcile::{Seen, reconcile, seen},
    rung::{Act, Rung},
    settings::{RungSettings, Settings},
    standing::{self, Standing},
    state::{Held, State, Tried},
    words::span,
};

/// A decision with no choices left.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// What to do.
    pub step: Step,
    /// Why, in words, with the figures that decided.
    pub why: String,
    /// The reading that caused it; none where it was not the pressure that did.
    pub cause: Option<Cause>,
    /// The rungs below that were not taken since they can't be now, each with its reason. Only of a rung that is climbed to.
    pub passed: Vec<(Rung, String)>,
    /// What became of acts before: failed, lost, ended by others.
    pub notes: Vec<String>,
    /// Whether there is something to tell: a step, a note, or a reason to hold that is another than before.
    pub news: bool,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// Nothing.
    Hold {
        /// What kind of nothing.
        kind: HoldKind,
    },
    /// Take a rung.
    Climb {
        /// Which.
        rung: Rung,
        /// How.
        act: Act,
        /// Whether to do it; if not, it is only to be proposed.
        carry_out: bool,
    },
    /// Give a rung back.
    StepDown {
        /// Which.
        rung: Rung,
        /// How.
        act: Act,
        /// Whether to do it; if not, it was only proposed.
        carry_out: bool,
    },
}

/// Why nothing is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "hold", content = "rung", rename_all = "snake_case")]
pub enum HoldKind {
    /// Nothing is pressed, and nothing is held.
    Calm,
    /// Neither critical nor calm for long enough.
    Watching,
    /// There are no readings to go by.
    Blind,
    /// An act on this rung is being carried out.
    Underway(Rung),
    /// Critical: this rung was taken and may still help.
    Waiting(Rung),
    /// Critical: this rung is next and may not be taken. A person is needed if it goes on.
    Blocked(Rung),
    /// Critical, and no rung is left. A person is needed.
    Exhausted,
}

/// The rungs that are declared, lowest first.
pub fn rungs(facts: &Facts<'_>, settings: &Settings) -> Vec<Rung> {
    let services = facts.services.iter().map(|service| Rung::StopServices(service.shed));
    let fixed = [Rung::ThrottleVacuum, Rung::PauseOwnWork, Rung::CancelVacuum, Rung::StopPostgres];
    let mut rungs: Vec<Rung> = fixed.into_iter().chain(services).filter(|rung| settings.of(*rung).declared).collect();
    rungs.sort_unstable();
    rungs.dedup();
    rungs
}

/// How far a rung may go: no further than those below it, for what was only proposed there can't have helped.
pub(crate) fn allowed(rung: Rung, ladder: &[Rung], settings: &Settings) -> Mode {
    let below = ladder.iter().filter(|other| **other <= rung).map(|other| settings.of(*other).mode);
    below.fold(settings.mode, Mode::min)
}

/// The decision. `state` is what the decision before answered; nothing else is remembered.
pub fn decide(facts: &Facts<'_>, state: &State, settings: &Settings) -> (State, Decision) {
    let mut next = state.clone();
    let mut notes = Vec::new();
    next.forget(facts.now);
    reconcile(facts, &mut next, settings, &mut notes);
    let picture = Picture::of(facts, &settings.thresholds);
    if let Ok(picture) = &picture {
        next.follow(picture, &settings.thresholds);
    }
    let Chosen { step, why, cause, passed } = Look { facts, settings, picture: &picture }.choose(&mut next);
    let kind = match step {
        Step::Hold { kind } => Some(kind),
        Step::Climb { .. } | Step::StepDown { .. } => None,
    };
    // What is ordinary is no news, but that it is ordinary again is.
    let quiet =
        |kind: Option<HoldKind>| kind.map(|kind| if kind == HoldKind::Watching { HoldKind::Calm } else { kind });
    // Neither is what is in force or on its way: an act may show before it is seen under way.
    let in_force = |state: &State| -> Vec<Rung> {
        state.held().iter().filter(|held| held.carried_out).map(|held| held.rung).collect()
    };
    let news = kind.is_none()
        || !notes.is_empty()
        || quiet(kind) != quiet(next.said.or(Some(HoldKind::Calm)))
        || in_force(&next) != in_force(state);
    next.said = kind;
    (next, Decision { step, why, cause, passed, notes, news })
}

struct Chosen {
    step: Step,
    why: String,
    cause: Option<Cause>,
    passed: Vec<(Rung, String)>,
}

impl Chosen {
    fn hold(kind: HoldKind, why: String) -> Self {
        Self { step: Step::Hold { kind }, why, cause: None, passed: Vec::new() }
    }
}

struct Look<'a> {
    facts: &'a Facts<'a>,
    settings: &'a Settings,
    picture: &'a Result<Picture, String>,
}

impl Look<'_> {
    fn choose(&self, next: &mut State) -> Chosen {
        let now = self.facts.now;
        if let Some(chosen) = self.underway(next) {
            return chosen;
        }
        let overdue = next.held.iter().find(|held| {
            let longest = self.settings.of(held.rung).longest;
            now.since(held.in_force.unwrap_or(held.asked)) >= longest
        });
        if let Some(overdue) = overdue {
            if self.stepped_down_lately(next) {
                return Chosen::hold(HoldKind::Watching, "what was given back must show first".to_owned());
            }
            let rung = overdue.rung;
            let why = format!("{rung} was in force for its longest time, {}", span(self.settings.of(rung).longest));
            return self.step_down(next, why);
        }
        let picture = match self.picture {
            Ok(picture) => picture,
            Err(blind) => return Chosen::hold(HoldKind::Blind, format!("{blind}: everything stays as it is")),
        };
        match picture.level {
            Level::Critical => self.critical(next, picture),
            Level::Calm => self.calm(next, picture),
            Level::Between => Chosen::hold(self.quiet(next), picture.words.clone()),
        }
    }

    fn quiet(&self, next: &State) -> HoldKind {
        if next.held.is_empty() { HoldKind::Calm } else { HoldKind::Watching }
    }

    /// One act at a time: what it did must be seen before the next.
    fn underway(&self, next: &mut State) -> Option<Chosen> {
        let now = self.facts.now;
        let held = next
            .held
            .iter()
            .rev()
            .find(|held| held.carried_out && (held.in_force.is_none() || held.returning.is_some()))?;
        let (rung, returning) = (held.rung, held.returning);
        let seen = seen(rung, self.facts, &held.services);
        if let Some(asked) = returning
            && now.since(asked) >= self.settings.retry_after
            && seen != Seen::Underway
        {
            let failed = if let Seen::Failed(why) = seen { format!(" ({why})") } else { String::new() };
            let why = format!("{rung} is not given back {} after it was asked for{failed}", span(now.since(asked)));
            return Some(self.step_down_to(next, rung, why));
        }
        let what = if returning.is_some() { "being given back" } else { "being carried out" };
        Some(Chosen::hold(HoldKind::Underway(rung), format!("{rung} is {what}")))
    }

    fn calm(&self, next: &mut State, picture: &Picture) -> Chosen {
        let now = self.facts.now;
        let calm_for = calm_for(next, self.settings);
        let lasted = next.calm.map_or(Duration::ZERO, |streak| streak.kept);
        if lasted < calm_for {
            return Chosen::hold(
                self.quiet(next),
                format!("calm for {} of {}: {}", span(lasted), span(calm_for), picture.words),
            );
        }
        let Some(top) = next.held.last() else {
            next.tried.clear();
            if next.stepped_down.is_none_or(|at| now.since(at) >= self.settings.calm_max) {
                next.relapses = 0;
            }
            return Chosen::hold(HoldKind::Calm, picture.words.clone());
        };
        let rung = top.rung;
        if self.stepped_down_lately(next) {
            return Chosen::hold(HoldKind::Watching, "what was given back must show first".to_owned());
        }
        let why = format!("calm for {}: {}", span(lasted), picture.words);
        self.step_down_to(next, rung, why)
    }

    fn stepped_down_lately(&self, next: &State) -> bool {
        next.stepped_down.is_some_and(|at| self.facts.now.since(at) < self.settings.step_down_every)
    }

    /// Gives the topmost rung back.
    fn step_down(&self, next: &mut State, why: String) -> Chosen {
        match next.held.last() {
            Some(top) => self.step_down_to(next, top.rung, why),
            None => Chosen::hold(HoldKind::Calm, why),
        }
    }

    fn step_down_to(&self, next: &mut State, rung: Rung, why: String) -> Chosen {
        let now = self.facts.now;
        next.stepped_down = Some(now);
        let Some(place) = next.held.iter().position(|held| held.rung == rung) else {
            return Chosen::hold(HoldKind::Calm, why);
        };
        let act = back(&next.held[place]);
        let carry_out = next.held[place].carried_out;
        if carry_out {
            next.held[place].returning = Some(now);
        } else {
            next.held.remove(place);
            next.rest(rung, now);
        }
        Chosen { step: Step::StepDown { rung, act, carry_out }, why, cause: None, passed: Vec::new() }
    }

    fn critical(&self, next: &mut State, picture: &Picture) -> Chosen {
        let now = self.facts.now;
        let ladder = rungs(self.facts, self.settings);
        if let Some((rung, since)) = latest(next, &ladder) {
            let patience = self.settings.of(rung).patience;
            if now.since(since) < patience {
                let left = span(patience.saturating_sub(now.since(since)));
                let why = format!("whether {rung} helps is known in {left}: {}", picture.words);
                return Chosen::hold(HoldKind::Waiting(rung), why);
            }
        }
        let short = picture.cause.as_ref().map(|cause| cause.resource);
        let mut passed = Vec::new();
        for rung in ladder.iter().copied() {
            if next.is_held(rung) {
                continue;
            }
            if let Some(tried) = next.tried.iter().find(|tried| tried.rung == rung) {
                passed.push((rung, format!("{} {} ago, and it did not help", tried.words, span(now.since(tried.at)))));
                continue;
            }
            match standing::of(rung, self.facts, next, self.settings, short) {
                Standing::Elsewhere(whose) => passed.push((rung, format!("in force already: {whose}"))),
                Standing::No(why) => passed.push((rung, why)),
                Standing::Ready(act) => return self.climb(next, rung, act, picture, passed, &ladder),
            }
        }
        let why = format!("no rung is left: {}", picture.words);
        Chosen { cause: picture.cause.clone(), passed, ..Chosen::hold(HoldKind::Exhausted, why) }
    }

    fn climb(
        &self,
        next: &mut State,
        rung: Rung,
        act: Act,
        picture: &Picture,
        passed: Vec<(Rung, String)>,
        ladder: &[Rung],
    ) -> Chosen {
        let now = self.facts.now;
        let declared = self.settings.of(rung);
        let lasted = next.critical.map_or(Duration::ZERO, |streak| streak.kept);
        if lasted < declared.confirm {
            let why = format!("critical for {} of {}: {}", span(lasted), span(declared.confirm), picture.words);
            let kind = latest(next, ladder).map_or(self.quiet(next), |(below, _)| HoldKind::Waiting(below));
            return Chosen::hold(kind, why);
        }
        if let Some(why) = self.bound(next, rung, declared) {
            let why = format!("{rung} is next, but {why}: {}", picture.words);
            return Chosen { cause: picture.cause.clone(), passed, ..Chosen::hold(HoldKind::Blocked(rung), why) };
        }
        let carry_out = allowed(rung, ladder, self.settings) == Mode::Act;
        let below = latest(next, ladder).map(|(below, _)| below);
        let mut why = format!("critical for {}: {}", span(lasted), picture.words);
        if let Some(below) = below {
            why = format!("{why}; {below} did not help enough");
        }
        if next.rested(rung, now).is_some_and(|rested| rested < self.settings.relapse_within) && rung.stays() {
            next.relapsed();
        }
        self.take(next, rung, &act, carry_out);
        Chosen { step: Step::Climb { rung, act, carry_out }, why, cause: picture.cause.clone(), passed }
    }

    /// What forbids a rung that could be taken.
    fn bound(&self, next: &State, rung: Rung, declared: &RungSettings) -> Option<String> {
        let now = self.facts.now;
        if rung == Rung::StopPostgres && self.settings.stop_postgres_approved_by.is_none() {
            return Some("nobody approved it in the configuration".to_owned());
        }
        if let Some(rested) = next.rested(rung, now).filter(|rested| *rested < declared.cooldown) {
            return Some(format!("it cools down for another {}", span(declared.cooldown.saturating_sub(rested))));
        }
        let spent = next.spent(rung, now);
        (spent >= declared.per_day).then(|| format!("it was taken {spent} times within a day, which is its limit"))
    }

    fn take(&self, next: &mut State, rung: Rung, act: &Act, carry_out: bool) {
        let now = self.facts.now;
        if carry_out {
            next.spent.push((rung, now));
        }
        if let Act::CancelVacuum { database, table, .. } = act {
            if carry_out {
                next.cancelled.push((database.clone(), table.clone(), now));
            }
            next.tried.push(Tried { rung, at: now, words: format!("was asked for ({act})") });
            next.rest(rung, now);
            return;
        }
        let services = match act {
            Act::StopServices { services } => services.clone(),
            _ => Vec::new(),
        };
        let in_force = (!carry_out).then_some(now);
        next.hold(Held { rung, asked: now, in_force, services, carried_out: carry_out, returning: None });
    }
}

/// How a rung is given back.
fn back(held: &Held) -> Act {
    match held.rung {
        Rung::ThrottleVacuum => Act::ReleaseVacuum,
        Rung::PauseOwnWork => Act::ResumeOwnWork,
        Rung::StopServices(_) => Act::StartServices { services: held.services.clone() },
        Rung::StopPostgres => Act::StartPostgres,
        // Never held: it is done once.
        Rung::CancelVacuum => Act::ReleaseVacuum,
    }
}

/// The rung that had the least time to help so far: what came last into force, was tried, or is in force by others.
fn latest(next: &State, ladder: &[Rung]) -> Option<(Rung, Moment)> {
    let held = next.held.iter().filter_map(|held| Some((held.rung, held.in_force?)));
    let tried = next.tried.iter().map(|tried| (tried.rung, tried.at));
    let others = next.elsewhere.iter().copied().filter(|(rung, _)| ladder.contains(rung));
    held.chain(tried).chain(others).max_by_key(|(rung, at)| (at.boot_us, *rung))
}

/// How long there must be calm before a rung is given back.
fn calm_for(next: &State, settings: &Settings) -> Duration {
    settings.calm_for.saturating_mul(1 << next.relapses.min(16)).min(settings.calm_max)
}

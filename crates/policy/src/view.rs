//! The ladder for people: each rung, how it stands and what bounds it, whatever the pressure.

use std::time::Duration;

use model::{Mode, Moment};
use serde::{Deserialize, Serialize};

use crate::{
    facts::Facts,
    ladder::{allowed, rungs},
    reconcile::{Seen, seen},
    rung::Rung,
    settings::Settings,
    standing::{self, Standing},
    state::State,
};

/// A rung as `status` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RungView {
    /// Which.
    pub rung: Rung,
    /// How far it may go, with those below it.
    pub mode: Mode,
    /// Whether it could be taken now.
    pub ready: bool,
    /// What would be done, or why it can't be.
    pub words: String,
    /// Since when it is in force by us, or asked for, or proposed to be.
    pub held_since: Option<Moment>,
    /// Whether it was asked for and is not in force yet.
    #[serde(default)]
    pub underway: bool,
    /// Whether that was carried out.
    pub carried_out: bool,
    /// Whether its way back is being gone, or was tried in vain, and why it failed.
    pub returning: Option<String>,
    /// How often it was taken within a day.
    pub spent: u32,
    /// How often it may be.
    pub per_day: u32,
    /// How long it still cools down.
    pub cools_for: Option<Duration>,
}

/// All declared rungs, lowest first.
pub fn view(facts: &Facts<'_>, state: &State, settings: &Settings) -> Vec<RungView> {
    let ladder = rungs(facts, settings);
    ladder.iter().map(|&rung| one(rung, &ladder, facts, state, settings)).collect()
}

fn one(rung: Rung, ladder: &[Rung], facts: &Facts<'_>, state: &State, settings: &Settings) -> RungView {
    let now = facts.now;
    let declared = settings.of(rung);
    let held = state.held().iter().find(|held| held.rung == rung);
    let underway = held.is_some_and(|held| held.carried_out && held.in_force.is_none());
    let unapproved = rung == Rung::StopPostgres && settings.stop_postgres_approved_by.is_none();
    let (ready, words) = match standing::of(rung, facts, state, settings, None) {
        _ if underway => (false, "being carried out".to_owned()),
        _ if held.is_some() => (false, "in force".to_owned()),
        Standing::Ready(_) if unapproved => (false, "nobody approved it in the configuration".to_owned()),
        Standing::Ready(act) => (true, act.to_string()),
        Standing::Elsewhere(whose) => (false, format!("in force already: {whose}")),
        Standing::No(why) => (false, why),
    };
    let returning = held.filter(|held| held.returning.is_some()).map(|held| match seen(rung, facts, &held.services) {
        Seen::Failed(why) => format!("could not be given back yet: {why}"),
        _ => "is being given back".to_owned(),
    });
    let cools_for = state.rested(rung, now).and_then(|rested| declared.cooldown.checked_sub(rested));
    RungView {
        rung,
        mode: allowed(rung, ladder, settings),
        ready,
        words,
        held_since: held.map(|held| held.in_force.unwrap_or(held.asked)),
        underway,
        carried_out: held.is_some_and(|held| held.carried_out),
        returning,
        spent: state.spent(rung, now),
        per_day: declared.per_day,
        cools_for: cools_for.filter(|left| !left.is_zero()),
    }
}

//! Whether a rung could be taken at this moment, and what would be done.

use model::{
    ServiceName,
    reading::{VacuumKind, VacuumReading},
};

use crate::{
    facts::{Ability, Effect, Facts, Hand, Server, Sheddable},
    pressure::Resource,
    rung::{Act, Rung},
    settings::Settings,
    state::State,
    words::percent,
};

/// How a rung stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Standing {
    /// It can be taken: this is done.
    Ready(Act),
    /// It is in force by another's decision, whose.
    Elsewhere(String),
    /// It can't be taken now: nothing to act on, somebody else's, no lever. Why.
    No(String),
}

/// How `rung` stands; `short`: of what there is too little, where it is critical.
pub(crate) fn of(
    rung: Rung,
    facts: &Facts<'_>,
    state: &State,
    settings: &Settings,
    short: Option<Resource>,
) -> Standing {
    match rung {
        Rung::ThrottleVacuum => plain(&facts.vacuum, Act::HoldVacuum),
        Rung::PauseOwnWork => plain(&facts.own_work, Act::PauseOwnWork),
        Rung::CancelVacuum => match refusal(&facts.cancel) {
            Some(refused) => refused,
            None => cancel(facts, state, settings, short),
        },
        Rung::StopServices(shed) => services(shed, facts),
        Rung::StopPostgres => match facts.server {
            Server::Serving => plain(&facts.postgres, Act::StopPostgres),
            Server::Recovering => {
                Standing::No("PostgreSQL recovers, and a stop would begin the recovery again".to_owned())
            }
            Server::Stopped => Standing::No("PostgreSQL does not run".to_owned()),
            Server::Unknown => Standing::No("nobody knows how PostgreSQL is".to_owned()),
        },
    }
}

fn plain(hand: &Hand, act: Act) -> Standing {
    refusal(hand).unwrap_or(Standing::Ready(act))
}

fn refusal(hand: &Hand) -> Option<Standing> {
    if let Effect::Elsewhere(whose) = &hand.effect {
        return Some(Standing::Elsewhere(whose.clone()));
    }
    match &hand.ability {
        Ability::Ready => None,
        Ability::Nothing(why) => Some(Standing::No(why.clone())),
        Ability::Owned(by) => Some(Standing::No(format!("owned by {by}, which decides itself"))),
        Ability::Unavailable(why) => Some(Standing::No(why.clone())),
    }
}

/// Those of this number that can be stopped; the others are left alone.
fn services(shed: u32, facts: &Facts<'_>) -> Standing {
    let of_it: Vec<&Sheddable> = facts.services.iter().filter(|service| service.shed == shed).collect();
    let mut ready: Vec<ServiceName> = Vec::new();
    let mut refused: Vec<String> = Vec::new();
    let mut elsewhere = None;
    for service in of_it {
        match refusal(&service.hand) {
            None => ready.push(service.name.clone()),
            Some(Standing::Elsewhere(whose)) => elsewhere = Some(format!("{} {whose}", service.name)),
            Some(Standing::No(why)) => refused.push(format!("{}: {why}", service.name)),
            Some(Standing::Ready(_)) => {}
        }
    }
    if !ready.is_empty() {
        return Standing::Ready(Act::StopServices { services: ready });
    }
    match elsewhere {
        Some(whose) if refused.is_empty() => Standing::Elsewhere(whose),
        _ if refused.is_empty() => Standing::No("no service is marked with this number".to_owned()),
        _ => Standing::No(refused.join("; ")),
    }
}

/// The vacuum whose end helps most.
fn cancel(facts: &Facts<'_>, state: &State, settings: &Settings, short: Option<Resource>) -> Standing {
    let fresh = |at| facts.now.since(at) <= settings.thresholds.activity_lost;
    let Some(activity) = facts.activity.filter(|activity| fresh(activity.at)) else {
        return Standing::No("which vacuums run is not known".to_owned());
    };
    if activity.vacuums.is_empty() {
        return Standing::No("no vacuum runs".to_owned());
    }
    let cpus = facts.host.map_or(1.0, |host| f64::from(host.cpu_for_database().0.max(1)));
    let mut spared = Vec::new();
    let mut best: Option<(f64, Act)> = None;
    for vacuum in &activity.vacuums {
        let share = vacuum.cpu.map_or(0.0, |cpu| cpu.0) / cpus;
        match spare(vacuum, share, facts, state, settings, short) {
            Some(why) => spared.push(format!("pid {} {why}", vacuum.process.pid)),
            None => {
                let Some(table) = vacuum.table.clone() else { continue };
                let act = Act::CancelVacuum { process: vacuum.process, database: vacuum.database.clone(), table };
                if best.as_ref().is_none_or(|(most, _)| share > *most) {
                    best = Some((share, act));
                }
            }
        }
    }
    best.map_or_else(|| Standing::No(spared.join("; ")), |(_, act)| Standing::Ready(act))
}

/// Why this vacuum is not ended.
fn spare(
    vacuum: &VacuumReading,
    share: f64,
    facts: &Facts<'_>,
    state: &State,
    settings: &Settings,
    short: Option<Resource>,
) -> Option<String> {
    match vacuum.kind {
        VacuumKind::Autovacuum => {}
        VacuumKind::AntiWraparound => return Some("prevents wraparound".to_owned()),
        VacuumKind::Autoanalyze => return Some("only analyses".to_owned()),
        VacuumKind::Manual => return Some("is a person's".to_owned()),
    }
    if vacuum.process.start_ticks == 0 {
        return Some("can't be told from a later process with its pid".to_owned());
    }
    let Some(table) = &vacuum.table else { return Some("has not named its table".to_owned()) };
    let ages = facts.tables.iter().flat_map(|tables| &tables.ages);
    let age = ages.into_iter().find(|age| age.database == vacuum.database);
    match age.map(|age| age.xid_age.max(age.multixact_age)) {
        None => return Some("is in a database whose age is not known".to_owned()),
        Some(age) if age >= settings.cancel_below_age => {
            return Some(format!("is in a database {} million transactions old", age / 1_000_000));
        }
        Some(_) => {}
    }
    if state.cancelled.iter().any(|(database, ended, _)| *database == vacuum.database && ended == table) {
        return Some("is at a table whose vacuum was ended within a day".to_owned());
    }
    // What is slowed already and holds up nobody would be ended for nothing.
    let helps = match short {
        Some(Resource::Cpu) | None => share >= settings.substantial || vacuum.blocks > 0,
        Some(Resource::Io) => !vacuum.in_delay || vacuum.blocks > 0,
        Some(Resource::Memory) => true,
    };
    (!helps).then(|| format!("takes {} of the CPUs: its end would not help", percent(share)))
}

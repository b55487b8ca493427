//! How each rung's lever stands now, and who is told to use it. Whoever carries an act out looks its precondition up again.

use std::{fs, sync::Arc, time::Duration};

use autovacuum::{GovernorStatus, host_process};
use collector::postgres::Session;
use model::{
    Mode, Moment, ServiceName,
    reading::{ActivityReading, VacuumKind},
};
use policy::{Ability, Act, Effect, Hand, Rung, Settings, Sheddable, State};
use tokio::sync::oneshot;

use super::{With, cancel::cancel};
use crate::{
    config::Config,
    guard::recovery_protocol::{RecoveryStatus, STOPPED_BY, ServiceSeen, ToWorker},
};

/// Those that start and stop PostgreSQL themselves, by what the postmaster's parent is called.
const MANAGERS: [(&str, &str); 4] =
    [("patroni", "Patroni"), ("repmgrd", "repmgr"), ("pg_autoctl", "pg_auto_failover"), ("stolon", "Stolon")];

/// How often a word is taken back that nobody goes by.
const TIDY_EVERY: Duration = Duration::from_secs(10);

/// The newest act on services and what came of it.
enum Order {
    None,
    Underway { rung: Rung, number: u64 },
    Failed { rung: Rung, why: String },
}

/// The end of a vacuum.
enum Cancelling {
    None,
    Underway(oneshot::Receiver<Result<(), String>>),
    Failed(String),
}

pub struct Levers {
    with: With,
    database: ServiceName,
    database_is_run: bool,
    recovery: Mode,
    /// Services marked `shed`.
    marked: Vec<(ServiceName, u32)>,
    order: Order,
    orders: u64,
    cancelling: Cancelling,
    tidied: Option<Moment>,
    /// Who owns PostgreSQL, as of the session that was asked last.
    owner: Option<(model::ProcessId, Option<&'static str>)>,
}

impl Levers {
    pub fn new(config: &Config, with: With) -> Self {
        let marked = config.service.iter().filter_map(|one| Some((one.name.as_str().into(), one.shed?)));
        Self {
            with,
            database: config.postgres.name.as_str().into(),
            database_is_run: config.postgres.is_run(),
            recovery: config.recovery_mode(),
            marked: marked.collect(),
            order: Order::None,
            // No two guards number alike: what was said to the one before is not taken for an answer.
            orders: u64::from(std::process::id()) << 32,
            cancelling: Cancelling::None,
            tidied: None,
            owner: None,
        }
    }

    /// Takes note of what came of acts.
    pub fn look(&mut self) {
        if let Order::Underway { rung, number } = self.order
            && let Some(services) = &self.with.services
            && let Some((answered, came)) = services.obeyed.borrow().clone()
            && answered == number
        {
            self.order = came.map_or_else(|why| Order::Failed { rung, why }, |()| Order::None);
        }
        if let Cancelling::Underway(done) = &mut self.cancelling {
            match done.try_recv() {
                Ok(Ok(())) => self.cancelling = Cancelling::None,
                Ok(Err(why)) => self.cancelling = Cancelling::Failed(why),
                Err(oneshot::error::TryRecvError::Empty) => {}
                Err(oneshot::error::TryRecvError::Closed) => {
                    self.cancelling = Cancelling::Failed("its task ended".to_owned());
                }
            }
        }
    }

    /// Rung 1. The governor decides by itself and sooner than the ladder; what it holds is as good as a rung taken.
    pub fn vacuum(&self, settings: &Settings, activity: Option<&ActivityReading>) -> Hand {
        let governor = self.with.governor.borrow();
        vacuum_hand(governor.as_ref(), settings.mode, activity)
    }

    /// Rung 2.
    pub fn own_work(&self) -> Hand {
        let Some(lever) = &self.with.own_work else {
            return off(Ability::Nothing("no repository is declared: there are no backups to pause".to_owned()));
        };
        let seen = lever.seen();
        let ability = if seen.running { Ability::Ready } else { nothing("no backup or proof is under way") };
        let effect = match (seen.held, seen.paused) {
            (true, _) => Effect::InForce,
            (false, true) => Effect::Elsewhere("the backup worker stands back by itself".to_owned()),
            (false, false) => Effect::Off,
        };
        Hand { ability, effect }
    }

    /// Rung 3. Which vacuum is the policy's to choose.
    pub fn cancel(&self) -> Hand {
        let ability = match self.with.sessions.borrow().as_ref() {
            None => Ability::Unavailable("there is no session with PostgreSQL".to_owned()),
            Some(session) if session.info.backend.is_none() => {
                Ability::Unavailable("the server's processes can't be seen from here".to_owned())
            }
            Some(_) => Ability::Ready,
        };
        let effect = match &self.cancelling {
            Cancelling::None => Effect::Off,
            Cancelling::Underway(_) => Effect::Underway,
            Cancelling::Failed(why) => Effect::Failed(why.clone()),
        };
        Hand { ability, effect }
    }

    /// Rung 4.
    pub fn services(&self, settings: &Settings) -> Vec<Sheddable> {
        let status = self.status();
        let of = |(name, shed): &(ServiceName, u32)| {
            let hand = self.service(name, Rung::StopServices(*shed), settings.mode, status.as_ref());
            Sheddable { name: name.clone(), shed: *shed, hand }
        };
        self.marked.iter().map(of).collect()
    }

    /// Rung 5.
    pub fn postgres(&mut self, settings: &Settings) -> Hand {
        if !self.database_is_run {
            let why = "nobody declared who runs PostgreSQL ([postgres] driver)";
            return off(Ability::Unavailable(why.to_owned()));
        }
        let status = self.status();
        let mut hand = self.service(&self.database, Rung::StopPostgres, settings.mode, status.as_ref());
        if let Some(owner) = self.owner() {
            hand.ability = Ability::Owned(owner.to_owned());
        }
        hand
    }

    /// Hands an act to whoever carries it out.
    pub async fn carry_out(&mut self, rung: Rung, act: Act) {
        match act {
            // The governor's rung is never ours to take: see `vacuum`.
            Act::HoldVacuum | Act::ReleaseVacuum => {}
            Act::PauseOwnWork => self.stand_back(true).await,
            Act::ResumeOwnWork => self.stand_back(false).await,
            Act::CancelVacuum { process, database, table } => {
                let (done, came) = oneshot::channel();
                self.cancelling = Cancelling::Underway(came);
                let session: Option<Arc<Session>> = self.with.sessions.borrow().clone();
                tokio::spawn(async move {
                    let ended = match session {
                        Some(session) => cancel(&session.client, process, &database, &table).await,
                        None => Err("the session with PostgreSQL was lost".to_owned()),
                    };
                    let _ = done.send(ended);
                });
            }
            Act::StopServices { services } => self.order(rung, true, services),
            Act::StartServices { services } => self.order(rung, false, services),
            Act::StopPostgres => self.order(rung, true, vec![self.database.clone()]),
            Act::StartPostgres => self.order(rung, false, vec![self.database.clone()]),
        }
    }

    /// Takes the word back for what the ladder stopped and somebody started again by other means: it is theirs, and meant to run.
    pub fn tidy(&mut self, now: Moment, state: &State) {
        if matches!(self.order, Order::Underway { .. }) || self.tidied.is_some_and(|at| now.since(at) < TIDY_EVERY) {
            return;
        }
        let Some(status) = self.status() else { return };
        let stale = |name: &ServiceName| {
            let runs_all_the_same = |one: &ServiceSeen| {
                one.stopped_by.as_deref() == Some(STOPPED_BY) && one.runs == Some(true) && !one.stops
            };
            status.services.iter().any(|one| one.service == *name && runs_all_the_same(one))
        };
        let database = (self.database.clone(), Rung::StopPostgres);
        let marked = self.marked.iter().map(|(name, shed)| (name.clone(), Rung::StopServices(*shed)));
        let held = |rung: Rung| state.held().iter().any(|held| held.rung == rung);
        let one = marked.chain([database]).find(|(name, rung)| !held(*rung) && stale(name));
        if let Some((name, rung)) = one {
            self.tidied = Some(now);
            self.order(rung, false, vec![name]);
        }
    }

    async fn stand_back(&self, wanted: bool) {
        if let Some(lever) = &self.with.own_work {
            lever.stand_back(wanted).await;
        }
    }

    fn order(&mut self, rung: Rung, stop: bool, services: Vec<ServiceName>) {
        self.orders = self.orders.wrapping_add(1);
        let number = self.orders;
        let passed_on = match &self.with.services {
            Some(lever) => lever.orders.try_send(ToWorker { order: number, stop, services }).is_ok(),
            None => false,
        };
        self.order = if passed_on {
            Order::Underway { rung, number }
        } else {
            Order::Failed { rung, why: "nobody takes orders about services".to_owned() }
        };
    }

    fn status(&self) -> Option<RecoveryStatus> {
        self.with.services.as_ref().and_then(|lever| lever.status.borrow().clone()).map(|(_, status)| status)
    }

    fn service(&self, name: &ServiceName, rung: Rung, mode: Mode, status: Option<&RecoveryStatus>) -> Hand {
        let seen = status.and_then(|status| status.services.iter().find(|one| one.service == *name));
        let acting = status.is_some_and(|status| status.acting);
        let hand = service_hand(seen, mode, self.recovery, acting);
        match &self.order {
            Order::Underway { rung: of, .. } if *of == rung => Hand { effect: Effect::Underway, ..hand },
            // A worker that died in the midst of it has failed; what it began goes on.
            Order::Failed { rung: of, why }
                if *of == rung && hand.effect != Effect::InForce && !seen.is_some_and(|seen| seen.stops) =>
            {
                Hand { effect: Effect::Failed(why.clone()), ..hand }
            }
            _ => hand,
        }
    }

    /// Who else starts and stops the server: its parent's name says so.
    fn owner(&mut self) -> Option<&'static str> {
        let postmaster = self.with.sessions.borrow().as_ref().and_then(|session| session.info.postmaster);
        if let Some(postmaster) = postmaster
            && self.owner.is_none_or(|(asked, _)| asked != postmaster)
        {
            let command = host_process::stat(postmaster.pid)
                .and_then(|stat| fs::read(format!("/proc/{}/cmdline", stat.parent)).ok())
                .unwrap_or_default();
            let command = String::from_utf8_lossy(&command).to_lowercase();
            let owner = MANAGERS.iter().find(|(part, _)| command.contains(part)).map(|(_, name)| *name);
            self.owner = Some((postmaster, owner));
        }
        self.owner.and_then(|(_, owner)| owner)
    }
}

fn off(ability: Ability) -> Hand {
    Hand { ability, effect: Effect::Off }
}

fn nothing(why: &str) -> Ability {
    Ability::Nothing(why.to_owned())
}

fn vacuum_hand(governor: Option<&GovernorStatus>, mode: Mode, activity: Option<&ActivityReading>) -> Hand {
    let Some(governor) = governor else {
        return off(Ability::Unavailable("the governor has not looked yet".to_owned()));
    };
    if governor.engaged {
        let held = Effect::Elsewhere("the governor holds vacuums by its own decision".to_owned());
        return Hand { ability: Ability::Ready, effect: held };
    }
    let slowed = |kind| matches!(kind, VacuumKind::Autovacuum);
    let vacuums = activity.map_or(0, |activity| activity.vacuums.iter().filter(|one| slowed(one.kind)).count());
    off(match (vacuums, governor.mode) {
        (0, _) => nothing("no vacuum runs that may be slowed"),
        (_, Mode::Act) => nothing("the governor, which decides itself, finds no vacuum worth holding"),
        (_, of) if mode == Mode::Act => Ability::Unavailable(format!("the governor's mode is {of}")),
        _ => Ability::Ready,
    })
}

/// `mode`: the ladder's; `recovery`: how far the worker may go that has to bring the service back.
fn service_hand(seen: Option<&ServiceSeen>, mode: Mode, recovery: Mode, acting: bool) -> Hand {
    // What nobody has looked at yet is neither in force nor over.
    let Some(seen) = seen else {
        let ability = Ability::Unavailable("nobody has looked at it yet".to_owned());
        return Hand { ability, effect: Effect::Underway };
    };
    let effect = match &seen.stopped_by {
        // A server writes its last checkpoint, for minutes perhaps: our stop, whoever of us began it and was killed meanwhile.
        Some(by) if by == STOPPED_BY && seen.stops => Effect::Underway,
        Some(by) if by == STOPPED_BY && seen.runs == Some(true) => Effect::Off,
        Some(by) if by == STOPPED_BY => Effect::InForce,
        Some(by) => Effect::Elsewhere(format!("was stopped by {by}")),
        None => Effect::Off,
    };
    let ability = match seen.runs {
        Some(false) => nothing("does not run"),
        None => Ability::Unavailable("whether it runs is not known".to_owned()),
        Some(true) if seen.stops => nothing("shuts down already"),
        Some(true) if mode == Mode::Act && recovery != Mode::Act => {
            Ability::Unavailable(format!("[recovery] mode is {recovery}: nobody would bring it back"))
        }
        Some(true) if mode == Mode::Act && !acting => {
            Ability::Unavailable("another process brings services back just now".to_owned())
        }
        Some(true) => Ability::Ready,
    };
    Hand { ability, effect }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(stopped_by: Option<&str>, runs: Option<bool>) -> ServiceSeen {
        let stopped_by = stopped_by.map(str::to_owned);
        ServiceSeen {
            service: "bot".into(),
            state: String::new(),
            well: true,
            stopped_by,
            health: None,
            runs,
            stops: false,
        }
    }

    #[test]
    fn a_services_lever_tells_whose_stop_it_is() {
        let hand = |stopped_by, runs| service_hand(Some(&seen(stopped_by, runs)), Mode::Act, Mode::Act, true);
        assert_eq!(hand(None, Some(true)), Hand::ready());
        assert!(matches!(hand(None, Some(false)), Hand { ability: Ability::Nothing(_), effect: Effect::Off }));
        assert!(matches!(hand(None, None).ability, Ability::Unavailable(_)));
        assert_eq!(hand(Some(STOPPED_BY), Some(false)).effect, Effect::InForce);
        // A person started it by other means: it is theirs now.
        assert_eq!(hand(Some(STOPPED_BY), Some(true)).effect, Effect::Off);
        // Not while it shuts down: that is ours, and goes on.
        let stops = |stopped_by| ServiceSeen { stops: true, ..seen(stopped_by, Some(true)) };
        let hand_of = |seen: &ServiceSeen| service_hand(Some(seen), Mode::Act, Mode::Act, true);
        assert_eq!(hand_of(&stops(Some(STOPPED_BY))).effect, Effect::Underway);
        assert!(matches!(hand_of(&stops(None)), Hand { ability: Ability::Nothing(_), effect: Effect::Off }));
        assert_eq!(hand(Some("eva"), Some(false)).effect, Effect::Elsewhere("was stopped by eva".to_owned()));
        assert_eq!(service_hand(None, Mode::Act, Mode::Act, true).effect, Effect::Underway);
    }

    #[test]
    fn nothing_is_stopped_that_nobody_would_bring_back_and_a_dry_run_says_what_it_would() {
        let of = |mode, recovery, acting| service_hand(Some(&seen(None, Some(true))), mode, recovery, acting).ability;
        assert!(matches!(of(Mode::Act, Mode::Observe, false), Ability::Unavailable(why) if why.contains("observe")));
        assert!(matches!(of(Mode::Act, Mode::Act, false), Ability::Unavailable(_)));
        assert_eq!(of(Mode::Observe, Mode::Observe, false), Ability::Ready);
    }
}

//! All that a decision may depend on.

use model::{
    Moment, ServiceName,
    reading::{ActivityReading, HostReading, TablesReading},
};

/// What is known at one moment. Readings are the newest ones, however old; how old they may be is for the ladder to say.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// Now.
    pub now: Moment,
    /// The host.
    pub host: Option<&'a HostReading>,
    /// Sessions and vacuums.
    pub activity: Option<&'a ActivityReading>,
    /// Ages of transaction ids.
    pub tables: Option<&'a TablesReading>,
    /// How PostgreSQL is.
    pub server: Server,
    /// The governor.
    pub vacuum: Hand,
    /// This program's own backups, proofs and other workers.
    pub own_work: Hand,
    /// Whether workers of vacuum can be ended, and what became of the last try. Which one is chosen from `activity`.
    pub cancel: Hand,
    /// The services that the configuration marks with `shed`.
    pub services: Vec<Sheddable>,
    /// Whoever can stop and start PostgreSQL.
    pub postgres: Hand,
}

/// How PostgreSQL is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// It serves, or should: a server that is silent under pressure still counts.
    Serving,
    /// It recovers. Nothing stops it then: a restart would begin the recovery again.
    Recovering,
    /// It does not run.
    Stopped,
    /// Nobody knows.
    Unknown,
}

/// The lever of one rung: whether it is there, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hand {
    /// Whether it can be used now.
    pub ability: Ability,
    /// What it does now.
    pub effect: Effect,
}

impl Hand {
    /// A lever that is there and not used.
    pub fn ready() -> Self {
        Self { ability: Ability::Ready, effect: Effect::Off }
    }
}

/// Whether a lever can be used now. Looked up anew for every decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ability {
    /// There is something to act on, and it can be done.
    Ready,
    /// There is nothing to act on: no vacuum runs, no backup is under way.
    Nothing(String),
    /// Somebody else owns the thing: Patroni, an operator, the kubelet, a person's `systemctl mask`. It is never fought over.
    Owned(String),
    /// It can't be done here, and why.
    Unavailable(String),
}

/// What a lever does now.
///
/// The executor ends every act within a bound of its own, and says then what came of it: `Off`, `InForce` or `Failed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    Off,
    /// Our last act on it is being carried out.
    Underway,
    /// What we asked for is in force.
    InForce,
    /// It is in force by another's decision: the governor holds by itself, the worker stands back by itself, a person stopped the
    /// service. As good as a rung taken, and not ours to take back.
    Elsewhere(String),
    /// Our last act on it failed, and why. Said until the next act on it.
    Failed(String),
}

/// A service that may be stopped under critical pressure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sheddable {
    /// Its name.
    pub name: ServiceName,
    /// `shed` of its declaration: the lower, the sooner.
    pub shed: u32,
    /// Its driver. [`Ability::Nothing`] where it does not run anyway.
    pub hand: Hand,
}

//! What the guard remembers while it runs: the newest of everything, for `status`. Nothing is decided from it.

use std::path::Path;

use journal::{EventQuery, Reader};
use model::{
    Event, EventKind, Moment, Observation, Reading, ServiceName,
    event::Death,
    reading::{ActivityReading, BackupReading, HostReading, ReceiveReading, ServiceReading, TablesReading, WalReading},
};

use super::document::ServerState;

/// The newest of everything.
#[derive(Debug)]
pub struct Memory {
    pub server: ServerState,
    pub host: Option<HostReading>,
    pub activity: Option<ActivityReading>,
    pub wal: Option<WalReading>,
    pub tables: Option<TablesReading>,
    pub backup: Option<BackupReading>,
    pub receive: Option<ReceiveReading>,
    pub death: Option<Death>,
    services: Vec<(ServiceName, Option<ServiceReading>)>,
}

impl Memory {
    /// Remembers nothing yet but the services' order.
    pub fn new(services: impl Iterator<Item = ServiceName>) -> Self {
        Self {
            server: ServerState::Unknown,
            host: None,
            activity: None,
            wal: None,
            tables: None,
            backup: None,
            receive: None,
            death: None,
            services: services.map(|name| (name, None)).collect(),
        }
    }

    /// Keeps what is new.
    pub fn keep(&mut self, observation: &Observation) {
        match observation {
            Observation::Reading(Reading::Host(r)) => self.host = Some(r.clone()),
            Observation::Reading(Reading::Activity(r)) => self.activity = Some(r.clone()),
            Observation::Reading(Reading::Wal(r)) => self.wal = Some(r.clone()),
            Observation::Reading(Reading::Tables(r)) => self.tables = Some(r.clone()),
            Observation::Reading(Reading::Backup(r)) => self.backup = Some(r.as_ref().clone()),
            Observation::Reading(Reading::Receive(r)) => self.receive = Some(r.clone()),
            Observation::Reading(Reading::Service(r)) => {
                if let Some((_, slot)) = self.services.iter_mut().find(|(name, _)| *name == r.service) {
                    *slot = Some(r.clone());
                }
            }
            Observation::Event(at, kind) => self.keep_event(*at, kind),
        }
    }

    fn keep_event(&mut self, at: Moment, kind: &EventKind) {
        match kind {
            EventKind::ServerUp { version, started, in_recovery } => {
                self.server = ServerState::Up { version: *version, started: *started, in_recovery: *in_recovery };
            }
            EventKind::ServerDown { reason, detail } => {
                // Another reason does not make the outage younger.
                let since = match &self.server {
                    ServerState::Down { since, .. } => *since,
                    _ => at.wall,
                };
                self.server = ServerState::Down { since, reason: *reason, detail: detail.clone() };
                // What a server that is gone said is no longer so.
                (self.activity, self.wal, self.tables) = (None, None, None);
            }
            EventKind::DeathExplained { death } => self.death = Some(death.clone()),
            _ => {}
        }
    }

    /// Services that have been seen, in the configuration's order.
    pub fn services(&self) -> Vec<ServiceReading> {
        self.services.iter().filter_map(|(_, reading)| reading.clone()).collect()
    }
}

/// The newest event of a journal whose guard is gone, in words; `None` where there is no journal that can be read.
pub fn last_words(state_dir: &Path) -> Option<String> {
    let newest = EventQuery { limit: 1, newest: true, ..EventQuery::default() };
    let Event { id, at, kind } = Reader::open(state_dir).and_then(|mut r| r.events(&newest)).ok()?.events.pop()?;
    Some(format!("{id} at {}: {}", at.wall.strftime("%Y-%m-%d %H:%M:%S UTC"), incident::describe(&kind)))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use model::event::DownReason;

    use super::*;

    #[test]
    fn an_outage_begins_when_it_began() {
        let at = |s| Moment { wall: Timestamp::from_second(s).unwrap(), boot_us: 0 };
        let down = |s, reason| Observation::Event(at(s), EventKind::ServerDown { reason, detail: "x".into() });
        let mut memory = Memory::new(std::iter::empty());
        memory.keep(&down(5, DownReason::NotListening));
        memory.keep(&down(9, DownReason::Recovering));
        let ServerState::Down { since, reason, .. } = memory.server else { panic!() };
        assert_eq!((since.as_second(), reason), (5, DownReason::Recovering));
    }
}

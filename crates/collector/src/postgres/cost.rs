//! What our own queries cost the server.

use std::time::Duration;

use model::{Pid, reading::OwnCost};

use crate::host::{CpuTime, ProcessTable};

/// Adds up, over all connections since the guard started.
#[derive(Debug, Default)]
pub struct OwnCosts {
    total: OwnCost,
    /// CPU time of backends that are gone.
    earlier_cpu: Duration,
    /// The backend of this connection, where it can be seen, and its CPU time when last looked at.
    backend: Option<(Pid, CpuTime)>,
}

impl OwnCosts {
    /// A connection was opened with so many statements.
    pub fn connected(&mut self, table: &mut ProcessTable, backend: Option<Pid>, statements: u64, elapsed: Duration) {
        if let Some((_, cpu)) = self.backend.take() {
            self.earlier_cpu += cpu.duration();
        }
        self.backend = backend.and_then(|pid| Some((pid, table.snapshot(pid)?.cpu)));
        self.total.statements += statements;
        self.total.elapsed += elapsed;
        self.publish();
    }

    /// Statements were answered. Returns what they cost: the backend's CPU time where it can be seen, else the time that they
    /// took. On a starved host the latter is mostly waiting, and no reason to look less often.
    pub fn answered(&mut self, table: &mut ProcessTable, statements: u64, elapsed: Duration) -> Duration {
        self.total.statements += statements;
        self.total.elapsed += elapsed;
        let Some((pid, before)) = self.backend else { return elapsed };
        let Some(now) = table.snapshot(pid).map(|snapshot| snapshot.cpu) else { return elapsed };
        self.backend = Some((pid, now));
        self.publish();
        now.since(before).unwrap_or(elapsed)
    }

    /// All of it until now.
    pub fn total(&self) -> OwnCost {
        self.total
    }

    fn publish(&mut self) {
        if let Some((_, cpu)) = self.backend {
            self.total.backend_cpu = Some(self.earlier_cpu + cpu.duration());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_add_up_over_connections() {
        let mut table = ProcessTable::new(std::path::Path::new("/proc"));
        let me = Pid(i32::try_from(std::process::id()).unwrap());
        let second = Duration::from_secs(1);
        let mut costs = OwnCosts::default();
        costs.connected(&mut table, None, 3, second);
        assert_eq!(costs.answered(&mut table, 1, second), second, "what can't be seen costs the time that it took");
        assert_eq!(costs.total(), OwnCost { statements: 4, elapsed: 2 * second, backend_cpu: None });
        costs.connected(&mut table, Some(me), 3, second);
        assert!(costs.answered(&mut table, 2, second) < second);
        let first = costs.total().backend_cpu.unwrap();
        costs.connected(&mut table, Some(me), 3, second);
        assert!(costs.total().backend_cpu.unwrap() >= first * 2, "the backend that is gone still counts");
        assert_eq!(costs.total().statements, 12);
    }
}

//! Vacuums from reading to reading: the CPU that each uses, and the events of their coming and going.

use std::{collections::BTreeMap, time::Duration};

use model::{
    Cores, EventKind, Moment, Oid, Pid, ProcessId, TableName,
    reading::{VacuumKind, VacuumReading},
};

use super::{activity::VacuumRow, locks::Queue};
use crate::host::{CpuTime, ProcessTable};

/// A vacuum becomes an event when it was seen this often. What is gone within a second is in no reading's way, and a busy cluster
/// has thousands of them an hour.
const SIGHTINGS: u32 = 2;

/// A vacuum that was seen.
#[derive(Clone, Debug)]
struct Seen {
    process: ProcessId,
    kind: VacuumKind,
    database: String,
    table: Option<TableName>,
    relation: Option<Oid>,
    first: Moment,
    last: Moment,
    sightings: u32,
    cpu_first: Option<CpuTime>,
    cpu_last: Option<CpuTime>,
}

impl Seen {
    /// A worker takes one table after the other; each is a vacuum of its own.
    fn is_same(&self, process: ProcessId, row: &VacuumRow) -> bool {
        fn agree<T: PartialEq>(a: Option<&T>, b: Option<&T>) -> bool {
            a.is_none() || b.is_none() || a == b
        }
        self.process == process
            && self.database == row.database
            && agree(self.table.as_ref(), row.table.as_ref())
            && agree(self.relation.as_ref(), row.relation.as_ref())
    }

    fn gone(&self) -> EventKind {
        EventKind::VacuumGone {
            process: self.process,
            database: self.database.as_str().into(),
            table: self.table.clone(),
            seen_for: self.last.since(self.first),
            cpu_time: self.cpu_first.zip(self.cpu_last).and_then(|(first, last)| last.since(first)).unwrap_or_default(),
        }
    }

    fn seen(&self) -> EventKind {
        EventKind::VacuumSeen {
            process: self.process,
            kind: self.kind,
            database: self.database.as_str().into(),
            table: self.table.clone(),
            relation: self.relation,
        }
    }
}

/// All vacuums that were in the reading before; bounded as the readings are.
#[derive(Debug, Default)]
pub struct Vacuums {
    seen: BTreeMap<Pid, Seen>,
    /// CPU time of each worker at the reading before, across its tables.
    cpu: BTreeMap<Pid, (ProcessId, CpuTime, Moment)>,
}

impl Vacuums {
    /// Turns the server's rows into readings and tells what came and went. `table` is `None` where the server's processes can't be
    /// seen from here.
    pub fn observe(
        &mut self,
        rows: Vec<VacuumRow>,
        queue: &Queue,
        now: Moment,
        table: Option<&mut ProcessTable>,
    ) -> (Vec<VacuumReading>, Vec<(Moment, EventKind)>) {
        let mut events = Vec::new();
        let mut readings = Vec::with_capacity(rows.len());
        let mut before = std::mem::take(&mut self.seen);
        let cpu_before = std::mem::take(&mut self.cpu);
        let mut table = table;
        for row in rows {
            let snapshot = table.as_mut().and_then(|table| table.snapshot(row.pid));
            let process = snapshot.map_or(ProcessId { pid: row.pid, start_ticks: 0 }, |snapshot| snapshot.id);
            let used = snapshot.map(|snapshot| snapshot.cpu);
            let cpu = used.and_then(|used| rate(cpu_before.get(&row.pid), process, used, now));
            if let Some(used) = used {
                self.cpu.insert(row.pid, (process, used, now));
            }
            let seen = match before.remove(&row.pid) {
                Some(seen) if seen.is_same(process, &row) => seen,
                other => {
                    events.extend(other.filter(was_announced).map(|gone| (now, gone.gone())));
                    fresh(process, &row, now, used)
                }
            };
            let seen = self.seen.entry(row.pid).or_insert(seen);
            seen.last = now;
            seen.cpu_last = used.or(seen.cpu_last);
            seen.kind = row.kind;
            seen.table = row.table.clone().or_else(|| seen.table.take());
            seen.relation = row.relation.or(seen.relation);
            // A worker that has not chosen a table yet is no vacuum yet.
            if seen.table.is_some() || seen.relation.is_some() {
                seen.sightings += 1;
                if seen.sightings == SIGHTINGS {
                    events.push((seen.first, seen.seen()));
                }
            }
            readings.push(reading(row, process, cpu, queue));
        }
        events.extend(before.into_values().filter(was_announced).map(|gone| (now, gone.gone())));
        (readings, events)
    }
}

fn was_announced(seen: &Seen) -> bool {
    seen.sightings >= SIGHTINGS
}

fn fresh(process: ProcessId, row: &VacuumRow, now: Moment, cpu: Option<CpuTime>) -> Seen {
    Seen {
        process,
        kind: row.kind,
        database: row.database.clone(),
        table: row.table.clone(),
        relation: row.relation,
        first: now,
        last: now,
        sightings: 0,
        cpu_first: cpu,
        cpu_last: cpu,
    }
}

fn rate(
    before: Option<&(ProcessId, CpuTime, Moment)>,
    process: ProcessId,
    used: CpuTime,
    now: Moment,
) -> Option<Cores> {
    let (same, then_used, then) = before?;
    let window: Duration = now.since(*then);
    (*same == process).then(|| used.rate_since(*then_used, window)).flatten()
}

fn reading(row: VacuumRow, process: ProcessId, cpu: Option<Cores>, queue: &Queue) -> VacuumReading {
    VacuumReading {
        process,
        kind: row.kind,
        database: row.database.into(),
        table: row.table,
        relation: row.relation,
        started: row.started,
        phase: row.phase,
        heap_blocks: row.heap_blocks,
        heap_blocks_scanned: row.heap_blocks_scanned,
        heap_blocks_vacuumed: row.heap_blocks_vacuumed,
        index_passes: row.index_passes,
        cpu,
        in_delay: row.in_delay,
        blocks: queue.behind(row.pid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(pid: i32, table: Option<&str>, relation: Option<u32>) -> VacuumRow {
        VacuumRow {
            pid: Pid(pid),
            kind: VacuumKind::Autovacuum,
            database: "app".into(),
            table: table.map(TableName::from),
            relation: relation.map(Oid),
            started: None,
            phase: None,
            heap_blocks: None,
            heap_blocks_scanned: None,
            heap_blocks_vacuumed: None,
            index_passes: None,
            in_delay: false,
        }
    }

    /// Shows readings a second apart and returns the events as `second name table`.
    fn story(readings: Vec<Vec<VacuumRow>>) -> Vec<String> {
        let start = crate::clock::now();
        let mut vacuums = Vacuums::default();
        let mut told = Vec::new();
        for (second, rows) in readings.into_iter().enumerate() {
            let now = start.plus(Duration::from_secs(second as u64));
            let (_, events) = vacuums.observe(rows, &Queue::default(), now, None);
            for (at, event) in events {
                let table = match &event {
                    EventKind::VacuumSeen { table, .. } => format!("{table:?}"),
                    EventKind::VacuumGone { table, seen_for, .. } => format!("{table:?} after {seen_for:?}"),
                    _ => unreachable!("no other event comes from here"),
                };
                let table = table.replace("Some(TableName(\"", "").replace("\"))", "");
                told.push(format!("{} {} {table}", at.since(start).as_secs(), event.name()));
            }
        }
        told
    }

    #[test]
    fn coming_and_going() {
        let a = || row(1, Some("s.a"), None);
        let b = || row(1, Some("s.b"), None);
        for (readings, expected) in [
            (vec![vec![], vec![]], vec![]),
            (vec![vec![a()], vec![]], vec![]),
            (
                vec![vec![], vec![a()], vec![a()], vec![a()], vec![]],
                vec!["1 vacuum_seen s.a", "4 vacuum_gone s.a after 2s"],
            ),
            (
                vec![vec![a()], vec![a()], vec![b()], vec![b()]],
                vec!["0 vacuum_seen s.a", "2 vacuum_gone s.a after 1s", "2 vacuum_seen s.b"],
            ),
            // A worker that has chosen no table yet.
            (vec![vec![row(1, None, None)], vec![row(1, None, None)], vec![a()], vec![a()]], vec!["0 vacuum_seen s.a"]),
            // The relation comes later and goes earlier than the line.
            (
                vec![vec![a()], vec![row(1, Some("s.a"), Some(7))], vec![a()], vec![]],
                vec!["0 vacuum_seen s.a", "3 vacuum_gone s.a after 2s"],
            ),
            // Only the relation is known.
            (
                vec![vec![row(1, None, Some(7))], vec![row(1, None, Some(7))], vec![row(1, None, Some(8))]],
                vec!["0 vacuum_seen None", "2 vacuum_gone None after 1s"],
            ),
        ] {
            assert_eq!(story(readings.clone()), expected, "{readings:?}");
        }
    }

    #[test]
    fn a_workers_cpu_is_measured_between_readings() {
        let mut table = ProcessTable::new(std::path::Path::new("/proc"));
        let mut child = std::process::Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let mut vacuums = Vacuums::default();
        let start = crate::clock::now();
        let mut read =
            |now| vacuums.observe(vec![row(pid, Some("s.a"), None)], &Queue::default(), now, Some(&mut table));
        let (readings, _) = read(start);
        assert_eq!(readings[0].cpu, None);
        assert!(readings[0].process.start_ticks > 0);
        let mut used = Cores(0.0);
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while used.0 == 0.0 && std::time::Instant::now() < deadline {
            std::thread::yield_now();
            used = read(crate::clock::now()).0[0].cpu.unwrap_or_default();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(used.0 > 0.0, "20 s of work were not counted");
    }
}

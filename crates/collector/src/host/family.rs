//! The processes that are watched: the guard, the postmaster and its children, and those of declared services.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use model::{
    ByteSize, Cores, Moment, Pid, ServiceName,
    reading::{ProcessReading, ProcessRole},
};

use super::process::{ProcessSnapshot, ProcessTable};

/// More children of one postmaster are not looked at.
const MAX_CHILDREN: usize = 16 * 1024;
/// Processes sampled at a time. Where there are more, every process that is not a client's goes first and the clients' take turns:
/// each costs about 10 us, and ours has to stay small.
const MAX_SAMPLED: usize = 128;
/// Processes that a reading lists.
const MAX_LISTED: usize = 16;
/// Processes of declared services.
const MAX_SERVICES: usize = 64;
/// How often children are searched for where the kernel does not list them.
const SEARCH_INTERVAL: Duration = Duration::from_secs(5);

/// What the sampler is told to watch, by whoever learns of it. Clones share one list.
#[derive(Clone, Debug, Default)]
pub struct Watched(Arc<Mutex<WatchList>>);

#[derive(Clone, Debug, Default)]
struct WatchList {
    postmaster: Option<Pid>,
    services: Vec<(Pid, ServiceName)>,
    data_directory: Option<PathBuf>,
    version: u64,
}

impl Watched {
    /// The postmaster, as this host's `/proc` knows it; `None` when there is none to be seen.
    pub fn set_postmaster(&self, postmaster: Option<Pid>) {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        list.postmaster = postmaster;
        list.version += 1;
    }

    /// The server's data directory, whose file system is watched too; kept while the server is gone, for then it matters most.
    pub fn set_data_directory(&self, directory: PathBuf) {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        list.data_directory = Some(directory);
        list.version += 1;
    }

    /// Processes of declared services; only the first 64 are watched.
    pub fn set_services(&self, mut services: Vec<(Pid, ServiceName)>) {
        services.truncate(MAX_SERVICES);
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        list.services = services;
        list.version += 1;
    }

    /// The postmaster that is watched.
    pub fn postmaster(&self) -> Option<Pid> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).postmaster
    }
}

/// A watched process and its last snapshot.
#[derive(Debug)]
struct Known {
    role: Option<ProcessRole>,
    last: Option<(ProcessSnapshot, Moment)>,
}

/// All watched processes, from sample to sample.
#[derive(Debug)]
pub struct Family {
    watched: Watched,
    /// Our own copy, so that the lock is held for an instant only.
    list: WatchList,
    known: HashMap<Pid, Known>,
    children: Vec<Pid>,
    searched: Option<Moment>,
    turn: usize,
    guard: Pid,
    page_bytes: u64,
}

impl Family {
    pub fn new(watched: Watched) -> Self {
        Self {
            watched,
            list: WatchList::default(),
            known: HashMap::new(),
            children: Vec::new(),
            searched: None,
            turn: 0,
            guard: Pid(i32::try_from(std::process::id()).unwrap_or(0)),
            page_bytes: rustix::param::page_size() as u64,
        }
    }

    /// The data directory as of the last [`Self::sample`].
    pub fn data_directory(&self) -> Option<&Path> {
        self.list.data_directory.as_deref()
    }

    /// The postmaster as of the last [`Self::sample`].
    pub fn postmaster(&self) -> Option<Pid> {
        self.list.postmaster
    }

    /// CPU and memory of the watched processes since the sample before, busiest first.
    pub fn sample(&mut self, table: &mut ProcessTable, before: Moment, now: Moment) -> Vec<ProcessReading> {
        self.refresh_list();
        self.refresh_children(table, now);
        let mut readings = Vec::with_capacity(MAX_LISTED);
        self.sample_one(table, self.guard, Some(ProcessRole::Guard), (before, now), &mut readings);
        if let Some(postmaster) = self.list.postmaster {
            self.sample_one(table, postmaster, Some(ProcessRole::Postmaster), (before, now), &mut readings);
        }
        for index in 0..self.list.services.len() {
            let (pid, name) = self.list.services[index].clone();
            self.sample_one(table, pid, Some(ProcessRole::Service(name)), (before, now), &mut readings);
        }
        let children = std::mem::take(&mut self.children);
        for &pid in self.choose(&children).iter() {
            self.sample_one(table, pid, None, (before, now), &mut readings);
        }
        self.children = children;
        bounded(readings)
    }

    /// Skips the round where somebody is just writing to the list: the sampler waits for nobody.
    fn refresh_list(&mut self) {
        if let Ok(list) = self.watched.0.try_lock()
            && list.version != self.list.version
        {
            self.list.clone_from(&list);
            self.searched = None;
        }
    }

    fn refresh_children(&mut self, table: &mut ProcessTable, now: Moment) {
        let Some(postmaster) = self.list.postmaster else {
            self.children.clear();
            self.known.retain(|pid, _| self.list.services.iter().any(|(service, _)| service == pid));
            return;
        };
        let due = self.searched.is_none_or(|searched| now.since(searched) >= SEARCH_INTERVAL);
        if !table.children(postmaster, MAX_CHILDREN, &mut self.children) && due {
            table.children_by_search(postmaster, MAX_CHILDREN, &mut self.children);
            self.searched = Some(now);
        }
        self.children.sort_unstable();
        let (children, list, guard) = (&self.children, &self.list, self.guard);
        self.known.retain(|pid, _| {
            *pid == guard
                || Some(*pid) == list.postmaster
                || children.binary_search(pid).is_ok()
                || list.services.iter().any(|(service, _)| service == pid)
        });
    }

    /// Which children to sample now.
    fn choose(&mut self, children: &[Pid]) -> Vec<Pid> {
        if children.len() <= MAX_SAMPLED {
            return children.to_vec();
        }
        let is_client = |pid: &Pid| {
            let role = self.known.get(pid).and_then(|known| known.role.as_ref());
            matches!(role, Some(ProcessRole::Postgres(kind)) if kind == "client backend")
        };
        let (clients, mut chosen): (Vec<Pid>, Vec<Pid>) = children.iter().partition(|pid| is_client(pid));
        chosen.truncate(MAX_SAMPLED);
        let room = (MAX_SAMPLED - chosen.len()).min(clients.len());
        chosen.extend(clients.iter().cycle().skip(self.turn % clients.len().max(1)).take(room));
        self.turn = self.turn.wrapping_add(room);
        chosen
    }

    fn sample_one(
        &mut self,
        table: &mut ProcessTable,
        pid: Pid,
        role: Option<ProcessRole>,
        (before, now): (Moment, Moment),
        readings: &mut Vec<ProcessReading>,
    ) {
        let is_postgres = role.is_none() || role == Some(ProcessRole::Postmaster);
        let snapshot = if is_postgres { table.snapshot(pid) } else { table.snapshot_all_threads(pid) };
        let Some(snapshot) = snapshot else {
            self.known.remove(&pid);
            return;
        };
        let known = self.known.entry(pid).or_insert(Known { role: None, last: None });
        if known.last.is_some_and(|(last, _)| last.id != snapshot.id) {
            *known = Known { role: None, last: None };
        }
        if role.is_some() {
            known.role = role;
        } else if known.role.is_none() {
            known.role = table.postgres_role(pid).map(|kind| ProcessRole::Postgres(kind.to_owned()));
        }
        let cpu = match known.last.replace((snapshot, now)) {
            Some((last, then)) => snapshot.cpu.rate_since(last.cpu, now.since(then)),
            None => since_its_start(&snapshot, before, now),
        };
        if let Some(cpu) = cpu {
            let role = known.role.clone().unwrap_or_else(|| ProcessRole::Postgres("unknown".to_owned()));
            let rss = ByteSize(snapshot.rss_pages.saturating_mul(self.page_bytes));
            readings.push(ProcessReading { id: snapshot.id, role, cpu, rss });
        }
    }
}

/// A process that started within the window used all its time in it.
fn since_its_start(snapshot: &ProcessSnapshot, before: Moment, now: Moment) -> Option<Cores> {
    let window = now.since(before);
    let started_within = snapshot.started_after_boot().as_micros() >= u128::from(before.boot_us);
    (started_within && !window.is_zero()).then(|| Cores(snapshot.cpu.duration().as_secs_f64() / window.as_secs_f64()))
}

/// The busiest, and always ourselves: what we cost is part of every reading.
fn bounded(mut readings: Vec<ProcessReading>) -> Vec<ProcessReading> {
    readings.sort_by(|a, b| b.cpu.0.total_cmp(&a.cpu.0).then(a.id.cmp(&b.id)));
    if readings.len() > MAX_LISTED {
        let ours = readings.iter().position(|reading| reading.role == ProcessRole::Guard);
        if let Some(ours) = ours.filter(|&ours| ours >= MAX_LISTED) {
            readings.swap(MAX_LISTED - 1, ours);
        }
        readings.truncate(MAX_LISTED);
    }
    readings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn the_busiest_are_listed_and_always_the_guard() {
        let reading = |pid: i32, cpu: f64, role| ProcessReading {
            id: model::ProcessId { pid: Pid(pid), start_ticks: 1 },
            role,
            cpu: Cores(cpu),
            rss: ByteSize(0),
        };
        let mut readings: Vec<_> =
            (1..40).map(|pid| reading(pid, f64::from(pid), ProcessRole::Postgres("client backend".into()))).collect();
        readings.push(reading(99, 0.0, ProcessRole::Guard));
        let listed = bounded(readings);
        assert_eq!(listed.len(), MAX_LISTED);
        assert_eq!((listed[0].id.pid, listed[MAX_LISTED - 1].id.pid), (Pid(39), Pid(99)));
    }

    #[test]
    fn with_many_clients_the_others_go_first_and_clients_take_turns() {
        let mut family = Family::new(Watched::default());
        let children: Vec<Pid> = (1..=300).map(Pid).collect();
        for &pid in &children {
            let kind = if pid.0 % 100 == 0 { "autovacuum worker" } else { "client backend" };
            family.known.insert(pid, Known { role: Some(ProcessRole::Postgres(kind.into())), last: None });
        }
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..4 {
            let chosen = family.choose(&children);
            assert_eq!(chosen.len(), MAX_SAMPLED);
            assert!([100, 200, 300].iter().all(|pid| chosen.contains(&Pid(*pid))));
            seen.extend(chosen);
        }
        assert_eq!(seen.len(), children.len());
    }

    #[test]
    fn a_child_that_starts_within_the_window_is_counted_from_zero() {
        let mut table = ProcessTable::new(std::path::Path::new("/proc"));
        let me = Pid(i32::try_from(std::process::id()).unwrap());
        let snapshot = table.snapshot_all_threads(me).unwrap();
        let now = clock::now();
        let at_boot = Moment { boot_us: 0, ..now };
        assert!(since_its_start(&snapshot, at_boot, now).is_some());
        assert_eq!(since_its_start(&snapshot, now, now), None);
    }
}

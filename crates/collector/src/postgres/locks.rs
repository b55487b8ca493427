//! Who waits for whom: the queue behind a lock, from `pg_blocking_pids`. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use model::{Pid, TableName};

/// A session that waits for a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiter {
    pub pid: Pid,
    /// Where the server says (14+).
    pub waited: Option<Duration>,
    /// Those that it waits for: holders, and waiters before it. 0 stands for a prepared transaction, and a parallel query's
    /// members repeat their leader.
    pub blockers: Vec<Pid>,
    /// The table whose lock it waits for, or one of whose rows, where that is told.
    pub table: Option<TableName>,
}

/// All waiters of one instant, bounded by the statement that read them.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    /// For each waiter all that stand before it, directly or not.
    before: BTreeMap<Pid, BTreeSet<Pid>>,
    longest: Option<Duration>,
    table: Option<TableName>,
}

impl Queue {
    pub fn new(waiters: &[Waiter]) -> Self {
        let direct: BTreeMap<Pid, &[Pid]> =
            waiters.iter().map(|waiter| (waiter.pid, waiter.blockers.as_slice())).collect();
        let before = direct.keys().map(|&pid| (pid, all_before(pid, &direct))).collect();
        Self { before, longest: waiters.iter().filter_map(|waiter| waiter.waited).max(), table: most_wanted(waiters) }
    }

    /// The longest wait, where the server says.
    pub fn longest(&self) -> Option<Duration> {
        self.longest
    }

    /// The table that most wait for, where any is told.
    pub fn table(&self) -> Option<&TableName> {
        self.table.as_ref()
    }

    /// The session that most wait for, directly or not, and that itself waits for nobody. In a deadlock there is none. Of
    /// several the lowest pid, so that the answer does not flicker.
    pub fn head(&self) -> Option<Pid> {
        let mut behind: BTreeMap<Pid, usize> = BTreeMap::new();
        for blocker in self.before.values().flatten().filter(|pid| pid.0 > 0 && !self.before.contains_key(pid)) {
            *behind.entry(*blocker).or_default() += 1;
        }
        behind.into_iter().max_by_key(|&(pid, number)| (number, std::cmp::Reverse(pid))).map(|(pid, _)| pid)
    }

    /// How many wait for this session, directly or behind others.
    pub fn behind(&self, pid: Pid) -> u32 {
        let number = self.before.values().filter(|before| before.contains(&pid)).count();
        u32::try_from(number).unwrap_or(u32::MAX)
    }
}

/// Of several the first by name, so that the answer does not flicker.
fn most_wanted(waiters: &[Waiter]) -> Option<TableName> {
    let mut wanted: BTreeMap<&TableName, usize> = BTreeMap::new();
    for table in waiters.iter().filter_map(|waiter| waiter.table.as_ref()) {
        *wanted.entry(table).or_default() += 1;
    }
    let most = wanted.into_iter().max_by_key(|&(name, number)| (number, std::cmp::Reverse(name)));
    most.map(|(name, _)| name.clone())
}

fn all_before(pid: Pid, direct: &BTreeMap<Pid, &[Pid]>) -> BTreeSet<Pid> {
    let mut seen = BTreeSet::new();
    let mut todo: Vec<Pid> = direct.get(&pid).map(|blockers| blockers.to_vec()).unwrap_or_default();
    while let Some(next) = todo.pop() {
        if next != pid && seen.insert(next) {
            todo.extend(direct.get(&next).into_iter().flat_map(|blockers| blockers.iter()));
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn queue(edges: &[(i32, &[i32])]) -> Queue {
        let waiters: Vec<Waiter> = edges
            .iter()
            .map(|(pid, blockers)| Waiter {
                pid: Pid(*pid),
                waited: Some(Duration::from_secs(pid.unsigned_abs().into())),
                blockers: blockers.iter().copied().map(Pid).collect(),
                table: (*pid > 2).then(|| TableName::from(if *pid % 2 == 0 { "public.a" } else { "public.b" })),
            })
            .collect();
        Queue::new(&waiters)
    }

    #[test]
    fn heads_and_those_behind() {
        for (edges, head, behind_1) in [
            (&[][..], None, 0),
            (&[(2, &[1][..])][..], Some(1), 1),
            (&[(2, &[1]), (3, &[2]), (4, &[3, 2])], Some(1), 3),
            (&[(2, &[1]), (4, &[3]), (5, &[3])], Some(3), 1),
            (&[(2, &[1]), (4, &[3])], Some(1), 1),
            (&[(2, &[3]), (3, &[2])], None, 0),
            (&[(2, &[0])], None, 0),
            (&[(2, &[1, 1, 1]), (3, &[1])], Some(1), 2),
        ] {
            let queue = queue(edges);
            assert_eq!((queue.head(), queue.behind(Pid(1))), (head.map(Pid), behind_1), "{edges:?}");
        }
        assert_eq!(queue(&[(2, &[1]), (3, &[1])]).longest(), Some(Duration::from_secs(3)));
        for (edges, table) in [
            (&[][..], None),
            (&[(2, &[1][..])][..], None),
            (&[(2, &[1]), (3, &[1])], Some("public.b")),
            (&[(3, &[1]), (4, &[1])], Some("public.a")),
            (&[(3, &[1]), (4, &[1]), (5, &[1])], Some("public.b")),
        ] {
            assert_eq!(queue(edges).table().map(TableName::as_str), table, "{edges:?}");
        }
    }

    proptest! {
        #[test]
        fn the_head_never_waits(edges in prop::collection::vec((0..9i32, prop::collection::vec(0..9i32, 0..4)), 0..12)) {
            let edges: Vec<(i32, &[i32])> = edges.iter().map(|(pid, blockers)| (*pid, blockers.as_slice())).collect();
            let queue = queue(&edges);
            if let Some(head) = queue.head() {
                prop_assert!(queue.behind(head) >= 1);
                prop_assert!(!queue.before.contains_key(&head));
            }
        }
    }
}

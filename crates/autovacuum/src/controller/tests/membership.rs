//! Who joins a hold that there is already, and who leaves it.

use super::*;

#[test]
fn a_small_hot_table_gets_a_slot() {
    let hot = TableReading {
        table: "public.hot".into(),
        relation: Oid(99),
        size: ByteSize(1 << 20),
        live: 1_000,
        dead: 50_000,
        last_autovacuum: None,
    };
    let mut world = World::stormy();
    world.workers.push(worker(3, 0.3));
    world.workers[1].blocks_left = Some(10);
    let mut world = world.engaged();
    world.tables = Some(tables(1_000, vec![hot]));
    assert_eq!(world.released(2_000), ReleaseReason::HotTableWaiting);
    // Held again, but the one that is nearly done is spared, and that is not undone for the same table.
    let act = world.run_until(15_000, |act| matches!(act, Act::Engage { .. }));
    let Act::Engage { workers, .. } = act else { unreachable!() };
    assert_eq!(workers.iter().map(|w| w.pid.0).collect::<Vec<_>>(), [1, 3]);
    world.obey();
    (world.canary_ms, world.pressure) = (20, Some(0.1));
    let before = world.acts.len();
    world.run(20_000);
    assert!(world.acts[before..].iter().all(|(_, act)| !matches!(act, Act::Release { .. })), "{:#?}", world.acts);
}

#[test]
fn a_held_worker_that_comes_to_a_small_table_is_let_go_alone() {
    let mut world = World::stormy().engaged();
    world.obey();
    (world.canary_ms, world.busy, world.pressure) = (20, 0.8, Some(0.1));
    world.workers[0].heap_blocks = Some(10);
    let act = world.run_until(1_000, |act| matches!(act, Act::Adjust { .. }));
    let Act::Adjust { workers, reason, .. } = act else { unreachable!() };
    assert_eq!((workers.len(), workers[0].pid.0), (1, 2));
    assert!(reason.contains("worker 1"), "{reason}");
}

#[test]
fn a_worker_that_joins_the_pressure_joins_the_hold() {
    let mut world = World::stormy().engaged();
    world.obey();
    (world.canary_ms, world.pressure) = (20, Some(0.1));
    world.workers.push(worker(9, 0.5));
    let act = world.run_until(4_000, |act| matches!(act, Act::Adjust { workers, .. } if workers.len() == 3));
    let Act::Adjust { reason, .. } = act else { unreachable!() };
    assert!(reason.contains("worker 9 joined"), "{reason}");
}

#[test]
fn many_small_shares_join_and_the_hold_is_not_called_useless_before() {
    let mut world = World::stormy().engaged();
    world.obey();
    // A starved core: everybody gets little, and nothing gets better while two vacuums still run free.
    world.workers.push(worker(8, 0.06));
    world.workers.push(worker(9, 0.06));
    let act = world.run_until(4_000, |act| matches!(act, Act::Adjust { workers, .. } if workers.len() == 4));
    let Act::Adjust { reason, .. } = act else { unreachable!() };
    assert!(reason.contains("worker 8 joined") && reason.contains("worker 9 joined"), "{reason}");
}

#[test]
fn a_worker_that_starts_on_a_large_table_while_others_are_held_joins_at_once() {
    let new = |heap_blocks| Worker { unmeasured: true, heap_blocks, ..worker(8, 0.0) };
    let joined = |world: &mut World| {
        world.run(250);
        let act = world.acts.last().map(|(_, act)| act.clone());
        matches!(act, Some(Act::Adjust { workers, .. }) if workers.iter().any(|id| id.pid == Pid(8)))
    };
    let mut world = World::stormy().engaged();
    // Its size is not known yet, or it is small: it may be the worker that a small hot table needs.
    for heap_blocks in [None, Some(10)] {
        world.workers.push(new(heap_blocks));
        assert!(!joined(&mut world), "{heap_blocks:?}");
        world.workers.pop();
    }
    world.workers.push(new(Some(100_000)));
    assert!(joined(&mut world), "{:?}", world.acts);

    let mut relieved = World::stormy().engaged();
    relieved.busy = 0.7;
    relieved.run(3_000);
    relieved.workers.push(new(Some(100_000)));
    assert!(!joined(&mut relieved), "{:?}", relieved.acts);
}

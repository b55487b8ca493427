//! Whatever comes, in whatever order.

use proptest::prelude::*;

use super::*;

fn any_protection() -> impl Strategy<Value = Option<Protection>> {
    prop_oneof![
        3 => Just(None),
        1 => Just(Some(Protection::AntiWraparound)),
        1 => Just(Some(Protection::Analyze)),
        1 => Just(Some(Protection::NearFailsafe)),
        1 => Just(Some(Protection::OwnSettings)),
        1 => Just(Some(Protection::SmallTable)),
    ]
}

fn any_worker() -> impl Strategy<Value = Worker> {
    (1..6_i32, 0.0..1.0_f64, any_protection(), proptest::option::of(1..200_000_u64)).prop_map(
        |(pid, cpu, protection, blocks)| Worker {
            protection,
            heap_blocks: blocks,
            blocks_left: blocks,
            ..worker(pid, cpu)
        },
    )
}

#[derive(Clone, Debug)]
struct Second {
    busy: f64,
    pressure: Option<f64>,
    canary_ms: u64,
    workers: Vec<Worker>,
    blind: bool,
}

fn any_second() -> impl Strategy<Value = Second> {
    (
        prop_oneof![0.0..1.0_f64, 0.9..1.0_f64],
        proptest::option::of(0.0..1.0_f64),
        0..2_000_u64,
        proptest::collection::vec(any_worker(), 0..5),
        proptest::bool::weighted(0.1),
    )
        .prop_map(|(busy, pressure, canary_ms, mut workers, blind)| {
            workers.sort_by_key(|w| w.process);
            workers.dedup_by_key(|w| w.process);
            Second { busy, pressure, canary_ms, workers, blind }
        })
}

fn any_reach() -> impl Strategy<Value = Reach> {
    prop_oneof![Just(Reach::Workers), Just(Reach::Launcher), Just(Reach::Everyone)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens: protected workers are never chosen, settings stay in range, acts come in order (no change or end without a
    /// beginning), no more often than declared, and blindness ends a hold.
    #[test]
    fn nothing_makes_it_unsafe(seconds in proptest::collection::vec(any_second(), 1..120), reach in any_reach(), may_act in any::<bool>()) {
        let mut world = World { lever: lever(reach), may_act, ..World::stormy() };
        let mut held = false;
        let mut ended_ms = None;
        let mut blind_ms = 0;
        for second in seconds {
            (world.busy, world.pressure, world.canary_ms) = (second.busy, second.pressure, second.canary_ms);
            world.workers = second.workers;
            world.blind = second.blind;
            blind_ms = if second.blind { blind_ms + 1_000 } else { 0 };
            for _ in 0..4 {
                let act = world.step();
                match &act {
                    Act::Engage { workers, setting, .. } | Act::Adjust { workers, setting, .. } => {
                        prop_assert!((1..=10_000).contains(&setting.limit));
                        prop_assert!(!workers.is_empty() && workers.len() <= MAX_HELD);
                        for id in workers {
                            let w = world.workers.iter().find(|w| w.process == *id);
                            prop_assert!(w.is_some());
                            // A collective lever can't let one go; what must not be slowed ends its hold as a whole.
                            let free = w.is_some_and(|w| w.protection.is_none());
                            let tolerated = reach != Reach::Workers && matches!(act, Act::Adjust { .. });
                            prop_assert!(free || tolerated, "{:?}", w);
                        }
                        if reach != Reach::Workers {
                            prop_assert!(world.workers.iter().all(|w| !choose::is_untouchable(w.protection)));
                        }
                    }
                    Act::Release { .. } | Act::Nothing => {}
                }
                match &act {
                    Act::Engage { .. } => {
                        prop_assert!(!held);
                        if let Some(ended) = ended_ms {
                            prop_assert!(world.ms - ended >= 2_000, "flapping: {} ms", world.ms - ended);
                        }
                        held = may_act;
                    }
                    Act::Adjust { .. } => prop_assert!(held),
                    Act::Release { .. } => {
                        prop_assert!(held);
                        held = false;
                        ended_ms = Some(world.ms);
                    }
                    Act::Nothing => {}
                }
                prop_assert_eq!(world.state.hold.is_some(), held);
                prop_assert!(!(held && blind_ms > 7_000), "held though blind");
            }
        }
    }
}

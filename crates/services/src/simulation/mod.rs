//! Thousands of random graphs with faults on a simulated clock: the order is never violated, nothing is restarted needlessly, it always ends, and it takes hardly
//! longer than the critical path.

mod world;

use std::{collections::BTreeSet, time::Duration};

use model::ServiceName;
use proptest::prelude::*;

use self::world::{Fault, Spec, World};
use crate::{
    graph::Id,
    health::History,
    plan::{Action, Budgets, Input, Ledger, Outcome, Precondition, plan},
    state::{Patience, State, classify_all},
};

/// Longer than the slowest chain of the slowest services with all attempts and waits.
const HORIZON_S: u64 = 6 * 3600;
/// Long enough for every budget's wait to show that it goes on.
const WATCH_S: u64 = 120;

#[derive(Debug)]
struct Run {
    outcome: Outcome,
    /// When all that could be was stable for the first time.
    ended: u64,
    acts: Vec<(u64, Id, Action)>,
    escalations: Vec<String>,
}

/// What was seen of a service, told apart from the planner's own reckoning.
#[derive(Clone, Default)]
struct Witness {
    run: Option<u64>,
    well_since: Option<u64>,
}

/// `watch`: seconds for which it is watched after its end.
fn simulate(specs: &[Spec], budgets: &Budgets, watch: u64) -> Result<Run, TestCaseError> {
    let mut world = World::new(specs);
    let patience = Patience::default();
    let graph = world.graph.clone();
    let mut histories = vec![History::default(); graph.len()];
    let mut witnesses = vec![Witness::default(); graph.len()];
    let mut ledger = Ledger::default();
    let mut run = Run { outcome: Outcome::Working, ended: 0, acts: vec![], escalations: vec![] };
    let intents: Vec<_> = graph.ids().map(|id| world.intent(id)).collect();
    let mut still = 0;
    for now in 0..HORIZON_S {
        world.step(now);
        for id in graph.ids() {
            let seen = world.look(id, now);
            if seen.tells() {
                let witness = &mut witnesses[id.index()];
                if witness.run != seen.run || !world.is_healthy(id) {
                    witness.well_since = None;
                }
                witness.run = seen.run;
                if world.is_healthy(id) {
                    witness.well_since.get_or_insert(now);
                }
            }
            histories[id.index()].observe(seen, patience.stale_after);
        }
        let at = Duration::from_secs(now);
        let statuses = classify_all(&graph, &patience, at, |id| {
            (&intents[id.index()], &histories[id.index()], ledger.failed(graph.name(id)))
        });
        ledger.judge(&graph, &statuses, at);
        let approved: BTreeSet<ServiceName> = graph
            .ids()
            .filter(|id| matches!(world.faults[id.index()], Fault::Removed(approved) if approved <= now))
            .map(|id| graph.name(id).clone())
            .collect();
        let input = Input {
            graph: &graph,
            statuses: &statuses,
            ledger: &ledger,
            budgets,
            approved: &approved,
            now: at,
            seed: 7,
        };
        let made = plan(&input);
        if now % 8 == 0 {
            prop_assert_eq!(&plan(&input), &made, "the same facts give the same plan");
        }
        let steps: Vec<_> = made.due().cloned().collect();
        for step in &steps {
            let id = graph.id(&step.service).unwrap();
            let holds = |one: &Precondition| one.holds(&graph, &statuses, |name| approved.contains(name));
            prop_assert!(step.preconditions.iter().all(holds), "{:?}", step);
            for need in graph.needs(id) {
                let stable_for = graph.service(*need).stable_for.as_secs();
                let well = witnesses[need.index()].well_since.is_some_and(|since| now - since >= stable_for);
                prop_assert!(well, "at {}: {} {} before {}", now, step.action, step.service, graph.name(*need));
            }
            prop_assert!(!world.is_well_alone(id, now), "at {now}: needless: {step:?} {:?}", statuses[id.index()]);
            prop_assert!(world.faults[id.index()] != Fault::Stopped);
            let recovers = matches!(world.faults[id.index()], Fault::Recovers { .. });
            prop_assert!(!recovers || step.action == Action::Start, "at {now}: a database in recovery: {step:?}");
            world.act(id, step.action, now);
            ledger.acted(&step.service, step.action, at);
            ledger.handed_over(&step.service, at);
            run.acts.push((now, id, step.action));
        }
        // Those whose need went away meanwhile hold no place, nor what a person was called for.
        let holds_place = |id: &Id| {
            let status = &statuses[id.index()];
            let told = matches!(status.state, State::Unknown { .. } | State::Starting { advancing: false, .. });
            ledger.open(graph.name(*id)).is_some() && status.needs_stable_since.is_some() && !told
        };
        let starting = graph.ids().filter(holds_place).count();
        prop_assert!(steps.is_empty() || starting <= budgets.at_once, "at {}: {} start at once", now, starting);
        if made.outcome == Outcome::Working || !steps.is_empty() {
            still = 0;
            continue;
        }
        if still == 0 {
            run.ended = now;
        }
        still += 1;
        if still > watch && (watch == 0 || now > world.quiet_from() + watch) {
            run.outcome = made.outcome;
            run.escalations = made.escalations.iter().map(ToString::to_string).collect();
            if made.outcome == Outcome::Done {
                let out_of_reach: BTreeSet<&ServiceName> =
                    made.blocked.iter().map(|blocked| &blocked.service).collect();
                let well = graph.ids().all(|id| world.is_healthy(id) || out_of_reach.contains(graph.name(id)));
                prop_assert!(well, "done, but not all is well");
            }
            return Ok(run);
        }
    }
    Err(TestCaseError::fail(format!("it did not end: {:?}", run.acts.iter().rev().take(5).collect::<Vec<_>>())))
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        8 => Just(Fault::None),
        2 => Just(Fault::Up),
        1 => (2_u32..30).prop_map(Fault::Slow),
        1 => (1_u32..30, any::<bool>()).prop_map(|(times, hangs)| Fault::Recovers { times, hangs }),
        1 => Just(Fault::Never),
        2 => (1_u32..4).prop_map(Fault::Crashes),
        1 => (1_u32..6, 1_u64..60).prop_map(|(times, after)| Fault::Flaps(times, after)),
        2 => Just(Fault::StalePool),
        2 => (1_u64..200).prop_map(Fault::DiesAt),
        2 => (60_u64..300).prop_map(Fault::Stuck),
        1 => (0_u64..100, 1_u64..100).prop_map(|(from, length)| Fault::Unseen(from, from + length)),
        1 => Just(Fault::Stopped),
        1 => (0_u64..300).prop_map(Fault::Removed),
    ]
}

fn specs(fault: impl Strategy<Value = Fault>, most: usize) -> impl Strategy<Value = Vec<Spec>> {
    let spec = (any::<u32>(), any::<u32>(), 5_u64..60, 60_u64..150, fault)
        .prop_map(|(needs, thin, starts, expected, fault)| Spec { needs: needs & thin, starts, expected, fault });
    prop::collection::vec(spec, 1..most)
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 300, ..ProptestConfig::default() }
}

/// `simulate` holds the order, the needlessness, the end and the determinism against every single act.
fn faults_of_all_kinds_in(cases: u32) {
    let mut runner = proptest::test_runner::TestRunner::new(config(cases));
    let result = runner.run(&(specs(fault(), 14), 1_usize..10), |(specs, at_once)| {
        let run = simulate(&specs, &Budgets { at_once, ..Budgets::default() }, WATCH_S)?;
        prop_assert!(run.outcome != Outcome::Working);
        prop_assert_eq!(run.outcome == Outcome::Escalated, !run.escalations.is_empty());
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn faults_of_all_kinds() {
    faults_of_all_kinds_in(150);
}

#[test]
fn slow_faults_of_all_kinds() {
    faults_of_all_kinds_in(3_000);
}

#[test]
fn a_cold_start_takes_hardly_longer_than_the_critical_path() {
    cold_starts(200);
}

#[test]
fn slow_cold_starts_take_hardly_longer_than_the_critical_path() {
    cold_starts(3_000);
}

/// A cold start as after the outage: all is down or stuck in a back-off of minutes, and nothing else goes wrong.
fn cold_starts(cases: u32) {
    let ratios = std::cell::RefCell::new(Vec::new());
    let cold =
        prop_oneof![6 => Just(Fault::None), 1 => (2_u32..4).prop_map(Fault::Slow), 2 => Just(Fault::Stuck(100_000))];
    let mut runner = proptest::test_runner::TestRunner::new(config(cases));
    let result = runner.run(&specs(cold, 16), |specs| {
        let budgets = Budgets { at_once: 64, ..Budgets::default() };
        let run = simulate(&specs, &budgets, 0)?;
        let world = World::new(&specs);
        let stable_for = |id: Id| world.graph.service(id).stable_for.as_secs();
        let best = world.graph.critical_path(|id| Duration::from_secs(world.starts[id.index()] + stable_for(id)));
        let ratio = run.ended as f64 / best.takes.as_secs_f64();
        ratios.borrow_mut().push(ratio);
        prop_assert!(run.outcome == Outcome::Done, "{:?}", run);
        prop_assert_eq!(run.acts.len(), specs.len(), "each is started once");
        prop_assert!(ratio <= 1.2, "{} s instead of {:?}", run.ended, best);
        Ok(())
    });
    let mut ratios = ratios.into_inner();
    ratios.sort_by(f64::total_cmp);
    let at = |percent: usize| ratios[(ratios.len() - 1) * percent / 100];
    println!(
        "time to all stable / critical path, {} graphs: median {:.3}, p95 {:.3}, p99 {:.3}, worst {:.3}",
        ratios.len(),
        at(50),
        at(95),
        at(99),
        at(100)
    );
    result.unwrap();
}

fn line(faults: &[Fault]) -> Vec<Spec> {
    let spec = |(index, fault): (usize, &Fault)| {
        let needs = if index == 0 { 0 } else { 1 << (index - 1) };
        Spec { needs, starts: 10, expected: 100, fault: *fault }
    };
    faults.iter().enumerate().map(spec).collect()
}

fn acts(run: &Run) -> Vec<(usize, Action)> {
    run.acts.iter().map(|(_, id, action)| (id.index(), *action)).collect()
}

#[test]
fn stories() {
    use Action::{Provision, Restart, Start};
    for (what, faults, expected, outcome) in [
        ("all down", vec![Fault::None; 3], vec![(0, Start), (1, Start), (2, Start)], Outcome::Done),
        ("nothing to do", vec![Fault::Up; 3], vec![], Outcome::Done),
        ("a slow start is waited for", vec![Fault::Slow(29), Fault::None], vec![(0, Start), (1, Start)], Outcome::Done),
        ("stuck", vec![Fault::None, Fault::Stuck(600)], vec![(0, Start), (1, Restart)], Outcome::Done),
        (
            "a recovery is waited for",
            vec![Fault::Recovers { times: 60, hangs: false }, Fault::None],
            vec![(0, Start), (1, Start)],
            Outcome::Done,
        ),
        (
            "a recovery that hangs",
            vec![Fault::Recovers { times: 60, hangs: true }, Fault::None],
            vec![(0, Start)],
            Outcome::Escalated,
        ),
        ("tried twice", vec![Fault::Never, Fault::None], vec![(0, Start), (0, Restart)], Outcome::Escalated),
        ("crashes twice", vec![Fault::Crashes(2), Fault::None], vec![(0, Start), (0, Start)], Outcome::Escalated),
        ("crashes once", vec![Fault::Crashes(1), Fault::None], vec![(0, Start), (0, Start), (1, Start)], Outcome::Done),
        ("stopped", vec![Fault::Stopped, Fault::None], vec![], Outcome::Done),
        ("removed", vec![Fault::Removed(50), Fault::None], vec![(0, Provision), (1, Start)], Outcome::Done),
        ("never approved", vec![Fault::Removed(u64::MAX / 2), Fault::None], vec![], Outcome::NeedsApproval),
        (
            "stale pool after its need died",
            vec![Fault::DiesAt(100), Fault::StalePool],
            vec![(0, Start), (1, Start), (0, Start), (1, Restart)],
            Outcome::Done,
        ),
        (
            "a need dies, who needs it finds back",
            vec![Fault::DiesAt(100), Fault::None],
            vec![(0, Start), (1, Start), (0, Start)],
            Outcome::Done,
        ),
    ] {
        let specs = line(&faults);
        let run = simulate_until(&specs);
        assert_eq!((acts(&run), run.outcome), (expected, outcome), "{what}: {run:?}");
    }
}

/// As `simulate`, but what nobody ever approves ends the wait for it.
fn simulate_until(specs: &[Spec]) -> Run {
    let budgets = Budgets { jitter: Duration::ZERO, ..Budgets::default() };
    let never = |spec: &Spec| matches!(spec.fault, Fault::Removed(at) if at > HORIZON_S);
    if specs.iter().any(never) {
        let specs: Vec<Spec> = specs
            .iter()
            .map(
                |spec| {
                    if never(spec) { Spec { fault: Fault::Removed(HORIZON_S), ..spec.clone() } } else { spec.clone() }
                },
            )
            .collect();
        return match simulate_short(&specs, &budgets) {
            Ok(run) => run,
            Err(error) => panic!("{error}"),
        };
    }
    simulate(specs, &budgets, WATCH_S).unwrap_or_else(|error| panic!("{error}"))
}

fn simulate_short(specs: &[Spec], budgets: &Budgets) -> Result<Run, TestCaseError> {
    // Nobody approves before the horizon: what is left is the end that the plan itself tells.
    let world = World::new(specs);
    let history = |id: Id| {
        let mut history = History::default();
        history.observe(world.look(id, 0), Duration::from_secs(15));
        history
    };
    let histories: Vec<_> = world.graph.ids().map(history).collect();
    let intent = crate::state::Intent::Wanted;
    let statuses =
        classify_all(&world.graph, &Patience::default(), Duration::ZERO, |id| (&intent, &histories[id.index()], 0));
    let input = Input {
        graph: &world.graph,
        statuses: &statuses,
        ledger: &Ledger::default(),
        budgets,
        approved: &BTreeSet::new(),
        now: Duration::ZERO,
        seed: 7,
    };
    let made = plan(&input);
    prop_assert_eq!(made.due().count(), 0);
    Ok(Run { outcome: made.outcome, ended: 0, acts: vec![], escalations: vec![] })
}

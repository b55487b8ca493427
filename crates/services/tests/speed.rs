//! The planner on the largest graph that it is promised for. Not a benchmark: it fails only when the planner has become quadratic.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use services::{
    graph::{Graph, Service},
    health::{Answer, History, Observation, Process},
    plan::{Budgets, Input, Ledger, plan},
    state::{Intent, Patience, classify_all},
};

/// Unoptimised and on a busy machine; optimised it takes a hundredth of that.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn ten_thousand_services_are_planned() {
    let services = (0..10_000_u32).map(|index| {
        let service = Service { admits: Some(3), ..Service::new(format!("s{index}")) };
        let needs = [index / 2, index / 3, index / 7].into_iter().filter(|need| *need < index);
        needs.fold(service, |service, need| service.needs(format!("s{need}")))
    });
    let begun = Instant::now();
    let graph = Graph::new(services.collect()).unwrap();
    let made = begun.elapsed();
    let now = Duration::from_secs(100);
    let mut history = History::default();
    let seen = Observation {
        at: now,
        process: Process::Ended { code: None },
        run: None,
        answer: Answer::Unhealthy { why: "refused".into() },
        function: None,
        progress: None,
    };
    history.observe(seen, Duration::from_secs(15));
    let begun = Instant::now();
    let statuses = classify_all(&graph, &Patience::default(), now, |_| (&Intent::Wanted, &history, 0));
    let classified = begun.elapsed();
    let begun = Instant::now();
    let (ledger, budgets, approved) = (Ledger::default(), Budgets::default(), BTreeSet::new());
    let input = Input {
        graph: &graph,
        statuses: &statuses,
        ledger: &ledger,
        budgets: &budgets,
        approved: &approved,
        now,
        seed: 1,
    };
    let plan = plan(&input);
    let planned = begun.elapsed();
    println!("10,000 services: graph {made:?}, classified {classified:?}, planned {planned:?}");
    assert_eq!(plan.steps.len(), 10_000);
    assert!(made + classified + planned < PATIENCE, "{made:?} {classified:?} {planned:?}");
}

use super::*;
use crate::{
    graph::Service,
    state::{Broken, Status},
};

fn status(state: State, needs_stable: bool) -> Status {
    let zero = Some(Duration::ZERO);
    let stable_since = zero.filter(|_| state == State::Stable);
    let needs_stable_since = zero.filter(|_| needs_stable);
    Status {
        state,
        seen_at: Some(Duration::from_secs(100)),
        since: Duration::ZERO,
        stable_since,
        needs_stable_since,
        run_since: Duration::ZERO,
        act_from: needs_stable_since,
    }
}

fn down() -> State {
    State::Broken { how: Broken::Down { code: None } }
}

fn made(graph: &Graph, statuses: &[Status], ledger: &Ledger, budgets: &Budgets) -> Plan {
    let now = Duration::from_secs(100);
    plan(&Input { graph, statuses, ledger, budgets, approved: &BTreeSet::new(), now, seed: 1 })
}

fn calm() -> Budgets {
    Budgets { jitter: Duration::ZERO, ..Budgets::default() }
}

fn of_outage() -> (Graph, Vec<Status>) {
    let services = vec![
        Service::new("node"),
        Service::new("postgres").needs("node").starts_in(Duration::from_secs(30)),
        Service::new("redis").needs("node"),
        Service::new("site").needs("postgres"),
        Service::new("bot").needs("site").needs("redis"),
    ];
    let graph = Graph::new(services).unwrap();
    let states = [State::Stable, State::Removed, down(), down(), State::Stopped { by: "ann".into() }];
    let statuses = states.into_iter().enumerate().map(|(index, state)| status(state, index < 3)).collect();
    (graph, statuses)
}

#[test]
fn a_plan_that_a_tired_person_reads() {
    let (graph, statuses) = of_outage();
    let plan = made(&graph, &statuses, &Ledger::default(), &calm());
    assert_eq!(
        plan.to_text(),
        "   +0 s  provision postgres, once approved: removed; provisioned again from its definition; about 35 s
    now  start redis: down; about 15 s
  +35 s  start site: down; about 15 s
      -  bot: stopped on purpose by ann
All stable in about 50 s.
"
    );
    let step = &plan.steps[2];
    let told: Vec<String> = step.preconditions.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["postgres is stable", "site still needs a start"]);
    assert_eq!(plan.due().map(|step| step.service.as_str()).collect::<Vec<_>>(), ["redis"]);
}

#[test]
fn it_stops_when_half_is_unseen_or_things_get_worse() {
    let names = ["a", "b", "c", "d"];
    let graph = Graph::new(names.map(Service::new).to_vec()).unwrap();
    let unknown = || status(State::Unknown { why: "no bus".into() }, true);
    let mut statuses = vec![status(down(), true), status(State::Stable, true), unknown(), unknown()];
    let plan = made(&graph, &statuses, &Ledger::default(), &calm());
    assert_eq!((plan.outcome, plan.due().count()), (Outcome::Escalated, 0));
    assert!(plan.escalations[0].to_string().starts_with("2 of 4 services can't be seen"));

    statuses[3] = status(State::Stable, true);
    let plan = made(&graph, &statuses, &Ledger::default(), &calm());
    assert_eq!(plan.due().count(), 1, "one unseen of four stops only itself");
    assert!(matches!(plan.escalations[..], [Escalation::Unseen { .. }]));

    let mut ledger = Ledger::default();
    ledger.judge(&graph, &vec![status(State::Stable, true); 4], Duration::from_secs(90));
    let broken = vec![status(down(), true), status(down(), true), status(down(), true), status(State::Stable, true)];
    ledger.judge(&graph, &broken, Duration::from_secs(95));
    let plan = made(&graph, &broken, &ledger, &calm());
    assert_eq!((plan.outcome, plan.due().count()), (Outcome::Escalated, 0));
    assert!(plan.escalations[0].to_string().contains("a, b, c were stable and broke by themselves"));
    ledger.reset();
    assert_eq!(made(&graph, &broken, &ledger, &calm()).due().count(), 3, "a person has looked");
}

#[test]
fn what_fails_with_its_need_is_no_loss_of_its_own() {
    let graph = Graph::new(vec![Service::new("db"), Service::new("site").needs("db")]).unwrap();
    let mut ledger = Ledger::default();
    ledger.judge(&graph, &vec![status(State::Stable, true); 2], Duration::from_secs(90));
    ledger.judge(&graph, &[status(down(), true), status(down(), false)], Duration::from_secs(95));
    assert_eq!(ledger.lost(), [&ServiceName::from("db")]);
}

#[test]
fn budgets_bound_what_is_done() {
    let graph = Graph::new((0..20).map(|index| Service::new(format!("s{index}"))).collect()).unwrap();
    let wrong = || status(State::Wrong { why: "stale".into() }, true);
    let statuses: Vec<Status> = (0..20).map(|_| wrong()).collect();
    assert_eq!(made(&graph, &statuses, &Ledger::default(), &calm()).due().count(), 8, "at once");

    let mut ledger = Ledger::default();
    for at in [10, 20, 30, 40] {
        ledger.acted(&"s3".into(), Action::Restart, Duration::from_secs(at));
    }
    ledger.judge(&graph, &vec![status(State::Stable, true); 20], Duration::from_secs(60));
    let plan = made(&graph, &statuses, &ledger, &calm());
    assert!(plan.steps.iter().all(|step| step.service.as_str() != "s3"));
    assert!(plan.escalations.iter().any(|one| one.to_string().contains("s3 was started or restarted 4 times")));

    let few = Budgets { in_total: Limit { count: 4, within: Duration::from_secs(600) }, ..calm() };
    let plan = made(&graph, &statuses, &ledger, &few);
    assert_eq!((plan.due().count(), plan.outcome), (0, Outcome::Escalated));
}

#[test]
fn a_need_admits_only_so_many_at_once() {
    let mut services = vec![Service { admits: Some(2), ..Service::new("db") }];
    services.extend((0..6).map(|index| Service::new(format!("s{index}")).needs("db")));
    let graph = Graph::new(services).unwrap();
    let mut statuses = vec![status(State::Stable, true)];
    statuses.extend((0..6).map(|_| status(down(), true)));
    let plan = made(&graph, &statuses, &Ledger::default(), &calm());
    let at: Vec<u64> = plan.steps.iter().map(|step| step.at.as_secs() - 100).collect();
    assert_eq!(at, [0, 0, 15, 15, 30, 30]);
}

#[test]
fn jitter_spreads_what_becomes_ready_together_and_stays() {
    let mut services = vec![Service::new("db")];
    services.extend((0..30).map(|index| Service::new(format!("s{index}")).needs("db")));
    let graph = Graph::new(services).unwrap();
    let mut statuses = vec![status(down(), true)];
    statuses.extend((0..30).map(|_| status(down(), false)));
    let budgets = Budgets { at_once: 100, jitter: Duration::from_secs(2), ..Budgets::default() };
    let plan = made(&graph, &statuses, &Ledger::default(), &budgets);
    let at: BTreeSet<Duration> = plan.steps.iter().skip(1).map(|step| step.at).collect();
    assert!(at.len() > 25, "{at:?}");
    let width = *at.last().unwrap() - *at.first().unwrap();
    assert!(width > Duration::from_millis(300) && width <= Duration::from_millis(750), "{width:?}");
}

#[test]
fn a_database_in_recovery_is_never_restarted() {
    let graph = Graph::new(vec![Service::new("db"), Service::new("site").needs("db")]).unwrap();
    let recovering = |advancing| status(State::Starting { advancing, recovering: true }, true);
    let plan = made(&graph, &[recovering(false), status(down(), false)], &Ledger::default(), &calm());
    assert_eq!((plan.steps.len(), plan.outcome), (0, Outcome::Escalated));
    let plan = made(&graph, &[recovering(true), status(down(), false)], &Ledger::default(), &calm());
    assert_eq!((plan.due().count(), plan.steps.len(), plan.outcome), (0, 1, Outcome::Working));
}

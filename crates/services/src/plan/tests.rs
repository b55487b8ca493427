use super::*;
use crate::{
    graph::Service,
    health::Offer,
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
        ledger.handed_over(&"s3".into(), Duration::from_secs(at));
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

#[test]
fn what_shuts_down_is_waited_for_and_started_only_when_it_is_gone() {
    let graph = Graph::new(vec![Service::new("db"), Service::new("site").needs("db")]).unwrap();
    let stopping = |advancing| status(State::Stopping { advancing }, true);
    let plan = made(&graph, &[stopping(true), status(down(), false)], &Ledger::default(), &calm());
    assert_eq!((plan.due().count(), plan.outcome), (0, Outcome::Working));
    let plan = made(&graph, &[stopping(false), status(down(), false)], &Ledger::default(), &calm());
    assert_eq!((plan.steps.len(), plan.outcome), (0, Outcome::Escalated));
    let told: Vec<String> = plan.escalations.iter().map(ToString::to_string).collect();
    assert!(told[0].starts_with("db is shutting down and doesn't advance"), "{told:?}");
    let plan = made(&graph, &[status(down(), true), status(down(), false)], &Ledger::default(), &calm());
    assert_eq!(
        plan.due().map(|step| (step.service.as_str(), step.action)).collect::<Vec<_>>(),
        [("db", Action::Start)]
    );
    // Nor is an act done that was planned before it was seen to stop.
    let still = Precondition::StillNeeds("db".into(), Action::Restart);
    assert!(!still.holds(&graph, &[stopping(true), status(down(), false)], |_| true));
}

#[test]
fn a_restart_still_in_progress_is_not_judged() {
    let graph = Graph::new(vec![Service::new("db")]).unwrap();
    let seconds = Duration::from_secs;
    let wrong = |seen: u64| Status {
        seen_at: Some(seconds(seen)),
        since: seconds(90),
        ..status(State::Wrong { why: "stale".into() }, true)
    };
    let stopped_for_it = |seen: u64| Status { since: seconds(130), ..Status { state: down(), ..wrong(seen) } };
    let mut ledger = Ledger::default();
    let db = ServiceName::from("db");
    ledger.acted(&db, Action::Restart, seconds(100));
    for now in [101, 106, 189] {
        ledger.judge(&graph, &[wrong(now)], seconds(now));
        assert!(ledger.open(&db).is_some() && ledger.failed(&db) == 0, "its stop may take that long: {now}");
    }
    ledger.judge(&graph, &[stopped_for_it(189)], seconds(189));
    assert!(ledger.open(&db).is_some(), "it is down because it is being restarted");
    ledger.handed_over(&db, seconds(190));
    for (now, failed) in [(190, 0), (192, 0), (194, 0), (195, 1)] {
        ledger.judge(&graph, &[stopped_for_it(now)], seconds(now));
        assert_eq!(ledger.failed(&db), failed, "at {now}: what was down before says nothing yet");
    }
    // One that dies after it was handed over has failed at once.
    ledger.acted(&db, Action::Start, seconds(200));
    ledger.handed_over(&db, seconds(201));
    ledger.judge(&graph, &[Status { since: seconds(202), ..stopped_for_it(202) }], seconds(202));
    assert_eq!(ledger.failed(&db), 2);
}

#[test]
fn acts_that_are_never_handed_over_are_bounded() {
    let graph = Graph::new(vec![Service::new("db"), Service::new("site")]).unwrap();
    let statuses = [status(down(), true), status(down(), true)];
    let mut ledger = Ledger::default();
    let db = ServiceName::from("db");
    for time in 0..UNDONE_MAX {
        assert_eq!(made(&graph, &statuses, &ledger, &calm()).due().count(), 2, "{time}");
        ledger.acted(&db, Action::Start, Duration::from_secs(90));
        assert_eq!(ledger.not_handed_over().collect::<Vec<_>>(), [&db]);
        ledger.undone(&db);
    }
    let plan = made(&graph, &statuses, &ledger, &calm());
    assert_eq!(plan.due().map(|step| step.service.as_str()).collect::<Vec<_>>(), ["site"]);
    assert!(
        matches!(&plan.escalations[..], [Escalation::Interrupted { service, times: UNDONE_MAX }] if *service == db)
    );
    ledger.reset();
    assert_eq!(made(&graph, &statuses, &ledger, &calm()).due().count(), 2, "a person has looked");
    ledger.acted(&db, Action::Start, Duration::from_secs(90));
    ledger.undone(&db);
    ledger.acted(&db, Action::Start, Duration::from_secs(91));
    ledger.handed_over(&db, Duration::from_secs(92));
    assert_eq!(ledger.undone_times(&db), 0, "in a row");
}

#[test]
fn a_recovery_ends_with_all_stable_and_old_losses_count_no_more() {
    let graph = Graph::new(["a", "b", "c"].map(Service::new).to_vec()).unwrap();
    let all = |states: [State; 3]| states.map(|state| status(state, true)).to_vec();
    let stable = || all([State::Stable, State::Stable, State::Stable]);
    let worse = Budgets { worse_after: 2, ..calm() };
    let lose_two = |ledger: &mut Ledger, between: Duration| {
        let at = Duration::from_secs(90);
        ledger.judge(&graph, &stable(), at);
        ledger.judge(&graph, &all([down(), State::Stable, State::Stable]), at);
        ledger.judge(&graph, &all([down(), down(), State::Stable]), at + between);
    };
    let mut ledger = Ledger::default();
    lose_two(&mut ledger, Duration::from_secs(60));
    let two_down = all([down(), down(), State::Stable]);
    assert_eq!(made(&graph, &two_down, &ledger, &worse).outcome, Outcome::Escalated);
    // A person started them: that ends it, without another word.
    ledger.judge(&graph, &stable(), Duration::from_secs(200));
    assert_eq!(made(&graph, &stable(), &ledger, &worse).outcome, Outcome::Done);
    assert!(ledger.close() && !ledger.close());
    ledger.judge(&graph, &two_down[..1], Duration::from_secs(300));
    assert_eq!(ledger.lost().len(), 1, "the recovery before counts no more");

    let mut ledger = Ledger::default();
    lose_two(&mut ledger, LOST_WITHIN);
    assert_eq!(ledger.lost(), [&ServiceName::from("b")], "so far apart they are no row of losses");
    // What was tried in the recovery before is a first start again.
    ledger.acted(&"c".into(), Action::Start, Duration::from_secs(90));
    ledger.handed_over(&"c".into(), Duration::from_secs(90));
    ledger.judge(&graph, &stable(), Duration::from_secs(100));
    ledger.close();
    assert!(!ledger.tried(&"c".into()) && ledger.acts_of(&"c".into(), Duration::from_secs(100), LOST_WITHIN) == 1);
}

#[test]
fn words_from_outside_are_short_and_draw_nothing() {
    let why = format!("\u{1b}[2J\u{202e}evil{}", "x".repeat(10_000));
    let service = ServiceName::from("db");
    let mut ledger = Ledger::default();
    ledger.acted(&service, Action::Start, Duration::ZERO);
    ledger.refused(&service, &why, Duration::ZERO);
    let stopped = status(State::Stopped { by: why.clone() }, true);
    let graph = Graph::new(vec![Service::new("db")]).unwrap();
    for text in [
        Escalation::Unseen { service: service.clone(), why: why.clone() }.to_string(),
        Escalation::GivenUp { service: service.clone(), failed: 2, why: why.clone() }.to_string(),
        Escalation::External { service: service.clone(), state: why.clone() }.to_string(),
        ledger.last_failure(&service).unwrap().to_owned(),
        made(&graph, &[stopped], &Ledger::default(), &calm()).blocked[0].why.clone(),
    ] {
        assert!(text.len() < 600 && text.contains("evil"), "{}", text.len());
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text:?}");
    }
}

#[test]
fn acts_that_are_declared_so_wait_for_a_person() {
    let graph = Graph::new(vec![Service::new("db"), Service::new("site")]).unwrap();
    let wrong = || status(State::Wrong { why: "stale".into() }, true);
    let approve = [("db".into(), BTreeSet::from([Action::Restart]))].into();
    let budgets = Budgets { approve, ..calm() };
    let plan = made(&graph, &[wrong(), wrong()], &Ledger::default(), &budgets);
    assert_eq!(plan.due().map(|step| step.service.as_str()).collect::<Vec<_>>(), ["site"]);
    let db = plan.steps.iter().find(|step| step.service.as_str() == "db").unwrap();
    assert!(db.needs_approval && db.preconditions.contains(&Precondition::Approved("db".into())));
    let plan = made(&graph, &[status(down(), true), status(State::Stable, true)], &Ledger::default(), &budgets);
    assert_eq!(plan.due().count(), 1, "a start of it needs none");
}

#[test]
fn what_was_started_and_hangs_in_its_recovery_or_goes_out_of_sight_is_told() {
    let graph = Graph::new(vec![Service::new("db"), Service::new("site").needs("db")]).unwrap();
    let mut ledger = Ledger::default();
    ledger.acted(&"db".into(), Action::Start, Duration::from_secs(50));
    let unseen = || State::Unknown { why: "no bus".into() };
    let recovering = |advancing| State::Starting { advancing, recovering: true };
    let outcome =
        |ledger: &Ledger, state| made(&graph, &[status(state, true), status(down(), false)], ledger, &calm()).outcome;
    assert_eq!(outcome(&ledger, unseen()), Outcome::Escalated, "half of all");
    assert_eq!(outcome(&ledger, recovering(false)), Outcome::Working, "its driver is at it");
    ledger.handed_over(&"db".into(), Duration::from_secs(51));
    assert_eq!(outcome(&ledger, recovering(true)), Outcome::Working);
    assert_eq!(outcome(&ledger, recovering(false)), Outcome::Escalated);
    let three = Graph::new(vec![Service::new("db"), Service::new("a"), Service::new("b")]).unwrap();
    let statuses = [unseen(), State::Stable, State::Stable].map(|state| status(state, true));
    let plan = made(&three, &statuses, &ledger, &calm());
    assert_eq!((plan.outcome, plan.escalations.len()), (Outcome::Escalated, 1));
}

#[test]
fn a_damaged_database_is_restored_only_where_that_can_be_done_and_is_approved() {
    let graph = Graph::new(vec![Service::new("db"), Service::new("site").needs("db")]).unwrap();
    let damaged = |remedy: Option<Remedy>| {
        let offer = Offer { words: "by hand".into(), remedy };
        vec![status(State::Damaged { why: "no control file".into(), offer }, true), status(down(), false)]
    };
    let remedy = || Some(Remedy { from: "backup a5".into(), takes: Some(Duration::from_secs(90)) });
    let plan = made(&graph, &damaged(None), &Ledger::default(), &calm());
    assert!(matches!(&plan.escalations[..], [Escalation::Damaged { offer, .. }] if offer == "by hand"), "{plan:?}");
    assert!(plan.steps.is_empty());

    let plan = made(&graph, &damaged(remedy()), &Ledger::default(), &calm());
    assert_eq!((plan.outcome, plan.due().count(), plan.escalations.len()), (Outcome::NeedsApproval, 0, 0));
    let step = &plan.steps[0];
    assert_eq!((step.action, step.service.as_str(), step.needs_approval), (Action::Restore, "db", true));
    assert!(step.takes >= Duration::from_secs(90), "its measured time counts: {:?}", step.takes);
    assert!(step.preconditions.contains(&Precondition::Approved("db".into())));

    // Looked up again just before: only what was approved, and only what is still damaged is restored.
    let offered = Precondition::StillOffered("db".into(), remedy().unwrap());
    assert!(step.preconditions.contains(&offered) && offered.holds(&graph, &damaged(remedy()), |_| true));
    let other = Some(Remedy { from: "backup b6".into(), takes: None });
    assert!(!offered.holds(&graph, &damaged(other), |_| true));
    let still = Precondition::StillNeeds("db".into(), Action::Restore);
    assert!(still.holds(&graph, &damaged(remedy()), |_| true));
    for other in [down(), State::Stable, State::Removed] {
        assert!(!still.holds(&graph, &[status(other, true), status(down(), false)], |_| true));
    }

    let external = Graph::new(vec![Service { external: true, ..Service::new("db") }]).unwrap();
    let plan = made(&external, &damaged(remedy())[..1], &Ledger::default(), &calm());
    assert!(plan.steps.is_empty() && plan.escalations.len() == 1, "nobody runs it: {plan:?}");
}

//! What happens on the night after an outage, whoever runs the services. Each driver's tests call these with a host of their own, and one test of theirs has to
//! be `async fn agent() { common::recovery::agent::<TheirHost>().await }`.

#![allow(dead_code, clippy::unwrap_used, reason = "not all is used by each test; a test that can't go on fails")]

use std::{collections::BTreeMap, thread, time::Duration};

use jiff::Timestamp;
use services::{
    execute::{ExecuteError, approve, intent},
    plan::{Action, Outcome},
    state::State,
};

use super::recovery::{Host, Recovery, ended};

/// The outage's shape: a database, a vault and a site that need it, a bot and a gate that need the site.
pub const SHAPE: [(&str, &[&str]); 5] =
    [("db", &[]), ("vault", &["db"]), ("site", &["db", "vault"]), ("bot", &["site"]), ("gate", &["site"])];

/// That shape on a host.
pub fn recovery<H: Host>(host: &H) -> Recovery<'_, H> {
    Recovery::new(host, &SHAPE)
}

fn each(starts: usize) -> Vec<(&'static str, usize)> {
    SHAPE.iter().map(|(name, _)| (*name, starts)).collect()
}

/// A cold start, SIGKILL to everything, and nothing where all is well.
pub async fn all_is_brought_back_in_order_and_again_after_sigkill_to_everything<H: Host>(host: &H) {
    let recovery = recovery(host);
    let came = recovery.run(|_| {}).await;
    assert_eq!(came.last.plan.outcome, Outcome::Done, "{}", came.last.plan.to_text());
    assert_eq!(came.acts.len(), 5, "{:?}", came.acts);
    recovery.assert_well(&each(1));
    recovery.kill(&SHAPE.map(|(name, _)| name));
    let came = recovery.run(|_| {}).await;
    assert_eq!((came.last.plan.outcome, came.acts.len()), (Outcome::Done, 5), "{:?}", came.acts);
    recovery.assert_well(&each(2));
    // And nothing more: all is well.
    assert!(recovery.run(|_| {}).await.acts.is_empty());
}

/// It is given up after two attempts, also by the next agent, until a person has looked.
pub async fn one_that_never_gets_well_is_given_up_and_the_rest_comes_back<H: Host>(host: &H) {
    let recovery = recovery(host);
    recovery.service("bot").unhealthy(true);
    let came = recovery.run(|_| {}).await;
    assert_eq!(came.last.plan.outcome, Outcome::Escalated);
    let text = came.last.plan.to_text();
    assert!(text.contains("bot is given up after 2 failed attempts"), "{text}");
    assert!(recovery.service("gate").is_healthy());
    assert_eq!(came.failures.len(), 2, "{:?}", came.failures);
    let came = recovery.run(|_| {}).await;
    assert!(came.acts.is_empty() && came.last.plan.outcome == Outcome::Escalated, "{:?}", came.acts);
    recovery.service("bot").unhealthy(false);
    let mut agent = recovery.agent().unwrap();
    agent.reset().unwrap();
    drop(agent);
    assert_eq!(recovery.run(|_| {}).await.last.plan.outcome, Outcome::Done);
}

/// It gets up, stays for a while and dies, again and again: that ends with a person, not never.
pub async fn one_that_flaps_ends_with_a_person<H: Host>(host: &H) {
    let recovery = recovery(host);
    recovery.service("bot").flaps_after(Some(12));
    let came = recovery.run_until(|round| round.plan.outcome == Outcome::Escalated, false, |_| {}).await;
    let text = came.last.plan.to_text();
    assert!(text.contains("bot was started or restarted 4 times") && text.contains("it flaps"), "{text}");
    let mut acts: BTreeMap<&str, usize> = BTreeMap::new();
    came.acts.iter().for_each(|(name, _)| *acts.entry(name).or_default() += 1);
    assert_eq!(acts, BTreeMap::from([("db", 1), ("vault", 1), ("site", 1), ("gate", 1), ("bot", 4)]));
    assert_eq!(recovery.service("bot").starts().len(), 4);
    assert!(recovery.service("gate").is_healthy());
}

/// What needs it waits for it.
pub async fn one_that_dies_in_mid_plan_is_started_before_what_needs_it<H: Host>(host: &H) {
    let recovery = recovery(host);
    let mut killed = false;
    let came = recovery
        .run(|round| {
            let site = round.began.iter().any(|one| one.step.service.as_str() == "site");
            if site && !std::mem::replace(&mut killed, true) {
                recovery.kill(&["db"]);
            }
        })
        .await;
    assert_eq!(came.last.plan.outcome, Outcome::Done, "{}", came.last.plan.to_text());
    let database = came.acts.iter().filter(|(name, _)| name == "db").count();
    assert!(killed && database == 2, "{:?}", came.acts);
    assert_eq!(recovery.service("bot").early() + recovery.service("gate").early(), 0);
}

/// Nothing that advances is killed by a clock; healthy and wrong is restarted.
pub async fn a_slow_starter_is_waited_for_and_a_stale_pool_restarted<H: Host>(host: &H) {
    let recovery = recovery(host);
    // Longer than what a start may go without progress; it says how far it is.
    recovery.service("vault").starts_in(50);
    recovery.service("site").pool(true);
    let came = recovery.run(|_| {}).await;
    assert_eq!((came.last.plan.outcome, came.acts.len()), (Outcome::Done, 5), "{:?} {:?}", came.acts, came.failures);
    recovery.assert_well(&each(1));
    // The database comes back under the site: healthy and wrong.
    recovery.service("vault").starts_in(2);
    recovery.kill(&["db"]);
    let came = recovery.run(|_| {}).await;
    assert!(came.acts.contains(&("site".to_owned(), Action::Restart)), "{:?}", came.acts);
    assert!(!recovery.service("site").is_stale());
    recovery.assert_well(&[("db", 2), ("site", 2), ("vault", 1)]);
}

/// Dropped wherever it is, after each act, and begun anew.
pub async fn an_agent_that_is_dropped_after_every_step_goes_on<H: Host>(host: &H) {
    let recovery = recovery(host);
    let came = recovery.run_with_agents_that_die().await;
    assert_eq!(came.last.plan.outcome, Outcome::Done, "{}\n{:?}", came.last.plan.to_text(), came.failures);
    recovery.assert_well(&each(1));
}

/// SIGKILL to its process: the instant it has begun an act, and again some time into it.
pub async fn an_agent_that_is_killed_after_every_step_goes_on<H: Host>(host: &H) {
    const INTO: [Duration; 2] = [Duration::ZERO, Duration::from_millis(40)];
    let recovery = recovery(host);
    let mut kills: BTreeMap<String, usize> = BTreeMap::new();
    let mut agent = recovery.process();
    let end = loop {
        match agent.says() {
            Some(said) => {
                let begun: Vec<&str> = said.split(", ").filter_map(|act| Some(act.split_once(' ')?.1)).collect();
                if begun.is_empty() {
                    break said;
                }
                // Those that are begun together are killed together: an act that is never handed over three times is given up.
                let before = begun.iter().filter_map(|service| kills.get(*service)).max().copied().unwrap_or(0);
                if let Some(into) = INTO.get(before) {
                    begun.iter().for_each(|service| *kills.entry((*service).to_owned()).or_default() += 1);
                    thread::sleep(*into);
                    agent.kill();
                    agent = recovery.process();
                }
            }
            None => panic!("it ended by itself: {kills:?}"),
        }
    };
    assert_eq!(end, "Done", "{kills:?}");
    assert_eq!(kills.len(), SHAPE.len(), "each step's agent was killed: {kills:?}");
    recovery.assert_well(&each(1));
    agent.kill();
    let all_well = recovery.run(|_| {}).await;
    assert!(all_well.acts.is_empty(), "{:?}", all_well.acts);
}

/// One writer; who watches does nothing; what a person stopped stays so, from the very moment, until that person says otherwise.
pub async fn two_agents_are_one_writer_and_what_a_person_stopped_stays_so<H: Host>(host: &H) {
    let recovery = recovery(host);
    let now = Timestamp::now();
    intent::stop(recovery.dir(), &"gate".into(), "ann", now).unwrap();
    let agent = recovery.agent().unwrap();
    assert!(matches!(recovery.agent(), Err(ExecuteError::Busy { .. })));
    let mut watcher = recovery.watcher();
    let round = watcher.round().await.unwrap();
    assert!(round.began.is_empty() && round.plan.outcome == Outcome::Working, "{}", round.plan.to_text());
    drop(agent);
    // Somebody stops the bot while the rest is brought back.
    let came = recovery
        .run(|round| {
            if round.began.iter().any(|one| one.step.service.as_str() == "site") {
                intent::stop(recovery.dir(), &"bot".into(), "the shedding ladder", now).unwrap();
            }
        })
        .await;
    assert_eq!(came.last.plan.outcome, Outcome::Done, "{}", came.last.plan.to_text());
    for (place, name) in [(3, "bot"), (4, "gate")] {
        assert!(matches!(came.last.statuses[place].state, State::Stopped { .. }) && !recovery.service(name).runs());
    }
    assert!(intent::start(recovery.dir(), &"gate".into()).unwrap());
    let came = recovery.run(|_| {}).await;
    assert_eq!(came.acts, [("gate".to_owned(), Action::Start)]);
}

/// Provisioning waits for a person; one yes is one provisioning. Nothing where the host knows no such thing.
pub async fn a_removed_one_is_made_again_once_for_each_yes<H: Host>(host: &H) {
    let recovery = recovery(host);
    for time in 1..=2 {
        if !host.remove(&"vault".into(), recovery.service("vault")) {
            return;
        }
        let came = recovery.run(|_| {}).await;
        assert_eq!(came.last.plan.outcome, Outcome::NeedsApproval, "{time}: {}", came.last.plan.to_text());
        assert!(!recovery.service("vault").runs() && recovery.service("db").is_healthy());
        let wanted = came.last.wanted.unwrap();
        approve(recovery.dir(), &wanted, &wanted.plan, "ann", Timestamp::now()).unwrap();
        let came = recovery.run(|_| {}).await;
        assert_eq!(came.last.plan.outcome, Outcome::Done, "{}", came.last.plan.to_text());
        let provisioned = came.acts.iter().filter(|(_, action)| *action == Action::Provision).count();
        assert_eq!(provisioned, 1, "{:?}", came.acts);
        assert!(recovery.service("gate").is_healthy());
        recovery.kill(&["vault"]);
    }
}

/// Ever more breaks by itself: that is no night for an automaton.
pub async fn when_things_get_worse_it_stops<H: Host>(host: &H) {
    let recovery = recovery(host);
    let (mut begun, mut all_well) = (0, false);
    let came = recovery
        .run_until(
            |round| round.plan.outcome == Outcome::Escalated,
            false,
            |round| {
                begun += round.began.len();
                if !all_well && ended(round) {
                    (all_well, begun) = (true, 0);
                    recovery.kill(&["bot", "gate"]);
                } else if all_well && begun == 2 {
                    begun = 3;
                    recovery.kill(&["site"]);
                }
            },
        )
        .await;
    let text = came.last.plan.to_text();
    assert!(text.contains("it gets worse: bot, gate, site were stable and broke by themselves"), "{text}");
    assert_eq!(came.acts.len(), SHAPE.len() + 2, "{:?}", came.acts);
    // Nor does the next agent do anything, until a person has looked.
    assert!(recovery.run(|_| {}).await.acts.is_empty());
    let mut agent = recovery.agent().unwrap();
    agent.reset().unwrap();
    drop(agent);
    let came = recovery.run(|_| {}).await;
    assert_eq!(came.last.plan.outcome, Outcome::Done, "{}", came.last.plan.to_text());
}

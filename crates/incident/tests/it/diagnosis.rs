//! Which links the events prove.

use incident::{IncidentRules, Verdict, diagnose, incidents, report};

use crate::{stories, story::Story};

/// The questions of a story's chain, each with whether it is established.
fn chain(story: &Story) -> Vec<(String, bool)> {
    let found = incidents(&story.events, &IncidentRules::default());
    let diagnosis = diagnose(&found[0]);
    diagnosis.links.iter().map(|l| (l.question.clone(), matches!(l.verdict, Verdict::Established(_)))).collect()
}

fn assert_chain(story: &Story, expected: &[(&str, bool)]) {
    let chain = chain(story);
    let chain: Vec<(&str, bool)> = chain.iter().map(|(q, e)| (q.as_str(), *e)).collect();
    assert_eq!(chain, expected);
}

const FAILED: &str = "What failed?";
const WRONG: &str = "What was wrong?";
const CPU: &str = "Where did the CPU go?";
const FAST: &str = "Why could the vacuum run that fast?";
const THEN: &str = "Why did it run just then?";
const SERVER: &str = "Why did PostgreSQL not serve?";
const CONNECTIONS: &str = "Why were connections short?";

#[test]
fn a_verified_throttle_proves_what_a_share_of_the_cpu_does_not() {
    let site = "Why did site fail?";
    assert_chain(&stories::storm_guarded(), &[(FAILED, true), (site, true), (CPU, true), (FAST, true), (THEN, false)]);
    assert_chain(
        &stories::storm_without_lever(),
        &[(FAILED, true), (site, false), (CPU, false), (FAST, false), (THEN, false)],
    );
}

#[test]
fn a_storm_that_harmed_nobody_says_so() {
    let story = stories::storm_observed();
    assert_chain(&story, &[(WRONG, true), (CPU, false), (FAST, false), (THEN, false)]);
    let markdown = report(&incidents(&story.events, &IncidentRules::default())[0]).to_markdown();
    assert!(markdown.contains("*Not in the journal:* a service that was unhealthy, or an answer that failed."));
}

#[test]
fn a_throttle_that_was_obeyed_and_did_not_help_is_evidence_against() {
    let story = stories::not_the_vacuum();
    let found = incidents(&story.events, &IncidentRules::default());
    let diagnosis = diagnose(&found[0]);
    let link = diagnosis.links.iter().find(|l| l.question == CPU).unwrap();
    let Verdict::NotEstablished { missing, .. } = &link.verdict else { panic!("{link:?}") };
    assert!(missing.contains("the pressure stayed"), "{missing}");
}

#[test]
fn services_fall_with_the_server_only_where_the_need_is_declared() {
    let story = stories::connection_surge();
    let services = "Why did bot and site fail?";
    assert_chain(&story, &[(FAILED, true), (services, true), (SERVER, true), (CONNECTIONS, false)]);
    let mut undeclared = stories::connection_surge();
    undeclared.events.retain(|e| e.kind.name() != "service_declared");
    assert_chain(&undeclared, &[(FAILED, true), (services, false), (SERVER, true), (CONNECTIONS, false)]);
}

#[test]
fn a_server_that_was_down_before_the_reboot_was_not_stopped_by_it() {
    assert_chain(
        &stories::host_rebooted(),
        &[
            (FAILED, true),
            ("Why did bot and site fail?", true),
            (SERVER, false),
            ("Why did the host boot anew?", false),
            (CPU, false),
            (FAST, false),
            (THEN, false),
        ],
    );
}

#[test]
fn the_cause_is_the_deepest_link_before_a_break() {
    let story = stories::storm_guarded();
    let diagnosis = diagnose(&incidents(&story.events, &IncidentRules::default())[0]);
    assert!(diagnosis.cause().unwrap().text().starts_with("The cost setting"));
    let story = stories::storm_without_lever();
    let diagnosis = diagnose(&incidents(&story.events, &IncidentRules::default())[0]);
    assert_eq!(diagnosis.cause(), None, "the first link is what failed, not a cause");
}

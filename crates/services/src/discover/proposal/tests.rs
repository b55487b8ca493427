//! What is proposed, and how it is pasted.

use proptest::prelude::*;

use super::*;
use crate::{
    discover::{Found, How},
    graph::{Graph, Service},
};

fn found(service: &str, need: &str, place: &str, confidence: Confidence) -> Found {
    Found { service: service.into(), need: need.into(), place: place.into(), what: "x".into(), confidence }
}

fn candidate(name: &str) -> Candidate {
    Candidate::new(name, How::Systemd { unit: format!("{name}.service") }, "place".to_owned())
}

fn propose(names: &[&str], found: Vec<Found>, configured: &[&str]) -> Proposal {
    let settled = Settled { candidates: names.iter().map(|name| candidate(name)).collect(), found, notes: vec![] };
    let services = configured.iter().map(|name| ((*name).into(), None)).collect();
    let guarded = Guarded { name: "main".into(), local_port: None, reached_at: None, how: None };
    Proposal::new(&settled, &guarded, &Configured { services, ..Configured::default() })
}

#[test]
fn evidence_is_joined_and_the_unsure_held_back() {
    use Confidence::{High, Low, Medium};
    let all = vec![
        found("site", "main", "compose.yaml:3", Medium),
        found("site", "main", "pg_stat_activity", Medium),
        found("site", "redis", "compose.yaml:4", Medium),
        found("site", "redis", "compose.yaml:9", Medium),
        found("site", "nginx", "site.service", Low),
        found("redis", "site", "compose.yaml:12", Medium),
        found("bot", "site", "compose.yaml:12", High),
        found("ghost", "site", "compose.yaml:13", High),
    ];
    let proposal = propose(&["site", "redis"], all, &["bot"]);
    let levels: Vec<_> = proposal
        .edges
        .iter()
        .map(|edge| (edge.service.as_str(), edge.need.as_str(), edge.confidence, edge.held_back.is_some()))
        .collect();
    assert_eq!(
        levels,
        [
            ("bot", "site", High, false),
            ("redis", "site", Medium, false),
            ("site", "main", High, false),
            ("site", "nginx", Low, true),
            ("site", "redis", Medium, true)
        ]
    );
    assert_eq!(
        proposal.to_toml(),
        "\
[[service]]  # place
name = \"site\"
driver = \"systemd\"
unit = \"site.service\"
# nothing asks for its health: say what does, or it counts as well once it runs
depends_on = [
    \"main\",  # high: compose.yaml:3: x; pg_stat_activity: x
    # \"nginx\",  # low (not sure enough): site.service: x
    # \"redis\",  # medium (a circle: site needs redis, which needs site; which one can start without the other?): compose.yaml:4: x; compose.yaml:9: x
]

[[service]]  # place
name = \"redis\"
driver = \"systemd\"
unit = \"redis.service\"
# nothing asks for its health: say what does, or it counts as well once it runs
depends_on = [
    \"site\",  # medium: compose.yaml:12: x
]

# bot is configured already. What it would need beside that:
# depends_on = [
#     \"site\",  # high: compose.yaml:12: x
# ]
"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever names and places there are: what is pasted is TOML and says what was meant.
    #[test]
    fn any_name_can_be_pasted(service in "\\PC{1,12}|[\"\\\n#]{1,6}", need in "\\PC{1,12}|[\"'\n\\]]{1,6}", place in "[\\s\\S]{0,20}") {
        prop_assume!(service != need && service != "main" && need != "main");
        let proposal = propose(&[&service, &need], vec![found(&service, &need, &place, Confidence::High)], &[]);
        let read: toml::Table = proposal.to_toml().parse().unwrap();
        prop_assert_eq!(read["service"][0]["name"].as_str(), Some(&*need));
        prop_assert_eq!(read["service"][1]["name"].as_str(), Some(&*service));
        prop_assert_eq!(read["service"][1]["depends_on"][0].as_str(), Some(&*need));
    }

    /// Whatever points to whatever: what is pasted is a graph without circles.
    #[test]
    fn no_circle_is_proposed(edges in prop::collection::vec((0_u8..8, 0_u8..8, 0_u8..3), 0..40)) {
        let names: Vec<String> = (0..8).map(|number| format!("s{number}")).collect();
        let level = |number| [Confidence::Low, Confidence::Medium, Confidence::High][usize::from(number)];
        let found = edges.iter().map(|(from, to, sure)| found(&format!("s{from}"), &format!("s{to}"), "f:1", level(*sure)));
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let proposal = propose(&names, found.collect(), &[]);
        let taken = |name: &str| -> Vec<ServiceName> {
            let own = proposal.edges.iter().filter(|edge| edge.held_back.is_none() && edge.service.as_str() == name);
            own.map(|edge| edge.need.clone()).collect()
        };
        let services = proposal.services.iter().map(|one| Service { needs: taken(one.service.as_str()), ..Service::new(one.service.clone()) });
        prop_assert!(Graph::new(services.collect()).is_ok());
        prop_assert_eq!(proposal.services.len(), 8);
        for edge in proposal.edges.iter().filter(|edge| edge.confidence > Confidence::Low) {
            prop_assert_eq!(edge.held_back.is_some(), edge.held_back.as_ref().is_some_and(|why| why.contains("circle")));
        }
    }
}

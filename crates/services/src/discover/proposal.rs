//! All that was found, as configuration to paste.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use model::ServiceName;

use super::{Confidence, Found, plain};

/// Pieces of evidence that are shown for one edge; the rest is counted.
const EVIDENCE_SHOWN: usize = 3;

/// An edge with all that speaks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Who needs.
    pub service: ServiceName,
    /// What it needs.
    pub need: ServiceName,
    /// The highest of its evidence; two guesses from different places make it [`Confidence::High`].
    pub confidence: Confidence,
    /// Where it was found and what was found there, the best first.
    pub evidence: Vec<(Confidence, String)>,
}

/// The surest first: how sure, where it was seen, and what.
type Evidence = (std::cmp::Reverse<Confidence>, String, String);

/// What is proposed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proposal {
    /// By service and need.
    pub edges: Vec<Edge>,
}

impl Proposal {
    /// Joins what was found, and leaves out what is configured already.
    pub fn new(
        found: impl IntoIterator<Item = Found>,
        configured: impl Fn(&ServiceName, &ServiceName) -> bool,
    ) -> Self {
        let mut joined: BTreeMap<(ServiceName, ServiceName), BTreeSet<Evidence>> = BTreeMap::new();
        for one in found.into_iter().filter(|one| one.service != one.need && !configured(&one.service, &one.need)) {
            let evidence = (std::cmp::Reverse(one.confidence), one.place, one.what);
            joined.entry((one.service, one.need)).or_default().insert(evidence);
        }
        let edges = joined.into_iter().map(|((service, need), evidence)| {
            let best = evidence.first().map_or(Confidence::Low, |(confidence, ..)| confidence.0);
            let guesses = evidence.iter().filter(|(confidence, ..)| confidence.0 >= Confidence::Medium);
            let sources: BTreeSet<&str> = guesses.map(|(_, place, _)| source(place)).collect();
            let confidence = if sources.len() > 1 { Confidence::High } else { best };
            let evidence =
                evidence.into_iter().map(|(confidence, place, what)| (confidence.0, format!("{place}: {what}")));
            Edge { service, need, confidence, evidence: evidence.collect() }
        });
        Self { edges: edges.collect() }
    }

    /// `[[service]]` tables with `depends_on`. Edges of low confidence are comments: to be taken in by whoever knows better.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        let mut by_service: BTreeMap<&ServiceName, Vec<&Edge>> = BTreeMap::new();
        for edge in &self.edges {
            by_service.entry(&edge.service).or_default().push(edge);
        }
        // Writing into a String can't fail.
        for (service, edges) in by_service {
            let _ = writeln!(text, "[[service]]\nname = {}\ndepends_on = [", quoted(service));
            for edge in edges {
                let comment = if edge.confidence == Confidence::Low { "# " } else { "" };
                let told: Vec<String> =
                    edge.evidence.iter().take(EVIDENCE_SHOWN).map(|(_, told)| plain(told)).collect();
                let more = edge.evidence.len().saturating_sub(EVIDENCE_SHOWN);
                let more = if more > 0 { format!("; and {more} more") } else { String::new() };
                let _ = writeln!(
                    text,
                    "    {comment}{},  # {}: {}{more}",
                    quoted(&edge.need),
                    edge.confidence,
                    told.join("; ")
                );
            }
            text.push_str("]\n\n");
        }
        text.truncate(text.trim_end().len());
        if !text.is_empty() {
            text.push('\n');
        }
        text
    }
}

/// Two lines of one file are one source.
fn source(place: &str) -> &str {
    match place.rsplit_once(':') {
        Some((file, line)) if line.parse::<usize>().is_ok() => file,
        _ => place,
    }
}

/// A basic string of TOML on one line. JSON's escapes are among TOML's; only DEL, which JSON leaves as it is, is forbidden there.
fn quoted(name: &ServiceName) -> String {
    serde_json::Value::from(name.as_str()).to_string().replace('\u{7f}', "\\u007f")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(service: &str, need: &str, place: &str, confidence: Confidence) -> Found {
        Found { service: service.into(), need: need.into(), place: place.into(), what: "x".into(), confidence }
    }

    #[test]
    fn evidence_is_joined_and_what_is_configured_left_out() {
        use Confidence::{High, Low, Medium};
        let all = [
            found("site", "db", "compose.yaml:3", Medium),
            found("site", "db", "pg_stat_activity", Medium),
            found("site", "redis", "compose.yaml:4", Medium),
            found("site", "redis", "compose.yaml:9", Medium),
            found("site", "nginx", "site.service", Low),
            found("bot", "site", "compose.yaml:12", High),
        ];
        let proposal = Proposal::new(all, |service, _| service.as_str() == "bot");
        let levels: Vec<_> = proposal.edges.iter().map(|edge| (edge.need.as_str(), edge.confidence)).collect();
        assert_eq!(levels, [("db", High), ("nginx", Low), ("redis", Medium)]);
        assert_eq!(
            proposal.to_toml(),
            "[[service]]\nname = \"site\"\ndepends_on = [\n    \"db\",  # high: compose.yaml:3: x; pg_stat_activity: x\n    # \"nginx\",  # low: site.service: x\n    \"redis\",  # medium: compose.yaml:4: x; compose.yaml:9: x\n]\n"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever names and places there are: what is pasted is TOML and says what was meant.
        #[test]
        fn any_name_can_be_pasted(service in "\\PC{1,12}|[\"\\\\\n#]{1,6}", need in "\\PC{1,12}|[\"'\n\\]]{1,6}", place in "[\\s\\S]{0,20}") {
            prop_assume!(service != need);
            let proposal = Proposal::new([found(&service, &need, &place, Confidence::High)], |_, _| false);
            let read: toml::Table = proposal.to_toml().parse().unwrap();
            prop_assert_eq!(read["service"][0]["name"].as_str(), Some(&*service));
            prop_assert_eq!(read["service"][0]["depends_on"][0].as_str(), Some(&*need));
        }
    }
}

//! What is pasted is configuration.

use services::discover::{Candidate, Confidence, Found};

use super::*;

/// Reads a proposal as the configuration's own loader does, and gives the names with what each needs.
fn pasted(toml: &str) -> Vec<(String, Vec<String>)> {
    let config: Config = toml::from_str(toml).unwrap_or_else(|error| panic!("{error}\n{toml}"));
    for one in &config.service {
        assert_eq!(one.problems(), [], "{toml}");
    }
    config.service.into_iter().map(|one| (one.name, one.depends_on)).collect()
}

#[test]
fn servers_elsewhere_are_pasted_as_they_are() {
    let text =
        "DATABASE_URL=postgres://u:p@db.example:5433/x\nCACHE=redis://[2001:db8::7]:6380/0\nQUEUE=amqp://q.example\n";
    let mut files = vec![environment::read("/etc/default/site", text)];
    files[0].candidates[0] =
        Candidate::new("site", How::Elsewhere { endpoint: files[0].reached[0].endpoint.clone() }, "x".to_owned());
    let guarded = Guarded { name: "main".into(), how: None, local_port: None, reached_at: None };
    let settled = settle::settle(files, &guarded, &Configured::default());
    let proposal = Proposal::new(&settled, &guarded, &Configured::default());
    let read = pasted(&proposal.to_toml());
    let site = read.iter().find(|(name, _)| name == "site").unwrap();
    assert_eq!(site.1, ["db", "q", "redis-2001-db8--7"]);
}

#[test]
fn what_is_configured_is_recognised() {
    let config: Config = toml::from_str("[postgres]\nname = \"main\"\nurl = \"postgresql://u@db.example:5433/x\"\n[[service]]\nname = \"site\"\ndepends_on = [\"main\"]\nhealth = { tcp = \"127.0.0.1:1\" }\n").unwrap();
    let (guarded, configured) = (guarded(&config), configured(&config));
    assert_eq!((guarded.local_port, guarded.reached_at.clone()), (None, Some(("db.example".to_owned(), 5433))));
    let mut settled = Settled::default();
    for (service, need) in [("site", "main"), ("site", "site")] {
        settled.found.push(Found {
            service: service.into(),
            need: need.into(),
            place: "x".to_owned(),
            what: "x".to_owned(),
            confidence: Confidence::High,
        });
    }
    assert!(Proposal::new(&settled, &guarded, &configured).to_toml().is_empty());
}

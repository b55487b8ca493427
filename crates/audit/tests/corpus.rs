//! Sets of files with the findings that a person listed by hand.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
};

use audit::{Baseline, Options, Remedy, Report, Severity, facts::Collector, source};
use jiff::civil::date;

/// The day of all runs here: versions end, ignores expire.
const TODAY: jiff::civil::Date = date(2026, 11, 23);

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(name)
}

fn audit(paths: &[PathBuf]) -> Report {
    audit_with(paths, &Options::default())
}

fn audit_with(paths: &[PathBuf], options: &Options) -> Report {
    let mut collector = Collector::new(TODAY);
    source::read(paths, &b""[..], &mut collector).unwrap();
    audit::audit(collector, options)
}

/// `check | object | file:line`, in the order of the report, files named from the set's folder.
fn lines(report: &Report, root: &Path) -> Vec<String> {
    let root = format!("{}/", root.display());
    let line = |finding: &audit::Finding| {
        let first = &finding.evidence[0].place;
        format!(
            "{} | {} | {}:{}",
            finding.check,
            finding.object,
            first.file.strip_prefix(&root).unwrap_or(&first.file),
            first.line
        )
    };
    report.findings.iter().map(line).collect()
}

fn expected(name: &str) -> Vec<String> {
    let text = fs::read_to_string(corpus(name)).unwrap();
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

#[test]
fn the_outage_is_found() {
    let root = corpus("outage");
    let report = audit(std::slice::from_ref(&root));
    assert_eq!(report.problems, []);
    let (found, mut expected) = (lines(&report, &root), expected("outage.expected"));
    let mut sorted = found.clone();
    sorted.sort();
    expected.sort();
    assert_eq!(sorted, expected, "found, in order:\n{}", found.join("\n"));
    for finding in &report.findings {
        assert!(!finding.remedy.text().trim().is_empty(), "{}: no remedy", finding.check);
    }
}

#[test]
fn what_hurt_first_is_said_first() {
    let report = audit(&[corpus("outage")]);
    let first: Vec<&str> = report.findings.iter().take(2).map(|finding| finding.check).collect();
    assert_eq!(first, ["database-unlimited", "no-backup"]);
    let severities: Vec<Severity> = report.findings.iter().map(|finding| finding.severity).collect();
    assert!(severities.is_sorted_by(|a, b| a >= b), "{severities:?}");
}

#[test]
fn a_well_kept_set_has_no_findings() {
    let root = corpus("well-kept");
    let report = audit(std::slice::from_ref(&root));
    assert_eq!(lines(&report, &root), [""; 0]);
    assert_eq!(report.problems, []);
    assert!(report.unknown_kinds.is_empty(), "{:?}", report.unknown_kinds);
    assert_eq!(report.tally.asked, report.tally.clean, "{:?}", report.not_assessed);
}

#[test]
fn compose_and_units_are_understood() {
    let root = corpus("compose");
    let report = audit(std::slice::from_ref(&root));
    assert_eq!(report.problems, []);
    let (mut found, mut expected) = (lines(&report, &root), expected("compose.expected"));
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    let root = corpus("compose-well-kept");
    assert_eq!(lines(&audit(std::slice::from_ref(&root)), &root), [""; 0]);
}

#[test]
fn carelessness_is_found() {
    let root = corpus("careless");
    let report = audit(std::slice::from_ref(&root));
    let (mut found, mut expected) = (lines(&report, &root), expected("careless.expected"));
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn well_known_charts_are_judged_fairly() {
    let root = corpus("charts");
    let report = audit(std::slice::from_ref(&root));
    let (mut found, mut expected) = (lines(&report, &root), expected("charts.expected"));
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    assert_eq!(report.problems, []);
    assert!(report.unknown_kinds.is_empty(), "{:?}", report.unknown_kinds);
}

#[test]
fn tangles_are_found() {
    let root = corpus("tangled");
    let report = audit(std::slice::from_ref(&root));
    let (mut found, mut expected) = (lines(&report, &root), expected("tangled.expected"));
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn each_check_finds_something_in_a_set() {
    let mut reports = Vec::from(["outage", "compose", "careless", "tangled"].map(|set| audit(&[corpus(set)])));
    reports.extend([common::audit(common::neglected()), common::wrong_answers()]);
    let found: std::collections::BTreeSet<&str> =
        reports.iter().flat_map(|report| &report.findings).map(|finding| finding.check).collect();
    let never: Vec<&str> = audit::checks().iter().map(|check| check.id).filter(|id| !found.contains(id)).collect();
    assert_eq!(never, [""; 0], "a check that can't fire is worse than none");
}

#[test]
fn what_is_absent_is_not_assessed() {
    let report = audit(&[corpus("well-kept/expected-routes.txt")]);
    assert_eq!(report.findings.len(), 0);
    assert_eq!((report.tally.asked, report.tally.clean), (0, 0), "nothing may pass on nothing");
    for part in ["the live database", "the host", "answers over the network"] {
        assert!(report.not_assessed.iter().any(|open| open.what == part), "{part}");
    }
}

#[test]
fn each_check_that_can_be_asked_of_the_outage_is_asked() {
    let report = audit(&[corpus("outage")]);
    let open: Vec<&str> = report.not_assessed.iter().map(|open| open.what.as_str()).collect();
    for check in ["nothing-would-page", "dump-only", "connections-exceed-memory"] {
        assert!(open.contains(&check), "{check} has no source in this set: {open:?}");
    }
}

#[test]
fn a_secret_outside_of_the_set_is_not_guessed_about() {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(corpus("outage/bot/README.md"), folder.path().join("README.md")).unwrap();
    let text = fs::read_to_string(corpus("outage/bot/deployment.yaml")).unwrap();
    fs::write(folder.path().join("bot.yaml"), text.split("---").next().unwrap()).unwrap();
    let report = audit(&[folder.path().to_owned()]);
    assert!(report.findings.iter().all(|finding| finding.check != "variable-nobody-provides"), "{:?}", report.findings);
    let open = report.not_assessed.iter().find(|open| open.why.contains("SENTRY_DSN")).unwrap();
    assert!(open.why.contains("secret bot-env is not in the set"), "{}", open.why);
}

#[test]
fn values_of_secrets_are_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let text = "services:\n  site:\n    image: site:1\n    environment:\n      API_KEY: hunter2hunter2\n      DATABASE_URL: postgres://site:hunter2hunter2@db/site\n";
    fs::write(folder.path().join("compose.yaml"), text).unwrap();
    let report = audit(&[folder.path().to_owned()]);
    assert_eq!(report.findings.iter().filter(|finding| finding.check == "plain-secret").count(), 2);
    for out in [
        audit::render::text(&report),
        audit::render::markdown(&report),
        audit::render::sarif(&report).to_string(),
        serde_json::to_string(&report).unwrap(),
    ] {
        assert!(!out.contains("hunter2"), "{out}");
    }
}

#[test]
fn ignores_need_a_reason_and_end() {
    let folder = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(corpus("outage/postgres/deployment.yaml")).unwrap();
    let write = |comment: &str| fs::write(folder.path().join("postgres.yaml"), format!("{comment}\n{text}")).unwrap();
    let said = |report: &Report| report.findings.iter().any(|finding| finding.check == "no-backup");

    write("# oxpecker: ignore no-backup until 2026-11-23: the provider's snapshots, restored each month");
    let report = audit(&[folder.path().to_owned()]);
    assert!(!said(&report));
    assert_eq!(report.ignored[0].reason, "the provider's snapshots, restored each month");

    write("# oxpecker: ignore no-backup until 2026-11-22: soon");
    let report = audit(&[folder.path().to_owned()]);
    assert!(
        report.findings.iter().any(|f| f.check == "no-backup" && f.message.contains("accepted until 2026-11-22: soon"))
    );

    for comment in [
        "# oxpecker: ignore no-backup",
        "# oxpecker: ignore no-backup until 2030-01-01:",
        "# oxpecker: ignore no-such-check until 2030-01-01: x",
    ] {
        write(comment);
        let report = audit(&[folder.path().to_owned()]);
        assert!(
            said(&report) && report.problems.len() == 1 && !report.is_incomplete(),
            "{comment}: {:?}",
            report.problems
        );
    }
}

#[test]
fn an_ignore_counts_only_in_its_document() {
    let folder = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(corpus("outage/bot/deployment.yaml")).unwrap();
    let text = text.replace("---\n", "---\n# oxpecker: ignore no-probes until 2030-01-01: in the secret's document\n");
    fs::write(folder.path().join("bot.yaml"), text).unwrap();
    assert!(audit(&[folder.path().to_owned()]).findings.iter().any(|finding| finding.check == "no-probes"));
}

#[test]
fn a_baseline_shows_what_is_new() {
    let before = audit(&[corpus("outage/bot")]);
    let baseline = Baseline::parse(&Baseline::of(&before.findings).to_text()).unwrap();
    let after = audit_with(&[corpus("outage")], &Options { baseline });
    assert_eq!(after.in_baseline, before.findings.len() - after.gone_from_baseline.len());
    assert!(
        after.findings.iter().all(|finding| !before
            .findings
            .iter()
            .any(|old| old.check == finding.check && old.object == finding.object))
    );
    assert!(Baseline::parse("{\"schema\": 9, \"accepted\": []}").unwrap_err().to_string().contains("schema 9"));
    assert!(Baseline::parse("nonsense").is_err());
}

#[test]
fn patches_are_yaml() {
    for set in ["outage", "compose", "careless", "tangled"] {
        for finding in audit(&[corpus(set)]).findings {
            let Remedy::Patch(patch) = &finding.remedy else { continue };
            let parsed = audit::yaml::parse(patch);
            // Units and TOML are no YAML.
            if !patch.contains("[Service]") && !patch.contains("[[service]]") {
                assert_eq!(parsed.faults, [], "{}:\n{patch}", finding.check);
                assert_eq!(parsed.documents.len(), 1, "{}:\n{patch}", finding.check);
            }
        }
    }
}

#[test]
fn sarif_has_a_rule_for_each_result() {
    let report = audit(&[corpus("outage")]);
    let sarif = audit::render::sarif(&report);
    let run = &sarif["runs"][0];
    let rules: Vec<&str> =
        run["tool"]["driver"]["rules"].as_array().unwrap().iter().map(|rule| rule["id"].as_str().unwrap()).collect();
    let results = run["results"].as_array().unwrap();
    assert_eq!(results.len(), report.findings.len());
    for result in results {
        assert!(rules.contains(&result["ruleId"].as_str().unwrap()));
        assert!(result["locations"][0]["physicalLocation"]["region"]["startLine"].as_u64().unwrap() > 0);
    }
}

#[test]
fn the_reference_is_current() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/src/reference/audit.md");
    if std::env::var_os("OXPECKER_BLESS").is_some() {
        fs::write(&page, audit::reference()).unwrap();
    }
    let present = fs::read_to_string(&page).unwrap_or_default();
    assert!(
        present == audit::reference(),
        "docs/src/reference/audit.md is not what the registry says; run this test with OXPECKER_BLESS=1"
    );
}

#[test]
fn slow_five_thousand_manifests() {
    let folder = tempfile::tempdir().unwrap();
    for index in 0..1_000 {
        let text = fs::read_to_string(corpus("outage/postgres/deployment.yaml")).unwrap();
        let text = text
            .replace("postgres", &format!("postgres{index}"))
            .replace(&format!("image: postgres{index}:"), "image: postgres:");
        fs::write(folder.path().join(format!("{index}.yaml")), text).unwrap();
    }
    let begin = std::time::Instant::now();
    let report = audit(&[folder.path().to_owned()]);
    println!("5000 objects in 1000 files: {:?}, {} findings", begin.elapsed(), report.findings.len());
    assert_eq!((report.workloads, report.problems.len()), (1_000, 0));
}

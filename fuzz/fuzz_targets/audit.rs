//! Audit: whatever a file is called and holds, nothing panics, all of it is shown on lines of its own, and every report renders.
#![no_main]

use audit::{Options, facts::Collector};
use libfuzzer_sys::fuzz_target;

const NAMES: &[&str] = &[
    "a.yaml",
    "kustomization.yaml",
    "compose.yml",
    "README.md",
    ".env",
    ".env.example",
    "settings.py",
    "a.service",
    "a.timer",
    "old.conf",
    "oxpecker.toml",
    "expected-routes.txt",
    "rules.yml",
];

fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else { return };
    let text = String::from_utf8_lossy(rest);
    let mut collector = Collector::new(jiff::civil::date(2026, 11, 23));
    // A second file, so that what leans on another has something to lean on.
    collector.add("set/database.yaml", include_str!("../../crates/audit/tests/corpus/outage/postgres/deployment.yaml"));
    collector.add(&format!("set/{}", NAMES[usize::from(*first) % NAMES.len()]), &text);
    let _ = collector.questions();
    let report = audit::audit(collector, &Options::default());
    for out in [audit::render::text(&report), audit::render::markdown(&report)] {
        assert!(out.chars().all(|c| c == '\n' || !c.is_control()), "a control character reached the report");
    }
    let _ = audit::render::sarif(&report).to_string();
    for finding in &report.findings {
        assert!(!finding.message.contains('\n') && !finding.object.contains('\n') && !finding.evidence.is_empty());
    }
});

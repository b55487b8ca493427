//! SARIF 2.1.0 (OASIS), as code hosts and editors read it.

use serde_json::{Value, json};

use crate::{Finding, Report, Severity, checks};

/// The report as SARIF.
pub fn sarif(report: &Report) -> Value {
    let rules: Vec<Value> = checks::checks().iter().map(|check| rule(check)).collect();
    let results: Vec<Value> = report.findings.iter().map(result).collect();
    let notes = report.problems.iter().map(
        |problem| json!({"level": "error", "message": {"text": problem.what}, "locations": [location(&problem.place)]}),
    );
    let notes: Vec<Value> = notes.collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {"name": "oxpecker audit", "version": env!("CARGO_PKG_VERSION"), "rules": rules}},
            "invocations": [{"executionSuccessful": !report.is_incomplete(), "toolExecutionNotifications": notes}],
            "results": results,
        }],
    })
}

fn rule(check: &checks::Check) -> Value {
    json!({
        "id": check.id,
        "shortDescription": {"text": check.title},
        "fullDescription": {"text": check.reason},
        "help": {"text": format!("{} {}", check.reason, check.limits)},
        "defaultConfiguration": {"level": level(check.severity)},
        "properties": {"tags": [check.family.word()], "security-severity": score(check.severity)},
    })
}

fn result(finding: &Finding) -> Value {
    let mut places = finding.evidence.iter().map(|evidence| {
        let mut location = location(&evidence.place);
        location["message"] = json!({"text": evidence.value});
        location
    });
    let first = places.next();
    let related: Vec<Value> = places.collect();
    json!({
        "ruleId": finding.check,
        "level": level(finding.severity),
        "message": {"text": format!("{}\n\nRemedy:\n{}", finding.message, finding.remedy.text())},
        "locations": first.into_iter().collect::<Vec<_>>(),
        "relatedLocations": related,
        // Neither line nor file: a finding keeps its name when the file is edited.
        "partialFingerprints": {"oxpecker/v1": format!("{} {}", finding.check, finding.object)},
    })
}

fn location(place: &crate::finding::Place) -> Value {
    // What has no lines is no file: a live server, an address.
    if place.line == 0 {
        return json!({"logicalLocations": [{"fullyQualifiedName": &*place.file}]});
    }
    json!({"physicalLocation": {"artifactLocation": {"uri": uri(&place.file)}, "region": {"startLine": place.line}}})
}

/// A path as a relative or file URI (RFC 3986): all but unreserved characters and slashes is escaped.
fn uri(path: &str) -> String {
    let mut out = String::from(if path.starts_with('/') { "file://" } else { "" });
    for byte in path.trim_start_matches("./").bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical | Severity::High => "error",
        Severity::Medium => "warning",
        Severity::Low => "note",
    }
}

fn score(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "9.5",
        Severity::High => "8.0",
        Severity::Medium => "5.0",
        Severity::Low => "2.0",
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn paths_become_uris() {
        assert_eq!(super::uri("./a b/c#.yaml"), "a%20b/c%23.yaml");
        assert_eq!(super::uri("/x/y"), "file:///x/y");
    }
}

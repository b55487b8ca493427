//! Replays as a person asks for them: what is measured is there, and the verdict is the exit code.

use serde_json::Value;

use crate::harness::{Place, newest, run_in, said};

/// Claims about how soon something came: on a busy machine they may fail, and then the drill has to say so.
const OF_SPEED: [&str; 2] = ["growth seen within", "relieved: "];

#[test]
fn a_connection_surge_is_seen_named_and_relieved() {
    let Some(installation) = newest() else { return };
    let place = Place::new();
    let bin = installation.bin_dir.display().to_string();
    let output = run_in(place.path(), &["drill", "run", "connection-surge", "--pg-bin", &bin, "--output", "json"]);
    let surge: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e} in {}", said(&output)));
    let lines = surge["verdict"]["lines"].as_array().unwrap();
    assert_eq!(lines.len(), 7, "{surge:#}");
    for line in lines {
        let is_of_speed = OF_SPEED.iter().any(|claim| line["claim"].as_str().unwrap().starts_with(claim));
        assert!(line["passed"] == true || is_of_speed, "{line:#}\n{surge:#}");
    }
    let passed = lines.iter().all(|line| line["passed"] == true);
    assert_eq!((surge["verdict"]["passed"] == true, output.status.code()), (passed, Some(i32::from(!passed))));

    // However busy the machine is: told after it began, with the name; ended by the guard and let in after it.
    let guarded = &surge["guarded"];
    let number = |name: &str| guarded[name].as_f64().unwrap_or_else(|| panic!("no {name}: {surge:#}"));
    assert!(number("decided_s") > 0.0 && number("delivered_s") >= number("decided_s"), "{surge:#}");
    assert!(guarded["said"].as_str().unwrap().contains("role site"), "{surge:#}");
    // An event's moment is the one after the server's answer: a newcomer may be there a moment sooner.
    let ended_from_s = guarded["ended_from_to_s"][0].as_f64().unwrap();
    assert!(number("ended") >= 1.0 && number("let_in_s") > ended_from_s - 0.5, "{surge:#}");
    assert!(number("used_after") < surge["relief_from"].as_f64().unwrap(), "{surge:#}");
    assert!(surge["alone"]["let_in_s"].is_null(), "{surge:#}");
}

#[test]
fn a_service_that_takes_all_memory_is_stopped_before_the_kernel_kills() {
    let Some(installation) = newest() else { return };
    let place = Place::new();
    let bin = installation.bin_dir.display().to_string();
    let output = run_in(place.path(), &["drill", "run", "oom", "--pg-bin", &bin, "--output", "json"]);
    if output.status.code() == Some(2) && said(&output).contains("needs a control group with a limit of memory") {
        println!("skipped: {}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let oom: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e} in {}", said(&output)));
    let lines = oom["verdict"]["lines"].as_array().unwrap();
    assert_eq!(lines.len(), 8, "{oom:#}");
    for line in lines {
        // On a busy machine that may take longer, and then the drill has to say so.
        let is_of_speed = line["claim"].as_str().unwrap().starts_with("told within");
        assert!(line["passed"] == true || is_of_speed, "{line:#}\n{oom:#}");
    }
    let passed = lines.iter().all(|line| line["passed"] == true);
    assert_eq!((oom["verdict"]["passed"] == true, output.status.code()), (passed, Some(i32::from(!passed))));

    // In the order in which it can only have been, whatever the machine does beside.
    let guarded = &oom["guarded"];
    let number = |name: &str| guarded[name].as_f64().unwrap_or_else(|| panic!("no {name}: {oom:#}"));
    let order = ["low_s", "decided_s", "delivered_s"].map(number);
    assert!(order[0] > 0.0 && order.is_sorted(), "{oom:#}");
    assert!(number("given_back_s") > number("stopped_s"), "{oom:#}");
    assert!(guarded["said"].as_str().unwrap().contains("left to PostgreSQL's control group"), "{oom:#}");
    assert!(!place.path().join("oxpecker-demo").exists(), "no report, no folder");
}

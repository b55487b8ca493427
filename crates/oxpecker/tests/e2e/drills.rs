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

//! `oxpecker vacuum status`.

use crate::{
    cli::Global,
    config::{self, Overrides},
    exit::{FINE, Failure, Outcome},
    guard::{self, AskError, GuardStatus, Request},
    output, place,
};

/// What runs, what holds it, and which levers there are.
pub fn status(global: &Global) -> Outcome {
    let loaded = config::load(global.config.as_deref(), &Overrides::default())?;
    let state_dir = place::state_dir(&loaded.config);
    let status: GuardStatus = guard::ask(&state_dir, Request::Status).map_err(|error| match error {
        AskError::NoGuard(_) => Failure { code: crate::exit::FINDING, ..Failure::from(error) }
            .hint(format!("start one with `oxpecker run`; state directory: {}", state_dir.display())),
        other => other.into(),
    })?;
    let vacuums = status.activity.as_ref().map(|a| a.vacuums.as_slice()).unwrap_or_default();
    let document = serde_json::json!({ "vacuums": vacuums, "governor": status.governor });
    output::result(global.output, "vacuum_status", &document, || {
        let mut text = String::new();
        match vacuums {
            [] => text.push_str("no vacuum runs\n"),
            _ => vacuums.iter().for_each(|v| text.push_str(&format!("{}\n", guard::vacuum_in_words(v)))),
        }
        text.push('\n');
        match &status.governor {
            Some(governor) => text.push_str(&guard::governor_in_words(governor)),
            None => text.push_str("the governor knows no server yet\n"),
        }
        text
    })?;
    Ok(FINE)
}

//! `oxpecker status`.

use crate::{
    cli::Global,
    config::{self, Overrides},
    exit::{FINDING, FINE, Failure, Outcome},
    guard::{self, AskError, GuardStatus, Request},
    output, place,
};

/// One screen of what is well and what is not; exit 1 when something is not.
pub fn status(global: &Global) -> Outcome {
    let loaded = config::load(global.config.as_deref(), &Overrides::default())?;
    let state_dir = place::state_dir(&loaded.config);
    match guard::ask::<GuardStatus>(&state_dir, Request::Status) {
        Ok(status) => {
            let (text, well) = guard::render(&status);
            output::result(global.output, "status", &status, || text)?;
            Ok(if well { FINE } else { FINDING })
        }
        Err(AskError::NoGuard(socket)) => {
            let last = guard::last_words(&state_dir);
            let document = serde_json::json!({ "guard": null, "state_dir": state_dir, "last": last });
            output::result(global.output, "status", &document, || {
                let mut text = format!(
                    "NOT WELL: no guard runs on {} ({} does not answer).\n",
                    state_dir.display(),
                    socket.display()
                );
                match &last {
                    Some(last) => text.push_str(&format!("The journal's last words: {last}\n")),
                    None => text.push_str("There is no journal either: none ran here yet.\n"),
                }
                text.push_str("Start it with `oxpecker run`; the log of its last end is where its output went (`journalctl -u oxpecker`).\n");
                text
            })?;
            Ok(FINDING)
        }
        Err(error) => {
            let hint = match &error {
                AskError::Strange { .. } => "the guard is of another version: restart it after an upgrade",
                _ => "ask as the user that the guard runs as, or as root",
            };
            // Whether all is well can't be told: for whoever watches the exit code that is not well.
            Err(Failure { code: FINDING, ..Failure::from(error) }.hint(hint))
        }
    }
}

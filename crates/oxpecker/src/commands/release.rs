//! `oxpecker release`.

use journal::{StateDir, StateDirError};

use crate::{
    cli::Global,
    config::{self, Overrides},
    exit::{FINE, Failure, Outcome},
    output, place,
};

use super::block_on;

/// Undoes a throttle that a dead guard left behind. Does nothing, successfully, where there is none.
pub fn release(global: &Global) -> Outcome {
    let loaded = config::load(global.config.as_deref(), &Overrides::default())?;
    let state_dir = place::state_dir(&loaded.config);
    if !state_dir.exists() {
        output::result(global.output, "release", &serde_json::json!({ "undone": null }), || {
            "nothing was left behind".to_owned()
        })?;
        return Ok(FINE);
    }
    // A guard that is alive knows what it holds and why; undoing that behind its back would leave it believing in it.
    let _claim = StateDir::claim(&state_dir).map_err(|error| match &error {
        StateDirError::Held { .. } => Failure::refused(error)
            .hint("stop that guard, which lets go by itself, or set mode = \"observe\" and send it SIGHUP"),
        _ => Failure::from(error),
    })?;
    // Files and signals need no address; only ALTER SYSTEM can't be undone without.
    let connection = place::target(&loaded.config.postgres).map(|t| t.connection).unwrap_or_default();
    let undone = block_on(autovacuum::undo_left_behind(&state_dir, &connection))??;
    output::result(global.output, "release", &serde_json::json!({ "undone": undone }), || match &undone {
        None => "nothing was left behind".to_owned(),
        Some(undone) if undone.complete() => {
            "the throttle is undone: its setting is removed and the server has reloaded".to_owned()
        }
        Some(undone) => format!("not all is undone yet:\n  {}", undone.errors.join("\n  ")),
    })?;
    match undone {
        Some(undone) if !undone.complete() => Err(Failure::from(anyhow::anyhow!("a throttle is still in place"))
            .hint("run this again when the server answers; the next guard tries too")),
        _ => Ok(FINE),
    }
}

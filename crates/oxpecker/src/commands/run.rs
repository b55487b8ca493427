//! `oxpecker run`.

use journal::StateDir;

use super::block_on;
use crate::{
    cli::{Global, RunArgs},
    config::{self, Loaded, Overrides},
    exit::{FINE, Failure, Outcome},
    guard::{self, Ended, Signals},
    place,
};

/// Guards until a signal says otherwise.
pub fn run(global: &Global, args: RunArgs) -> Outcome {
    let overrides = Overrides { mode: args.mode, state_dir: args.state_dir };
    let mut loaded = usable(global, &overrides)?;
    let claimed = place::state_dir(&loaded.config);
    let state = StateDir::claim(&claimed).map_err(|error| match &error {
        journal::StateDirError::Held { .. } => Failure::refused(error),
        _ => Failure::usage(error),
    })?;
    let reread = || {
        let fresh = usable(global, &overrides)?;
        if place::state_dir(&fresh.config) != claimed {
            return Err(Failure::usage(anyhow::anyhow!("state_dir changed")).hint("that takes a restart"));
        }
        Ok(fresh)
    };
    block_on(async {
        let mut signals = Signals::listen()?;
        let mut kept = guard::Kept::default();
        loop {
            match guard::guard(&loaded, kept, &state, &mut signals, reread).await? {
                Ended::Stopped => return Ok(FINE),
                Ended::Reload(goes_on) => (loaded, kept) = *goes_on,
            }
        }
    })?
}

/// The configuration, if nothing is wrong with it.
fn usable(global: &Global, overrides: &Overrides) -> Result<Loaded, Failure> {
    let loaded = config::load(global.config.as_deref(), overrides)?;
    let problems = config::check(&loaded.config, &loaded.lines);
    if problems.is_empty() {
        return Ok(loaded);
    }
    let lines: Vec<String> = problems.iter().map(|p| format!("  {}: {} ({})", p.place, p.problem, p.hint)).collect();
    Err(Failure::usage(anyhow::anyhow!("the configuration can't be used:\n{}", lines.join("\n")))
        .hint("`oxpecker config check` says this without starting anything"))
}

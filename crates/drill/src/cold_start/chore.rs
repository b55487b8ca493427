//! What `cargo xtask bench services` asks for, through the binary's hidden subcommand: one way back in a process of its own, or descriptions for another
//! supervisor and the judgement of what came of it.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{ColdKind, ColdStart, OUTAGE, play_stood_for, world};
use crate::{DrillError, HelperCommand, http::say};

/// How the chores are called.
pub(crate) const KIND: &str = "cold-start";

/// What is to be done.
#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
enum Chore {
    /// Bring them back in a directory that is made; answers with a [`ColdStart`].
    Play { dir: PathBuf, seed: u64, scale: u32, how: ColdKind },
    /// Describe them in a directory that is there; answers with a [`Described`].
    Describe { dir: PathBuf, seed: u64, scale: u32 },
    /// Judge what they wrote down in it since; answers with a [`ColdStart`] whose one side is called as given.
    Judge { dir: PathBuf, seed: u64, scale: u32, from_us: u64 },
}

/// Services for another supervisor.
#[derive(Debug, Serialize)]
struct Described {
    services: Vec<One>,
}

#[derive(Debug, Serialize)]
struct One {
    name: &'static str,
    needs: &'static [&'static str],
    /// What `member` is called with.
    description: PathBuf,
    /// Where it says that it is well.
    health: String,
}

pub(crate) async fn run(spec: &str) -> Result<(), DrillError> {
    let chore: Chore =
        serde_json::from_str(spec).map_err(|error| DrillError::helper(KIND, format!("its description: {error}")))?;
    match chore {
        Chore::Play { dir, seed, scale, how } => {
            say(KIND, &play_stood_for(&ourselves()?, &dir, seed, some(scale)?, how).await?)
        }
        Chore::Describe { dir, seed, scale } => say(KIND, &describe(&dir, seed, some(scale)?)?),
        Chore::Judge { dir, seed, scale, from_us } => {
            let mut played = ColdStart::drawn(seed, some(scale)?, false);
            let side = played.judged(ColdKind::Ordered, 0, world::lanes(&dir, from_us), None);
            played.sides.push(side);
            say(KIND, &played)
        }
    }
}

fn some(scale: u32) -> Result<u32, DrillError> {
    if scale == 0 { Err(DrillError::helper(KIND, "a scale of 0")) } else { Ok(scale) }
}

fn describe(dir: &Path, seed: u64, scale: u32) -> Result<Described, DrillError> {
    let starts_in: Vec<Duration> = ColdStart::drawn(seed, scale, false).starts_in();
    let members = world::describe(dir, &starts_in, None, 0)?;
    let services = OUTAGE.iter().zip(members).map(|(kind, member)| One {
        name: kind.name,
        needs: kind.needs,
        description: world::description(dir, kind.name),
        health: format!("http://{}/healthz", member.address),
    });
    Ok(Described { services: services.collect() })
}

/// Our own program, as it was called.
fn ourselves() -> Result<HelperCommand, DrillError> {
    let program = std::env::current_exe().map_err(|error| DrillError::helper(KIND, error.to_string()))?;
    let args: Vec<OsString> = std::env::args_os().skip(1).take_while(|argument| argument != KIND).collect();
    Ok(HelperCommand { program, args })
}

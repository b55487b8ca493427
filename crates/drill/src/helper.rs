//! What the drill's own child processes run, behind the binary's hidden subcommand.

use crate::{DrillError, cold_start, leash, load, oom, services};

/// Runs one of the drill's child processes: `site`, `bot`, `gate`, `load` or `leash`, described by one JSON argument.
///
/// Blocks until the work is done or standard input is closed, which is what happens when the drill dies. `leash` replaces
/// the process by the program that it names and does not return.
///
/// # Errors
/// An unknown kind, a description that can't be read, or what the helper itself met.
pub fn helper(kind: &str, spec: &str) -> Result<(), DrillError> {
    match kind {
        "leash" => leash::run(&parse(kind, spec)?),
        "load" => block(kind, load::process::run(parse(kind, spec)?)),
        "site" => block(kind, services::site(parse(kind, spec)?)),
        "bot" => block(kind, services::bot(parse(kind, spec)?)),
        "gate" => block(kind, services::gate(parse(kind, spec)?)),
        "member" => block(kind, cold_start::member::run(std::path::Path::new(spec))),
        oom::hog::KIND => oom::hog::run(&parse(kind, spec)?),
        cold_start::chore::KIND => block(kind, cold_start::chore::run(spec)),
        // The keepers of act 3's services.
        "detach" | "hold" | "launch" => {
            ::services::driver::process::keep(kind).map_err(|error| DrillError::helper(kind, error.to_string()))
        }
        _ => Err(DrillError::helper(kind, "there is no such helper")),
    }
}

fn parse<T: serde::de::DeserializeOwned>(kind: &str, spec: &str) -> Result<T, DrillError> {
    serde_json::from_str(spec).map_err(|error| DrillError::helper(kind, format!("its description: {error}")))
}

fn block(kind: &str, work: impl Future<Output = Result<(), DrillError>>) -> Result<(), DrillError> {
    raise_file_limit();
    crate::leash::own_session();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| DrillError::helper(kind, format!("its runtime: {error}")))?;
    let outcome = runtime.block_on(work);
    // Standard input may still be read by a thread that never ends: do not wait for it.
    runtime.shutdown_background();
    outcome
}

/// Each request in flight is a socket, in `gate` two: the usual soft limit of 1,024 would fail requests that nothing else
/// fails.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    // A refusal leaves the limit as it was: the requests that then fail are counted as what they are.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum });
}

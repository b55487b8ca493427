//! `driver = "process"`: oxpecker keeps it itself.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use model::ServiceName;
use services::driver::process::{Declared, ProcessDriver, STOP_WITHIN_MAX, StopSignal};

use super::driver::{Driven, KeyProblem, Made};

/// Its keys.
pub(super) const KEYS: &[&str] =
    &["command", "directory", "user", "environment", "environment_files", "stop_signal", "stop_within"];

const RELATIVE: &str = "it is no whole path; hint: write it from the root: a service runs in another folder than you";

/// Below the directory of services: records and logs of the keepers.
const DIRECTORY: &str = "processes";

/// What is wrong with its keys.
pub(super) fn problems(name: &str, driven: &Driven) -> Vec<KeyProblem> {
    let mut problems = Vec::new();
    if driven.command.is_empty() {
        problems.push(("command", "a process needs its program and arguments".to_owned()));
    }
    if driven.command.first().is_some_and(String::is_empty) {
        problems.push(("command", "its program has no name".to_owned()));
    }
    if driven.command.iter().any(|part| part.contains('\0')) {
        problems.push(("command", "no argument of a program can hold a NUL".to_owned()));
    }
    if driven.directory.as_ref().is_some_and(|directory| !directory.is_absolute()) {
        problems.push(("directory", RELATIVE.to_owned()));
    }
    let path = |file: &String| PathBuf::from(file.strip_prefix('-').unwrap_or(file));
    if driven.environment_files.iter().any(|file| !path(file).is_absolute()) {
        problems.push(("environment_files", RELATIVE.to_owned()));
    }
    let bad = |(name, value): (&String, &String)| name.is_empty() || name.contains(['=', '\0']) || value.contains('\0');
    if driven.environment.iter().any(bad) {
        problems
            .push(("environment", "a variable has a name without '=', and neither it nor its value a NUL".to_owned()));
    }
    if driven.stop_within.is_some_and(|within| within.0 > STOP_WITHIN_MAX) {
        let most = STOP_WITHIN_MAX.as_secs();
        problems.push(("stop_within", format!("longer than {most} s, the most that is waited for an end")));
    }
    problems.extend(declared(name, driven).err());
    problems
}

/// A driver for all of them.
pub(super) fn make(dir: &Path, run: &[(ServiceName, Driven)]) -> Result<Vec<Made>, String> {
    let declared = run.iter().map(|(name, driven)| declared(name.as_str(), driven));
    let declared: Vec<Declared> = declared.collect::<Result<_, _>>().map_err(|(key, why)| format!("{key}: {why}"))?;
    let definitions = declared.iter().map(|one| (one.name.clone(), format!("{one:?}"))).collect();
    Ok(vec![Made { driver: Arc::new(ProcessDriver::new(&dir.join(DIRECTORY), declared)), definitions }])
}

/// Where one's log is.
pub(super) fn log(dir: &Path, name: &str) -> PathBuf {
    ProcessDriver::new(&dir.join(DIRECTORY), vec![]).log_path(&name.into())
}

fn declared(name: &str, driven: &Driven) -> Result<Declared, KeyProblem> {
    let mut declared = Declared::new(name, driven.command.clone());
    declared.directory.clone_from(&driven.directory);
    declared.user.clone_from(&driven.user);
    declared.environment.clone_from(&driven.environment);
    declared.environment_files.clone_from(&driven.environment_files);
    if let Some(signal) = &driven.stop_signal {
        declared.stop_signal = signal.parse::<StopSignal>().map_err(|error| ("stop_signal", error.to_string()))?;
    }
    if let Some(within) = driven.stop_within {
        declared.stop_within = within.0;
    }
    Ok(declared)
}

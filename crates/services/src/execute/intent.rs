//! Services that were stopped on purpose: nothing starts them until whoever stopped them, or somebody else, says so.
//!
//! It stands in a small file of the executor's directory, and the executor reads that at every look, also at the one just before it acts. So a stop is heeded by
//! an executor of another process at once. An act that was handed to a driver a moment before the stop was written down is still carried out: whoever stops a
//! service writes it down first, stops it then, and looks whether it is down.

use std::{collections::BTreeMap, path::Path};

use jiff::Timestamp;
use model::ServiceName;
use serde::{Deserialize, Serialize};

use super::{
    ExecuteError,
    record::{change, read},
};
use crate::state::shown;

const FILE: &str = "stopped.json";
const HINT: &str = "move it away and stop again, with `oxpecker service stop NAME`, what is to stay down: nothing is acted on while that isn't known";

/// Who stopped a service, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// A person by name, or the shedding ladder.
    pub by: String,
    /// By the host's clock.
    pub since: Timestamp,
}

/// Writes down that a service is to stay down. One that was stopped already stays as it was.
///
/// # Errors
/// The file can't be read or written, or is none of ours.
pub fn stop(dir: &Path, service: &ServiceName, by: &str, at: Timestamp) -> Result<(), ExecuteError> {
    change(&dir.join(FILE), HINT, |stopped: &mut BTreeMap<ServiceName, Stopped>| {
        stopped.entry(service.clone()).or_insert_with(|| Stopped { by: shown(by), since: at });
    })
}

/// Writes down that a service is meant to run again. Whether it was stopped.
///
/// # Errors
/// The file can't be read or written, or is none of ours.
pub fn start(dir: &Path, service: &ServiceName) -> Result<bool, ExecuteError> {
    if !load(dir)?.contains_key(service) {
        return Ok(false);
    }
    change(&dir.join(FILE), HINT, |stopped: &mut BTreeMap<ServiceName, Stopped>| stopped.remove(service).is_some())
}

/// All that are stopped.
///
/// # Errors
/// The file can't be read, or is none of ours.
pub fn load(dir: &Path) -> Result<BTreeMap<ServiceName, Stopped>, ExecuteError> {
    Ok(read(&dir.join(FILE), HINT)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_holds_until_a_start() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("made with the first stop");
        let (site, bot) = (ServiceName::from("site"), ServiceName::from("bot"));
        assert!(load(&dir).unwrap().is_empty() && !start(&dir, &site).unwrap() && !dir.exists());
        let first: Timestamp = "2026-11-23T10:00:00Z".parse().unwrap();
        stop(&dir, &site, "ann\u{1b}[31m", first).unwrap();
        stop(&dir, &bot, "the shedding ladder", first).unwrap();
        stop(&dir, &site, "bob", "2026-11-23T11:00:00Z".parse().unwrap()).unwrap();
        let all = load(&dir).unwrap();
        assert_eq!(all[&site], Stopped { by: "ann [31m".into(), since: first });
        assert!(start(&dir, &site).unwrap() && !start(&dir, &site).unwrap());
        assert_eq!(load(&dir).unwrap().into_keys().collect::<Vec<_>>(), [bot]);
    }

    #[test]
    fn stops_at_the_same_time_are_all_kept() {
        let dir = tempfile::tempdir().unwrap();
        let names: Vec<ServiceName> = (0..16).map(|index| format!("s{index}").into()).collect();
        std::thread::scope(|scope| {
            for name in &names {
                scope.spawn(|| stop(dir.path(), name, "ann", Timestamp::UNIX_EPOCH).unwrap());
            }
        });
        assert_eq!(load(dir.path()).unwrap().len(), names.len());
    }

    #[test]
    fn what_is_none_of_ours_is_an_error_that_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let newer = r#"{"format":9,"holds":{}}"#;
        for (text, why) in [
            ("", "damaged"),
            ("{", "damaged"),
            ("[]", "damaged"),
            (newer, "format 9"),
            ("{\"format\":1}", "format 1"),
            ("{\"format\":2}", "damaged"),
        ] {
            std::fs::write(dir.path().join(FILE), text).unwrap();
            let site = ServiceName::from("site");
            for error in [
                load(dir.path()).unwrap_err(),
                start(dir.path(), &site).unwrap_err(),
                stop(dir.path(), &site, "ann", Timestamp::UNIX_EPOCH).unwrap_err(),
            ] {
                let text = error.to_string();
                assert!(text.contains(why) && text.contains("hint: ") && text.contains(FILE), "{text}");
            }
        }
    }
}

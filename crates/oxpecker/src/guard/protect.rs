//! What keeps the guard alive and quick on a host that is short of memory or CPU, and what its absence costs.
//!
//! The worker that delivers alerts inherits the protection (proc(5), setpriority(2)): an alarm that can't leave the host is none. All other
//! workers give it back, see [`crate::work::ordinary`].

use std::{fs, io};

use rustix::{
    mm::{MlockAllFlags, mlockall},
    process::{Resource, getpriority_process, getrlimit, setpriority_process},
    thread::{CapabilitySet, capabilities},
};

/// Killed only after nearly everything else (proc(5): -1000 is never, 1000 is first). Never would be wrong: a guard that leaks is no guard.
const OOM_SCORE_ADJ: i32 = -900;
/// As the thread that samples: above everything ordinary.
const NICENESS: i32 = -10;
/// This process's place in the order in which the kernel kills.
const OOM_FILE: &str = "/proc/self/oom_score_adj";

/// Protects this process, and of its threads this one and those that it starts. Says what could not be had; done again it changes nothing.
pub fn protect() -> Vec<String> {
    let mut missing = Vec::new();
    if let Err(error) = spare(OOM_FILE) {
        missing.push(format!(
            "the kernel may kill the guard among the first when memory is short ({OOM_FILE}: {error}): no alarm then; \
             give OOMScoreAdjust={OOM_SCORE_ADJ} in its unit, or CAP_SYS_RESOURCE"
        ));
    }
    if let Err(why) = lock_memory() {
        missing.push(format!(
            "the guard's memory can be swapped out ({why}): on a host that thrashes alarms come late; give LimitMEMLOCK=infinity or CAP_IPC_LOCK"
        ));
    }
    let niceness = getpriority_process(None).unwrap_or(0);
    if niceness > NICENESS
        && let Err(error) = setpriority_process(None, NICENESS)
    {
        missing.push(format!(
            "deciding and delivering have no raised priority ({error}): on a starved host alarms come late; give CAP_SYS_NICE or LimitNICE={NICENESS}"
        ));
    }
    missing
}

/// Whoever has set it lower, as a service manager may, knows why.
fn spare(file: &str) -> io::Result<()> {
    let now = fs::read_to_string(file)?.trim().parse::<i32>().map_err(io::Error::other)?;
    if now <= OOM_SCORE_ADJ { Ok(()) } else { fs::write(file, OOM_SCORE_ADJ.to_string()) }
}

/// Keeps what this process uses of its memory in RAM, from now on, page by page as it is used: nothing is taken in advance.
///
/// # Errors
/// Where it may not, in words. Under a limit it is not tried: later allocations would fail at the limit, and with them the process.
pub fn lock_memory() -> Result<(), String> {
    let may = capabilities(None).is_ok_and(|held| held.effective.contains(CapabilitySet::IPC_LOCK));
    if let Some(limit) = getrlimit(Resource::Memlock).current
        && !may
    {
        return Err(format!("at most {} may be locked", model::ByteSize(limit)));
    }
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_spared_already_is_left_so() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("oom_score_adj");
        for (before, after) in [("0\n", "-900"), ("500\n", "-900"), ("-899\n", "-900"), ("-1000\n", "-1000\n")] {
            fs::write(&file, before).unwrap();
            spare(file.to_str().unwrap()).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), after);
        }
        fs::write(&file, "x").unwrap();
        assert!(spare(file.to_str().unwrap()).is_err());
        assert!(spare("/nowhere/oom_score_adj").is_err());
    }
}

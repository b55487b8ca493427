//! The service that grows: once it is told to, and not again after a restart. It ends with the drill, also where that is killed: a service outlives its guard.

use std::{fs, hint::black_box, os::fd::OwnedFd, path::PathBuf, time::Duration};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use serde::{Deserialize, Serialize};

use super::{GROWS_BY_BYTES, HOG};
use crate::{DrillError, measure::clock};

/// The helper's kind.
pub(crate) const KIND: &str = "hog";
/// Steps in which it grows, in a second.
const STEPS_PER_S: u32 = 10;
/// How often it looks whether it is to begin.
const POLL: Duration = Duration::from_millis(20);

/// What it needs to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Hog {
    /// The drill.
    pub(crate) drill: i32,
    /// The file whose coming tells it to grow. It takes it away: started again it stays small.
    pub(crate) go: PathBuf,
    /// Where it writes its pid once it is there, and when that was, in microseconds on the boot clock.
    pub(crate) ready: PathBuf,
    /// It grows no further, in bytes.
    pub(crate) most_bytes: u64,
}

/// Returns when the drill is gone.
pub(crate) fn run(hog: &Hog) -> Result<(), DrillError> {
    let fail = |what: &str, why: &dyn std::fmt::Display| DrillError::helper(KIND, format!("{what}: {why}"));
    let drill = Pid::from_raw(hog.drill).ok_or_else(|| fail("looking for the drill", &"it has no pid"))?;
    let drill = pidfd_open(drill, PidfdFlags::empty()).map_err(|error| fail("looking for the drill", &error))?;
    let name = std::ffi::CString::new(HOG).map_err(|error| fail("taking its name", &error))?;
    rustix::thread::set_name(&name).map_err(|error| fail("taking its name", &error))?;
    let ready = format!("{} {}", std::process::id(), clock::boot_us());
    fs::write(&hog.ready, ready).map_err(DrillError::file("writing", &hog.ready))?;
    while fs::remove_file(&hog.go).is_err() {
        if is_over(&drill, Some(POLL)) {
            return Ok(());
        }
    }
    let step = usize::try_from(GROWS_BY_BYTES / u64::from(STEPS_PER_S)).unwrap_or(usize::MAX);
    let mut held: Vec<Vec<u8>> = Vec::new();
    while (held.len() as u64).saturating_mul(step as u64) < hog.most_bytes {
        // Written to: what nobody has touched takes no memory.
        held.push(black_box(vec![0xA5; step]));
        if is_over(&drill, Some(Duration::from_secs(1) / STEPS_PER_S)) {
            return Ok(());
        }
    }
    while !is_over(&drill, None) {}
    black_box(&held);
    Ok(())
}

/// Waits so long, or for ever, for the drill's end; whether it came.
fn is_over(drill: &OwnedFd, patience: Option<Duration>) -> bool {
    let patience = patience.and_then(|patience| Timespec::try_from(patience).ok());
    let mut ends = [PollFd::new(drill, PollFlags::IN)];
    // Interrupted, it is asked again.
    poll(&mut ends, patience.as_ref()).is_ok_and(|ready| ready > 0)
}

//! What our own program does when it keeps a service: three roles, one after the other.
//!
//! 1. `detach` starts `hold` and ends, so that no worker is its parent.
//! 2. `hold` is the keeper: a session of its own, the keep lock, the service's output, its end.
//! 3. `launch` writes down which process the service is and becomes the service. So there is no moment in which a service runs and nobody wrote it down.
//!
//! A keeper that is killed takes nothing with it: the service holds the FIFO of its output open by itself, so that writing neither fails nor, for 64 KiB,
//! waits, and the next driver that looks gives it a new keeper. What is lost is the exit code, which only a parent is told.

mod hold;
mod launch;
mod log;

use std::{fs, io, os::fd::RawFd};

/// The first descriptor that isn't a standard one.
const FIRST_FD: RawFd = 3;

/// Why a keeper ended in error. Nobody may be there to read it.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// It was called by hand.
    #[error(
        "'{0}' is no role of a keeper; hint: services are started by `oxpecker service apply`, never by this command"
    )]
    Role(String),
    /// It failed.
    #[error("keeping a service failed: {0}; hint: look at the service's log in the state directory")]
    Io(#[from] io::Error),
}

/// `oxpecker keep ROLE NAME`. Its standard input is a socket with orders; the name is for lists of processes only. The process may have no other
/// threads.
///
/// # Errors
/// Nothing could be kept. Whoever gave the orders was told, if they still listen.
pub fn main(role: &str) -> Result<(), KeepError> {
    match role {
        "detach" => {
            close_inherited()?;
            Ok(hold::detach()?)
        }
        "hold" => Ok(hold::main()?),
        "launch" => Ok(launch::main()?),
        other => Err(KeepError::Role(other.escape_default().to_string())),
    }
}

/// Closes what was open in whoever started the program: a service must not hold a listening socket or a lock of somebody else.
fn close_inherited() -> io::Result<()> {
    let listed = fs::read_dir("/proc/self/fd")?;
    let open: Vec<RawFd> = listed.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for fd in open.into_iter().filter(|fd| *fd >= FIRST_FD) {
        // The listing's own one is closed already.
        let _ = nix::unistd::close(fd);
    }
    Ok(())
}

//! What this host allows this user: tried, not guessed.

use std::process::{Command, Stdio};

use nix::sched::CloneFlags;

use super::{
    enter::{self, Root},
    plan::Abilities,
};
use crate::proof::identity::{Identity, find_on_path};

/// The namespaces of [`enter`](super::enter).
pub(super) const OWN: CloneFlags = CloneFlags::CLONE_NEWNS
    .union(CloneFlags::CLONE_NEWNET)
    .union(CloneFlags::CLONE_NEWPID)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWUTS);

/// Arguments for util-linux's `unshare`, for a user who may make user namespaces only.
pub(super) const UNSHARE_USER: &[&str] =
    &["--user", "--map-current-user", "--net", "--ipc", "--pid", "--fork", "--kill-child=KILL", "--"];

/// Tries it all. Nothing of it lasts.
pub(crate) fn find(identity: &Identity, root: &Root) -> Abilities {
    // Namespaces belong to a thread: those of this one end with it, and its mounts with them.
    let namespaces = std::thread::scope(|scope| scope.spawn(|| enter::enter(root)).join())
        .unwrap_or_else(|_| Err("the thread that tried it ended".to_owned()));
    let landlock = super::landlock::is_available();
    let user_namespaces = if namespaces.is_ok() { Ok(()) } else { try_user_namespaces(identity) };
    Abilities { namespaces, user_namespaces, landlock }
}

fn try_user_namespaces(identity: &Identity) -> Result<(), String> {
    let unshare = find_on_path("unshare").ok_or("util-linux's `unshare` is not on the PATH")?;
    let mut command = match &identity.setpriv {
        Some(setpriv) if identity.switch => {
            let mut command = Command::new(setpriv);
            command.args([&format!("--reuid={}", identity.uid), &format!("--regid={}", identity.gid)]);
            command.args(["--clear-groups", "--"]).arg(unshare);
            command
        }
        _ => Command::new(unshare),
    };
    let output = command.args(UNSHARE_USER).arg("true").stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("`unshare` does not start: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("user namespaces are not allowed: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

//! The leash: starts a program that is bound to a core and dies with the drill.
//!
//! `Command` can do neither without unsafe code between fork and exec; a process that sets both for itself and then becomes
//! the program can (both survive execve: prctl(2), sched_setaffinity(2)).

use std::{
    ffi::OsString,
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
};

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::{Deserialize, Serialize};

use crate::{DrillError, options::HelperCommand};

/// What is put on the leash.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Leash {
    /// The drill. A parent that died before the death signal was set would never be noticed otherwise.
    pub(crate) parent: i32,
    /// The core; none where the host has just one or the program may run anywhere.
    pub(crate) core: Option<usize>,
    /// The list of a control group's processes that it joins, and what it starts with it.
    #[serde(default)]
    pub(crate) group: Option<std::path::PathBuf>,
    /// The program.
    pub(crate) program: OsString,
    /// Its arguments.
    pub(crate) args: Vec<OsString>,
}

impl Leash {
    /// A program on the leash of this process.
    pub(crate) fn of(program: impl Into<OsString>, args: Vec<OsString>, core: Option<usize>) -> Self {
        Self {
            parent: i32::try_from(std::process::id()).unwrap_or(0),
            core,
            group: None,
            program: program.into(),
            args,
        }
    }

    /// The same in a control group.
    pub(crate) fn in_group(self, members: impl Into<Option<std::path::PathBuf>>) -> Self {
        Self { group: members.into(), ..self }
    }

    /// The command that puts it on.
    pub(crate) fn command(&self, helper: &HelperCommand) -> Result<tokio::process::Command, DrillError> {
        let spec = serde_json::to_string(self).map_err(|error| DrillError::helper("leash", error.to_string()))?;
        let mut command = tokio::process::Command::new(&helper.program);
        command.args(&helper.args).arg("leash").arg(spec).env_remove("OXPECKER_CONFIG");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Ok(command)
    }
}

pub(crate) fn run(leash: &Leash) -> Result<(), DrillError> {
    let fail = |what: &str, why: &dyn std::fmt::Display| DrillError::helper("leash", format!("{what}: {why}"));
    set_parent_process_death_signal(Some(Signal::TERM))
        .map_err(|error| fail("asking to die with the drill", &error))?;
    if getppid() != Pid::from_raw(leash.parent) {
        return Err(fail("starting", &"the drill is gone already"));
    }
    own_session();
    if let Some(core) = leash.core {
        bind_to(core).map_err(|error| fail("binding to the core", &error))?;
    }
    if let Some(group) = &leash.group {
        std::fs::write(group, "0").map_err(|error| fail("joining the control group", &error))?;
    }
    let error = Command::new(&leash.program).args(&leash.args).exec();
    Err(fail(&leash.program.to_string_lossy(), &error))
}

/// Gives the calling process a session of its own, as a service manager would: kernels with autogroup scheduling share the CPU
/// between sessions first, and PostgreSQL's backends have one each, so that services that share one would be starved for the
/// sake of the test. It also keeps a terminal's Ctrl-C away, which is for the drill to handle.
pub(crate) fn own_session() {
    // Refused only to the leader of a process group, which has what it needs.
    let _ = rustix::process::setsid();
}

/// Binds the calling thread, and what it starts from now on, to one core.
pub(crate) fn bind_to(core: usize) -> rustix::io::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores)
}

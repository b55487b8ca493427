//! Lines of the system's log, the kernel's and systemd's, as signs of how a boot ended.
//!
//! What the kernel, systemd and login managers print there has been stable for years; the phrases are from the kernel's `panic.c`, `oom_kill.c`, `watchdog.c`,
//! `hung_task.c`, `reboot.c`, `sysrq.c`, and from systemd's units and logind. They are never translated.

/// What a line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sign {
    /// The kernel gave up.
    Panic {
        /// Because memory ran out.
        out_of_memory: bool,
    },
    /// The kernel went wrong, and may have gone on.
    Oops,
    /// The kernel killed a process because the host's memory ran out.
    OomKill,
    /// The kernel killed a process because its own group's memory ran out: the host was not short of it.
    GroupOomKill,
    /// A processor or a task no longer moved.
    Lockup,
    /// The machine reported a fault of its own.
    HardwareError,
    /// Too hot to go on.
    Overheated,
    /// Somebody asked for a shutdown.
    ShutdownAsked,
    /// A shutdown came to its end.
    ShutdownDone,
    /// Somebody used the kernel's emergency keys.
    Sysrq,
}

/// Phrases, the most telling first: a line is what the first of them that it holds says.
const PHRASES: &[(&str, Sign)] = &[
    ("Kernel panic - not syncing: Out of memory", Sign::Panic { out_of_memory: true }),
    ("Kernel panic - not syncing: System is deadlocked on memory", Sign::Panic { out_of_memory: true }),
    ("Kernel panic - not syncing", Sign::Panic { out_of_memory: false }),
    ("sysrq: Trigger a crash", Sign::Sysrq),
    ("sysrq: Resetting", Sign::Sysrq),
    ("sysrq: Power Off", Sign::Sysrq),
    ("BUG: unable to handle", Sign::Oops),
    ("kernel BUG at ", Sign::Oops),
    ("general protection fault", Sign::Oops),
    ("Oops: ", Sign::Oops),
    ("Memory cgroup out of memory: Kill", Sign::GroupOomKill),
    ("Out of memory: Kill", Sign::OomKill),
    ("oom-kill:constraint=CONSTRAINT_MEMCG", Sign::GroupOomKill),
    ("oom-kill:constraint=", Sign::OomKill),
    ("soft lockup - CPU#", Sign::Lockup),
    ("hard LOCKUP", Sign::Lockup),
    ("self-detected stall on CPU", Sign::Lockup),
    ("detected stalls on CPUs", Sign::Lockup),
    ("blocked for more than ", Sign::Lockup),
    ("[Hardware Error]", Sign::HardwareError),
    ("Machine check events logged", Sign::HardwareError),
    ("critical temperature reached", Sign::Overheated),
    ("reboot: Restarting system", Sign::ShutdownDone),
    ("reboot: Power down", Sign::ShutdownDone),
    ("reboot: System halted", Sign::ShutdownDone),
    ("Reached target reboot.target", Sign::ShutdownDone),
    ("Reached target poweroff.target", Sign::ShutdownDone),
    ("Reached target halt.target", Sign::ShutdownDone),
    ("Reached target System Reboot", Sign::ShutdownDone),
    ("Reached target System Power Off", Sign::ShutdownDone),
    ("Reached target Power-Off", Sign::ShutdownDone),
    ("Reached target Reboot", Sign::ShutdownDone),
    ("Reached target final.target", Sign::ShutdownDone),
    ("Reached target Late Shutdown Services", Sign::ShutdownDone),
    ("The system will reboot now!", Sign::ShutdownAsked),
    ("The system will power off now!", Sign::ShutdownAsked),
    ("The system is going down for", Sign::ShutdownAsked),
    ("System is rebooting", Sign::ShutdownAsked),
    ("System is powering down", Sign::ShutdownAsked),
    ("System is halting", Sign::ShutdownAsked),
    ("Power key pressed", Sign::ShutdownAsked),
    ("systemctl reboot", Sign::ShutdownAsked),
    ("systemctl poweroff", Sign::ShutdownAsked),
    ("bin/reboot", Sign::ShutdownAsked),
    ("bin/shutdown", Sign::ShutdownAsked),
    ("bin/poweroff", Sign::ShutdownAsked),
    ("shutting down for system", Sign::ShutdownAsked),
];

/// What a line says; `None` where it is of another matter. `program`: who wrote it, such as `kernel`; empty where that is not known.
pub fn sign(program: &str, message: &str) -> Option<Sign> {
    // Its last line in a boot; it writes the same when it is only restarted, but then others follow, and the last minutes alone are looked at.
    if program == "systemd-journald" && message == "Journal stopped" {
        return Some(Sign::ShutdownDone);
    }
    let found = PHRASES.iter().find(|(phrase, _)| message.contains(phrase)).map(|(_, sign)| *sign)?;
    let of_kernel = !matches!(found, Sign::ShutdownAsked | Sign::ShutdownDone);
    // Anybody may write the kernel's words into the log: whose they are is known there.
    (program.is_empty() || program == "kernel" || !of_kernel).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_how_it_ended() {
        use Sign::{
            GroupOomKill, HardwareError, Lockup, OomKill, Oops, Overheated, Panic, ShutdownAsked, ShutdownDone, Sysrq,
        };
        for (program, line, expected) in [
            (
                "kernel",
                "Kernel panic - not syncing: Fatal exception in interrupt",
                Some(Panic { out_of_memory: false }),
            ),
            (
                "kernel",
                "Kernel panic - not syncing: Out of memory: system-wide panic_on_oom is enabled",
                Some(Panic { out_of_memory: true }),
            ),
            ("kernel", "BUG: unable to handle page fault for address: ffffffff", Some(Oops)),
            ("kernel", "Oops: 0002 [#1] SMP PTI", Some(Oops)),
            ("kernel", "Out of memory: Killed process 4711 (postgres) total-vm:1kB", Some(OomKill)),
            ("kernel", "Memory cgroup out of memory: Killed process 4711 (postgres)", Some(GroupOomKill)),
            ("kernel", "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null)", Some(OomKill)),
            ("kernel", "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null)", Some(GroupOomKill)),
            ("kernel", "watchdog: BUG: soft lockup - CPU#0 stuck for 23s! [postgres:99]", Some(Lockup)),
            ("kernel", "INFO: task postgres:99 blocked for more than 120 seconds.", Some(Lockup)),
            ("kernel", "mce: [Hardware Error]: Machine check events logged", Some(HardwareError)),
            ("kernel", "thermal thermal_zone0: critical temperature reached (105 C)", Some(Overheated)),
            ("kernel", "sysrq: Resetting", Some(Sysrq)),
            ("kernel", "reboot: Restarting system", Some(ShutdownDone)),
            ("systemd", "Reached target reboot.target - System Reboot.", Some(ShutdownDone)),
            ("systemd-journald", "Journal stopped", Some(ShutdownDone)),
            ("systemd-logind", "System is rebooting.", Some(ShutdownAsked)),
            ("sudo", "ann : TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/usr/sbin/reboot", Some(ShutdownAsked)),
            (
                "",
                "Mar  1 02:05:00 db kernel: [12.3] Kernel panic - not syncing: x",
                Some(Panic { out_of_memory: false }),
            ),
            ("app", "Kernel panic - not syncing: I only say so", None),
            ("app", "Out of memory: Killed process 1 (mine)", None),
            ("app", "Journal stopped", None),
            ("kernel", "eth0: link up", None),
            ("", "", None),
        ] {
            assert_eq!(sign(program, line), expected, "{program}: {line}");
        }
    }
}

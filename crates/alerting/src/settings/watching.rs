//! The thresholds of the rules about what stalls, what is taken away, and what is no longer seen.

use serde::{Deserialize, Serialize};

use super::{SettingsError, above, below, percent, range, seconds};

settings! {
    /// Rule `pressure-stalled`: what runs on the host stalls for its disks, for memory or for CPU time, no other rule explains it, and
    /// the database is slow.
    PressureStalled {
        /// All tasks stall for I/O in this part of the time, per cent.
        io_percent: f64 = 40.0,
        /// All stall for memory, while a quarter of it and more is free, per cent.
        memory_percent: f64 = 20.0,
        /// Some stall for a CPU, while the CPUs are not busy, per cent.
        cpu_percent: f64 = 80.0,
        /// The database counts as slow where our own query takes this long, milliseconds: it takes 2 to 5 on an idle host.
        canary_ms: f64 = 250.0,
        /// Or where so many active sessions wait.
        waiting: u32 = 10,
        /// For how long, seconds.
        for_s: f64 = 20.0,
        /// For how long it must be well, seconds.
        clear_s: f64 = 30.0,
    }
}

settings! {
    /// Rule `cpu-stolen`: the hypervisor gives much of the CPU to others.
    CpuStolen {
        /// Stolen share, per cent.
        steal_percent: f64 = 20.0,
        /// For how long, seconds.
        for_s: f64 = 60.0,
        /// Share below which it ends, per cent.
        clear_percent: f64 = 10.0,
        /// For how long it must stay below, seconds.
        clear_s: f64 = 60.0,
    }
}

settings! {
    /// Rule `clock-off`: the wall clock jumped, or the server's clock is another than ours.
    ClockOff {
        /// A jump of so much, seconds; less than two is no event.
        step_s: f64 = 5.0,
        /// The server's clock is off by so much, seconds.
        server_s: f64 = 5.0,
        /// For how long there must be neither, seconds.
        clear_s: f64 = 60.0,
    }
}

settings! {
    /// Rule `target-vanished`: something that was seen before is no longer seen.
    TargetVanished {
        /// For how long, seconds; and three times its longest pause.
        silent_s: f64 = 120.0,
    }
}

settings! {
    /// Rule `service-unhealthy`: a declared service does not answer its health check as it should.
    ServiceUnhealthy {
        /// For how long, seconds; counted from when PostgreSQL was back, where that was down.
        for_s: f64 = 60.0,
        /// For how long all must be healthy, seconds.
        clear_s: f64 = 10.0,
    }
}

settings! {
    /// Rule `guard-was-silent`: the guard did not watch for a while, and was not stopped in an orderly way.
    GuardWasSilent {
        /// Shorter silences are events only, seconds: a guard that is started again at once has missed next to nothing.
        longer_than_s: f64 = 60.0,
        /// For how long it must have watched again, seconds: one that is killed again and again is one episode.
        clear_s: f64 = 60.0,
    }
}

settings! {
    /// Rule `peer-silent`: nothing is heard of the guard of another host.
    PeerSilent {
        /// For how long, seconds: several times its `every`.
        silent_s: f64 = 60.0,
        /// For how long it must have been heard again, seconds.
        clear_s: f64 = 10.0,
    }
}

/// See [`super::RuleSettings::check`].
pub(super) fn check(settings: &super::RuleSettings) -> Result<(), SettingsError> {
    let p = &settings.pressure_stalled;
    percent("pressure-stalled.io_percent", p.io_percent)?;
    percent("pressure-stalled.memory_percent", p.memory_percent)?;
    percent("pressure-stalled.cpu_percent", p.cpu_percent)?;
    if !(1.0..=60_000.0).contains(&p.canary_ms) {
        return Err(range("pressure-stalled.canary_ms", p.canary_ms, "name 1 to 60000 milliseconds"));
    }
    if p.waiting == 0 {
        return Err(range("pressure-stalled.waiting", 0.0, "name 1 or more sessions"));
    }
    seconds("pressure-stalled.for_s", p.for_s)?;
    seconds("pressure-stalled.clear_s", p.clear_s)?;

    let s = &settings.cpu_stolen;
    percent("cpu-stolen.steal_percent", s.steal_percent)?;
    below("cpu-stolen.clear_percent", s.clear_percent, s.steal_percent)?;
    seconds("cpu-stolen.for_s", s.for_s)?;
    seconds("cpu-stolen.clear_s", s.clear_s)?;

    let c = &settings.clock_off;
    seconds("clock-off.step_s", c.step_s)?;
    seconds("clock-off.server_s", c.server_s)?;
    above("clock-off.server_s", c.server_s, 0.0)?;
    seconds("clock-off.clear_s", c.clear_s)?;

    let t = &settings.target_vanished;
    seconds("target-vanished.silent_s", t.silent_s)?;
    above("target-vanished.silent_s", t.silent_s, 9.0)?;
    seconds("service-unhealthy.for_s", settings.service_unhealthy.for_s)?;
    seconds("service-unhealthy.clear_s", settings.service_unhealthy.clear_s)?;

    let g = &settings.guard_was_silent;
    seconds("guard-was-silent.longer_than_s", g.longer_than_s)?;
    seconds("guard-was-silent.clear_s", g.clear_s)?;

    let p = &settings.peer_silent;
    seconds("peer-silent.silent_s", p.silent_s)?;
    above("peer-silent.silent_s", p.silent_s, 2.0)?;
    seconds("peer-silent.clear_s", p.clear_s)
}

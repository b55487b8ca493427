//! The thresholds of the rules that say who is about to hurt whom: connections, transactions, locks, disks, memory, archive, checkpoints.

use serde::{Deserialize, Serialize};

use super::{SettingsError, above, below, count, percent, range, seconds};

settings! {
    /// Rule `connections-surging`: many connections came in seconds, and more are there than in the hour before.
    ConnectionsSurging {
        /// Growth within the window from which it is a surge, per cent of `max_connections` less the reserved ones.
        grow_percent: f64 = 30.0,
        /// However small the limit is, so few new connections are no surge.
        least: u32 = 20,
        /// The window, seconds.
        window_s: f64 = 10.0,
        /// Critical where it goes on, half of the limit is used, and the rest lasts no longer than this at the rate seen, seconds.
        critical_s: f64 = 15.0,
        /// For how long they must not have grown by half of that any more, seconds.
        clear_s: f64 = 30.0,
    }
}

settings! {
    /// Rule `lock-queue`: sessions wait for locks, many or for long.
    LockQueue {
        /// How many waiting sessions are many.
        waiters: u32 = 10,
        /// How long the longest of many may have waited, seconds.
        waiters_s: f64 = 5.0,
        /// From when on that is critical, seconds.
        critical_s: f64 = 30.0,
        /// How long any session may wait, seconds.
        longest_s: f64 = 60.0,
        /// For how long there must be half as many, waiting half as long, seconds.
        clear_s: f64 = 5.0,
    }
}

settings! {
    /// Rule `transaction-idle`: a session does nothing, in a transaction that is open.
    TransactionIdle {
        /// How long it may, where nobody waits for it, seconds.
        idle_s: f64 = 600.0,
        /// How long it may where somebody does, seconds.
        blocking_s: f64 = 15.0,
        /// From how many on that wait it is critical.
        critical_blocks: u32 = 5,
        /// For how long none must be so, seconds.
        clear_s: f64 = 5.0,
    }
}

settings! {
    /// Rule `transaction-long`: a transaction is open for long, and that costs others.
    TransactionLong {
        /// How long it may be open, seconds.
        age_s: f64 = 3_600.0,
        /// From how many transactions on that began since it holds vacuum back, in millions. One that others wait for always counts.
        held_back_millions: f64 = 10.0,
        /// For how long none must be so, seconds.
        clear_s: f64 = 30.0,
    }
}

settings! {
    /// Rule `disk-filling`: a watched file system has little room or few inodes left, or will have none soon at the rate of the last minutes.
    DiskFilling {
        /// Free share below which it is low, per cent, of bytes or of inodes.
        available_percent: f64 = 10.0,
        /// Free share below which it is critical, per cent.
        critical_percent: f64 = 3.0,
        /// However small the share is, so many gibibytes are enough.
        ample_gib: u64 = 50,
        /// A forecast counts only where less than this is free, per cent.
        forecast_below_percent: f64 = 40.0,
        /// It is full within this time at the rate of the last fifteen minutes, seconds.
        full_within_s: f64 = 3_600.0,
        /// Critical where it is full within this time at the rate of the last five minutes, seconds.
        critical_within_s: f64 = 900.0,
        /// For how long it must be well, seconds.
        clear_s: f64 = 120.0,
    }
}

settings! {
    /// Rule `memory-filling`: memory runs out soon at the rate of the last two minutes.
    MemoryFilling {
        /// Within this time, seconds.
        full_within_s: f64 = 600.0,
        /// A forecast counts only where less than this is available, per cent.
        forecast_below_percent: f64 = 50.0,
        /// For how long it must be well, seconds.
        clear_s: f64 = 60.0,
    }
}

settings! {
    /// Rule `oom-killed`: the kernel killed a process for want of memory.
    OomKilled {
        /// For how long it must have killed none, seconds.
        clear_s: f64 = 300.0,
    }
}

settings! {
    /// Rule `archive-failing`: `archive_command` (or the archive's library) fails, or does not keep up.
    ArchiveFailing {
        /// For how long it may fail, seconds: it is tried again every minute at the most.
        failing_s: f64 = 90.0,
        /// How much WAL may wait for it, in mebibytes.
        behind_mib: u64 = 4_096,
        /// From how much on that is critical, in mebibytes.
        critical_mib: u64 = 32_768,
    }
}

settings! {
    /// Rule `checkpoints-frequent`: WAL fills `max_wal_size` so fast that checkpoints follow one another.
    CheckpointsFrequent {
        /// How many of them within ten minutes, by request, outnumbering those by time.
        requested: u32 = 10,
    }
}

/// See [`super::RuleSettings::check`].
pub(super) fn check(settings: &super::RuleSettings) -> Result<(), SettingsError> {
    let s = &settings.connections_surging;
    percent("connections-surging.grow_percent", s.grow_percent)?;
    if s.least == 0 {
        return Err(range("connections-surging.least", 0.0, "name 1 or more connections"));
    }
    if !(1.0..=60.0).contains(&s.window_s) {
        return Err(range("connections-surging.window_s", s.window_s, "name 1 to 60 seconds"));
    }
    seconds("connections-surging.critical_s", s.critical_s)?;
    seconds("connections-surging.clear_s", s.clear_s)?;

    let l = &settings.lock_queue;
    if l.waiters == 0 {
        return Err(range("lock-queue.waiters", 0.0, "name 1 or more sessions"));
    }
    seconds("lock-queue.waiters_s", l.waiters_s)?;
    seconds("lock-queue.critical_s", l.critical_s)?;
    above("lock-queue.critical_s", l.critical_s, l.waiters_s)?;
    seconds("lock-queue.longest_s", l.longest_s)?;
    above("lock-queue.longest_s", l.longest_s, 0.0)?;
    seconds("lock-queue.clear_s", l.clear_s)?;

    let i = &settings.transaction_idle;
    seconds("transaction-idle.idle_s", i.idle_s)?;
    below("transaction-idle.blocking_s", i.blocking_s, i.idle_s)?;
    if i.critical_blocks == 0 {
        return Err(range("transaction-idle.critical_blocks", 0.0, "name 1 or more sessions"));
    }
    seconds("transaction-idle.clear_s", i.clear_s)?;

    let t = &settings.transaction_long;
    seconds("transaction-long.age_s", t.age_s)?;
    above("transaction-long.age_s", t.age_s, 0.0)?;
    if !(0.0..=2_100.0).contains(&t.held_back_millions) {
        return Err(range("transaction-long.held_back_millions", t.held_back_millions, "name 0 to 2100 million"));
    }
    seconds("transaction-long.clear_s", t.clear_s)?;

    let d = &settings.disk_filling;
    percent("disk-filling.available_percent", d.available_percent)?;
    below("disk-filling.critical_percent", d.critical_percent, d.available_percent)?;
    percent("disk-filling.forecast_below_percent", d.forecast_below_percent)?;
    seconds("disk-filling.full_within_s", d.full_within_s)?;
    below("disk-filling.critical_within_s", d.critical_within_s, d.full_within_s)?;
    seconds("disk-filling.clear_s", d.clear_s)?;

    let m = &settings.memory_filling;
    seconds("memory-filling.full_within_s", m.full_within_s)?;
    percent("memory-filling.forecast_below_percent", m.forecast_below_percent)?;
    seconds("memory-filling.clear_s", m.clear_s)?;
    seconds("oom-killed.clear_s", settings.oom_killed.clear_s)?;

    let a = &settings.archive_failing;
    seconds("archive-failing.failing_s", a.failing_s)?;
    above("archive-failing.critical_mib", a.critical_mib as f64, a.behind_mib as f64)?;
    count("checkpoints-frequent.requested", settings.checkpoints_frequent.requested)
}

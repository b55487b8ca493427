//! The scratch server's configuration: our own files altogether, nothing of the restored ones.
//!
//! postgresql.auto.conf is always read from the data directory, so that one is emptied (see [`restored`](super::restored)). Settings that
//! belong to a database or a role are in the restored catalogues; [`session_options`] overrules those that matter.

use std::path::Path;

use pg_format::{ControlFile, Major, conf};

/// The port in the name of the socket; the directory is our own, so that it meets nobody.
pub(crate) const PORT: u16 = 5432;
/// How many sessions there can be: the checks' own and some to spare.
const MAX_CONNECTIONS: u32 = 20;
/// Replication origins that replay may meet: commits that a subscriber applied name theirs.
const ORIGINS: u32 = 256;
/// What PostgreSQL starts with when nothing says otherwise.
const LOCKS_PER_TRANSACTION: i32 = 64;
/// The server's own buffers; the rest is the kernel's cache.
const SHARED_BUFFERS: &str = "128MB";

/// What the user may want to be different.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wishes<'a> {
    /// `shared_preload_libraries`: libraries without which WAL can't be replayed, because it has records of theirs.
    pub(crate) preload: &'a [String],
    /// The timeline to follow, where that is not the backup's own.
    pub(crate) timeline: Option<u32>,
    /// `max_prepared_transactions` of the original after the backup, if it was changed.
    pub(crate) max_prepared: i32,
}

/// Whose statements a session runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Session {
    /// Our checks.
    Ours,
    /// The user's own queries.
    Users,
}

/// The options of every session: they outrank what the restored catalogues attach to databases and roles.
///
/// No library may be loaded, no event trigger run (from 17 on at login, before that on DDL), no check be cut short or blinded.
pub(crate) fn session_options(major: Major, whose: Session) -> String {
    let mut options = vec![
        "session_preload_libraries=",
        "local_preload_libraries=",
        "temp_tablespaces=",
        "default_tablespace=",
        "role=none",
        "statement_timeout=0",
        "lock_timeout=0",
        "idle_in_transaction_session_timeout=0",
        "default_transaction_read_only=off",
        "zero_damaged_pages=off",
        "ignore_system_indexes=off",
        "ignore_checksum_failure=off",
        "client_encoding=UTF8",
        "jit=off",
    ];
    if whose == Session::Ours {
        // Users' queries find their tables, and their triggers work, as they do in production.
        options.extend(["search_path=pg_catalog", "session_replication_role=replica"]);
    }
    if major >= Major::V14 {
        options.push("idle_session_timeout=0");
    }
    if major >= Major::V17 {
        options.extend(["event_triggers=off", "transaction_timeout=0"]);
    }
    options.into_iter().map(|option| format!("-c {option}")).collect::<Vec<_>>().join(" ")
}

/// postgresql.conf.
pub(crate) fn postgresql_conf(control: &ControlFile, conf_dir: &Path, run_dir: &Path, wishes: &Wishes<'_>) -> String {
    let major = control.major;
    let segments_mib = |count: u64| (u64::from(control.wal_segment_size) * count) >> 20;
    let path = |path: &Path| path.display().to_string();
    let mut text = String::from("# Written by oxpecker for a proof. The restored configuration is not used.\n");
    let mut set = |name: &str, value: &str| {
        let quoted = conf::quote(value.as_bytes());
        text.push_str(&format!("{name} = {}\n", String::from_utf8_lossy(&quoted)));
    };

    // Where it listens and who may come: nobody but us, in a directory of ours.
    set("listen_addresses", "");
    set("unix_socket_directories", &path(run_dir));
    set("unix_socket_permissions", "0700");
    set("port", &PORT.to_string());
    set("hba_file", &path(&conf_dir.join("pg_hba.conf")));
    set("ident_file", &path(&conf_dir.join("pg_ident.conf")));
    set("external_pid_file", "");
    set("ssl", "off");
    set("max_connections", &MAX_CONNECTIONS.to_string());

    // Nothing reaches out: no archive, no upstream, no subscription, no standby to wait for.
    set("archive_mode", "off");
    set("archive_command", "");
    set("archive_cleanup_command", "");
    set("recovery_end_command", "");
    set("primary_conninfo", "");
    set("primary_slot_name", "");
    set("synchronous_standby_names", "");
    set("max_wal_senders", "0");
    set("wal_level", "minimal");
    set("max_logical_replication_workers", "0");
    if major >= Major::V15 {
        set("archive_library", "");
        // A tablespace that is a directory of the data directory stops recovery otherwise.
        set("allow_in_place_tablespaces", "on");
    }
    if major <= Major::V15 {
        set("promote_trigger_file", "");
    }
    if major >= Major::V17 {
        set("sync_replication_slots", "off");
        set("summarize_wal", "off");
        set("event_triggers", "off");
    }

    // No code but PostgreSQL's own.
    set("shared_preload_libraries", &wishes.preload.join(","));
    set("session_preload_libraries", "");
    set("local_preload_libraries", "");
    set("jit", "off");
    set("temp_tablespaces", "");

    // Recovery ends at the end of the WAL that is there, on the backup's own timeline, and fails where it is not consistent by then.
    // Without hot standby no limit has to match the original's, except for prepared transactions, which outlive recovery.
    set("restore_command", "false");
    let timeline = wishes.timeline.map_or_else(|| "current".to_owned(), |timeline| timeline.to_string());
    set("recovery_target_timeline", &timeline);
    set("recovery_target_action", "promote");
    set("recovery_min_apply_delay", "0");
    set("hot_standby", "off");
    set("max_prepared_transactions", &control.max_prepared_transactions.max(wishes.max_prepared).max(0).to_string());
    set("max_locks_per_transaction", &control.max_locks_per_transaction.max(LOCKS_PER_TRANSACTION).to_string());
    set("max_replication_slots", &ORIGINS.to_string());
    if major >= Major::V18 {
        set("max_active_replication_origins", &ORIGINS.to_string());
    }
    set("track_commit_timestamp", if control.track_commit_timestamp { "on" } else { "off" });

    // Damage is to be found, not passed over.
    set("ignore_invalid_pages", "off");
    set("zero_damaged_pages", "off");
    set("ignore_checksum_failure", "off");
    set("ignore_system_indexes", "off");
    set("restart_after_crash", "off");

    // Small, quick, and gone afterwards.
    set("shared_buffers", SHARED_BUFFERS);
    set("huge_pages", "off");
    set("dynamic_shared_memory_type", "mmap");
    set("maintenance_work_mem", "64MB");
    set("work_mem", "16MB");
    set("max_worker_processes", "4");
    set("max_parallel_workers", "2");
    set("max_parallel_workers_per_gather", "1");
    set("autovacuum", "off");
    set("fsync", "off");
    set("synchronous_commit", "off");
    set("full_page_writes", "off");
    set("wal_init_zero", "off");
    set("wal_recycle", "off");
    set("min_wal_size", &format!("{}MB", segments_mib(2).max(32)));
    set("max_wal_size", &format!("{}MB", segments_mib(8).max(256)));
    set("checkpoint_timeout", "1h");

    // What it says, in the words that we look for.
    set("lc_messages", "C");
    set("log_timezone", "UTC");
    set("timezone", "UTC");
    set("logging_collector", "off");
    set("log_destination", "stderr");
    set("log_line_prefix", "%m [%p] ");
    set("log_min_messages", "warning");
    // No query of the user's goes into the log.
    set("log_min_error_statement", "panic");
    set("log_statement", "none");
    set("log_checkpoints", "off");
    set("cluster_name", "oxpecker proof");
    text
}

/// pg_hba.conf: whoever opens the socket, which only the server's user and root can.
pub(crate) const HBA: &str = "local all all trust\n";

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn control(major: Major) -> ControlFile {
        // The fields that matter here are few; the rest comes from a real file elsewhere.
        use pg_format::control::{Checkpoint, State, WalLevel};
        let checkpoint = Checkpoint {
            redo: model::Lsn(0),
            timeline: 1,
            previous_timeline: 1,
            full_page_writes: true,
            wal_level: None,
            next_xid: 3,
            next_oid: 16384,
            time: 0,
        };
        ControlFile {
            major,
            system_identifier: 1,
            control_version: major.control_version(),
            catalog_version: major.catalog_version(),
            state: State::InProduction,
            time: 0,
            checkpoint_lsn: model::Lsn(0),
            checkpoint,
            min_recovery_point: model::Lsn(0),
            min_recovery_timeline: 0,
            backup_start: model::Lsn(0),
            backup_end: model::Lsn(0),
            backup_end_required: false,
            wal_level: WalLevel::Replica,
            wal_log_hints: false,
            max_connections: 100,
            max_worker_processes: 8,
            max_wal_senders: 10,
            max_prepared_transactions: 7,
            max_locks_per_transaction: 256,
            track_commit_timestamp: false,
            block_size: 8192,
            segment_blocks: 131_072,
            wal_block_size: 8192,
            wal_segment_size: 64 << 20,
            data_checksum_version: 1,
            default_char_signedness: None,
        }
    }

    fn conf(major: Major) -> String {
        let preload = vec!["rmgr_one".to_owned(), "two".to_owned()];
        let (conf, run) = (PathBuf::from("/s/it's/conf"), PathBuf::from("/s/it's/run"));
        postgresql_conf(&control(major), &conf, &run, &Wishes { preload: &preload, ..Wishes::default() })
    }

    #[test]
    fn every_line_of_the_fence_is_there_for_each_major() {
        for major in Major::ALL {
            let text = conf(major);
            let has = |line: &str| text.lines().any(|it| it == line);
            for line in [
                "listen_addresses = ''",
                "hba_file = '/s/it''s/conf/pg_hba.conf'",
                "ident_file = '/s/it''s/conf/pg_ident.conf'",
                "external_pid_file = ''",
                "unix_socket_directories = '/s/it''s/run'",
                "archive_mode = 'off'",
                "logging_collector = 'off'",
                "primary_conninfo = ''",
                "primary_slot_name = ''",
                "recovery_end_command = ''",
                "archive_cleanup_command = ''",
                "max_logical_replication_workers = '0'",
                "shared_preload_libraries = 'rmgr_one,two'",
                "session_preload_libraries = ''",
                "temp_tablespaces = ''",
                "ignore_invalid_pages = 'off'",
                "zero_damaged_pages = 'off'",
                "hot_standby = 'off'",
                "max_prepared_transactions = '7'",
                "max_locks_per_transaction = '256'",
                "autovacuum = 'off'",
                "jit = 'off'",
                "huge_pages = 'off'",
                "fsync = 'off'",
                "max_wal_size = '512MB'",
            ] {
                assert!(has(line), "{major:?}: {line}\n{text}");
            }
            let number = major.number();
            assert_eq!(has("sync_replication_slots = 'off'"), number >= 17, "{major:?}");
            assert_eq!(has("event_triggers = 'off'"), number >= 17, "{major:?}");
            assert_eq!(session_options(major, Session::Users).contains("-c event_triggers=off"), number >= 17);
            assert_eq!(text.contains("promote_trigger_file"), number <= 15);
            assert_eq!(text.contains("archive_library"), number >= 15);
        }
    }

    #[test]
    fn no_setting_is_there_twice() {
        for major in Major::ALL {
            let text = conf(major);
            let mut names: Vec<&str> = text.lines().filter_map(|line| line.split_once(" = ")).map(|it| it.0).collect();
            let all = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), all, "{major:?}");
        }
    }
}

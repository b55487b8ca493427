//! Asking the server and the host which levers there are.

use std::path::{Path, PathBuf};

use model::{Pid, ProcessId, event::CostSetting};
use tokio_postgres::Client;

use super::{
    Availability, Server, blocker,
    configuration::{
        FileEntry, Included, effective, effective_limit, former, included_by_probe, included_by_text, milliseconds,
    },
    judge,
};
use crate::{
    host_process::{self, Role},
    include_file::{self, DELAY_NAME, LIMIT_NAME, PROBE_NAME},
    include_writer::IncludeWriter,
    undo::{bounded, off_thread},
};

/// Looks for the levers. With `may_write` the include file is written (with a setting that has no effect) to see whether the
/// server reads it and whether something overrides it; without, its configuration is only looked at.
///
/// # Errors
/// The server did not answer, in words.
pub(crate) async fn detect(
    client: &Client,
    include: &Path,
    writer: &IncludeWriter,
    may_write: bool,
) -> Result<Availability, String> {
    let basics = bounded(client.query_one(
        "SELECT current_setting('server_version_num')::int, pg_backend_pid(), current_database()::text, \
            (SELECT pid FROM pg_stat_activity WHERE backend_type = 'autovacuum launcher' LIMIT 1), \
            (SELECT count(*) FROM pg_database WHERE datallowconn)::int, \
            coalesce((SELECT rolsuper FROM pg_roles WHERE rolname = current_user), false), \
            has_function_privilege('pg_catalog.pg_reload_conf()', 'execute'), \
            coalesce(current_setting('allow_alter_system', true), 'on'), \
            EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'Patroni'), \
            pg_is_in_recovery(), \
            has_function_privilege('pg_catalog.pg_show_all_file_settings()', 'execute') \
                AND has_table_privilege('pg_catalog.pg_file_settings', 'select')",
        &[],
    ))
    .await?;
    let major = u32::try_from(basics.get::<_, i32>(0)).unwrap_or(0) / 10_000;
    let superuser: bool = basics.get(5);
    let may_reload: bool = basics.get(6);
    let settings = bounded(client.query(
        "SELECT name, setting, boot_val, source FROM pg_settings WHERE name IN ('autovacuum', 'autovacuum_naptime', \
            'autovacuum_vacuum_cost_limit', 'autovacuum_vacuum_cost_delay', 'vacuum_cost_limit', 'vacuum_cost_delay', \
            'data_directory', 'config_file')",
        &[],
    ))
    .await?;
    let row = |name: &str| settings.iter().find(|row| row.get::<_, &str>(0) == name);
    let text = |name: &str, column: usize| row(name).and_then(|row| row.get::<_, Option<String>>(column));
    let number = |name: &str, column: usize| text(name, column).and_then(|v| v.parse::<f64>().ok());

    let data_dir = text("data_directory", 1).map(PathBuf::from);
    let config_file = text("config_file", 1).map(PathBuf::from);
    let postmaster = local_postmaster(Pid(basics.get(1)), data_dir.as_deref());
    let may_signal = postmaster.is_some_and(|id| host_process::may_signal(id.pid));
    let owner = postmaster.and_then(|id| host_process::owner(id.pid));
    let launcher = basics
        .get::<_, Option<i32>>(3)
        .and_then(|pid| host_process::identify(Pid(pid)))
        .filter(|id| postmaster.is_some() && host_process::is_still(*id, Role::Launcher));

    let may_read_files: bool = basics.get(10);
    let probes = may_write && postmaster.is_some();
    let probed = if probes { writer.put_harmless(include, include_file::probe_content(), owner).await } else { Ok(()) };
    let entries = if may_read_files { Some(file_entries(client).await?) } else { None };
    if probes && probed.is_ok() {
        writer.put_harmless(include, include_file::NEUTRAL.to_owned(), owner).await?;
    }
    // A role that may not know where the data is still runs beside it.
    let data_dir = data_dir.or_else(|| postmaster.and_then(|id| host_process::working_directory(id.pid)));
    let found = {
        let (include, config_file) = (include.to_owned(), config_file.clone());
        off_thread(move || Ok::<_, String>(FoundFiles::look(&include, config_file.as_deref(), data_dir.as_deref())))
            .await?
    };

    let in_effect = CostSetting {
        limit: effective_limit(number(LIMIT_NAME, 1), number("vacuum_cost_limit", 1)),
        delay_ms: effective(number(DELAY_NAME, 1), number("vacuum_cost_delay", 1), 0.0),
    };
    let configured = entries.as_ref().map_or(in_effect, |entries| {
        let own = include.display().to_string();
        let last = |name: &str| {
            let owned_elsewhere = text(name, 3).is_some_and(|source| source == "command line");
            let entry = entries.iter().rev().find(|entry| entry.name == name && entry.file != own);
            match entry {
                Some(entry) if !owned_elsewhere => milliseconds(&entry.value),
                _ if owned_elsewhere => number(name, 1),
                _ => number(name, 2),
            }
        };
        CostSetting {
            limit: effective_limit(last(LIMIT_NAME), last("vacuum_cost_limit")),
            delay_ms: effective(last(DELAY_NAME), last("vacuum_cost_delay"), 0.0),
        }
    });

    let mut limitations = Vec::new();
    if postmaster.is_none() {
        limitations.push(
            "the server's processes are not visible from here: it is remote or in another PID namespace".to_owned(),
        );
    } else if !may_signal {
        limitations
            .push("the server's processes can't be signalled: run as root, as its user or with CAP_KILL".to_owned());
    }
    if found.on_tmpfs == Some(false) {
        limitations.push(format!(
            "{} is not on a tmpfs: a throttle would outlive a reboot until the next start",
            include.display()
        ));
    }
    if configured != in_effect {
        limitations.push(format!(
            "the server's files say {configured}, it runs with {in_effect}: it was not reloaded since, or SELECT pg_reload_conf() is due"
        ));
    }
    let server = Server {
        major,
        postmaster,
        may_signal,
        launcher,
        owner,
        databases: u32::try_from(basics.get::<_, i32>(4)).unwrap_or(1).max(1),
        naptime_s: number("autovacuum_naptime", 1).unwrap_or(60.0),
        configured,
        former: entries.as_deref().map(former),
        config_file: config_file.clone(),
        database: basics.get(2),
        limitations,
    };

    let blocked = blocker(
        major,
        basics.get(9),
        text("autovacuum", 1).as_deref(),
        [LIMIT_NAME, DELAY_NAME].into_iter().find(|name| text(name, 3).as_deref() == Some("command line")),
        basics.get::<_, bool>(8) || found.patroni,
    );
    let text = found.configuration.as_deref();
    let included: Included = match (probed, &entries) {
        (Err(error), _) => Err(error),
        (Ok(()), Some(entries)) if probes => included_by_probe(entries, include),
        (Ok(()), Some(entries)) => included_by_text(entries, text, include),
        (Ok(()), None) => included_by_text(&[], text, include),
    };
    if may_write && included.is_err() {
        // Nobody reads it, so it must not lie about.
        writer.remove(include).await?;
    }
    let mut alter = alter_blocker(client, major, superuser, basics.get::<_, &str>(7), may_read_files).await?;
    if alter.is_ok() && !may_signal && !may_reload {
        alter = Err("the role may neither signal the server nor execute pg_reload_conf()".to_owned());
    }
    let levers = judge(&server, blocked.as_deref(), &included, alter, may_reload);
    Ok(Availability { levers, server })
}

async fn alter_blocker(
    client: &Client,
    major: u32,
    superuser: bool,
    allowed: &str,
    may_read_files: bool,
) -> Result<Result<(), String>, String> {
    if allowed == "off" {
        return Ok(Err("allow_alter_system is off: someone else manages this server's configuration".to_owned()));
    }
    if !may_read_files {
        return Ok(Err(
            "the role may not read pg_file_settings, so what ALTER SYSTEM would overwrite can't be recorded".to_owned(),
        ));
    }
    if superuser {
        return Ok(Ok(()));
    }
    if major < 15 {
        return Ok(Err("ALTER SYSTEM needs a superuser before 15".to_owned()));
    }
    let query = "SELECT has_parameter_privilege($1, 'ALTER SYSTEM') AND has_parameter_privilege($2, 'ALTER SYSTEM')";
    let granted: bool = bounded(client.query_one(query, &[&LIMIT_NAME, &DELAY_NAME])).await?.get(0);
    Ok(if granted {
        Ok(())
    } else {
        Err(format!("the role may not (hint: GRANT ALTER SYSTEM ON PARAMETER {LIMIT_NAME}, {DELAY_NAME} TO it)"))
    })
}

async fn file_entries(client: &Client) -> Result<Vec<FileEntry>, String> {
    let query = "SELECT name, coalesce(setting, ''), sourcefile, seqno FROM pg_file_settings \
        WHERE name = ANY ($1) AND sourcefile IS NOT NULL ORDER BY seqno";
    let names = vec![LIMIT_NAME, DELAY_NAME, "vacuum_cost_limit", "vacuum_cost_delay", PROBE_NAME];
    let rows = bounded(client.query(query, &[&names])).await?;
    Ok(rows.iter().map(|r| FileEntry { name: r.get(0), value: r.get(1), file: r.get(2), seq: r.get(3) }).collect())
}

/// What the host's files say.
struct FoundFiles {
    on_tmpfs: Option<bool>,
    /// The text of the main configuration file, where it is known and may be read.
    configuration: Option<String>,
    patroni: bool,
}

impl FoundFiles {
    fn look(include: &Path, config_file: Option<&Path>, data_dir: Option<&Path>) -> Self {
        Self {
            on_tmpfs: include_file::is_on_tmpfs(include),
            configuration: config_file.and_then(|file| std::fs::read_to_string(file).ok()),
            patroni: data_dir.is_some_and(is_patroni),
        }
    }
}

fn is_patroni(data_dir: &Path) -> bool {
    ["patroni.dynamic.json", "postgresql.base.conf"].iter().any(|name| data_dir.join(name).exists())
}

/// The parent of our own backend, if it is a postmaster that works in that data directory (where the role may know it).
fn local_postmaster(backend: Pid, data_dir: Option<&Path>) -> Option<ProcessId> {
    let parent = host_process::stat(backend)?.parent;
    let id = host_process::identify(parent)?;
    let there = host_process::working_directory(parent);
    let same = match (data_dir, there) {
        (Some(expected), Some(actual)) => {
            std::fs::canonicalize(expected).is_ok_and(|e| e == actual) || expected == actual
        }
        // Either is hidden from us: the pid of a remote backend could be a local stranger's, but hardly a postmaster's child.
        _ => true,
    };
    (same && host_process::is_still(id, Role::Postmaster)).then_some(id)
}

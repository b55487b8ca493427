//! Is the data still there afterwards? Asked of a running server.

use super::{ask_the_primary, of, server, set};
use crate::{
    Severity,
    checks::{Check, Family, data::KEEP_THE_LOG, shows},
    facts::{BackupTool, Disk, Facts, LiveSettings, Server, Source, versions},
    finding::{Evidence, Finding, Place, Remedy},
    quantity::human,
    words::{list, quoted, shown},
};

pub(in crate::checks) const CHECKS: &[Check] =
    &[DAMAGE_IGNORED, RESTART_FAILS, ARCHIVE_FAILS, SLOT, DISK_FULL, PENDING];

const GIB: u64 = 1 << 30;

/// Who receives WAL to keep it, by what they call themselves; standbys keep nothing.
const RECEIVERS: &[&str] = &["pg_receivewal", "barman", "oxpecker", "wal-g", "pghoard", "pg_basebackup"];

/// What of a backup can be seen from here, and what could not be looked at.
struct Signs {
    seen: Vec<Evidence>,
    unseen: Vec<String>,
    /// Something keeps the log as well.
    log: bool,
}

fn signs(facts: &Facts, server: &Server, settings: &LiveSettings) -> Signs {
    let mut signs = Signs { seen: vec![], unseen: vec![], log: false };
    if settings.text("archive_mode").is_some_and(|mode| mode != "off") && !archives_nothing(settings) {
        signs.seen.push(settings.evidence("archive_mode"));
        signs.log = true;
    }
    match &server.senders {
        Ok(senders) => {
            let keeps = senders.iter().find(|sender| RECEIVERS.iter().any(|name| sender.application.contains(name)));
            if let Some(sender) = keeps {
                signs.seen.push(shows(&server.here(), format!("{} receives the log", sender.application)));
                signs.log = true;
            }
        }
        Err(why) => signs.unseen.push(format!("who receives the log ({why})")),
    }
    for backup in &facts.backups {
        signs.log |= backup.tool == BackupTool::Physical;
        signs.seen.push(shows(&backup.place, backup.object.clone()));
    }
    if let Some(host) = &facts.host {
        match &host.postmaster {
            Ok(_) => signs.seen.extend(host.backup_jobs.iter().cloned()),
            Err(why) => signs.unseen.push(format!("jobs on the server's machine ({why})")),
        }
        match &host.pgbackrest {
            Some(Ok(stanzas)) => {
                let with = stanzas.iter().filter(|stanza| stanza.newest.is_some());
                signs.seen.extend(with.map(|stanza| {
                    shows(
                        &Place { file: "pgbackrest info".into(), line: 0 },
                        format!("stanza {} has backups", stanza.name),
                    )
                }));
            }
            Some(Err(why)) => signs.unseen.push(why.clone()),
            None => {}
        }
    }
    signs
}

pub(super) fn backup(facts: &Facts) -> Vec<Finding> {
    let Some((server, settings)) = server(facts) else { return vec![] };
    let check = of("no-backup");
    if server.identity.standby {
        return ask_the_primary(check, server);
    }
    let signs = signs(facts, server, settings);
    if !signs.seen.is_empty() {
        return vec![];
    }
    let mut message = format!(
        "{}: no sign of a backup: its log is neither archived nor received, and no job, repository or tool was seen that copies it",
        server.object()
    );
    if !signs.unseen.is_empty() {
        message += &format!(". Not seen: {}", list(&signs.unseen, 4));
    }
    let remedy = Remedy::Command(
        "oxpecker backup init && oxpecker backup create && oxpecker backup prove  # then [backup] schedule in oxpecker.toml".to_owned(),
    );
    let finding = check.found(server.object(), message, vec![settings.evidence("archive_mode")], remedy);
    // A dump that another machine takes leaves no trace here.
    vec![if signs.unseen.is_empty() { finding } else { finding.at_most(Severity::High) }]
}

pub(super) fn archive_off(facts: &Facts) -> Vec<Finding> {
    let Some((server, settings)) = server(facts) else { return vec![] };
    let check = of("archive-off");
    if server.identity.standby {
        return ask_the_primary(check, server);
    }
    let signs = signs(facts, server, settings);
    // With no backup at all, that is what has to be said.
    if signs.log || signs.seen.is_empty() || !settings.is_off("archive_mode") {
        return vec![];
    }
    let mut shown = vec![settings.evidence("archive_mode")];
    if settings.text("wal_level") == Some("minimal") {
        shown.push(settings.evidence("wal_level"));
    }
    let message = format!("{} keeps no log: no moment between two backups can be brought back", server.object());
    vec![check.found(server.object(), message, shown, Remedy::Advice(KEEP_THE_LOG.to_owned()))]
}

/// Nothing is set, so that segments wait for ever; or what is set throws them away.
fn archives_nothing(settings: &LiveSettings) -> bool {
    let library = settings.text("archive_library").is_some_and(|library| !library.is_empty());
    // The server shows "(disabled)" where archive_mode is off.
    let command = settings.text("archive_command").map(str::trim);
    !library
        && command.is_some_and(|command| {
            command.is_empty() || command == "(disabled)" || crate::checks::archive::throws_away(command)
        })
}

pub(super) fn archive_nowhere(facts: &Facts) -> Vec<Finding> {
    let Some((server, settings)) = server(facts) else { return vec![] };
    if settings.text("archive_mode").is_none_or(|mode| mode == "off") || !archives_nothing(settings) {
        return vec![];
    }
    let finding = crate::checks::archive::nowhere(
        server.object(),
        settings.text("archive_command").unwrap_or_default(),
        vec![settings.evidence("archive_mode"), settings.evidence("archive_command")],
    );
    vec![finding]
}

pub(super) fn fsync(facts: &Facts) -> Vec<Finding> {
    off(facts, "fsync-off", "fsync", "a crash of the host can damage any part of the database without a trace")
}

pub(super) fn full_pages(facts: &Facts) -> Vec<Finding> {
    off(
        facts,
        "full-page-writes-off",
        "full_page_writes",
        "a page that was being written when the host went down stays half old, half new",
    )
}

fn off(facts: &Facts, id: &str, name: &str, means: &str) -> Vec<Finding> {
    let Some((server, settings)) = server(facts) else { return vec![] };
    if !settings.is_off(name) {
        return vec![];
    }
    let remedy = set(server, settings, &[(name, "on".to_owned())]);
    vec![of(id).found(
        server.object(),
        format!("{}: {name} is off: {means}", server.object()),
        vec![settings.evidence(name)],
        remedy,
    )]
}

pub(super) fn checksums(facts: &Facts) -> Vec<Finding> {
    let Some((server, settings)) = server(facts) else { return vec![] };
    if !settings.is_off("data_checksums") {
        return vec![];
    }
    let data = settings.text("data_directory").map_or_else(|| "\"$PGDATA\"".to_owned(), quoted);
    let remedy = match server.major() {
        ..12 => Remedy::Advice("This version can't add them: the next one can (pg_checksums of 12 and later), or initdb --data-checksums for the new cluster.".to_owned()),
        _ => Remedy::Command(format!(
            "pg_checksums --enable --progress -D {data}  # with the server stopped; it reads and writes every file once. Standbys: stop all, enable on each"
        )),
    };
    let message =
        format!("{} has no data checksums: damage by the disk is read, believed and backed up", server.object());
    vec![of("no-checksums").found(server.object(), message, vec![settings.evidence("data_checksums")], remedy)]
}

pub(super) fn end_of_life(facts: &Facts) -> Vec<Finding> {
    let Some(server) = facts.live_server() else { return vec![] };
    let check = of("end-of-life");
    let Some(end) = versions::end(server.major()) else {
        let why = format!("PostgreSQL {} is not in the table of {}", server.major(), versions::KNOWN);
        return vec![check.open(server.object(), why, &server.here())];
    };
    if end >= facts.today {
        return vec![];
    }
    let message = format!("{} is PostgreSQL {}, whose support ended on {end}", server.object(), server.major());
    let evidence = shows(&server.here(), format!("server_version_num = {}", server.identity.version));
    vec![check.found(
        server.object(),
        message,
        vec![evidence],
        Remedy::Advice(crate::checks::versions::GO_UP.to_owned()),
    )]
}

pub(super) fn outdated_minor(facts: &Facts) -> Vec<Finding> {
    let Some(server) = facts.live_server() else { return vec![] };
    let evidence = shows(&server.here(), format!("server_version_num = {}", server.identity.version));
    crate::checks::versions::minor(facts, server.object(), server.major(), server.minor(), evidence)
        .into_iter()
        .collect()
}

pub(super) fn same_disk(facts: &Facts) -> Vec<Finding> {
    let found = || {
        let server = facts.live_server()?;
        let disks = facts.host.as_ref()?.disks.as_ref().ok()?;
        let of_role = |role: &str| disks.iter().find(|disk| disk.role == role);
        let (data, repository) = (of_role("data")?, of_role("repository")?);
        if data.device != repository.device {
            return None;
        }
        let message =
            format!("the repository {} lies on the file system of the data directory {}", repository.path, data.path);
        let evidence = [data, repository]
            .map(|disk| shows(&Place { file: disk.path.as_str().into(), line: 0 }, format!("device {}", disk.device)));
        let remedy =
            Remedy::Advice("Give [repository] a url on another disk, another machine or an object store.".to_owned());
        Some(of("backup-on-same-volume").found(server.object(), message, evidence.to_vec(), remedy))
    };
    found().into_iter().collect()
}

const DAMAGE_IGNORED: Check = Check {
    id: "damage-ignored",
    title: "The server was told to overlook damage",
    family: Family::Data,
    severity: Severity::Critical,
    needs: &[Source::LiveSettings],
    reason: "After the crash the question was whether the volume was sound. These settings answer it with yes, whatever the disk says: damaged pages are emptied or \
             taken as they are, and the next backup has them.",
    limits: "They are for one rescue of what can be read, on a copy.",
    run: damage_ignored,
};

fn damage_ignored(facts: &Facts) -> Vec<Finding> {
    let Some((server, settings)) = server(facts) else { return vec![] };
    let on: Vec<&str> = ["zero_damaged_pages", "ignore_checksum_failure", "ignore_invalid_pages"]
        .into_iter()
        .filter(|name| settings.text(name) == Some("on"))
        .collect();
    if on.is_empty() {
        return vec![];
    }
    let values: Vec<(&str, String)> = on.iter().map(|name| (*name, "off".to_owned())).collect();
    let evidence = on.iter().map(|name| settings.evidence(name)).collect();
    let message = format!("{}: {} on: damaged pages are overlooked", server.object(), list(&on, 3));
    vec![DAMAGE_IGNORED.found(server.object(), message, evidence, set(server, settings, &values))]
}

const RESTART_FAILS: Check = Check {
    id: "restart-would-fail",
    title: "The server would not start again",
    family: Family::Data,
    severity: Severity::High,
    needs: &[Source::LiveFiles],
    reason: "The watchdog restarted the node in the middle of the outage. A line that the running server has never had to read is read then, and a database that does not \
             come up is an outage of its own.",
    limits: "The server's own judgement of its files as they are now (pg_file_settings, pg_hba_file_rules); values that are sound but too large show only at a start.",
    run: restart_fails,
};

fn restart_fails(facts: &Facts) -> Vec<Finding> {
    let Some(server) = facts.live_server() else { return vec![] };
    let Ok(faults) = &server.faults else { return vec![] };
    let findings = faults.iter().map(|fault| {
        let file = fault.file.as_deref().unwrap_or("a configuration file");
        let place = match &fault.file {
            Some(file) => Place { file: crate::words::shown_path(file).into(), line: fault.line.unwrap_or(0) },
            None => server.here(),
        };
        let name = fault.name.as_deref().map(|name| format!("{}: ", shown(name))).unwrap_or_default();
        let base = shown(file.rsplit('/').next().unwrap_or(file));
        let message = format!(
            "{}: {base} has a line that it could not start with: {name}{}",
            server.object(),
            shown(&fault.error)
        );
        let remedy = Remedy::Advice(format!(
            "Mend {place}, then SELECT pg_reload_conf(), and look at pg_file_settings again: it should have no error."
        ));
        RESTART_FAILS.found(
            format!("{}: {base}:{}", server.object(), fault.line.unwrap_or(0)),
            message,
            vec![shows(&place, format!("{name}{}", fault.error))],
            remedy,
        )
    });
    findings.collect()
}

const ARCHIVE_FAILS: Check = Check {
    id: "archive-failing",
    title: "The log can't be put away",
    family: Family::Data,
    severity: Severity::High,
    needs: &[Source::LiveArchiver],
    reason: "What can't be put away is kept, until the disk is full and the server stops; and no moment since the last success can be brought back. Nobody had \
             looked whether backups were made.",
    limits: "The archiver's own count since its statistics were reset. On a standby it archives only with archive_mode = always.",
    run: archive_fails,
};

fn archive_fails(facts: &Facts) -> Vec<Finding> {
    let Some(server) = facts.live_server() else { return vec![] };
    let Ok(archiver) = &server.archiver else { return vec![] };
    let Some(failed) = archiver.since_failed else { return vec![] };
    if archiver.since_archived.is_some_and(|archived| archived <= failed) {
        return vec![];
    }
    let last = archiver.since_archived.map_or("none has ever succeeded".to_owned(), |seconds| {
        format!("the last success was {:.0} min ago", seconds / 60.0)
    });
    let message = format!(
        "{}: {} attempts to archive failed, the newest {:.0} min ago; {last}",
        server.object(),
        archiver.failed,
        failed / 60.0
    );
    let evidence = shows(
        &server.here(),
        format!("pg_stat_archiver: archived_count = {}, failed_count = {}", archiver.archived, archiver.failed),
    );
    let remedy = Remedy::Advice("The server's log has the words of archive_command: mend what it says, run the command by hand for one segment, and watch pg_stat_archiver go on.".to_owned());
    vec![ARCHIVE_FAILS.found(server.object(), message, vec![evidence], remedy)]
}

const SLOT: Check = Check {
    id: "slot-without-cap",
    title: "Somebody else's absence may fill the disk",
    family: Family::Data,
    severity: Severity::High,
    needs: &[Source::LiveSettings, Source::LiveSlots],
    reason: "A replication slot keeps the log for a receiver that may never come back. With a full disk the server stops, and what was to protect the data is the \
             outage.",
    limits: "Medium while every receiver is there; high when one is away and the log for it has grown to a gigabyte, or when a slot was lost already.",
    run: slot,
};

fn slot(facts: &Facts) -> Vec<Finding> {
    let Some((server, settings)) = server(facts) else { return vec![] };
    let Ok(slots) = &server.slots else { return vec![] };
    let uncapped = settings.number("max_slot_wal_keep_size") == Some(-1);
    let findings = slots.iter().filter_map(|slot| {
        let name = shown(&slot.name);
        let object = format!("{}: slot {name}", server.object());
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped; a size for people")]
        let held = slot.held.unwrap_or(0.0).clamp(0.0, 1e18) as u64;
        let said = format!("active: {}, holds {}, {}", slot.active, human(held), slot.wal_status.as_deref().unwrap_or("no log"));
        if slot.wal_status.as_deref() == Some("lost") {
            let remedy = Remedy::Advice(format!("Let its receiver begin anew (a new backup or standby), then drop it: SELECT pg_drop_replication_slot('{}').", name.replace('\'', "''")));
            return Some(SLOT.found(object, format!("slot {name} is lost: its receiver has a gap in the log and can't go on"), vec![shows(&server.here(), said)], remedy));
        }
        if !uncapped {
            return None;
        }
        let cap = facts.host.as_ref().and_then(|host| host.disks.as_ref().ok()).and_then(|disks| disks.iter().find(|disk| disk.role == "wal")).map_or(10, |disk| (disk.free / 2 / GIB).max(1));
        let remedy = set(server, settings, &[("max_slot_wal_keep_size", format!("{cap}GB"))]);
        let away = if slot.active { "if its receiver stays away" } else { "and its receiver is away" };
        let message = format!("slot {name} may keep log until the disk is full, {away}");
        let finding = SLOT.found(object, message, vec![settings.evidence("max_slot_wal_keep_size"), shows(&server.here(), said)], remedy);
        Some(if slot.active || held < GIB { finding.at_most(Severity::Medium) } else { finding })
    });
    findings.collect()
}

const DISK_FULL: Check = Check {
    id: "disk-nearly-full",
    title: "The database's disk is almost full",
    family: Family::Data,
    severity: Severity::High,
    needs: &[Source::LiveDisks],
    reason: "A server that can't write its log stops at once, and a vacuum that has been put off is what needs the room. Nobody would have been told: there was no alert \
             on disks.",
    limits: "Looks once, now: less than a tenth free (high from a twentieth), or less than max_wal_size where the log lies.",
    run: disk_full,
};

fn disk_full(facts: &Facts) -> Vec<Finding> {
    let Some(server) = facts.live_server() else { return vec![] };
    let disks = facts.host.as_ref().and_then(|host| host.disks.as_ref().ok()).map_or(&[][..], Vec::as_slice);
    let wal = server.settings.as_ref().ok().and_then(|settings| settings.bytes("max_wal_size")).unwrap_or(0);
    let mut told: Vec<u64> = Vec::new();
    let mut findings = Vec::new();
    let full = |disk: &&Disk| disk.free < disk.size / 10 || (disk.role == "wal" && disk.free < wal);
    for disk in disks.iter().filter(full) {
        if told.contains(&disk.device) {
            continue;
        }
        told.push(disk.device);
        let message = format!(
            "{}: {} of {} are free where {} lies",
            server.object(),
            human(disk.free),
            human(disk.size),
            disk.path
        );
        let evidence = shows(
            &Place { file: disk.path.as_str().into(), line: 0 },
            format!("free: {} of {}", human(disk.free), human(disk.size)),
        );
        let remedy = Remedy::Advice("Make room beside the database (old logs, old dumps), or enlarge the volume. Never delete anything from pg_wal by hand.".to_owned());
        let finding = DISK_FULL.found(format!("{}: {}", server.object(), disk.role), message, vec![evidence], remedy);
        let tight = disk.free < disk.size / 20 || disk.free < wal;
        findings.push(if tight { finding } else { finding.at_most(Severity::Medium) });
    }
    findings
}

const PENDING: Check = Check {
    id: "restart-changes-settings",
    title: "After its next restart it is another server",
    family: Family::Data,
    severity: Severity::Low,
    needs: &[Source::LiveSettings],
    reason: "The node restarted at the worst moment. A setting that has been waiting for that is tried out then, for the first time, by everybody at once.",
    limits: "What waits may well be right: restart at a time of your choosing, and know.",
    run: pending,
};

fn pending(facts: &Facts) -> Vec<Finding> {
    let Some((server, settings)) = server(facts) else { return vec![] };
    let waiting: Vec<&str> =
        settings.all().filter(|setting| setting.pending_restart).map(|setting| setting.name.as_str()).collect();
    if waiting.is_empty() {
        return vec![];
    }
    let message = format!("{}: {} will be different after the next restart", server.object(), list(&waiting, 6));
    let evidence = waiting.iter().take(6).map(|name| settings.evidence(name)).collect();
    let remedy = Remedy::Advice(
        "Compare with pg_file_settings; then restart at a quiet hour, or take the change back.".to_owned(),
    );
    vec![PENDING.found(server.object(), message, evidence, remedy)]
}

//! Is the data still there afterwards?

use super::{Check, Family, shows};
use crate::{
    Severity,
    facts::{BackupTool, Engine, Facts, Source, VariableSource, Workload, same_namespace},
    finding::{Finding, Remedy},
    quantity::span,
};

pub(super) const CHECKS: &[Check] = &[
    NO_BACKUP,
    FSYNC,
    FULL_PAGES,
    SAME_VOLUME,
    SUSPENDED,
    NEVER_RAN,
    DUMP_ONLY,
    NEVER_RESTORED,
    ARCHIVE_OFF,
    RECLAIM,
    CHECKSUMS,
];

const NO_BACKUP: Check = Check {
    id: "no-backup",
    title: "Nothing makes a backup of a database",
    family: Family::Data,
    severity: Severity::Critical,
    needs: &[Source::Database],
    reason: "There was no recent backup. Had the volume been corrupted when the node went down, everything would have been lost. The first backup job ran \
             50 days later.",
    limits: "Looks for jobs, timers, operators' backups and oxpecker's own configuration in what was audited; a backup that a provider makes elsewhere is not seen: \
             say so with an ignore.",
    run: no_backup,
};

fn no_backup(facts: &Facts) -> Vec<Finding> {
    if facts.has(Source::Backups) {
        return vec![];
    }
    let findings = facts.databases().map(|workload| {
        let message = format!("no backup of {} was found in {} files: no job, timer, operator or configuration that makes one", workload.object(), facts.files);
        let remedy = match workload.engine() {
            Some(Engine::Postgres) => Remedy::Command("oxpecker backup init && oxpecker backup create && oxpecker backup prove  # then [backup] schedule in oxpecker.toml".to_owned()),
            _ => Remedy::Advice("Make a job that copies it to another machine each day, and one that restores the copy.".to_owned()),
        };
        NO_BACKUP.found(workload.object(), message, vec![shows(&workload.place, "a database, and no backup job beside it")], remedy)
    });
    findings.collect()
}

const FSYNC: Check = Check {
    id: "fsync-off",
    title: "PostgreSQL does not wait for the disk",
    family: Family::Data,
    severity: Severity::Critical,
    needs: &[Source::Postgres, Source::Settings],
    reason: "The node was shut down hard. With fsync off that leaves a database that may be damaged anywhere and does not know it.",
    limits: "Sees options and mounted configuration files.",
    run: fsync,
};

fn fsync(facts: &Facts) -> Vec<Finding> {
    switched_off(facts, &FSYNC, "fsync", "a crash of the host can damage any part of the database without a trace")
}

const FULL_PAGES: Check = Check {
    id: "full-page-writes-off",
    title: "A crash may leave half-written pages",
    family: Family::Data,
    severity: Severity::Critical,
    needs: &[Source::Postgres, Source::Settings],
    reason: "The node was shut down hard. Without full_page_writes a page that was being written stays torn, and replaying the log does not mend it.",
    limits: "Some copy-on-write file systems never tear a page; where that is proven, say so with an ignore.",
    run: full_pages,
};

fn full_pages(facts: &Facts) -> Vec<Finding> {
    switched_off(
        facts,
        &FULL_PAGES,
        "full_page_writes",
        "a page that was being written when the host went down stays half old, half new",
    )
}

fn switched_off(facts: &Facts, check: &Check, name: &str, means: &str) -> Vec<Finding> {
    let findings = facts.postgres().filter_map(|workload| {
        let setting = workload.settings.is_off(name)?;
        let remedy = Remedy::Command(format!(
            "psql -c 'ALTER SYSTEM RESET {name}' -c 'SELECT pg_reload_conf()'  # and take it out of {}",
            setting.place.file
        ));
        Some(check.found(
            workload.object(),
            format!("{}: {name} is off: {means}", workload.object()),
            vec![setting.evidence(name)],
            remedy,
        ))
    });
    findings.collect()
}

const SAME_VOLUME: Check = Check {
    id: "backup-on-same-volume",
    title: "The backup lies beside what it is to replace",
    family: Family::Data,
    severity: Severity::Critical,
    needs: &[Source::Database, Source::Backups],
    reason: "The fear of that day was the volume. A backup on the same volume is lost with it, and fills it while it is there.",
    limits: "Compares claims and host folders by name; two volumes on one disk look like two.",
    run: same_volume,
};

fn same_volume(facts: &Facts) -> Vec<Finding> {
    let findings = facts.backups.iter().filter_map(|backup| {
        let (database, mounted, own) = facts.databases().find_map(|workload| {
            let mut mounts = workload.main_containers().flat_map(|container| &container.mounts);
            let shared = mounts.find_map(|mount| {
                let lasting = mount.source.starts_with("claim:") || mount.source.starts_with("host:");
                let same = backup.volumes.iter().find(|volume| lasting && volume.value == mount.source)?;
                same_namespace(backup.namespace.as_deref(), workload.namespace.as_deref()).then_some((same, mount))
            });
            // A job that copies files has to mount what it copies; only one that has nothing else to write to is meant.
            let targets = backup
                .volumes
                .iter()
                .filter(|v| {
                    (v.value.starts_with("claim:") || v.value.starts_with("host:"))
                        && Some(&v.value) != shared.map(|(_, m)| &m.source)
                })
                .count();
            shared
                .filter(|_| targets == 0 && backup.tool != BackupTool::Physical && backup.tool != BackupTool::Volume)
                .map(|(volume, mount)| (workload, volume, mount))
        })?;
        let message = format!("{} writes to {}, the volume of {}", backup.object, mounted.value, database.object());
        let evidence = vec![mounted.evidence("volume"), shows(&own.place, format!("{} at {}", own.source, own.path))];
        let remedy = Remedy::Advice(
            "Write to another machine or an object store: oxpecker.toml, [repository] url = \"s3://...\".".to_owned(),
        );
        Some(SAME_VOLUME.found(backup.object.clone(), message, evidence, remedy))
    });
    findings.collect()
}

const SUSPENDED: Check = Check {
    id: "backup-suspended",
    title: "The backup job is switched off",
    family: Family::Data,
    severity: Severity::High,
    needs: &[Source::Backups],
    reason: "A backup that does not run is remembered as one that does. That there was none was found out when it was needed.",
    limits: "Sees `suspend` only; whether the last run went well is for an alert to say: `nothing-would-page`.",
    run: suspended,
};

fn suspended(facts: &Facts) -> Vec<Finding> {
    let findings = facts.backups.iter().filter_map(|backup| {
        let place = backup.suspended.as_ref()?;
        let remedy = Remedy::Patch("spec:\n  suspend: false".to_owned());
        Some(SUSPENDED.found(
            backup.object.clone(),
            format!("{} is suspended: it makes nothing", backup.object),
            vec![shows(place, "suspend: true")],
            remedy,
        ))
    });
    findings.collect()
}

const NEVER_RAN: Check = Check {
    id: "backup-never-ran",
    title: "The backup job has never made a backup",
    family: Family::Data,
    severity: Severity::High,
    needs: &[Source::Backups],
    reason: "Fifty days went by between the plan for a backup and its first run. A job that is there and has never run looks, in every list, like one that has.",
    limits: "Asked of objects that were exported with their status (kubectl get -o yaml); of a manifest alone nobody can tell.",
    run: never_ran,
};

fn never_ran(facts: &Facts) -> Vec<Finding> {
    let findings = facts.backups.iter().filter(|backup| backup.suspended.is_none()).filter_map(|backup| {
        let never = backup.never.as_ref()?;
        let name = backup.object.rsplit('/').next().unwrap_or_default();
        let remedy = Remedy::Command(format!(
            "kubectl create job --from=cronjob/{0} {0}-now && kubectl logs --follow job/{0}-now  # then ask why its schedule does not",
            crate::words::quoted(name)
        ));
        let message = format!("{}: {}", backup.object, never.value);
        Some(NEVER_RAN.found(backup.object.clone(), message, vec![never.evidence("status")], remedy))
    });
    findings.collect()
}

/// What carries a backup on to any later moment, whoever's tool it is.
pub(super) const KEEP_THE_LOG: &str = "Make base backups and keep the log as well: a tool of physical backup (oxpecker, pgBackRest, barman, WAL-G) with archive_mode \
                            or a receiver. Keep the dump too, for moving between major versions.";

const DUMP_ONLY: Check = Check {
    id: "dump-only",
    title: "Everything since the last dump would be lost",
    family: Family::Data,
    severity: Severity::Medium,
    needs: &[Source::Postgres, Source::Backups],
    reason: "What the team made first, 50 days later, was a dump. It brings back one moment: what people wrote since is gone, and of a large database it \
             takes hours to read it in.",
    limits: "Told when no backup in the set carries the log as well.",
    run: dump_only,
};

fn dump_only(facts: &Facts) -> Vec<Finding> {
    if facts.backups.iter().any(|backup| backup.tool == BackupTool::Physical) {
        return vec![];
    }
    let dumps = facts.backups.iter().filter(|backup| matches!(backup.tool, BackupTool::Dump | BackupTool::Base));
    let findings = dumps.map(|backup| {
        let means = backup.interval().map_or_else(
            || "everything since its last run".to_owned(),
            |seconds| format!("up to {} of what people wrote", span(seconds)),
        );
        let evidence = backup
            .schedule
            .as_ref()
            .map_or_else(|| shows(&backup.place, "no schedule seen"), |schedule| schedule.evidence("schedule"));
        let remedy = Remedy::Advice(KEEP_THE_LOG.to_owned());
        DUMP_ONLY.found(
            backup.object.clone(),
            format!("{} brings back one moment only: a loss costs {means}", backup.object),
            vec![evidence],
            remedy,
        )
    });
    findings.collect()
}

const NEVER_RESTORED: Check = Check {
    id: "backup-never-restored",
    title: "Nobody has tried whether the backup can be restored",
    family: Family::Data,
    severity: Severity::High,
    needs: &[Source::Database, Source::Backups],
    reason: "A backup is a hope until it was restored. On the day itself is too late to find the key missing, the dump cut short or the version wrong.",
    limits: "Looks for a job that restores or verifies; a drill by hand is not seen.",
    run: never_restored,
};

fn never_restored(facts: &Facts) -> Vec<Finding> {
    if !facts.restore_tests.is_empty() {
        return vec![];
    }
    let findings = facts.backups.iter().filter(|backup| backup.suspended.is_none()).map(|backup| {
        let message = format!("{} makes backups and nothing in the set restores one", backup.object);
        let remedy = Remedy::Command(
            "oxpecker backup prove  # restores into a scratch directory, starts it fenced, checks, and keeps a receipt"
                .to_owned(),
        );
        NEVER_RESTORED.found(
            backup.object.clone(),
            message,
            vec![shows(&backup.place, "no job with pg_restore, pg_verifybackup or oxpecker backup prove")],
            remedy,
        )
    });
    findings.collect()
}

const ARCHIVE_OFF: Check = Check {
    id: "archive-off",
    title: "The log is thrown away",
    family: Family::Data,
    severity: Severity::Medium,
    needs: &[Source::Postgres, Source::Settings],
    reason: "Without the log a backup brings back its own moment and nothing later: not the minute before someone's mistake, nor the one before the crash.",
    limits: "A receiver (pg_receivewal, barman, oxpecker) needs no archive_mode: where one is in the set, nothing is said.",
    run: archive_off,
};

fn archive_off(facts: &Facts) -> Vec<Finding> {
    if facts.backups.iter().any(|backup| backup.tool == BackupTool::Physical) {
        return vec![];
    }
    let off = |workload: &&Workload| {
        !workload.settings.is_empty()
            && workload
                .settings
                .get("archive_mode")
                .is_none_or(|mode| workload.settings.is_off("archive_mode") == Some(mode))
    };
    let findings = facts.postgres().filter(off).filter_map(|workload| {
        let (name, any) = workload.settings.any()?;
        let evidence = workload.settings.get("archive_mode").map_or_else(
            || shows(&any.place, format!("{name} is set here, archive_mode is not: off")),
            |mode| mode.evidence("archive_mode"),
        );
        let remedy = Remedy::Advice(KEEP_THE_LOG.to_owned());
        Some(ARCHIVE_OFF.found(
            workload.object(),
            format!("{} keeps no log: no moment between two backups can be brought back", workload.object()),
            vec![evidence],
            remedy,
        ))
    });
    findings.collect()
}

const RECLAIM: Check = Check {
    id: "reclaim-delete",
    title: "Deleting a claim deletes the data",
    family: Family::Data,
    severity: Severity::High,
    needs: &[Source::Kubernetes, Source::Database],
    reason: "The database was taken out and provisioned again in the middle of the outage. With the policy Delete, the claim that goes in such a moment \
             takes the only copy of the data with it.",
    limits: "Asked where the storage class or the volume is in the set. Claim templates of stateful sets are judged by the default class only.",
    run: reclaim,
};

fn reclaim(facts: &Facts) -> Vec<Finding> {
    let findings = facts.databases().filter_map(|workload| {
        let (policy, claim) = workload.claims.iter().find_map(|mounted| {
            let claim = facts.claim(workload.namespace.as_deref(), &mounted.value)?;
            let volume = facts.volumes.iter().find(|volume| volume.name == claim.name);
            let class = || facts.classes.iter().find(|class| claim.class.as_deref().map_or(class.default, |name| class.name == name));
            volume.or_else(class).map(|policy| (policy, claim))
        })?;
        if policy.policy != "Delete" {
            return None;
        }
        let message = format!("{}: whoever deletes claim {} deletes its data", workload.object(), claim.name);
        let evidence = vec![shows(&policy.place, "reclaimPolicy: Delete"), shows(&claim.place, format!("claim {}", claim.name))];
        let command = "kubectl patch pv \"$(kubectl get pvc CLAIM -o jsonpath='{.spec.volumeName}')\" -p '{\"spec\":{\"persistentVolumeReclaimPolicy\":\"Retain\"}}'";
        Some(RECLAIM.found(workload.object(), message, evidence, Remedy::Command(command.replace("CLAIM", &crate::words::quoted(&claim.name)))))
    });
    findings.collect()
}

const CHECKSUMS: Check = Check {
    id: "no-checksums",
    title: "Damaged pages would go unnoticed",
    family: Family::Data,
    severity: Severity::Medium,
    needs: &[Source::Postgres],
    reason: "Whether the volume had survived the crash was the question of the day. With data checksums the database answers it; without, damage is read, \
             believed and backed up.",
    limits: "Only of the official image below 18, where a cluster has none unless POSTGRES_INITDB_ARGS says so; whether a live one has them only the server tells.",
    run: checksums,
};

fn checksums(facts: &Facts) -> Vec<Finding> {
    let findings = facts.postgres().filter_map(|workload| {
        let container = workload.database_container()?;
        let image = container.image.as_ref().filter(|image| matches!(image.value.name.as_str(), "postgres" | "library/postgres"))?;
        if image.value.major().is_none_or(|major| major >= 18) {
            return None;
        }
        let asked = container.env.iter().find(|variable| variable.name == "POSTGRES_INITDB_ARGS");
        let given = asked.is_some_and(|variable| match &variable.source {
            VariableSource::Literal(value) => value.contains("data-checksums") || value.split_whitespace().any(|word| word == "-k"),
            _ => true,
        });
        let unknown = container.env.iter().any(|variable| variable.name.is_empty());
        if given || unknown {
            return None;
        }
        let message = format!("{}: a cluster that this image makes has no data checksums", workload.object());
        let remedy = Remedy::Command("pg_checksums --enable -D \"$PGDATA\"  # while the server is stopped; for new clusters POSTGRES_INITDB_ARGS=--data-checksums".to_owned());
        Some(CHECKSUMS.found(workload.object(), message, vec![image.evidence("image")], remedy))
    });
    findings.collect()
}

//! Where the log goes.

use super::{Check, Family};
use crate::{
    Severity,
    facts::{Facts, Source},
    finding::{Evidence, Finding, Remedy},
};

pub(super) const CHECKS: &[Check] = &[NOWHERE];

const NOWHERE: Check = Check {
    id: "archive-goes-nowhere",
    title: "The log is archived to nowhere",
    family: Family::Data,
    severity: Severity::High,
    needs: &[Source::Postgres, Source::Settings],
    reason: "A backup that does not run is remembered as one that does. With no command the log is kept until the disk is full and the server stops; with one that does \
             nothing it is gone, and everybody believes that it is somewhere.",
    limits: "Knows a missing command and those that do nothing (true, :, exit 0). A command that copies to a wrong place is for a restore test to find.",
    run: nowhere_in_files,
};

/// Whether a command succeeds and keeps nothing.
pub(super) fn throws_away(command: &str) -> bool {
    let command = command.trim();
    matches!(command, "true" | ":" | "/bin/true" | "/usr/bin/true" | "exit 0" | "cd ." | "echo")
        || command.strip_prefix("test ").is_some_and(|rest| !rest.contains("&&"))
}

/// The finding, of files or of a server.
pub(super) fn nowhere(object: String, command: &str, evidence: Vec<Evidence>) -> Finding {
    let message = if throws_away(command) {
        format!(
            "{object}: archive_mode is on and the command keeps nothing: every segment counts as archived and is gone"
        )
    } else {
        format!("{object}: archive_mode is on and nothing is told where to: the log is kept until the disk is full")
    };
    let remedy = "psql -c \"ALTER SYSTEM SET archive_command = 'pgbackrest --stanza=main archive-push %p'\" -c \"SELECT pg_reload_conf()\"  # or that of whatever \
                  makes your backups; without such a tool: archive_mode = off";
    NOWHERE.found(object, message, evidence, Remedy::Command(remedy.to_owned()))
}

fn nowhere_in_files(facts: &Facts) -> Vec<Finding> {
    let findings = facts.postgres().filter_map(|workload| {
        let settings = &workload.settings;
        let mode = settings.get("archive_mode").filter(|_| settings.is_off("archive_mode").is_none())?;
        let set = |name: &str| settings.get(name).filter(|setting| !setting.value.trim().is_empty());
        let command = set("archive_command");
        let lost = match (command, set("archive_library")) {
            (None, None) => true,
            (Some(command), _) => throws_away(&command.value),
            (None, Some(_)) => false,
        };
        if !lost {
            return None;
        }
        let mut evidence = vec![mode.evidence("archive_mode")];
        evidence.extend(command.map(|command| command.evidence("archive_command")));
        Some(nowhere(workload.object(), command.map_or("", |command| &command.value), evidence))
    });
    findings.collect()
}

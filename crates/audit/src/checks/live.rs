//! Checks of a running server and its machine.
//!
//! Where files can show the same gap, the check has one id and is asked of both: see [`AGAIN`].

mod data;
mod repository;
mod rest;
mod starvation;

pub(super) use self::{
    data::CHECKS as DATA,
    repository::CHECKS as REPOSITORY,
    rest::{DETECTION, SECRETS},
    starvation::CHECKS as STARVATION,
};

use super::Check;
use crate::{
    facts::{Facts, LiveSettings, Server, Source},
    finding::{Finding, Remedy},
};

/// A check of files that is asked of the running server as well.
pub(crate) struct Again {
    /// The check.
    pub of: &'static str,
    /// All of them must be there.
    pub needs: &'static [Source],
    /// The function.
    pub run: fn(&Facts) -> Vec<Finding>,
}

/// What the running server is asked under the id of a check of files.
pub(crate) const AGAIN: &[Again] = &[
    Again { of: "stock-settings", needs: &[Source::LiveSettings, Source::LiveProcess], run: starvation::stock },
    Again {
        of: "connections-exceed-memory",
        needs: &[Source::LiveSettings, Source::LiveProcess],
        run: starvation::connections_memory,
    },
    Again { of: "vacuum-memory", needs: &[Source::LiveSettings, Source::LiveProcess], run: starvation::vacuum_memory },
    Again { of: "vacuum-outruns-cores", needs: &[Source::LiveSettings, Source::LiveProcess], run: starvation::outruns },
    Again { of: "autovacuum-off", needs: &[Source::LiveSettings], run: starvation::autovacuum_off },
    Again { of: "no-timeouts", needs: &[Source::LiveSettings], run: starvation::timeouts },
    Again { of: "no-backup", needs: &[Source::LiveSettings], run: data::backup },
    Again { of: "archive-off", needs: &[Source::LiveSettings], run: data::archive_off },
    Again { of: "archive-goes-nowhere", needs: &[Source::LiveSettings], run: data::archive_nowhere },
    Again { of: "fsync-off", needs: &[Source::LiveSettings], run: data::fsync },
    Again { of: "full-page-writes-off", needs: &[Source::LiveSettings], run: data::full_pages },
    Again { of: "no-checksums", needs: &[Source::LiveSettings], run: data::checksums },
    Again { of: "end-of-life", needs: &[Source::Live], run: data::end_of_life },
    Again { of: "outdated-minor", needs: &[Source::Live], run: data::outdated_minor },
    Again { of: "backup-on-same-volume", needs: &[Source::LiveDisks], run: data::same_disk },
    Again { of: "backup-never-restored", needs: &[Source::LiveRepository], run: repository::never_proven },
    Again { of: "monitoring-on-what-it-monitors", needs: &[Source::LiveProcess], run: rest::monitors },
];

fn of(id: &str) -> &'static Check {
    super::check(id).expect("the ids of AGAIN are those of checks; a test says so")
}

fn server(facts: &Facts) -> Option<(&Server, &LiveSettings)> {
    let server = facts.live_server()?;
    Some((server, server.settings.as_ref().ok()?))
}

/// A question that the primary has to answer.
fn ask_the_primary(check: &Check, server: &Server) -> Vec<Finding> {
    vec![check.open(server.object(), "this server is a standby or in recovery; ask its primary", &server.here())]
}

/// How settings are changed on this server: names with their values as PostgreSQL writes them.
fn set(server: &Server, settings: &LiveSettings, values: &[(&str, String)]) -> Remedy {
    // A size or a time has to be quoted, a word or a number need not be.
    let bare = |value: &str| value.parse::<i64>().is_ok() || value.chars().all(|c| c.is_ascii_alphabetic());
    let quoted = |value: &str| {
        if bare(value) && !value.is_empty() { value.to_owned() } else { format!("'{}'", value.replace('\'', "''")) }
    };
    let list =
        || values.iter().map(|(name, value)| format!("{name} = {}", quoted(value))).collect::<Vec<_>>().join(", ");
    let from = |source: &str| {
        values.iter().any(|(name, _)| settings.get(name).is_some_and(|setting| setting.source == source))
    };
    if from("command line") || from("environment variable") {
        return Remedy::Advice(format!(
            "Set {} where the server is started: what stands on its command line wins over every file and over ALTER SYSTEM.",
            list()
        ));
    }
    if server.major() >= 17 && settings.is_off("allow_alter_system") {
        return Remedy::Advice(format!(
            "Set {} where this server's configuration is managed: ALTER SYSTEM is switched off here.",
            list()
        ));
    }
    let commands: String =
        values.iter().map(|(name, value)| format!(" -c \"ALTER SYSTEM SET {name} = {}\"", quoted(value))).collect();
    let restart =
        values.iter().any(|(name, _)| settings.get(name).is_some_and(|setting| setting.context == "postmaster"));
    Remedy::Command(match restart {
        true => format!("psql{commands}  # and restart the server at a time of your choosing"),
        false => format!("psql{commands} -c \"SELECT pg_reload_conf()\""),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_again_is_a_check() {
        for again in AGAIN {
            assert!(super::super::check(again.of).is_some(), "{}", again.of);
        }
    }
}

//! Configuration of the restored server: what is taken out of it, and what is put into it.

use std::collections::BTreeMap;

use pg_format::conf::{Setting, quote, scrub, settings};

/// What the fence sets. Archiving is what would overwrite or mix up the original's WAL; subscriptions would take over the original's slots
/// at its publishers.
const FENCE: &[(&str, &str)] = &[("archive_mode", "off"), ("max_logical_replication_workers", "0")];

/// Lines of a configuration file from outside of the data directory that lead back to the original's files.
const LEADS_ELSEWHERE: &[&str] =
    &["data_directory", "hba_file", "ident_file", "external_pid_file", "include", "include_dir", "include_if_exists"];

/// `postgresql.auto.conf` for the restored server: without the traces of a throttle of ours that was on while it was copied, and with the
/// fence where `fence` is set, and with the settings of a recovery.
pub(super) fn auto_conf(
    bytes: &[u8],
    throttled: &BTreeMap<String, Option<String>>,
    fence: bool,
    recovery: &[(String, String)],
) -> Vec<u8> {
    let fenced = |setting: &Setting| FENCE.iter().any(|(name, _)| setting.name == *name);
    let recovers = |setting: &Setting| recovery.iter().any(|(name, _)| setting.name == *name);
    let scrubbed = scrub(bytes, |setting| {
        throttled.contains_key(&setting.name) || (fence && fenced(setting)) || recovers(setting)
    });
    let mut text = scrubbed.bytes;
    if !text.is_empty() && !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    let mut line = |name: &str, value: &str| {
        text.extend(name.as_bytes());
        text.extend(b" = ");
        text.extend(quote(value.as_bytes()));
        text.push(b'\n');
    };
    for (name, former) in throttled {
        if let Some(former) = former {
            line(name, former);
        }
    }
    if fence {
        for (name, value) in FENCE {
            line(name, value);
        }
    }
    for (name, value) in recovery {
        line(name, value);
    }
    text
}

/// A configuration file that lay outside, for the data directory: lines that lead to the original's files become comments.
pub(super) fn inside(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes.len());
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let leads = settings(line).any(|setting| LEADS_ELSEWHERE.contains(&setting.name.as_str()));
        if leads {
            text.extend(b"# taken out by oxpecker restore: ");
        }
        text.extend(line);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throttles_go_and_the_fence_comes() {
        let text = b"# Do not edit\nautovacuum_vacuum_cost_limit = '1'\nautovacuum_vacuum_cost_delay = '20ms'\narchive_mode = 'on'\nwork_mem = '4MB'";
        let throttled = BTreeMap::from([
            ("autovacuum_vacuum_cost_limit".to_owned(), Some("200".to_owned())),
            ("autovacuum_vacuum_cost_delay".to_owned(), None),
        ]);
        let fenced = auto_conf(text, &throttled, true, &[]);
        let expected = "# Do not edit\nwork_mem = '4MB'\nautovacuum_vacuum_cost_limit = '200'\narchive_mode = 'off'\nmax_logical_replication_workers = '0'\n";
        assert_eq!(String::from_utf8(fenced.clone()).unwrap(), expected);
        assert_eq!(auto_conf(&fenced, &throttled, true, &[]), fenced);
        // Nobody said that a throttle was on: a cost limit is then the user's own.
        let open = String::from_utf8(auto_conf(text, &BTreeMap::new(), false, &[])).unwrap();
        assert!(open.contains("cost_limit = '1'") && open.contains("archive_mode = 'on'"));
    }

    #[test]
    fn what_a_recovery_needs_takes_the_place_of_what_there_was() {
        let text = b"restore_command = 'cp /old/%f %p'\nrecovery_target_name = 'x'\nwork_mem = '4MB'\n";
        let recovery = [("restore_command", "it's %f"), ("recovery_target_name", "")];
        let recovery = recovery.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let text = String::from_utf8(auto_conf(text, &BTreeMap::new(), false, &recovery)).unwrap();
        assert_eq!(text, "work_mem = '4MB'\nrestore_command = 'it''s %f'\nrecovery_target_name = ''\n");
    }

    #[test]
    fn what_leads_elsewhere_becomes_a_comment() {
        let text = b"port = 5433\ndata_directory = '/var/lib/x' # here\ninclude_dir = 'conf.d'";
        let expected = "port = 5433\n# taken out by oxpecker restore: data_directory = '/var/lib/x' # here\n# taken out by oxpecker restore: include_dir = 'conf.d'";
        assert_eq!(String::from_utf8(inside(text)).unwrap(), expected);
    }
}

//! Whether a server is the one whose backups the repository has under a name. Pure.
//!
//! A clone has the system identifier of its original; only its history tells them apart: a cluster's WAL never goes back, and a new
//! timeline branches off behind everything that was backed up before.

use model::Lsn;
use pg_format::wal::TimelineHistory;

use crate::info::BackupInfo;

/// What is known of the server.
#[derive(Clone, Debug)]
pub(crate) struct Now<'a> {
    pub(crate) system_id: u64,
    pub(crate) timeline: u32,
    /// The end of WAL, a standby's: of what it has received.
    pub(crate) position: Lsn,
    pub(crate) standby: bool,
    pub(crate) host: &'a str,
    pub(crate) data_dir: &'a str,
    /// Of its timeline, where it has one and the file is there.
    pub(crate) history: Option<&'a TimelineHistory>,
}

/// What comes of the comparison with the newest backup of that name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The same cluster.
    Same,
    /// Most likely the same; this is odd.
    Odd(String),
    /// A clone, or the cluster after a restore to an earlier point.
    Clone(String),
    /// Another cluster altogether.
    Other,
}

pub(crate) fn judge(now: &Now<'_>, newest: &BackupInfo) -> Verdict {
    if now.system_id != newest.system_id {
        return Verdict::Other;
    }
    let (id, there) = (newest.timeline, newest.stop_lsn);
    if now.timeline < id {
        return Verdict::Clone(format!("it is on timeline {}, the newest backup on {id}", now.timeline));
    }
    if now.timeline == id && now.position < there {
        return Verdict::Clone(format!("its WAL ends at {}, the newest backup's at {there}", now.position));
    }
    if now.timeline > id
        && let Some(history) = now.history
    {
        match history.switch_of(id) {
            None => {
                return Verdict::Clone(format!(
                    "its timeline {} does not descend from {id}, which the newest backup is on",
                    now.timeline
                ));
            }
            // A standby that lags may be promoted before it has all: then what the backup has behind the switch is lost.
            Some(switch) if switch < there => {
                return Verdict::Clone(format!(
                    "its timeline {} branched off at {switch}, before the newest backup ended at {there}",
                    now.timeline
                ));
            }
            Some(_) => {}
        }
    }
    // Over the replication protocol not every role sees the directory.
    let known = !now.data_dir.is_empty() && !newest.host.data_dir.is_empty();
    let moved = known && now.host != newest.host.name && now.data_dir != newest.host.data_dir;
    // A promotion makes a new timeline; a standby is where its primary is not. A copy that was started by itself is neither.
    if moved && now.timeline == id && !now.standby && !newest.standby {
        let (host, data_dir) = (&newest.host.name, &newest.host.data_dir);
        return Verdict::Clone(format!(
            "it runs on {} in {}, the newest backup was taken on {host} from {data_dir}, and no timeline was begun between",
            now.host, now.data_dir
        ));
    }
    if now.host != newest.host.name {
        return Verdict::Odd(format!("the newest backup was taken on {}, this is {}", newest.host.name, now.host));
    }
    Verdict::Same
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::info::tests::sample;

    fn newest() -> BackupInfo {
        let mut info = sample();
        (info.timeline, info.stop_lsn) = (3, Lsn(500));
        (info.host.name, info.host.data_dir) = ("a".to_owned(), "/data".to_owned());
        info
    }

    fn now(timeline: u32, position: u64) -> Now<'static> {
        Now {
            system_id: u64::MAX,
            timeline,
            position: Lsn(position),
            standby: false,
            host: "a",
            data_dir: "/data",
            history: None,
        }
    }

    #[test]
    fn a_cluster_goes_on_and_a_clone_does_not() {
        let newest = newest();
        let clone = |verdict| matches!(verdict, Verdict::Clone(_));
        assert_eq!(judge(&now(3, 500), &newest), Verdict::Same);
        assert_eq!(judge(&Now { system_id: 1, ..now(3, 500) }, &newest), Verdict::Other);
        assert!(clone(judge(&now(3, 499), &newest)));
        assert!(clone(judge(&now(2, 900), &newest)));
        assert_eq!(judge(&now(4, 10), &newest), Verdict::Same);
        for (text, expected) in [("3\t0/1F4\t", false), ("3\t0/1F3\t", true), ("2\t0/900\t", true)] {
            let history = TimelineHistory::parse(text).unwrap();
            assert_eq!(clone(judge(&Now { history: Some(&history), ..now(4, 900) }, &newest)), expected, "{text}");
        }
        let elsewhere = Now { host: "b", data_dir: "/other", ..now(3, 600) };
        assert!(clone(judge(&elsewhere, &newest)));
        assert!(matches!(judge(&Now { standby: true, ..elsewhere.clone() }, &newest), Verdict::Odd(_)));
        for data_dir in ["/data", ""] {
            assert!(matches!(judge(&Now { data_dir, ..elsewhere.clone() }, &newest), Verdict::Odd(_)));
        }
    }
}

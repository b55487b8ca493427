//! A moment to return to: which backup, which WAL, which settings; and whether the server will be able to fetch it.

use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use backup::restore::quoted;
use pg_format::{Major, wal::SegmentSize};
use repository::{BackupRecord, Repository};
use wal::recover::{Action, Base, Plan, PlanError, Stock, Target, plan};

use crate::{
    cli::RestoreArgs,
    exit::{FAILED, Failure, REFUSED, USAGE},
    repo::{self, Settings},
};

/// Segments that are named in words; JSON has all of them.
const NAMED_MAX: usize = 4;

/// How a moment is reached.
pub struct Moment {
    /// With which backup the recovery begins.
    pub backup: BackupRecord,
    target: Target,
    action: Action,
    size: SegmentSize,
    plan: Plan,
}

/// The backups of one system that a recovery may begin with, in the order in which they were made, with their system's identifier.
pub fn bases(backups: &[BackupRecord]) -> Vec<(u64, u32, Base)> {
    let base = |record: &BackupRecord| {
        let info = repo::info(record)?;
        let base = Base {
            id: record.id.to_string(),
            major: Major::from_number(info.pg_version.major()).ok()?,
            timeline: info.timeline,
            start: info.start_lsn,
            stop: info.stop_lsn,
            stop_time: info.stop_time,
        };
        // Whose WAL has expired leads nowhere.
        (!record.wal_cut).then_some((info.system_id, info.wal_segment_size, base))
    };
    backups.iter().filter_map(base).collect()
}

impl Moment {
    /// Finds out how `target` is reached.
    ///
    /// # Errors
    /// It can't be, or the repository can't be read.
    pub fn choose(
        settings: &Settings,
        repository: &Repository,
        args: &RestoreArgs,
        target: &Target,
    ) -> Result<Self, Failure> {
        // The system is that of the newest backup, or of the one that was named: its WAL is of no use to another.
        let named = args.id.as_deref().filter(|id| !id.eq_ignore_ascii_case("latest"));
        let first = repo::find(repository, settings, args.id.as_deref().unwrap_or("latest"))?;
        let cluster = first.cluster.clone();
        let backups: Vec<BackupRecord> = match named {
            Some(_) => vec![first.clone()],
            None => repository.backups().into_iter().filter(|backup| backup.cluster == cluster).collect(),
        };
        let system = repo::info(&first).map(|info| info.system_id);
        let bases = bases(&backups).into_iter().filter(|(of, ..)| Some(*of) == system);
        let (sizes, bases): (Vec<u32>, Vec<Base>) = bases.map(|(_, size, base)| (size, base)).unzip();
        let (Some(system), Some(size)) = (system, sizes.first()) else {
            return Err(Failure::usage(anyhow::anyhow!("no WAL leads on from backup {}: it has expired", first.id))
                .hint("leave the moment out: the backup can be restored to its own"));
        };
        let size = SegmentSize::new(u64::from(*size))?;
        let wal = repository.find_wal(&system.to_string())?.ok_or_else(|| {
            Failure::usage(anyhow::anyhow!("there is no WAL of this cluster in the repository"))
                .hint("[wal] receive = true, or archive_command = 'oxpecker wal push %p'; without WAL a backup can be restored to its own moment only")
        })?;
        let stock = Stock::look(&wal, size)?;
        let action = Action::from(args.moment.action);
        let moment = &args.moment;
        let plan =
            plan(&wal, &stock, system, &bases, target, moment.timeline, !moment.exclusive, action).map_err(failure)?;
        let backup = backups.into_iter().find(|backup| backup.id.to_string() == plan.base.id).unwrap_or(first);
        Ok(Self { backup, target: target.clone(), action, size, plan })
    }

    /// The settings for the server, with the command that fetches WAL. `user`: as whom the server will run, if that is another one.
    ///
    /// # Errors
    /// The server will not be able to fetch WAL.
    pub fn settings(&self, settings: &Settings, user: Option<(u32, u32)>) -> Result<Vec<(String, String)>, Failure> {
        let repository = &settings.config.repository;
        let (option, secret) = match (&repository.key_file, &repository.passphrase_file) {
            (Some(path), _) => ("--key-file", path),
            (None, Some(path)) => ("--passphrase-file", path),
            (None, None) => {
                return Err(Failure::refused(anyhow::anyhow!(
                    "the server will fetch WAL while it recovers, and nobody will be there to type a passphrase"
                ))
                .hint("put the key or the passphrase into a file that only the server's user may read, and name it with --key-file or --passphrase-file"));
            }
        };
        let program = std::env::current_exe()?;
        let secret = std::path::absolute(secret)?;
        if let Some((uid, gid)) = user {
            for (path, bits, what) in
                [(&program, 0o5, "run"), (&secret, 0o4, "read"), (&settings.directory, 0o5, "read")]
            {
                if let Some(at) = forbidden(path, bits, uid, gid) {
                    let path = path.display();
                    return Err(Failure::refused(anyhow::anyhow!(
                        "the server will run as user {uid} and must fetch WAL: it may not {what} {path} (see {})",
                        at.display()
                    ))
                    .hint("give that user access, to each directory above as well (setfacl -m u:USER:rX), or name a key file and a copy of this program that it may use"));
                }
            }
        }
        let url = repository.url.clone().unwrap_or_default();
        // The server's own directory and /etc may hold configurations that it must not read, or may not.
        let words = ["--config", "/dev/null", "wal", "get", "--repository", &url, option];
        let quoted_words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        let program = quoted(&program.display().to_string());
        let command = format!("{program} {} {}", quoted_words.join(" "), quoted(&secret.display().to_string()));
        // A percent sign of a path is none of PostgreSQL's.
        let command = format!("{} %f %p", command.replace('%', "%%"));
        let mut all = vec![("restore_command".to_owned(), command)];
        all.extend(self.plan.settings.iter().cloned());
        Ok(all)
    }

    /// Where recovery ends.
    pub fn in_words(&self) -> String {
        let road = &self.plan.road;
        let legs: Vec<String> = road.legs.iter().map(|leg| leg.timeline.to_string()).collect();
        let along = if legs.len() > 1 { format!(", along timelines {}", legs.join(", ")) } else { String::new() };
        let stops = self.plan.stops.map_or(String::new(), |found| match (&self.target, found.time) {
            (Target::Time(_), Some(time)) => format!(": the next commit, at {}, is of {time}", found.lsn),
            (_, Some(time)) => format!(": the record at {}, of {time}", found.lsn),
            (_, None) => format!(": the record at {}", found.lsn),
        });
        let names: Vec<String> = self.plan.segments.iter().map(|name| name.file_name(self.size)).collect();
        let segments = match names.as_slice() {
            [] => "no WAL but the backup's own".to_owned(),
            few if few.len() <= NAMED_MAX => format!("WAL: {}", few.join(", ")),
            [first, .., last] => format!("WAL: {} segments, {first} to {last}", names.len()),
            [one] => format!("WAL: {one}"),
        };
        let newest = self.plan.end.newest.map_or(String::new(), |newest| format!(", newest commit of {newest}"));
        format!(
            "recovery goes on to {}{stops}\n  on timeline {}{along}, where WAL is there up to {}{newest}\n  {segments}, all of it there",
            self.target, road.timeline, road.end
        )
    }

    /// What is to be done when the server was started.
    pub fn afterwards(&self, pgdata: &Path) -> String {
        let again = format!(
            "Not the right moment? Stop the server, empty {} and restore again with another one: a recovery never goes back.\n",
            pgdata.display()
        );
        match self.action {
            Action::Pause => format!(
                "\nIt stops at the moment and waits, read only. Look whether all is as it should be:\n  \
                 SELECT pg_is_wal_replay_paused(), pg_last_wal_replay_lsn(), pg_last_xact_replay_timestamp();\n\
                 Then let it take writes, on a timeline of its own:\n  SELECT pg_wal_replay_resume();\n{again}"
            ),
            Action::Promote => format!("\nIt takes writes as soon as it is there, on a timeline of its own.\n{again}"),
            Action::Shutdown => format!(
                "\nIt shuts down when it is there, so that the command above fails at its end; the log says where it stopped.\n{again}"
            ),
        }
    }

    /// As JSON.
    pub fn document(&self) -> serde_json::Value {
        let names = self.plan.segments.iter().map(|name| name.file_name(self.size));
        serde_json::json!({
            "target": self.target.to_string(),
            "action": self.action.as_str(),
            "timeline": self.plan.road.timeline,
            "stops_at": self.plan.stops.map(|found| found.lsn),
            "wal_to": self.plan.road.end,
            "newest_commit": self.plan.end.newest,
            "segments": names.collect::<Vec<_>>(),
        })
    }
}

fn failure(error: PlanError) -> Failure {
    let code = match &error {
        PlanError::NoBackup => USAGE,
        error if error.is_refusal() => REFUSED,
        _ => FAILED,
    };
    Failure { code, error: error.into(), hint: None }
}

/// The first on the way to `path` that user `uid` of group `gid` may not use for what `bits` say, by its mode. Access lists are not looked at: they
/// only ever allow more, and then the mode's group bits show it.
fn forbidden(path: &Path, bits: u32, uid: u32, gid: u32) -> Option<PathBuf> {
    if uid == 0 {
        return None;
    }
    let may = |at: &Path, bits: u32| {
        let Ok(found) = at.metadata() else { return false };
        let mode = found.mode();
        let allowed = if found.uid() == uid {
            mode >> 6
        } else if found.gid() == gid {
            mode >> 3
        } else {
            mode
        };
        allowed & bits == bits || (mode >> 3) & bits == bits && has_access_list(at)
    };
    let above: Vec<&Path> = path.ancestors().skip(1).collect();
    let closed = above.into_iter().rev().find(|above| !above.as_os_str().is_empty() && !may(above, 0o1));
    closed.or_else(|| (!may(path, bits)).then_some(path)).map(Path::to_owned)
}

/// Whether others may be allowed more than the mode says.
fn has_access_list(path: &Path) -> bool {
    let mut buffer = [0_u8; 1];
    // A size that does not fit is one that is there.
    !matches!(
        rustix::fs::getxattr(path, "system.posix_acl_access", &mut buffer),
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP)
    )
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn what_another_user_may_not_read_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let key = inner.join("key");
        fs::write(&key, "x").unwrap();
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        mode(dir.path(), 0o755);
        mode(&inner, 0o755);
        mode(&key, 0o644);
        let nobody = (65_534, 65_534);
        assert_eq!(forbidden(&key, 0o4, nobody.0, nobody.1), None);
        mode(&key, 0o600);
        assert_eq!(forbidden(&key, 0o4, nobody.0, nobody.1).as_deref(), Some(key.as_path()));
        let owner = key.metadata().unwrap();
        assert_eq!(forbidden(&key, 0o4, owner.uid(), owner.gid()), None);
        mode(&key, 0o644);
        mode(&inner, 0o700);
        assert_eq!(forbidden(&key, 0o4, nobody.0, nobody.1).as_deref(), Some(inner.as_path()));
    }
}

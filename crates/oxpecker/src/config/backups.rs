//! `[repository]` and `[backup]`: where backups go, when they are made, which are kept and how they are proven.

use std::{
    num::NonZeroU16,
    path::{Path, PathBuf},
    time::Duration,
};

use backup::{create::Road, schedule::Schedule};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Crontab, HumanDuration};

/// A backup that was proven longer ago than so many intervals of the schedule is too old: one may fail without an alarm at night.
const INTERVALS_ALLOWED: u32 = 2;
/// Runs of a schedule that are looked at for its longest interval: two weeks of a daily one.
const RUNS_LOOKED_AT: usize = 14;

/// `[repository]`: where backups are kept and what opens it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Repository {
    /// Where it is: `file:///srv/backup/oxpecker`. Without it, there are no backups.
    pub url: Option<String>,
    /// A file with the key that opens it. `oxpecker backup init` makes it if it is not there.
    pub key_file: Option<PathBuf>,
    /// A file with the passphrase that opens it, instead.
    pub passphrase_file: Option<PathBuf>,
}

/// An address that is none, in words; the second is the hint.
pub type BadAddress = (String, &'static str);

impl Repository {
    /// The directory that the address names; `None` where no repository is declared.
    ///
    /// # Errors
    /// In words, where the address can't be used.
    pub fn directory(&self) -> Result<Option<PathBuf>, BadAddress> {
        self.url.as_deref().map(directory).transpose()
    }
}

/// The directory of `file:///PATH`; `%XX` stands for a byte, as RFC 3986 has it.
///
/// # Errors
/// In words.
pub fn directory(url: &str) -> Result<PathBuf, BadAddress> {
    let Some(rest) = url.strip_prefix("file://") else {
        return Err(match url.split_once("://") {
            Some((scheme, _)) => (
                format!("{scheme}:// can't be used yet"),
                "a local directory or a mounted share: file:///srv/backup/oxpecker",
            ),
            None => (
                format!("{url:?} is no address"),
                "write file:// and the whole path, such as file:///srv/backup/oxpecker",
            ),
        });
    };
    let path = rest.strip_prefix("localhost").unwrap_or(rest);
    if !path.starts_with('/') {
        return Err((format!("{url:?} names no whole path"), "three slashes: file:///srv/backup/oxpecker"));
    }
    let path = decoded(path)
        .ok_or_else(|| (format!("{url:?} has a % that stands for nothing"), "write %25 for a % in a name"))?;
    Ok(path)
}

fn decoded(text: &str) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt as _;
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    Some(PathBuf::from(std::ffi::OsString::from_vec(bytes)))
}

/// `[backup]`: when backups are made, which are kept, how they are proven.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Backup {
    /// When the guard makes backups. Without it, only when somebody asks for one.
    pub schedule: Option<Crontab>,
    /// A backup begins up to so much after its time, so that many hosts do not begin at once.
    pub jitter: HumanDuration,
    /// Which backups are kept.
    pub keep: Keep,
    /// Files that are read at a time. Default: one for each CPU, at most [`Backup::JOBS_DEFAULT_MAX`].
    pub jobs: Option<NonZeroU16>,
    /// How the files get here.
    pub source: SourceChoice,
    /// When backups are proven.
    pub prove: ProveWhen,
    /// Alert when the newest backup that was proven is older. Default: two intervals of the schedule.
    pub max_age: Option<HumanDuration>,
    /// Where backups are restored for their proof. Default: `proof` in the state directory.
    pub scratch_dir: Option<PathBuf>,
    /// Libraries that the proof's server must preload, because the WAL has records of theirs. No others are loaded.
    pub proof_preload: Vec<String>,
    /// Queries that a restored backup must answer.
    pub proof: Vec<ProofQuery>,
}

impl Default for Backup {
    fn default() -> Self {
        Self {
            schedule: None,
            jitter: HumanDuration::from_secs(10 * 60),
            keep: Keep::default(),
            jobs: None,
            source: SourceChoice::default(),
            prove: ProveWhen::default(),
            max_age: None,
            scratch_dir: None,
            proof_preload: Vec::new(),
            proof: Vec::new(),
        }
    }
}

impl Backup {
    /// Files that are read at a time when nobody says how many: more would not make the disk faster.
    pub const JOBS_DEFAULT_MAX: u16 = 8;

    /// Files that are read at a time.
    pub fn jobs(&self) -> usize {
        let cpus = || std::thread::available_parallelism().map_or(1, usize::from);
        self.jobs.map_or_else(|| cpus().min(Self::JOBS_DEFAULT_MAX.into()), |jobs| usize::from(jobs.get()))
    }

    /// Where backups are restored for their proof.
    pub fn scratch_dir(&self, state_dir: &Path) -> PathBuf {
        self.scratch_dir.clone().unwrap_or_else(|| state_dir.join("proof"))
    }

    /// When the guard makes backups of the cluster that is called `cluster`; `None` where it does not.
    ///
    /// # Errors
    /// In words, where the jitter is too long.
    pub fn schedule(&self, cluster: &str) -> Result<Option<Schedule>, String> {
        self.schedule.as_ref().map(|crontab| crontab.schedule(self.jitter.0, cluster)).transpose()
    }

    /// From which age on the newest proven backup is an alarm; `None` where no age was declared and nothing is scheduled.
    pub fn max_age(&self, now: Timestamp) -> Option<Duration> {
        if let Some(age) = self.max_age {
            return Some(age.0);
        }
        // Jitter is the same for each run, so that it changes no interval.
        let schedule = self.schedule.as_ref()?.schedule(Duration::ZERO, "").ok()?;
        longest_interval(&schedule, now).map(|interval| interval * INTERVALS_ALLOWED)
    }
}

fn longest_interval(schedule: &Schedule, now: Timestamp) -> Option<Duration> {
    let runs: Vec<Timestamp> =
        std::iter::successors(schedule.after(now), |run| schedule.after(*run)).take(RUNS_LOOKED_AT).collect();
    runs.windows(2).filter_map(|pair| Duration::try_from(pair[1].duration_since(pair[0])).ok()).max()
}

/// `keep`: each rule keeps what it keeps; a backup that no rule keeps expires. The newest proven one is always kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Keep {
    /// The newest so many.
    pub last: u32,
    /// The newest of each of so many days that have one.
    pub daily: u32,
    /// The newest of each of so many weeks.
    pub weekly: u32,
    /// The newest of each of so many months.
    pub monthly: u32,
    /// The newest of each of so many years.
    pub yearly: u32,
    /// What recovery to any moment of this time up to now begins from; `0s`: nothing is kept for that.
    pub point_in_time: HumanDuration,
}

impl Default for Keep {
    fn default() -> Self {
        Self {
            last: 1,
            daily: 7,
            weekly: 4,
            monthly: 6,
            yearly: 0,
            point_in_time: HumanDuration::from_secs(14 * 24 * 3600),
        }
    }
}

/// How the files get here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum SourceChoice {
    /// Directly where the data directory is in reach, else from the server.
    #[default]
    Auto,
    /// From the data directory.
    Direct,
    /// From the server, over the replication protocol: one stream, so slower, but from anywhere.
    BaseBackup,
}

impl From<SourceChoice> for Road {
    fn from(choice: SourceChoice) -> Self {
        match choice {
            SourceChoice::Auto => Self::Auto,
            SourceChoice::Direct => Self::Direct,
            SourceChoice::BaseBackup => Self::BaseBackup,
        }
    }
}

/// When backups are proven.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProveWhen {
    /// Each scheduled backup, as soon as it is there.
    #[default]
    AfterBackup,
    /// Only when somebody asks.
    Never,
}

/// `[[backup.proof]]`: a query that a restored backup must answer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ProofQuery {
    /// In which database.
    pub database: String,
    /// The query.
    pub sql: String,
    /// What it must give, as `psql -At` prints it; where absent, it need only succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_directories() {
        for (url, path) in
            [("file:///srv/backup", "/srv/backup"), ("file://localhost/srv", "/srv"), ("file:///a%20b/%25", "/a b/%")]
        {
            assert_eq!(directory(url), Ok(PathBuf::from(path)), "{url}");
        }
        for (url, says) in [
            ("/srv/backup", "no address"),
            ("file://srv/backup", "no whole path"),
            ("s3://bucket/x", "can't be used yet"),
            ("file:///a%2", "stands for nothing"),
            ("file:///a%zz", "stands for nothing"),
        ] {
            let (what, _) = directory(url).unwrap_err();
            assert!(what.contains(says), "{url}: {what}");
        }
    }

    #[test]
    fn the_example_of_the_manual_is_read() {
        let text = "schedule = \"0 3 * * *\"\nkeep = { daily = 7, weekly = 4, monthly = 6, point_in_time = \"14d\" }\n\
                    [[proof]]\ndatabase = \"app\"\nsql = \"select count(*) > 0 from users\"\nexpect = \"t\"\n";
        let backup: Backup = toml::from_str(text).unwrap();
        assert_eq!(backup.keep, Keep::default());
        assert_eq!(backup.prove, ProveWhen::AfterBackup);
        assert_eq!(backup.proof[0].expect.as_deref(), Some("t"));
        assert_eq!(toml::from_str::<Backup>(&toml::to_string(&backup).unwrap()).unwrap(), backup);
        for (text, says) in [
            ("schedule = \"at three\"", "is no schedule"),
            ("prove = \"sometimes\"", "unknown variant `sometimes`"),
            ("jobs = 0", "nonzero"),
            ("source = \"tape\"", "unknown variant `tape`"),
            ("keep = { dayly = 3 }", "unknown field `dayly`"),
        ] {
            let error = toml::from_str::<Backup>(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn two_missed_nights_are_too_many() {
        let now = Timestamp::UNIX_EPOCH;
        let day = Duration::from_secs(24 * 3600);
        let with = |text: &str| toml::from_str::<Backup>(text).unwrap().max_age(now);
        assert_eq!(with(""), None);
        assert_eq!(with("schedule = \"0 3 * * * UTC\""), Some(2 * day));
        assert_eq!(with("schedule = \"0 3 * * MON UTC\""), Some(14 * day));
        assert_eq!(with("schedule = \"0 3 * * MON-FRI UTC\""), Some(6 * day));
        assert_eq!(with("schedule = \"0 3 * * * UTC\"\nmax_age = \"30h\""), Some(Duration::from_secs(30 * 3600)));
    }
}

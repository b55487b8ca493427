//! `backup`, `restore` and `key`.

use std::{num::NonZeroU16, path::PathBuf};

use clap::{Args, Subcommand};

use crate::config::SourceChoice;

/// Where the repository is and what opens it, for who has no configuration at hand: a new host, a stick, an emergency.
#[derive(Clone, Debug, Default, Args)]
pub struct RepositoryArgs {
    /// Where it is, instead of what the configuration says: file:///srv/backup/oxpecker
    #[arg(long, value_name = "URL", help_heading = "Repository")]
    pub repository: Option<String>,
    /// A file with the key that opens it
    #[arg(long, value_name = "FILE", help_heading = "Repository", conflicts_with = "passphrase_file")]
    pub key_file: Option<PathBuf>,
    /// A file with the passphrase that opens it, or with the recovery key
    #[arg(long, value_name = "FILE", help_heading = "Repository")]
    pub passphrase_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// Create the repository and the first key that opens it
    Init {
        #[command(flatten)]
        repository: RepositoryArgs,
    },
    /// Back up the database
    Create(CreateArgs),
    /// The backups, newest first, and when each was proven
    List {
        #[command(flatten)]
        repository: RepositoryArgs,
    },
    /// All about one backup
    Show {
        /// Its id, or the beginning of it, as `backup list` shows it; or `latest`
        #[arg(default_value = "latest")]
        id: String,
        #[command(flatten)]
        repository: RepositoryArgs,
    },
    /// Look for damage in the repository, and say what is still restorable
    Check {
        /// Read, authenticate and compare every byte, not only what is there and how long
        #[arg(long)]
        deep: bool,
        #[command(flatten)]
        repository: RepositoryArgs,
    },
    /// Let backups expire that no rule of `keep` keeps, and remove what nobody needs any more
    Prune(PruneArgs),
    /// Restore a backup into a scratch directory, start a server on it behind a fence, and check what is in it
    Prove(ProveArgs),
}

#[derive(Clone, Debug, Args)]
pub struct CreateArgs {
    /// Keep no backup in which a page of the source was damaged; by default it is kept and the pages are named
    #[arg(long)]
    pub fail_on_corruption: bool,
    /// Files that are read at a time; by default one for each CPU
    #[arg(long, short, value_name = "NUMBER")]
    pub jobs: Option<NonZeroU16>,
    /// How the files get here, instead of what the configuration says
    #[arg(long, value_enum, value_name = "SOURCE")]
    pub source: Option<SourceChoice>,
    /// Only look: is the server ready, how much is there to copy, how much space will it take
    #[arg(long, short = 'n')]
    pub dry_run: bool,
    /// This server has taken the place of the one that these backups are of, for good
    #[arg(long)]
    pub adopt: bool,
    /// End the backup of this cluster that the repository believes to be running, because its process is dead
    #[arg(long)]
    pub take_over: bool,
    /// Begin although the repository may run out of space
    #[arg(long)]
    pub no_space_check: bool,
    #[command(flatten)]
    pub repository: RepositoryArgs,
}

#[derive(Clone, Debug, Args)]
pub struct PruneArgs {
    /// Only say what would go, and why the rest stays
    #[arg(long, short = 'n')]
    pub dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
    /// Release the hold of a restore or proof, because you know that its process is dead: its id, or the beginning of it, as `backup
    /// prune --dry-run` and `backup check` list it; once for each
    #[arg(long, value_name = "HOLD", conflicts_with = "dry_run")]
    pub release_hold: Vec<String>,
    #[command(flatten)]
    pub repository: RepositoryArgs,
}

#[derive(Clone, Debug, Default, Args)]
pub struct ProveArgs {
    /// Its id, or the beginning of it, as `backup list` shows it; or `latest`
    #[arg(default_value = "latest", conflicts_with = "with")]
    pub id: String,
    /// Prove another tool's backup: the command that restores it into {pgdata}
    #[arg(long, value_name = "COMMAND")]
    pub with: Option<String>,
    /// Where to restore to; by default what `scratch_dir` of [backup] says
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
    /// The server to recover it with: the folder that holds `postgres`; by default one of the backup's version is looked for
    #[arg(long, value_name = "DIR")]
    pub pg_bin: Option<PathBuf>,
    /// Recover to the backup's own end only, not to the newest WAL in the repository
    #[arg(long, conflicts_with = "with")]
    pub own_wal: bool,
    #[command(flatten)]
    pub repository: RepositoryArgs,
}

#[derive(Clone, Debug, Args)]
pub struct RestoreArgs {
    /// Its id, or the beginning of it, as `backup list` shows it; or `latest`. With a moment to return to, the one that fits is chosen
    pub id: Option<String>,
    /// The directory to restore to: one that is empty or not there, or that an interrupted restore of this backup has left
    #[arg(long, short = 'D', value_name = "DIR")]
    pub pgdata: PathBuf,
    /// Put a tablespace elsewhere; once for each
    #[arg(long, value_name = "OLD=NEW", value_parser = parse_mapping)]
    pub tablespace_mapping: Vec<(PathBuf, PathBuf)>,
    /// Whom the files shall belong to, for root; by default who owned them, by name
    #[arg(long, value_name = "USER")]
    pub owner: Option<String>,
    /// Files that are written at a time; by default one for each CPU
    #[arg(long, short, value_name = "NUMBER")]
    pub jobs: Option<NonZeroU16>,
    /// Only say what would be written, and whether there is room for it
    #[arg(long, short = 'n')]
    pub dry_run: bool,
    /// Leave archiving and subscriptions as they were: for a server that takes the place of its original, which is gone. It begins a timeline of its own,
    /// so that its WAL gets into nobody's way
    #[arg(long, requires = "moment")]
    pub no_fence: bool,
    /// The process with which this one ends, so that never two restore to one directory
    #[arg(long, value_name = "PID", hide = true)]
    pub parent: Option<i32>,
    #[command(flatten)]
    pub moment: MomentArgs,
    #[command(flatten)]
    pub repository: RepositoryArgs,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "A moment to return to, with WAL from the repository")]
pub struct MomentArgs {
    /// The newest moment that there is WAL for
    #[arg(long = "latest", group = "moment")]
    pub newest: bool,
    /// Before the first commit behind this time, which says its zone: 2026-11-23T10:05:00Z
    #[arg(long, group = "moment", value_name = "TIME", value_parser = wal::recover::parse_time)]
    pub to_time: Option<jiff::Timestamp>,
    /// Behind the record that begins here, such as 0/3000158
    #[arg(long, group = "moment", value_name = "LSN")]
    pub to_lsn: Option<model::Lsn>,
    /// A restore point (pg_create_restore_point)
    #[arg(long, group = "moment", value_name = "NAME")]
    pub to_name: Option<String>,
    /// Behind the end of this transaction
    #[arg(long, group = "moment", value_name = "XID")]
    pub to_xid: Option<u64>,
    /// The timeline: latest, current (the backup's), or a number
    #[arg(long, requires = "moment", default_value = "latest", value_parser = parse_timeline)]
    pub timeline: wal::recover::TimelineChoice,
    /// Stop just before the moment: the transaction, or the commits of that very time, are left out
    #[arg(long, requires = "moment")]
    pub exclusive: bool,
    /// What the server does when it is there: wait, read only, until somebody has looked; take writes; shut down
    #[arg(long, requires = "moment", default_value = "pause", value_enum)]
    pub action: ActionChoice,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ActionChoice {
    Pause,
    Promote,
    Shutdown,
}

impl From<ActionChoice> for wal::recover::Action {
    fn from(choice: ActionChoice) -> Self {
        match choice {
            ActionChoice::Pause => Self::Pause,
            ActionChoice::Promote => Self::Promote,
            ActionChoice::Shutdown => Self::Shutdown,
        }
    }
}

impl MomentArgs {
    /// What is wanted; none: the backup's own moment.
    pub fn target(&self) -> Option<wal::recover::Target> {
        use wal::recover::Target;
        let time = self.to_time.map(Target::Time);
        let lsn = self.to_lsn.map(Target::Lsn);
        let name = self.to_name.clone().map(Target::Name);
        let xid = self.to_xid.map(Target::Xid);
        time.or(lsn).or(name).or(xid).or_else(|| self.newest.then_some(Target::Latest))
    }
}

fn parse_timeline(text: &str) -> Result<wal::recover::TimelineChoice, String> {
    use wal::recover::TimelineChoice;
    match text {
        "latest" => Ok(TimelineChoice::Latest),
        "current" => Ok(TimelineChoice::Current),
        number => match number.parse() {
            Ok(number) if number > 0 => Ok(TimelineChoice::Number(number)),
            _ => Err("write latest, current or the number of a timeline".to_owned()),
        },
    }
}

/// `OLD=NEW`, both absolute; as with pg_basebackup, `\=` stands for an equals sign in a path.
fn parse_mapping(text: &str) -> Result<(PathBuf, PathBuf), String> {
    let mut halves = [String::new(), String::new()];
    let mut at = 0;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' if characters.peek() == Some(&'=') => halves[at].extend(characters.next()),
            '=' if at == 0 => at = 1,
            '=' => return Err("more than one '='; write \\= for one in a path".to_owned()),
            other => halves[at].push(other),
        }
    }
    let [old, new] = halves.map(PathBuf::from);
    if at == 0 || !old.is_absolute() || !new.is_absolute() {
        return Err("write OLD=NEW with two whole paths, such as /srv/space=/mnt/space".to_owned());
    }
    Ok((old, new))
}

#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// What opens the repository
    List {
        #[command(flatten)]
        repository: RepositoryArgs,
    },
    /// Let another secret open it: a key file, or a passphrase that is asked for
    Add {
        /// A key file; it is made if it is not there
        #[arg(long, value_name = "FILE", conflicts_with = "new_passphrase_file")]
        new_key_file: Option<PathBuf>,
        /// A file with the new passphrase, where nobody can be asked
        #[arg(long, value_name = "FILE")]
        new_passphrase_file: Option<PathBuf>,
        /// What to call it: whose it is, where it lies
        #[arg(long, default_value = "")]
        label: String,
        #[command(flatten)]
        repository: RepositoryArgs,
    },
    /// Let a secret open it no more; who once had it may still hold a copy of the keys, see `rotate`
    Remove {
        /// The slot's id, or the beginning of it, as `key list` shows it
        slot: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
        #[command(flatten)]
        repository: RepositoryArgs,
    },
    /// Seal all that comes with a new key, which only the secrets that are given here open; nothing is written anew
    Rotate {
        /// Another key file that goes on opening it; once for each
        #[arg(long, value_name = "FILE")]
        keep_key_file: Vec<PathBuf>,
        /// A file with another passphrase or recovery key that goes on opening it; once for each
        #[arg(long, value_name = "FILE")]
        keep_passphrase_file: Vec<PathBuf>,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
        #[command(flatten)]
        repository: RepositoryArgs,
    },
    /// Make a recovery key to write down: it opens the repository when all else is lost
    Export {
        /// What to call it: where the paper lies
        #[arg(long, default_value = "on paper")]
        label: String,
        #[command(flatten)]
        repository: RepositoryArgs,
    },
    /// Type the recovery key from the paper: from then on the repository counts as recoverable
    Confirm {
        #[command(flatten)]
        repository: RepositoryArgs,
    },
}

#[cfg(test)]
mod tests {
    use super::parse_mapping;

    #[test]
    fn mappings_are_pairs_of_whole_paths() {
        assert_eq!(parse_mapping("/a=/b"), Ok(("/a".into(), "/b".into())));
        assert_eq!(parse_mapping("/a\\=b=/c"), Ok(("/a=b".into(), "/c".into())));
        for bad in ["", "/a", "/a=", "a=/b", "/a=b", "/a=/b=/c"] {
            assert!(parse_mapping(bad).is_err(), "{bad}");
        }
    }
}

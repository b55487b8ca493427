//! `wal`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::backup::RepositoryArgs;

/// The name of the command, and of the one of its commands whose exit codes PostgreSQL reads.
const WAL_GET: [&str; 2] = ["wal", "get"];

#[derive(Debug, Subcommand)]
pub enum WalCommand {
    /// Stream WAL from the server into the repository, as it is written
    Receive(ReceiveArgs),
    /// Store a file of WAL: archive_command = 'oxpecker wal push %p'
    Push(PushArgs),
    /// Bring a file of WAL back: restore_command = 'oxpecker wal get %f %p'
    Get(GetArgs),
    /// What WAL is there: ranges by timeline, gaps, and up to where it is durable
    List(StreamArgs),
    /// Read all WAL, and say what can be replayed and what can't
    Verify(VerifyArgs),
    /// Fetches what follows beside a recovery; started by `wal get`
    #[command(hide = true)]
    Ahead(GetArgs),
    /// Makes the page maps of what was pushed; started by `wal push`
    #[command(hide = true)]
    Map(PushArgs),
}

#[derive(Clone, Debug, Args)]
pub struct StreamArgs {
    /// Only the WAL of this system, by its identifier, as pg_controldata shows it
    #[arg(long, value_name = "NUMBER")]
    pub system: Option<u64>,
    #[command(flatten)]
    pub repository: RepositoryArgs,
}

#[derive(Clone, Debug, Args)]
pub struct VerifyArgs {
    /// Make the page maps that lack (which pages the WAL changed), of the WAL that is stored
    #[arg(long)]
    pub maps: bool,
    #[command(flatten)]
    pub streams: StreamArgs,
}

#[derive(Clone, Debug, Args)]
pub struct ReceiveArgs {
    /// The replication slot, instead of what the configuration says
    #[arg(long, value_name = "NAME", conflicts_with = "no_slot")]
    pub slot: Option<String>,
    /// Receive without a slot: what the server removes before it was received is lost to the archive
    #[arg(long)]
    pub no_slot: bool,
    /// Never make the slot; by default it is made where max_slot_wal_keep_size bounds what it can hold
    #[arg(long, conflicts_with_all = ["no_slot", "allow_unlimited_slot"])]
    pub no_create_slot: bool,
    /// Make the slot also where nothing bounds it: a receiver that is away for long then fills the server's disk
    #[arg(long)]
    pub allow_unlimited_slot: bool,
    /// How long bytes may wait until they are durable, such as 500ms; instead of what the configuration says
    #[arg(long, value_name = "TIME")]
    pub flush_every: Option<crate::config::HumanDuration>,
    #[command(flatten)]
    pub repository: RepositoryArgs,
}

#[derive(Clone, Debug, Args)]
pub struct PushArgs {
    /// The file, as PostgreSQL gives it: %p
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// How many of the segments that wait behind it are stored by the same call
    #[arg(long, value_name = "NUMBER", default_value_t = wal::push::Options::default().ahead, value_parser = clap::value_parser!(u64).range(0..=wal::push::AHEAD_MAX))]
    pub ahead: u64,
    #[command(flatten)]
    pub repository: RepositoryArgs,
}

#[derive(Clone, Debug, Args)]
pub struct GetArgs {
    /// The file's name: %f
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Where it is to appear: %p
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// This is a standby's: while the repository can't be reached it is told to look elsewhere and ask again, where a recovery is stopped
    #[arg(long)]
    pub standby: bool,
    /// How many segments are fetched ahead into pg_wal/oxpecker-spool
    #[arg(long, value_name = "NUMBER", default_value_t = wal::get::AHEAD_DEFAULT, value_parser = clap::value_parser!(u64).range(0..=wal::get::AHEAD_MAX))]
    pub ahead: u64,
    /// For how long a repository that does not answer is asked again, such as 20s
    #[arg(long, value_name = "TIME")]
    pub patience: Option<crate::config::HumanDuration>,
    /// The data directory, where PATH does not lie in its pg_wal
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    #[command(flatten)]
    pub repository: RepositoryArgs,
}

/// Whether the arguments are for `wal get`, as far as can be told before they are understood: what is wrong with them must not look to
/// PostgreSQL as if there were no such file.
pub fn is_wal_get(arguments: impl Iterator<Item = std::ffi::OsString>) -> bool {
    let words: Vec<_> = arguments.skip(1).collect();
    words.windows(2).any(|pair| pair[0] == WAL_GET[0] && pair[1] == WAL_GET[1])
        // Flags may stand between the two.
        || words.iter().position(|word| word == WAL_GET[0]).is_some_and(|at| words[at..].iter().any(|word| word == WAL_GET[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_postgres_asks_is_known_before_it_is_understood() {
        for (line, expected) in [
            ("oxpecker wal get %f %p", true),
            ("oxpecker --config x wal get --nonsense", true),
            ("oxpecker wal --quiet get a b", true),
            ("oxpecker wal push get", true),
            ("oxpecker backup list", false),
            ("wal get", false),
            ("oxpecker", false),
        ] {
            assert_eq!(is_wal_get(line.split(' ').map(Into::into)), expected, "{line}");
        }
    }
}

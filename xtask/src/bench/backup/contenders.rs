//! Who is compared, and with which options.

use std::{fs, path::Path, process::Command};

use anyhow::Result;

use super::world::World;
use crate::{bench::program, shell};

/// A tool that makes a full backup below a directory of its own.
pub struct Contender {
    /// What the table calls it.
    pub name: &'static str,
    /// Whether the goals are judged against it.
    pub judged: bool,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Oxpecker,
    PgBackRest { tuned: bool },
    BaseBackup { zstd: bool },
}

/// Ours first.
pub const CONTENDERS: [Contender; 5] = [
    Contender { name: "oxpecker (defaults)", judged: false, kind: Kind::Oxpecker },
    Contender {
        name: "pgBackRest, process-max = cores, zstd 3, aes-256-cbc, bundles",
        judged: true,
        kind: Kind::PgBackRest { tuned: true },
    },
    Contender { name: "pgBackRest, its defaults", judged: false, kind: Kind::PgBackRest { tuned: false } },
    Contender { name: "pg_basebackup, plain", judged: false, kind: Kind::BaseBackup { zstd: false } },
    Contender { name: "pg_basebackup, server-side zstd", judged: false, kind: Kind::BaseBackup { zstd: true } },
];

impl Contender {
    /// Makes what it needs before its first backup; not measured.
    pub fn prepare(&self, world: &World, place: &Path) -> Result<()> {
        let repository = place.join("repository");
        match self.kind {
            Kind::Oxpecker => {
                let key = place.join("key");
                fs::write(&key, "a passphrase of the benchmark\n")?;
                fs::write(
                    place.join("oxpecker.toml"),
                    format!(
                        "state_dir = {:?}\n[postgres]\nurl = {:?}\n[repository]\nurl = \"file://{}\"\npassphrase_file = {key:?}\n",
                        place.join("state"),
                        world.cluster.url("postgres"),
                        repository.display(),
                    ),
                )?;
                shell::capture(oxpecker(place)?.args(["backup", "init"]))?;
            }
            Kind::PgBackRest { tuned } => {
                fs::create_dir_all(&repository)?;
                fs::write(place.join("pgbackrest.conf"), configuration(world, place, tuned))?;
                shell::capture(pgbackrest(place).arg("stanza-create"))?;
                // Its archive_command must find this very repository.
                world.archive_with(&format!(
                    "pgbackrest --config={} --stanza=bench archive-push %p",
                    place.join("pgbackrest.conf").display()
                ))?;
            }
            Kind::BaseBackup { .. } => {}
        }
        if !matches!(self.kind, Kind::PgBackRest { .. }) {
            world.archive_with("true")?;
        }
        world.give(place)
    }

    /// One full backup.
    pub fn create(&self, world: &World, place: &Path) -> Result<Command> {
        Ok(match self.kind {
            Kind::Oxpecker => {
                let mut command = oxpecker(place)?;
                command.args(["--quiet", "backup", "create"]);
                command
            }
            Kind::PgBackRest { .. } => {
                let mut command = pgbackrest(place);
                command.args(["--type=full", "backup"]);
                command
            }
            Kind::BaseBackup { zstd } => {
                let mut command = Command::new(world.cluster.installation().bin_dir.join("pg_basebackup"));
                command.arg("--pgdata").arg(place.join("repository")).args(["--checkpoint=fast", "--wal-method=fetch"]);
                command.args(["--dbname", &world.cluster.url("postgres")]);
                if zstd {
                    command.args(["--format=tar", "--compress=server-zstd:3"]);
                }
                command
            }
        })
    }

    /// A restore of the newest backup to an empty directory, where the tool has one.
    pub fn restore(&self, _: &World, place: &Path) -> Option<Command> {
        let target = place.join("restored");
        match self.kind {
            Kind::Oxpecker => {
                let mut command = oxpecker(place).ok()?;
                command.args(["--quiet", "restore", "--pgdata"]).arg(target);
                Some(command)
            }
            Kind::PgBackRest { .. } => {
                fs::create_dir_all(&target).ok()?;
                let mut command = pgbackrest(place);
                command.arg(format!("--pg1-path={}", target.display())).arg("restore");
                Some(command)
            }
            // What it makes is the data directory, or a tar that lacks a tool of its own.
            Kind::BaseBackup { .. } => None,
        }
    }
}

fn oxpecker(place: &Path) -> Result<Command> {
    let mut command = Command::new(program::path()?);
    command.arg("--config").arg(place.join("oxpecker.toml"));
    Ok(command)
}

fn pgbackrest(place: &Path) -> Command {
    let mut command = Command::new("pgbackrest");
    command.arg(format!("--config={}", place.join("pgbackrest.conf").display())).arg("--stanza=bench");
    command
}

fn configuration(world: &World, place: &Path, tuned: bool) -> String {
    let place = place.display();
    let mut text = format!(
        "[global]\nrepo1-path={place}/repository\nlog-path={place}\nlock-path={place}/lock\nspool-path={place}/spool\n\
         log-level-console=warn\nlog-level-file=off\nstart-fast=y\n"
    );
    if tuned {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        text.push_str(&format!(
            "process-max={cores}\ncompress-type=zst\ncompress-level=3\nrepo1-cipher-type=aes-256-cbc\n\
             repo1-cipher-pass=a passphrase of the benchmark\nrepo1-bundle=y\n"
        ));
    }
    text.push_str(&format!(
        "[bench]\npg1-path={}\npg1-port={}\npg1-socket-path={}\npg1-user=postgres\n",
        world.cluster.data_dir().display(),
        world.cluster.tcp_port(),
        world.cluster.socket_dir().display()
    ));
    text
}

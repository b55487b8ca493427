//! A server to take backups of, and backups of it made by hand: as any tool makes them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use backup::{
    progress::Silent,
    proof::{ProveOptions, Receipt, prove_command},
};
use scratch::{Installation, ScratchCluster};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::{Client, NoTls};

/// Runs a test with a version; says why where it is not installed.
pub fn on(major: u32, test: impl FnOnce(&Installation)) {
    match scratch::installation(major) {
        Ok(installation) => test(&installation),
        Err(error) => println!("skipped: {error}"),
    }
}

/// One test for each version, so that they share the cores and none takes long: the usual ones in every run, the others in the slow tier.
macro_rules! on_each {
    ($name:ident) => {
        mod $name {
            on_each!(@ $name: v13 13, v15 15, v18 18, slow_v14 14, slow_v16 16, slow_v17 17);
        }
    };
    (@ $name:ident: $($test:ident $major:literal),+) => {
        $(
            #[test]
            fn $test() {
                crate::source::on($major, super::$name);
            }
        )+
    };
}

/// A production server, and room for backups and proofs.
pub struct Source {
    pub cluster: ScratchCluster,
    runtime: Runtime,
    /// Backups, proofs, tablespaces: reachable for the servers' user.
    pub room: TempDir,
}

impl Source {
    pub fn start(installation: &Installation, settings: &[(&str, &str)]) -> Self {
        let mut builder = ScratchCluster::builder(installation)
            .fresh()
            .setting("autovacuum", "off")
            .setting("wal_level", "logical")
            .setting("fsync", "off");
        for (name, value) in settings {
            builder = builder.setting(*name, *value);
        }
        let room = tempfile::Builder::new().prefix("oxprooftest-").tempdir().unwrap();
        fs::set_permissions(room.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        Self { cluster: builder.start().unwrap(), runtime, room }
    }

    pub fn major(&self) -> u32 {
        self.cluster.installation().major()
    }

    pub fn client(&self, database: &str) -> Client {
        self.client_of(&self.cluster, database)
    }

    pub fn client_of(&self, cluster: &ScratchCluster, database: &str) -> Client {
        self.connect(&cluster.url(database))
    }

    pub fn client_as(&self, user: &str, database: &str) -> Client {
        self.connect(&self.cluster.url(database).replace("user=postgres", &format!("user={user}")))
    }

    fn connect(&self, url: &str) -> Client {
        self.runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
            tokio::spawn(connection);
            client
        })
    }

    pub fn try_sql(&self, client: &Client, sql: &str) -> Result<(), tokio_postgres::Error> {
        self.runtime.block_on(client.batch_execute(sql))
    }

    pub fn sql(&self, client: &Client, sql: &str) {
        self.try_sql(client, sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    pub fn execute(&self, sql: &str) {
        self.sql(&self.client("postgres"), sql);
    }

    pub fn text(&self, sql: &str) -> String {
        let client = self.client("postgres");
        let row = self.runtime.block_on(client.query_one(sql, &[])).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        row.get(0)
    }

    /// A directory that the server may write to.
    pub fn directory(&self, name: &str) -> PathBuf {
        let path = self.room.path().join(name);
        fs::create_dir(&path).unwrap();
        self.cluster.give(&path).unwrap();
        path
    }

    /// A base backup with its WAL; `during` happens while it is made, so that its WAL is in the backup.
    pub fn back_up(&self, during: impl FnOnce(&Self)) -> PathBuf {
        self.back_up_by(&self.client("postgres"), during)
    }

    /// As [`Source::back_up`], by a session that is there.
    pub fn back_up_by(&self, client: &Client, during: impl FnOnce(&Self)) -> PathBuf {
        let backup = self.room.path().join("backup");
        let (start, stop) = if self.major() >= 15 {
            ("pg_backup_start('test', true)", "pg_backup_stop(false)")
        } else {
            ("pg_start_backup('test', true, false)", "pg_stop_backup(false, false)")
        };
        self.sql(client, &format!("SELECT {start}"));
        let copied = Command::new("cp").arg("-a").arg(self.cluster.data_dir()).arg(&backup).output().unwrap();
        // What the server removes meanwhile is none of a backup's.
        assert!(backup.join("PG_VERSION").exists(), "{copied:?}");
        during(self);
        let row = self.runtime.block_on(client.query_one(&format!("SELECT * FROM {stop}"), &[])).unwrap();
        let (label, map): (String, String) = (row.get(1), row.get(2));
        fs::write(backup.join("backup_label"), label).unwrap();
        if !map.is_empty() {
            fs::write(backup.join("tablespace_map"), map).unwrap();
        }
        self.sql(client, "SELECT pg_switch_wal()");
        for name in ["backup_label", "tablespace_map"] {
            let _ = self.cluster.give(&backup.join(name));
        }
        let wal = backup.join("pg_wal");
        fs::remove_dir_all(&wal).unwrap();
        let copied =
            Command::new("cp").arg("-a").arg(self.cluster.data_dir().join("pg_wal")).arg(&wal).status().unwrap();
        assert!(copied.success());
        for name in ["postmaster.pid", "postmaster.opts"] {
            let _ = fs::remove_file(backup.join(name));
        }
        backup
    }

    /// Writes a file of a backup, for the servers' user.
    pub fn write(&self, path: &Path, text: &str) {
        fs::write(path, text).unwrap();
        self.cluster.give(path).unwrap();
    }

    /// What a proof of this server's backups needs.
    pub fn options(&self) -> ProveOptions {
        let mut options = ProveOptions::new(self.room.path().join("scratch"), self.room.path().join("registry"));
        options.bin_dirs = vec![self.cluster.installation().bin_dir.clone()];
        options
    }

    /// Proves a copy of a backup.
    pub fn prove(&self, backup: &Path, options: &ProveOptions) -> Receipt {
        self.prove_with(&format!("cp -a {}/. {{pgdata}}", backup.display()), options)
    }

    /// Proves what a restore command brings.
    pub fn prove_with(&self, command: &str, options: &ProveOptions) -> Receipt {
        let receipt = prove_command(options, command, &Silent).unwrap();
        // Whatever came of it, nothing is left.
        assert_eq!(fs::read_dir(&options.scratch).unwrap().count(), 0, "{receipt:#?}");
        assert_eq!(fs::read_dir(&options.registry).unwrap().count(), 0);
        receipt
    }
}

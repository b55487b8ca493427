//! Against real clusters of every major version, and against PostgreSQL's own tools where they are there.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "test helpers, which clippy does not take for tests")]

mod control;
mod manifest;
mod pages;
mod wal;

use std::{
    path::Path,
    process::{Command, Output},
};

use scratch::{Installation, ScratchCluster};
use tokio_postgres::{NoTls, SimpleQueryMessage};

/// A session; statements go one by one, as some of them want.
struct Session {
    runtime: tokio::runtime::Runtime,
    client: tokio_postgres::Client,
}

impl Session {
    fn open(cluster: &ScratchCluster, dbname: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let url = cluster.url(dbname);
        let (client, connection) = runtime.block_on(tokio_postgres::connect(&url, NoTls)).unwrap();
        runtime.spawn(connection);
        Self { runtime, client }
    }

    /// The rows, as text.
    fn rows(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        let messages = self.runtime.block_on(self.client.simple_query(sql)).unwrap_or_else(|error| {
            panic!("{sql}: {error:?}");
        });
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
            }
            _ => None,
        });
        rows.collect()
    }

    /// The first column of the first row.
    fn one(&self, sql: &str) -> String {
        self.rows(sql).first().and_then(|row| row.first().cloned().flatten()).unwrap_or_default()
    }
}

/// A cluster with checksums and small WAL segments; `None`, said why, where the version is not installed.
fn cluster(major: u32) -> Option<ScratchCluster> {
    match scratch::installation(major) {
        Ok(installation) => {
            let builder = ScratchCluster::builder(&installation).initdb_args(["--data-checksums", "--wal-segsize=1"]);
            Some(builder.setting("wal_keep_size", "256MB").setting("autovacuum", "off").start().unwrap())
        }
        Err(error) => {
            println!("skipped: {error}");
            None
        }
    }
}

/// One of PostgreSQL's programs; `None`, said why, where it is not installed.
fn tool(installation: &Installation, name: &str) -> Option<Command> {
    let tool = installation.tool(name);
    if tool.is_none() {
        println!("skipped: no {name} of PostgreSQL {}; hint: cargo xtask testbed", installation.major());
    }
    let mut command = Command::new(tool?);
    command.env("LC_ALL", "C");
    Some(command)
}

/// Runs it; what it wrote on stdout.
fn text(command: &mut Command) -> String {
    let output = run(command);
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap()
}

/// All files below, relative.
fn files(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                todo.push(path);
            } else {
                found.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

macro_rules! majors {
    ($($module:ident::$check:ident: $($name:ident = $major:literal),*;)*) => {
        $($(#[test]
        fn $name() {
            $module::$check($major);
        })*)*
    };
}

majors! {
    control::agrees: control_13 = 13, control_14 = 14, control_15 = 15, control_16 = 16, control_17 = 17, control_18 = 18;
    pages::agree: pages_13 = 13, pages_14 = 14, pages_15 = 15, pages_16 = 16, pages_17 = 17, pages_18 = 18;
    wal::agrees: wal_13 = 13, wal_14 = 14, wal_15 = 15, wal_16 = 16, wal_17 = 17, wal_18 = 18;
    manifest::agrees: manifest_14 = 14, manifest_15 = 15, manifest_16 = 16, manifest_17 = 17, manifest_18 = 18;
}

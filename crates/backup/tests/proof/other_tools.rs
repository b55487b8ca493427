//! Backups of tools that a team may have already, by their own restore commands.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    process::{Command, Output},
};

use backup::proof::{ProofQuery, Verdict};

use crate::source::{Source, on};

/// pgBackRest keeps WAL apart, and its restore leaves a restore_command for it.
#[test]
fn pgbackrests_backup_is_proven() {
    if Command::new("pgbackrest").arg("version").output().is_err() {
        println!("skipped: pgbackrest is not installed");
        return;
    }
    on(15, |installation| {
        let mut source = Source::start(installation, &[("archive_mode", "on"), ("archive_command", "false")]);
        let home = source.directory("pgbackrest");
        let conf = home.join("pgbackrest.conf");
        let cluster = &source.cluster;
        let text = format!(
            "[global]\nrepo1-path={home}/repo\nlog-path={home}\nlock-path={home}/lock\nspool-path={home}/spool\nrepo1-retention-full=1\n\
             start-fast=y\nlog-level-console=warn\n[main]\npg1-path={data}\npg1-port={port}\npg1-socket-path={socket}\npg1-user=postgres\n",
            home = home.display(),
            data = cluster.data_dir().display(),
            port = cluster.tcp_port(),
            socket = cluster.socket_dir().display(),
        );
        source.write(&conf, &text);
        let owner = fs::metadata(cluster.data_dir()).unwrap();
        let tool = format!("pgbackrest --config={} --stanza=main", conf.display());
        let run = |command: &str| -> Output {
            let output = Command::new("setpriv")
                .args([format!("--reuid={}", owner.uid()), format!("--regid={}", owner.gid())])
                .args(["--clear-groups", "--", "/bin/sh", "-c", &format!("{tool} {command}")])
                .output()
                .unwrap();
            assert!(output.status.success(), "{command}: {output:?}");
            output
        };
        run("stanza-create");
        source.execute(&format!("ALTER SYSTEM SET archive_command = '{tool} archive-push %p'"));
        source.execute("SELECT pg_reload_conf()");
        let live = source.directory("live");
        source.execute(&format!("CREATE TABLESPACE space LOCATION '{}'", live.display()));
        source.execute("CREATE TABLE t TABLESPACE space AS SELECT generate_series(1, 5000) AS id");
        run("backup");
        source.execute("DELETE FROM t");
        let mut options = source.options();
        let sql = "SELECT count(*) FROM t".into();
        options.queries = vec![ProofQuery { database: "postgres".into(), sql, expect: Some("5000".into()) }];

        let command = format!("{tool} restore --pg1-path={{pgdata}} --tablespace-map-all={{scratch}}");
        let receipt = source.prove_with(&command, &options);
        assert_eq!(receipt.verdict, Verdict::Proven, "{receipt:#?}");
        assert!(receipt.notes.iter().any(|note| note.contains("were fetched")), "{receipt:#?}");
        assert_eq!(source.text("SELECT count(*)::text FROM t"), "0");

        // With a wrong stanza it says what the tool says.
        let receipt = source.prove_with(&command.replace("--stanza=main", "--stanza=other"), &options);
        assert_eq!(receipt.verdict, Verdict::Failed);
        assert!(receipt.reasons[0].contains("restore command failed"), "{receipt:#?}");
        // Its archiver must not hold up the end.
        source.execute("ALTER SYSTEM SET archive_command = 'true'");
        fs::set_permissions(&home, fs::Permissions::from_mode(0o755)).unwrap();
        source.cluster.stop_immediate().unwrap();
    });
}

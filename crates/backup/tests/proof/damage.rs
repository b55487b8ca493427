//! What is wrong with a backup is found, and what is wrong with the host of the proof is not taken for it.

use std::fs;

use backup::{
    progress::{Progress, Silent},
    proof::{CheckName, Outcome, ProofQuery, Receipt, Verdict, prove_command},
};

use scratch::Installation;

use crate::source::{Source, on};

fn outcome(receipt: &Receipt, name: CheckName) -> Outcome {
    receipt.checks.iter().find(|check| check.name == name).unwrap_or_else(|| panic!("{name:?}: {receipt:#?}")).outcome
}

/// A table of which the index of the backup is from before its last rows.
fn stale_index(source: &Source, column: &str) -> std::path::PathBuf {
    let client = source.client("postgres");
    source.sql(&client, &format!("CREATE TABLE t AS SELECT {column} AS key FROM generate_series(1, 5000) i; CREATE INDEX stale ON t (key); CHECKPOINT"));
    let file = source.text("SELECT pg_relation_filepath('stale')");
    let old = fs::read(source.cluster.data_dir().join(&file)).unwrap();
    source.sql(&client, &format!("INSERT INTO t SELECT {column} FROM generate_series(5001, 5100) i"));
    let backup = source.back_up(|_| {});
    fs::write(backup.join(file), old).unwrap();
    backup
}

fn an_index_that_misses_rows_is_found(installation: &Installation) {
    let source = Source::start(installation, &[]);
    let backup = stale_index(&source, "i");
    let receipt = source.prove(&backup, &source.options());
    assert_eq!(
        (receipt.verdict, outcome(&receipt, CheckName::Indexes)),
        (Verdict::Failed, Outcome::Failed),
        "{receipt:#?}"
    );
    assert!(receipt.reasons.iter().any(|reason| reason.contains("stale")), "{receipt:#?}");
}

on_each!(an_index_that_misses_rows_is_found);

#[test]
fn where_text_is_sorted_otherwise_an_index_on_it_is_not_comparable() {
    for major in [15, 18] {
        on(major, |installation| {
            let source = Source::start(installation, &[]);
            source.execute(
            "UPDATE pg_database SET datcollversion = '0.1' WHERE datlocprovider = 'c'; \
             CREATE COLLATION icu (provider = icu, locale = 'und'); UPDATE pg_collation SET collversion = '0.1' WHERE collprovider = 'i'",
        );
            let backup = stale_index(&source, "('k' || i) COLLATE icu");
            let receipt = source.prove(&backup, &source.options());
            assert_eq!(receipt.verdict, Verdict::NotProven, "{receipt:#?}");
            assert_eq!(outcome(&receipt, CheckName::Indexes), Outcome::NotComparable, "{receipt:#?}");
            assert!(receipt.reasons.iter().any(|reason| reason.contains("sorted otherwise")), "{receipt:#?}");
        });
    }
}

fn a_damaged_page_is_found(installation: &Installation) {
    let source = Source::start(installation, &[]);
    source.execute("CREATE TABLE t AS SELECT i AS id, repeat('x', 100) AS filler FROM generate_series(1, 5000) i");
    let file = source.text("SELECT pg_relation_filepath('t')");
    let backup = source.back_up(|_| {});
    let mut bytes = fs::read(backup.join(&file)).unwrap();
    // 18 makes clusters with checksums: any bit. Before that only what no header can be is seen.
    let at = if source.major() >= 18 { 8192 * 3 + 4000 } else { 8192 * 3 + 13 };
    bytes[at] ^= 0x80;
    fs::write(backup.join(&file), bytes).unwrap();
    let receipt = source.prove(&backup, &source.options());
    assert_eq!(receipt.verdict, Verdict::Failed, "{receipt:#?}");
    assert_eq!(outcome(&receipt, CheckName::PageChecksums), Outcome::Failed, "{receipt:#?}");
    assert!(receipt.reasons[0].contains(&format!("{file} block 3")), "{receipt:#?}");
}

on_each!(a_damaged_page_is_found);

fn missing_wal_fails_and_is_fetched_where_the_restore_says_how(installation: &Installation) {
    let source = Source::start(installation, &[]);
    source.execute("CREATE TABLE t (id int)");
    let backup = source.back_up(|source| {
        for _ in 0..2 {
            source.execute("INSERT INTO t SELECT generate_series(1, 1000)");
            source.execute("SELECT pg_switch_wal()");
        }
    });
    let archive = source.room.path().join("archive");
    fs::rename(backup.join("pg_wal"), &archive).unwrap();
    fs::create_dir(backup.join("pg_wal")).unwrap();
    let receipt = source.prove(&backup, &source.options());
    assert_eq!(receipt.verdict, Verdict::Failed, "{receipt:#?}");
    assert!(receipt.reasons[0].contains("WAL is incomplete"), "{receipt:#?}");

    let mut options = source.options();
    options.queries = vec![ProofQuery {
        database: "postgres".into(),
        sql: "SELECT count(*) FROM t".into(),
        expect: Some("2000".into()),
    }];
    fs::write(backup.join("postgresql.auto.conf"), format!("restore_command = 'cp {}/%f %p'\n", archive.display()))
        .unwrap();
    let receipt = source.prove(&backup, &options);
    assert_eq!(receipt.verdict, Verdict::Proven, "{receipt:#?}");
    assert!(receipt.notes.iter().any(|note| note.contains("were fetched")), "{receipt:#?}");

    // A gap in the archive.
    let mut segments: Vec<_> =
        fs::read_dir(&archive).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
    segments.sort();
    let label = fs::read_to_string(backup.join("backup_label")).unwrap();
    let first = segments.iter().position(|path| label.contains(path.file_name().unwrap().to_str().unwrap())).unwrap();
    fs::remove_file(&segments[first + 1]).unwrap();
    let receipt = source.prove(&backup, &options);
    assert_eq!(receipt.verdict, Verdict::Failed, "{receipt:#?}");
    assert!(receipt.reasons[0].contains("did not bring it"), "{receipt:#?}");
}

on_each!(missing_wal_fails_and_is_fetched_where_the_restore_says_how);

#[test]
fn a_query_that_gives_something_else_fails_the_proof() {
    on(15, |installation| {
        let source = Source::start(installation, &[]);
        let backup = source.back_up(|_| {});
        let mut options = source.options();
        let query = |sql: &str, expect: Option<&str>| ProofQuery {
            database: "postgres".into(),
            sql: sql.into(),
            expect: expect.map(str::to_owned),
        };
        for queries in [vec![query("SELECT 1", Some("2"))], vec![query("SELECT * FROM nowhere", None)]] {
            options.queries = queries;
            let receipt = source.prove(&backup, &options);
            assert_eq!(receipt.verdict, Verdict::Failed, "{receipt:#?}");
            assert!(receipt.reasons[0].starts_with("query in postgres"), "{receipt:#?}");
        }
        options.queries = vec![ProofQuery { database: "nowhere".into(), ..query("SELECT 1", None) }];
        assert_eq!(source.prove(&backup, &options).verdict, Verdict::Failed);
    });
}

#[test]
fn a_cluster_whose_superuser_nobody_knows_is_proven_too() {
    for major in [13, 18] {
        on(major, |installation| {
            let source = Source::start(installation, &[]);
            source.execute("CREATE ROLE other SUPERUSER LOGIN");
            let other = source.client_as("other", "postgres");
            source.sql(&other, "ALTER ROLE postgres RENAME TO boss");
            let backup = source.back_up_by(&other, |_| {});
            let receipt = source.prove(&backup, &source.options());
            assert_eq!(receipt.verdict, Verdict::Proven, "{receipt:#?}");
        });
    }
}

#[test]
fn what_the_host_lacks_is_not_the_backups_fault() {
    on(15, |installation| {
        let source = Source::start(installation, &[]);
        let backup = source.back_up(|_| {});
        let command = format!("cp -a {}/. {{pgdata}}", backup.display());
        let mut options = source.options();
        options.expected_bytes = Some(1 << 60);
        let receipt = source.prove_with(&command, &options);
        assert_eq!(receipt.verdict, Verdict::NotProven);
        assert!(receipt.reasons[0].contains("too little space") && receipt.stages.is_empty(), "{receipt:#?}");

        // A cold copy says so.
        let cold = format!("{command} && rm {{pgdata}}/backup_label");
        let receipt = source.prove_with(&cold, &source.options());
        assert!(receipt.notes.iter().any(|note| note.contains("no backup_label")), "{receipt:#?}");

        for (command, verdict, words) in [
            (
                format!("{command} && ln {{pgdata}}/base/1/PG_VERSION {{scratch}}/shared"),
                Verdict::NotProven,
                "hard links",
            ),
            ("echo broken >&2; exit 3; : {pgdata}".to_owned(), Verdict::Failed, "broken"),
            (": {pgdata}".to_owned(), Verdict::Failed, "pg_control"),
            (format!("{command} && rm {{pgdata}}/base/1/PG_VERSION"), Verdict::Failed, "template1"),
            (format!("{command} && : > {{pgdata}}/global/pg_control"), Verdict::Failed, "pg_control"),
        ] {
            let receipt = source.prove_with(&command, &source.options());
            assert_eq!(receipt.verdict, verdict, "{command}: {receipt:#?}");
            assert!(receipt.reasons.iter().any(|reason| reason.contains(words)), "{command}: {receipt:#?}");
        }
        assert!(prove_command(&source.options(), "cp -a x y", &Silent).is_err());
    });
}

struct Cancelled;

impl Progress for Cancelled {
    fn cancelled(&self) -> bool {
        true
    }
}

#[test]
fn a_cancelled_proof_ends_at_once_and_leaves_nothing() {
    on(15, |installation| {
        let source = Source::start(installation, &[]);
        let options = source.options();
        let receipt = prove_command(&options, "sleep 600; : {pgdata}", &Cancelled).unwrap();
        assert_eq!(receipt.verdict, Verdict::NotProven);
        assert!(receipt.reasons[0].contains("cancelled"));
        assert_eq!(fs::read_dir(&options.scratch).unwrap().count(), 0);
    });
}

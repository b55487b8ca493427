//! Backups in a repository of ours: proven, with the receipt beside them.

use std::{fs, path::PathBuf, sync::Arc};

use backup::{
    CreateOptions, create,
    progress::{Note, Progress, Silent},
    proof::{CheckName, Outcome, ProofQuery, Receipt, SubjectRecord, Verdict, prove_backup},
};
use repository::{KdfCost, Options, Repository, Secret, store::LocalStore};

use scratch::Installation;

use crate::source::Source;

struct Shelf {
    dir: PathBuf,
    repository: Repository,
}

impl Shelf {
    fn new(source: &Source) -> Self {
        let dir = source.room.path().join("repository");
        let store = LocalStore::create(&dir).unwrap();
        let options = Options { cost: KdfCost::CHEAP, pack_target: 1 << 20, ..Options::default() };
        let secret = Secret::passphrase("correct horse battery staple").unwrap();
        let repository =
            Repository::create(Arc::new(store), &options, &secret, "test", serde_json::Value::Null).unwrap();
        Self { dir, repository }
    }

    /// The largest pack.
    fn pack(&self) -> PathBuf {
        let mut packs = Vec::new();
        let mut pending = vec![self.dir.join("pack")];
        while let Some(dir) = pending.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { pending.push(path) } else { packs.push((fs::metadata(&path).unwrap().len(), path)) }
            }
        }
        packs.sort();
        packs.pop().unwrap().1
    }
}

fn a_stored_backup_is_proven(installation: &Installation) {
    let source = Source::start(installation, &[]);
    let live = source.directory("live");
    source.execute(&format!("CREATE TABLESPACE space LOCATION '{}'", live.display()));
    source.execute(
        "CREATE TABLE t TABLESPACE space AS SELECT i AS id, md5(i::text) AS hash FROM generate_series(1, 20000) i",
    );
    source.execute("CREATE INDEX ON t (hash)");
    source.execute("ALTER SYSTEM SET archive_command = 'exit 1'");
    let shelf = Shelf::new(&source);
    let created =
        create(&CreateOptions::new(source.cluster.url("postgres"), "main"), &shelf.repository, &Silent).unwrap();
    // Production goes on, and must not see anything of it.
    source.execute("DELETE FROM t WHERE id > 10");
    source.execute("CHECKPOINT");
    let mut options = source.options();
    options.queries = vec![ProofQuery {
        database: "postgres".into(),
        sql: "SELECT count(*), max(hash) > 'f' FROM t".into(),
        expect: Some("20000|t".into()),
    }];
    let receipt = prove_backup(&options, &shelf.repository, created.id, None, &Silent).unwrap();
    assert_eq!(receipt.verdict, Verdict::Proven, "{receipt:#?}");
    assert_eq!(receipt.subject, SubjectRecord::Backup { id: created.id.to_string() });
    assert_eq!(source.text("SELECT count(*)::text FROM t"), "10");
    let record = shelf.repository.backups().into_iter().find(|record| record.id == created.id).unwrap();
    let kept: Receipt = serde_json::from_value(record.proofs.last().unwrap().receipt.clone()).unwrap();
    assert_eq!(kept, receipt);
    assert!(record.proofs.last().unwrap().passed);
    let links = receipt.checks.iter().find(|check| check.name == CheckName::TablespaceLinks).unwrap();
    assert_eq!((links.outcome, links.examined), (Outcome::Passed, 1));
    let objects = receipt.checks.iter().find(|check| check.name == CheckName::Objects).unwrap();
    // Counted before and after: template0 is named, and not looked into.
    assert_eq!((objects.outcome, objects.examined), (Outcome::Passed, 3), "{objects:#?}");
    assert_eq!(fs::read_dir(&options.scratch).unwrap().count(), 0);

    // A flipped bit: the restore finds it, and the receipt says "failed", not "not proven".
    let pack = shelf.pack();
    let mut bytes = fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::set_permissions(&pack, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    fs::write(&pack, bytes).unwrap();
    let receipt = prove_backup(&options, &shelf.repository, created.id, None, &Silent).unwrap();
    assert_eq!(receipt.verdict, Verdict::Failed, "{receipt:#?}");
    assert!(receipt.reasons[0].contains("the restore failed"), "{receipt:#?}");
    let record = shelf.repository.backups().into_iter().find(|record| record.id == created.id).unwrap();
    assert_eq!(record.proofs.iter().map(|proof| proof.passed).collect::<Vec<_>>(), [true, false]);
}

on_each!(a_stored_backup_is_proven);

/// Makes a tablespace as soon as the backup has begun.
struct Meanwhile<'a> {
    source: &'a Source,
    sql: Vec<String>,
}

impl Progress for Meanwhile<'_> {
    fn note(&self, note: &Note) {
        if matches!(note, Note::Started(_)) {
            for sql in &self.sql {
                self.source.execute(sql);
            }
        }
    }
}

fn a_tablespace_made_meanwhile_is_proven_beside_the_live_one(installation: &Installation) {
    let source = Source::start(installation, &[]);
    let live = source.directory("live");
    let shelf = Shelf::new(&source);
    let meanwhile = Meanwhile {
        source: &source,
        sql: vec![
            format!("CREATE TABLESPACE space LOCATION '{}'", live.display()),
            "CREATE TABLE t TABLESPACE space AS SELECT generate_series(1, 1000) AS id".to_owned(),
        ],
    };
    let created =
        create(&CreateOptions::new(source.cluster.url("postgres"), "main"), &shelf.repository, &meanwhile).unwrap();
    source.execute("TRUNCATE t");
    source.execute("CHECKPOINT");
    let mut options = source.options();
    let sql = "SELECT count(*) FROM t".into();
    options.queries = vec![ProofQuery { database: "postgres".into(), sql, expect: Some("1000".into()) }];
    let receipt = prove_backup(&options, &shelf.repository, created.id, None, &Silent).unwrap();
    assert_eq!(receipt.verdict, Verdict::Proven, "{receipt:#?}");
    assert_eq!(receipt.fence.unwrap().rebound_tablespaces, [live.display().to_string()]);
    assert_eq!(source.text("SELECT count(*)::text FROM t"), "0");
}

on_each!(a_tablespace_made_meanwhile_is_proven_beside_the_live_one);

//! Pages, judged by what servers have written and by `pg_checksums`.

use std::{fs, path::Path};

use model::Lsn;
use pg_format::{
    ControlFile,
    files::{FileKind, Rules, Skip},
    page::{Bounds, Corruption, PageVerdict, verify},
};

use crate::{Session, cluster, files, run, tool};

/// Everything is older than that, nothing comes from beyond.
const ALL: Bounds = Bounds { start: Lsn(u64::MAX), insert: Lsn(u64::MAX), checksums: true };

/// (good, empty, corrupt with their places)
fn look(data: &Path) -> (usize, usize, Vec<(String, u32, Corruption)>) {
    let control = ControlFile::parse(&fs::read(data.join("global/pg_control")).unwrap()).unwrap();
    let (mut good, mut empty, mut corrupt) = (0, 0, Vec::new());
    for path in files(data) {
        let FileKind::Relation(file) = Rules::default().classify(path.as_bytes()) else { continue };
        let first = file.first_block(control.segment_blocks).unwrap();
        let bytes = fs::read(data.join(&path)).unwrap();
        for (block, page) in (first..).zip(bytes.chunks(control.block_size as usize)) {
            match verify(page, block, &ALL) {
                PageVerdict::Good => good += 1,
                PageVerdict::Empty => empty += 1,
                PageVerdict::Newer => panic!("{path}: nothing is newer than the end of all WAL"),
                PageVerdict::Corrupt(corruption) => corrupt.push((path.clone(), block, corruption)),
            }
        }
    }
    (good, empty, corrupt)
}

pub(crate) fn agree(major: u32) {
    let Some(mut cluster) = cluster(major) else { return };
    let session = Session::open(&cluster, "postgres");
    for sql in [
        "create table t as select i, repeat('x', 200) as x from generate_series(1, 20000) i",
        "create index on t (i)",
        "create index on t using hash (i)",
        "create index on t using gin ((array[i]))",
        "create index on t using brin (i)",
        "create unlogged table u as select * from t",
        "vacuum t",
        "delete from t where i % 2 = 0",
    ] {
        session.rows(sql);
    }
    let path = session.one("select pg_relation_filepath('t')");
    let unlogged = session.one("select pg_relation_filepath('u')");
    session.rows("create temp table temp as select * from t");
    session.rows("checkpoint");
    let names = files(&cluster.data_dir());
    let kinds = names.iter().map(|name| (name, Rules::default().classify(name.as_bytes())));
    let temporary = kinds.filter(|(_, kind)| *kind == FileKind::Skipped(Skip::Temporary)).count();
    assert!(temporary > 0 && names.contains(&format!("{unlogged}_init")), "{names:?}");
    drop(session);

    cluster.stop_fast().unwrap();
    let data = cluster.data_dir();
    let (good, _, corrupt) = look(&data);
    assert!(good > 2000, "{good}");
    assert_eq!(corrupt, []);

    let mut bytes = fs::read(data.join(&path)).unwrap();
    bytes[8192 * 5 + 4000] ^= 0x10;
    fs::write(data.join(&path), &bytes).unwrap();
    let (still_good, _, corrupt) = look(&data);
    let [(file, 5, Corruption::Checksum { stored, computed, .. })] = &corrupt[..] else { panic!("{corrupt:?}") };
    assert_eq!((file, still_good), (&path, good - 1));

    let Some(mut checksums) = tool(cluster.installation(), "pg_checksums") else { return };
    let output = run(checksums.arg("--check").arg("-D").arg(&data));
    let said = String::from_utf8_lossy(&output.stderr);
    let expected = format!("block 5: calculated checksum {computed:X} but block contains {stored:X}");
    assert!(!output.status.success() && said.contains(&expected), "{expected}; {said}");
    let said = String::from_utf8_lossy(&output.stdout);
    let bad = said.lines().find_map(|line| line.strip_prefix("Bad checksums:"));
    assert_eq!(bad.map(str::trim), Some("1"), "{said}");
}

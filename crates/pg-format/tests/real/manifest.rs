//! Manifests, judged by `pg_verifybackup` over a backup of `pg_basebackup`.

use std::fs;

use model::Lsn;
use pg_format::{
    Major,
    label::BackupLabel,
    manifest::{self, Algorithm, Hasher, ManifestFile, ManifestWriter},
};

use crate::{Session, cluster, run, text, tool};

pub(crate) fn agrees(major: u32) {
    let Some(cluster) = cluster(major) else { return };
    let Some(mut base_backup) = tool(cluster.installation(), "pg_basebackup") else { return };
    let session = Session::open(&cluster, "postgres");
    session.rows("create table t as select i from generate_series(1, 20000) i");
    let system: u64 = session.one("select system_identifier from pg_control_system()").parse().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("copy");
    base_backup.args([
        "-d",
        &cluster.url("postgres"),
        "-X",
        "fetch",
        "-c",
        "fast",
        "--manifest-checksums=SHA256",
        "-D",
    ]);
    text(base_backup.arg(&copy));
    // What is no UTF-8 gets another key.
    let odd = std::os::unix::ffi::OsStrExt::as_bytes(std::ffi::OsStr::new("log")).to_vec();
    assert_eq!(odd, b"log");

    let path = copy.join(manifest::FILE_NAME);
    let bytes = fs::read(&path).unwrap();
    let (summary, files) = manifest::parse(&bytes).unwrap();
    let known = Major::from_number(major).unwrap();
    assert_eq!(summary.version, known.manifest_version());
    assert_eq!(summary.system_identifier, (major >= 17).then_some(system));
    let label = BackupLabel::parse(&fs::read_to_string(copy.join("backup_label")).unwrap()).unwrap();
    let range = summary.wal_ranges[0];
    assert_eq!((range.timeline, range.start), (1, label.start));
    assert!(range.end > range.start && range.end < Lsn(u64::MAX));
    assert!(files.len() > 500);
    for file in &files {
        let bytes = fs::read(copy.join(std::str::from_utf8(&file.path).unwrap())).unwrap();
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(&bytes);
        assert_eq!((file.size, file.checksum.as_ref()), (bytes.len() as u64, Some(&hasher.finish())), "{file:?}");
    }

    // The same again by us, with another algorithm and a path that is no UTF-8.
    let write = |files: &[ManifestFile]| {
        let mut writer = ManifestWriter::begin(Vec::new(), known, system).unwrap();
        files.iter().for_each(|file| writer.add(file).unwrap());
        writer.finish(&summary.wal_ranges).unwrap()
    };
    assert_eq!(write(&files), bytes, "byte for byte as the server");
    let odd = b"odd \xff \"name\"".to_vec();
    fs::write(copy.join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&odd)), "odd").unwrap();
    let rehash = |path: Vec<u8>, algorithm| {
        let name = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&path);
        let bytes = fs::read(copy.join(name)).unwrap();
        let mut hasher = Hasher::new(algorithm);
        hasher.update(&bytes);
        ManifestFile::new(path, bytes.len() as u64, 1_700_000_000, Some(hasher.finish()))
    };
    let algorithms = [Algorithm::Crc32c, Algorithm::Sha224, Algorithm::Sha256, Algorithm::Sha384, Algorithm::Sha512];
    let paths = files.iter().map(|file| file.path.clone()).chain([odd]);
    let ours: Vec<_> =
        paths.zip(algorithms.into_iter().cycle()).map(|(path, algorithm)| rehash(path, algorithm)).collect();
    fs::write(&path, write(&ours)).unwrap();
    let verify = || run(tool(cluster.installation(), "pg_verifybackup").unwrap().arg(&copy));
    let output = verify();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(manifest::parse(&fs::read(&path).unwrap()).unwrap().1, ours);

    let version = copy.join("PG_VERSION");
    fs::write(&version, "1\n").unwrap();
    assert!(!verify().status.success(), "the check above can fail");
}

use proptest::prelude::*;

use super::*;
use crate::Major;

fn file(path: &[u8], algorithm: Option<Algorithm>) -> ManifestFile {
    let checksum = algorithm.map(|algorithm| {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(path);
        hasher.finish()
    });
    ManifestFile::new(path.to_vec(), 7, 1_600_000_000, checksum)
}

fn written(major: Major, files: &[ManifestFile], ranges: &[WalRange]) -> Vec<u8> {
    let mut writer = ManifestWriter::begin(Vec::new(), major, 7_123_456_789_012_345_678).unwrap();
    for file in files {
        writer.add(file).unwrap();
    }
    writer.finish(ranges).unwrap()
}

fn sealed(text: &str) -> Vec<u8> {
    use sha2::Digest;
    let sum = to_hex(&sha2::Sha256::digest(text));
    format!("{text}\"Manifest-Checksum\": \"{sum}\"}}\n").into_bytes()
}

#[test]
fn what_is_written_is_read_back() {
    let algorithms = [None, Some(Algorithm::Crc32c), Some(Algorithm::Sha224), Some(Algorithm::Sha512)];
    let paths: [&[u8]; 4] = [b"base/1/2", b"odd \"name\"\n\x01\\", "pg_tblspc/16400/ü".as_bytes(), b"not utf-8 \xff"];
    let files: Vec<_> = paths.iter().zip(algorithms).map(|(path, algorithm)| file(path, algorithm)).collect();
    let ranges = [WalRange { timeline: 1, start: Lsn(0x200_0028), end: Lsn(0x200_0100) }; 2];
    for major in [Major::V13, Major::V18] {
        for files in [&files[..], &files[..1], &[]] {
            let bytes = written(major, files, &ranges);
            let (summary, found) = parse(&bytes).unwrap();
            assert_eq!(found, files);
            assert_eq!(summary.version, major.manifest_version());
            assert_eq!(summary.system_identifier, (major == Major::V18).then_some(7_123_456_789_012_345_678));
            assert_eq!((summary.wal_ranges.as_slice(), summary.files), (&ranges[..], files.len() as u64));
        }
    }
}

#[test]
fn every_changed_byte_is_found() {
    let bytes = written(Major::V17, &[file(b"base/1/2", Some(Algorithm::Crc32c))], &[]);
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 4;
        // The case of the checksum's own digits does not matter to PostgreSQL either.
        assert!(parse(&changed).is_err(), "{at}");
        assert!(parse(&bytes[..at]).is_err(), "{at}");
    }
    assert!(parse(&[&bytes[..], b"x"].concat()).is_err());
}

#[test]
fn servers_text_is_read() {
    let text = concat!(
        "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [\n",
        "{ \"Path\": \"backup_label\", \"Size\": 224, \"Last-Modified\": \"2020-09-13 12:26:40 GMT\", ",
        "\"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"2a9e0f5b\" }\n],\n",
        "\"WAL-Ranges\": [\n{ \"Timeline\": 1, \"Start-LSN\": \"0/2000028\", \"End-LSN\": \"0/2000100\" }\n],\n",
    );
    let (summary, files) = parse(&sealed(text)).unwrap();
    assert_eq!((summary.version, summary.wal_ranges[0].end), (1, Lsn(0x200_0100)));
    assert_eq!(files[0].path, b"backup_label");
    assert_eq!(files[0].checksum.as_ref().unwrap().bytes, [0x2a, 0x9e, 0x0f, 0x5b]);
}

#[test]
fn what_is_no_manifest_is_refused() {
    let version = "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n";
    let entry = |body: &str| format!("{version}\"Files\": [ {body} ],\n");
    for text in [
        "{ \"Files\": [],\n".to_owned(),
        "{ \"PostgreSQL-Backup-Manifest-Version\": 3,\n".to_owned(),
        "{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n".to_owned(),
        format!("{version}\"System-Identifier\": 1,\n"),
        format!("{version}\"Files\": [],\n\"Files\": [],\n"),
        format!("{version}\"Else\": 1,\n"),
        entry("{ \"Path\": \"a\" }"),
        entry("{ \"Path\": \"a\", \"Encoded-Path\": \"61\", \"Size\": 1 }"),
        entry("{ \"Encoded-Path\": \"6\", \"Size\": 1 }"),
        entry("{ \"Path\": \"a\", \"Size\": -1 }"),
        entry("{ \"Path\": \"a\", \"Size\": 1, \"Checksum\": \"00000000\" }"),
        entry("{ \"Path\": \"a\", \"Size\": 1, \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"00\" }"),
    ] {
        assert!(matches!(parse(&sealed(&text)), Err(ManifestError::Malformed(_))), "{text}");
    }
    assert!(parse(&sealed(version)).is_ok());
    // All on one line: nothing to hash.
    let one_line = sealed("{ \"PostgreSQL-Backup-Manifest-Version\": 1, ");
    assert!(matches!(parse(&one_line), Err(ManifestError::LastLine)));
}

#[test]
fn a_broken_reader_is_told_from_a_broken_manifest() {
    struct Broken;
    impl std::io::Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("disk on fire"))
        }
    }
    assert!(matches!(read(Broken, |_| {}), Err(ManifestError::Read(_))));
}

#[test]
fn known_checksums() {
    for (algorithm, expected) in [
        (Algorithm::Crc32c, "839206e3"),
        (Algorithm::Sha256, "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"),
    ] {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(b"12345");
        hasher.update(b"6789");
        let checksum = hasher.finish();
        assert_eq!((checksum.algorithm, to_hex(&checksum.bytes).as_str()), (algorithm, expected));
        assert_eq!(checksum.bytes.len(), algorithm.checksum_len());
    }
}

proptest! {
    #[test]
    fn nothing_panics(text in "\\PC*") {
        let _ = parse(text.as_bytes());
        let _ = parse(&sealed(&format!("{{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n{text}")));
    }

    #[test]
    fn any_path_is_read_back(path in proptest::collection::vec(any::<u8>(), 1..60)) {
        let files = [file(&path, Some(Algorithm::Sha384))];
        prop_assert_eq!(parse(&written(Major::V15, &files, &[])).unwrap().1, files);
    }
}

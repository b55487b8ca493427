//! Manifests: no input panics, and what is accepted survives being written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pg_format::{Major, manifest};

fuzz_target!(|bytes: &[u8]| {
    let _ = manifest::parse(bytes);
    // Sealed, so that the contents are reached.
    let mut hasher = manifest::Hasher::new(manifest::Algorithm::Sha256);
    hasher.update(bytes);
    hasher.update(b"\n");
    let sum: String = hasher.finish().bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let sealed = [bytes, b"\n\"Manifest-Checksum\": \"", sum.as_bytes(), b"\"}\n"].concat();
    if let Ok((summary, files)) = manifest::parse(&sealed) {
        let major = if summary.version == 2 { Major::V18 } else { Major::V13 };
        let system = summary.system_identifier.unwrap_or_default();
        let mut writer = manifest::ManifestWriter::begin(Vec::new(), major, system).expect("memory");
        files.iter().for_each(|file| writer.add(file).expect("memory"));
        let written = writer.finish(&summary.wal_ranges).expect("memory");
        let again = manifest::parse(&written).expect("what we write");
        assert_eq!(again, (summary, files));
    }
});

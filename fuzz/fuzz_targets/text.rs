//! Labels, maps, configuration lines, paths: no input panics, and what can be written is read back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pg_format::{
    Major, conf,
    files::{Rules, UnloggedRelations},
    label::{BackupLabel, TablespaceMap},
};

fuzz_target!(|bytes: &[u8]| {
    let rules = Rules::default();
    let _ = (rules.classify(bytes), rules.classify_directory(bytes));
    let _ = UnloggedRelations::among([bytes]).skips(bytes);
    assert_eq!(conf::scrub(bytes, |_| false).bytes, bytes);
    assert_eq!(conf::settings(&conf::scrub(bytes, |_| true).bytes).count(), 0);
    if let Ok(map) = TablespaceMap::parse(bytes) {
        assert_eq!(TablespaceMap::parse(&map.to_bytes()).as_ref(), Ok(&map));
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(label) = BackupLabel::parse(text)
    {
        assert!(BackupLabel::parse(&label.to_text(Major::V18)).is_ok());
    }
    let _ = pg_format::parse_version_file(bytes);
});

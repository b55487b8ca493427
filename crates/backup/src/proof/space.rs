//! Whether there is room for a proof, said before it begins.

use std::path::Path;

use super::error::Halt;

/// What recovery and the checks need besides the restored files, in bytes: WAL of their own, a checkpoint, temporary files.
pub(crate) const BESIDES_BYTES: u64 = 512 << 20;
/// What is asked for where nobody knows the backup's size.
pub(crate) const UNKNOWN_BYTES: u64 = 1 << 30;

/// Free bytes at `path` for an ordinary user.
pub(crate) fn free_bytes(path: &Path) -> Option<u64> {
    let space = rustix::fs::statvfs(path).ok()?;
    Some(space.f_bavail.saturating_mul(space.f_frsize))
}

/// Stops where fewer than `needed` bytes are free.
pub(crate) fn demand(path: &Path, needed: u64, what_for: &str) -> Result<(), Halt> {
    match free_bytes(path) {
        Some(free) if free < needed => Err(Halt::not_proven(format!(
            "too little space in {}: {} are free and {what_for} takes about {}; hint: name a larger scratch directory",
            path.display(),
            shown(free),
            shown(needed)
        ))),
        _ => Ok(()),
    }
}

/// Bytes for people.
pub(crate) fn shown(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_space_is_said_in_figures() {
        let dir = std::env::temp_dir();
        assert!(demand(&dir, 0, "nothing").is_ok());
        let halt = demand(&dir, u64::MAX, "the backup").unwrap_err();
        assert!(halt.reason.contains("are free") && halt.reason.contains("hint"), "{}", halt.reason);
        assert_eq!((shown(5), shown(1536), shown(3 << 40)), ("5 B".into(), "1.5 KiB".into(), "3.0 TiB".into()));
    }
}

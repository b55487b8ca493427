//! Where things that may be fetched or made again are kept.

use std::path::PathBuf;

/// The cache of oxpecker's development tools.
///
/// PostgreSQL refuses root, so that root's servers run as another user, to whom `~root/.cache` is closed: root's cache is below
/// `/var/cache`. Everybody else has `$XDG_CACHE_HOME`, or `~/.cache`. `None` when there is no home either.
#[must_use]
pub fn shared_cache_dir() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from("/var/cache/oxpecker"));
    }
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    // The XDG base directory specification: a relative path is to be ignored.
    let cache = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))?;
    Some(cache.join("oxpecker"))
}

/// Where `cargo xtask testbed` puts PostgreSQL's major versions (`pg12`, `pg13`, ...) and [`crate::installations`] looks for them:
/// `$OXPECKER_TESTBED`, or `testbed` in [`shared_cache_dir`].
#[must_use]
pub fn testbed_dir() -> Option<PathBuf> {
    match std::env::var_os("OXPECKER_TESTBED") {
        Some(path) if !path.is_empty() => Some(PathBuf::from(path)),
        _ => Some(shared_cache_dir()?.join("testbed")),
    }
}

//! Unlogged relations: recovery resets them to their `_init` fork, so that a backup needs nothing else of them.

use std::collections::BTreeSet;

use super::relation::parse_name;
use crate::wal::Fork;

/// The unlogged relations of one database's directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnloggedRelations(BTreeSet<u32>);

impl UnloggedRelations {
    /// Finds them among the names of the directory's files: they have an `_init` fork.
    #[must_use]
    pub fn among<'a>(names: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let number = |name: &[u8]| match parse_name(std::str::from_utf8(name).ok()?)? {
            (None, number, Fork::Init, _) => Some(number),
            _ => None,
        };
        Self(names.into_iter().filter_map(number).collect())
    }

    /// Whether the file with this name belongs to one of them and is not its `_init` fork.
    #[must_use]
    pub fn skips(&self, name: &[u8]) -> bool {
        match std::str::from_utf8(name).ok().and_then(parse_name) {
            Some((None, number, fork, _)) => fork != Fork::Init && self.0.contains(&number),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forks_but_init_are_skipped() {
        let names: [&[u8]; 6] = [b"16400", b"16400_init", b"16400_vm", b"16400.1", b"16401", b"t1_16402_init"];
        let unlogged = UnloggedRelations::among(names);
        let skipped: Vec<_> = names.into_iter().filter(|name| unlogged.skips(name)).collect();
        assert_eq!(skipped, [&b"16400"[..], b"16400_vm", b"16400.1"]);
        assert!(!unlogged.skips(b"PG_VERSION"));
    }
}

//! What opens a repository.

use std::{fmt, fs, io::Read, path::Path, path::PathBuf};

use argon2::{Algorithm, Argon2, Params, Version};
use data_encoding::HEXLOWER;
use zeroize::Zeroizing;

use super::RecoveryKey;
use crate::{
    id::{self, NoRandom},
    seal::{KEY_LEN, context, derive},
};

/// The least characters of a passphrase.
pub const PASSPHRASE_MIN: usize = 12;
/// The least and the most bytes of a key file. Below, it can be guessed; above, it is some other file.
const KEY_FILE_MIN: usize = 32;
const KEY_FILE_MAX: usize = 4096;

/// A text or file can't be a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadSecret {
    /// Too short to withstand guessing.
    #[error(
        "the passphrase has {found} characters, fewer than {PASSPHRASE_MIN}\n  hint: take four or five random words"
    )]
    ShortPassphrase {
        /// Characters found.
        found: usize,
    },
    /// The key file has the wrong size.
    #[error(
        "the key file {path} has {found} bytes, not {KEY_FILE_MIN} to {KEY_FILE_MAX}\n  hint: make one with `oxpecker key add --new-key-file FILE`"
    )]
    KeyFileSize {
        /// The file.
        path: PathBuf,
        /// Its bytes, without the newline at its end.
        found: usize,
    },
    /// The key file could not be read.
    #[error("can't read the key file {path}: {source}\n  hint: see that it exists and that this user may read it")]
    KeyFileUnreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The recovery key was mistyped.
    #[error(transparent)]
    Recovery(#[from] super::BadRecoveryKey),
}

/// What kind of secret a slot takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotKind {
    /// A passphrase that a person knows.
    Passphrase = 1,
    /// A file on a host.
    KeyFile = 2,
    /// A recovery key on paper.
    Recovery = 3,
}

impl SlotKind {
    pub(super) fn from_code(code: u8) -> Option<Self> {
        [Self::Passphrase, Self::KeyFile, Self::Recovery].into_iter().find(|kind| *kind as u8 == code)
    }
}

impl fmt::Display for SlotKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Passphrase => "passphrase",
            Self::KeyFile => "key file",
            Self::Recovery => "recovery key",
        })
    }
}

/// What a guess at a passphrase costs: Argon2id's parameters. Stored with the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KdfCost {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl KdfCost {
    /// RFC 9106, section 4, the second recommended choice: 64 MiB, 3 passes, 4 lanes. It fits beside a database.
    pub const RECOMMENDED: Self = Self { memory_kib: 64 << 10, passes: 3, lanes: 4 };
    /// For tests only: no passphrase is safe with it.
    pub const CHEAP: Self = Self { memory_kib: 64, passes: 1, lanes: 1 };
    /// What a slot may ask for at most: a forged key object must not take the host's memory or time.
    pub(super) const MAX: Self = Self { memory_kib: 128 << 10, passes: 16, lanes: 16 };
    /// What slots that need no stretching name.
    pub(super) const NONE: Self = Self { memory_kib: 0, passes: 0, lanes: 0 };

    pub(super) fn is_allowed(self) -> bool {
        let Self { memory_kib, passes, lanes } = self;
        memory_kib <= Self::MAX.memory_kib
            && (1..=Self::MAX.passes).contains(&passes)
            && (1..=Self::MAX.lanes).contains(&lanes)
            && memory_kib >= 8 * lanes
    }
}

impl Default for KdfCost {
    fn default() -> Self {
        Self::RECOMMENDED
    }
}

/// A secret that opens a repository. Wiped from memory when dropped, never printed.
#[derive(Clone)]
pub struct Secret(Kind);

#[derive(Clone)]
enum Kind {
    Passphrase(Zeroizing<Vec<u8>>),
    KeyFile(Zeroizing<Vec<u8>>),
    Recovery(RecoveryKey),
}

impl Secret {
    /// A passphrase. One newline at its end is not part of it.
    ///
    /// # Errors
    /// It is shorter than [`PASSPHRASE_MIN`].
    pub fn passphrase(text: &str) -> Result<Self, BadSecret> {
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        let found = text.chars().count();
        if found < PASSPHRASE_MIN {
            return Err(BadSecret::ShortPassphrase { found });
        }
        Ok(Self(Kind::Passphrase(Zeroizing::new(text.as_bytes().to_vec()))))
    }

    /// The content of a key file. White space at its end is not part of it, so that an editor does no harm.
    ///
    /// # Errors
    /// The file can't be read or has the wrong size.
    pub fn key_file(path: &Path) -> Result<Self, BadSecret> {
        let unreadable = |source| BadSecret::KeyFileUnreadable { path: path.to_owned(), source };
        let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_FILE_MAX + 1));
        let file = fs::File::open(path).map_err(unreadable)?;
        file.take(KEY_FILE_MAX as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        let content = bytes.trim_ascii_end();
        if !(KEY_FILE_MIN..=KEY_FILE_MAX).contains(&content.len()) || bytes.len() > KEY_FILE_MAX {
            return Err(BadSecret::KeyFileSize { path: path.to_owned(), found: content.len() });
        }
        Ok(Self(Kind::KeyFile(Zeroizing::new(content.to_vec()))))
    }

    /// What to write into a new key file: one line. Write it with mode 0600.
    ///
    /// # Errors
    /// Only where the system gives no random numbers.
    pub fn new_key_file() -> Result<Zeroizing<String>, NoRandom> {
        let bytes = Zeroizing::new(id::random::<KEY_LEN>()?);
        Ok(Zeroizing::new(HEXLOWER.encode(&*bytes) + "\n"))
    }

    /// A recovery key, as it stands on paper.
    ///
    /// # Errors
    /// It has a typing error.
    pub fn recovery_key(text: &str) -> Result<Self, BadSecret> {
        Ok(Self(Kind::Recovery(text.parse()?)))
    }

    pub(crate) fn of_recovery_key(key: &RecoveryKey) -> Self {
        Self(Kind::Recovery(key.clone()))
    }

    /// What kind of slot it opens.
    pub fn kind(&self) -> SlotKind {
        match self.0 {
            Kind::Passphrase(_) => SlotKind::Passphrase,
            Kind::KeyFile(_) => SlotKind::KeyFile,
            Kind::Recovery(_) => SlotKind::Recovery,
        }
    }

    /// The cost that a new slot of this secret has. Only passphrases can be guessed.
    pub(super) fn cost(&self, wanted: KdfCost) -> KdfCost {
        if self.kind() == SlotKind::Passphrase { wanted } else { KdfCost::NONE }
    }

    /// What the slot's key is derived from. `None` when the cost is not allowed.
    pub(super) fn stretched(&self, salt: &[u8; 16], cost: KdfCost) -> Option<Zeroizing<[u8; KEY_LEN]>> {
        match &self.0 {
            Kind::Passphrase(text) => {
                if !cost.is_allowed() {
                    return None;
                }
                let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(KEY_LEN)).ok()?;
                let mut out = Zeroizing::new([0; KEY_LEN]);
                let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
                argon.hash_password_into(text, salt, &mut *out).ok()?;
                Some(out)
            }
            Kind::KeyFile(content) => Some(derive(context::SECRET_FILE, salt, &[content])),
            Kind::Recovery(key) => Some(derive(context::SECRET_RECOVERY, salt, &[key.secret()])),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({}, ..)", self.kind())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weak_secrets_are_refused() {
        assert!(Secret::passphrase("short").is_err());
        assert!(Secret::passphrase("correct horse").is_ok());
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        assert!(matches!(Secret::key_file(&path), Err(BadSecret::KeyFileUnreadable { .. })));
        for (content, good) in [
            ("short".to_owned(), false),
            ("a".repeat(32), true),
            ("a".repeat(31) + "\n", false),
            ("a".repeat(5000), false),
        ] {
            fs::write(&path, &content).unwrap();
            assert_eq!(Secret::key_file(&path).is_ok(), good, "{} bytes", content.len());
        }
        fs::write(&path, &*Secret::new_key_file().unwrap()).unwrap();
        assert!(Secret::key_file(&path).is_ok());
    }

    #[test]
    fn a_newline_at_the_end_is_not_part_of_a_secret() {
        let stretch = |text| Secret::passphrase(text).unwrap().stretched(&[1; 16], KdfCost::CHEAP).unwrap();
        assert_eq!(stretch("correct horse"), stretch("correct horse\n"));
        assert_ne!(stretch("correct horse"), stretch("correct horse "));
    }

    #[test]
    fn costs_have_bounds() {
        assert!(KdfCost::RECOMMENDED.is_allowed() && KdfCost::CHEAP.is_allowed() && KdfCost::MAX.is_allowed());
        assert!(!KdfCost::NONE.is_allowed());
        assert!(!KdfCost { memory_kib: u32::MAX, ..KdfCost::CHEAP }.is_allowed());
        assert!(!KdfCost { passes: u32::MAX, ..KdfCost::CHEAP }.is_allowed());
        assert!(!KdfCost { lanes: 16, ..KdfCost::CHEAP }.is_allowed());
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Secret::passphrase("correct horse").unwrap()), "Secret(passphrase, ..)");
    }
}

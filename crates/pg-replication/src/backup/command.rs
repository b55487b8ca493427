//! The command, which 15 gave another grammar.

/// How the files of the server's manifest are hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManifestChecksums {
    /// Not at all.
    None,
    /// CRC-32C: against mistakes.
    Crc32c,
    /// SHA-256: against forgery, and several times slower on the server.
    Sha256,
}

/// What a base backup shall be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseBackupOptions {
    /// What it is called in `backup_label`.
    pub label: String,
    /// Whether the server does its checkpoint at once instead of spreading it.
    pub fast_checkpoint: bool,
    /// Whether the WAL that a restore needs comes with it.
    pub include_wal: bool,
    /// Whether the server compares the checksums of pages as it reads them. It warns and, at the end, fails.
    pub verify_checksums: bool,
    /// Whether the server sends a manifest, and its kind of checksums.
    pub manifest: Option<ManifestChecksums>,
    /// Whether the server estimates the sizes of tablespaces beforehand, which takes it a look at every file.
    pub estimate_sizes: bool,
    /// How many KiB a second the server may send, from 32 to 1048576.
    pub max_rate_kib: Option<u32>,
}

impl BaseBackupOptions {
    /// A complete backup: at once, with WAL, checksums verified, a manifest with CRC-32C and estimates.
    #[must_use]
    pub fn new(label: impl Into<String>) -> Self {
        Self {
            label: label.into(),
            fast_checkpoint: true,
            include_wal: true,
            verify_checksums: true,
            manifest: Some(ManifestChecksums::Crc32c),
            estimate_sizes: true,
            max_rate_kib: None,
        }
    }

    pub(super) fn command(&self, major: u32) -> String {
        // One word or pair per option, in the order that 13's documentation has.
        let label = format!("'{}'", self.label.replace('\'', "''"));
        let manifest = self.manifest.map(|checksums| match checksums {
            ManifestChecksums::None => "'NONE'",
            ManifestChecksums::Crc32c => "'CRC32C'",
            ManifestChecksums::Sha256 => "'SHA256'",
        });
        if major >= 15 {
            let mut options = vec![
                format!("LABEL {label}"),
                format!("PROGRESS {}", self.estimate_sizes),
                format!("CHECKPOINT '{}'", if self.fast_checkpoint { "fast" } else { "spread" }),
                format!("WAL {}", self.include_wal),
                // Whether WAL is archived is not asked: it is in the backup, or somebody else takes care of it.
                "WAIT false".to_owned(),
                "TABLESPACE_MAP true".to_owned(),
                format!("VERIFY_CHECKSUMS {}", self.verify_checksums),
            ];
            options.extend(self.max_rate_kib.map(|rate| format!("MAX_RATE {rate}")));
            match manifest {
                Some(checksums) => {
                    options.extend(["MANIFEST 'yes'".to_owned(), format!("MANIFEST_CHECKSUMS {checksums}")]);
                }
                None => options.push("MANIFEST 'no'".to_owned()),
            }
            return format!("BASE_BACKUP ({})", options.join(", "));
        }
        let mut words = vec![format!("LABEL {label}")];
        let mut word = |wanted: bool, word: &str| words.extend(wanted.then(|| word.to_owned()));
        word(self.estimate_sizes, "PROGRESS");
        word(self.fast_checkpoint, "FAST");
        word(self.include_wal, "WAL");
        word(true, "NOWAIT");
        if let Some(rate) = self.max_rate_kib {
            word(true, &format!("MAX_RATE {rate}"));
        }
        word(true, "TABLESPACE_MAP");
        word(!self.verify_checksums, "NOVERIFY_CHECKSUMS");
        match manifest {
            Some(checksums) => word(true, &format!("MANIFEST 'yes' MANIFEST_CHECKSUMS {checksums}")),
            None => word(true, "MANIFEST 'no'"),
        }
        format!("BASE_BACKUP {}", words.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands() {
        let all = BaseBackupOptions { max_rate_kib: Some(100), ..BaseBackupOptions::new("it's") };
        assert_eq!(
            all.command(14),
            "BASE_BACKUP LABEL 'it''s' PROGRESS FAST WAL NOWAIT MAX_RATE 100 TABLESPACE_MAP MANIFEST 'yes' MANIFEST_CHECKSUMS 'CRC32C'"
        );
        assert_eq!(
            all.command(15),
            "BASE_BACKUP (LABEL 'it''s', PROGRESS true, CHECKPOINT 'fast', WAL true, WAIT false, TABLESPACE_MAP true, \
             VERIFY_CHECKSUMS true, MAX_RATE 100, MANIFEST 'yes', MANIFEST_CHECKSUMS 'CRC32C')"
        );
        let none = BaseBackupOptions {
            fast_checkpoint: false,
            include_wal: false,
            verify_checksums: false,
            manifest: None,
            estimate_sizes: false,
            ..BaseBackupOptions::new("")
        };
        assert_eq!(none.command(13), "BASE_BACKUP LABEL '' NOWAIT TABLESPACE_MAP NOVERIFY_CHECKSUMS MANIFEST 'no'");
    }
}

//! What a proof leaves behind: the receipt, kept in the repository beside the backup that it is about.

use std::time::Duration;

use jiff::Timestamp;
use model::Lsn;
use serde::{Deserialize, Serialize};

use super::{fence::FenceRecord, further::WalRecord};

/// The version of the receipt's JSON. Fields are only added within one.
pub const RECEIPT_FORMAT: u32 = 1;
/// How many findings of one check a receipt names; all are counted.
pub const FINDINGS_MAX: usize = 20;
/// How much of one finding, query result or message a receipt keeps, in bytes.
pub const TEXT_MAX_BYTES: usize = 1024;

/// What was found out about a backup, when, how, and what was not looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// [`RECEIPT_FORMAT`].
    pub format: u32,
    /// The outcome.
    pub verdict: Verdict,
    /// Why it is not "proven", for people; empty where it is.
    pub reasons: Vec<String>,
    /// What was proven.
    pub subject: SubjectRecord,
    /// When the proof began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// How long each stage took, in order.
    pub stages: Vec<StageRecord>,
    /// The measured recovery time: from the restore's first byte until the server accepted connections, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub recovery_time_ms: Option<u64>,
    /// The restored cluster, as far as it came to be known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cluster: Option<ClusterRecord>,
    /// WAL behind the backup that was replayed as well; absent where there was none, or none was asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub wal: Option<WalRecord>,
    /// What kept the scratch server away from production.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fence: Option<FenceRecord>,
    /// What was checked and what was not.
    pub checks: Vec<Check>,
    /// The user's own queries.
    pub queries: Vec<QueryRecord>,
    /// What else a reader should know.
    pub notes: Vec<String>,
}

/// The outcome of a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Restored, recovered, and nothing was found wrong.
    Proven,
    /// The proof could not be completed, for reasons that need not lie with the backup.
    NotProven,
    /// The backup can't be restored as it should, or what came of it is damaged or incomplete.
    Failed,
}

/// What a receipt is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SubjectRecord {
    /// A backup of a repository of ours.
    Backup {
        /// Its id.
        id: String,
    },
    /// Another tool's backup.
    Command {
        /// The restore command, what looks like a secret left out.
        command: String,
    },
}

/// A stage of a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Bringing the files back.
    Restore,
    /// Fetching the WAL that the backup needs, where the restore does not bring it.
    Wal,
    /// Looking at links and configuration, building the fence.
    Prepare,
    /// From the server's start until it accepted connections.
    Recovery,
    /// Reading every page of every relation.
    Checksums,
    /// The structure of tables and indexes.
    Structure,
    /// Comparing with what was recorded when the backup was made.
    Objects,
    /// The user's own queries.
    Queries,
}

/// How long a stage took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageRecord {
    /// Which.
    pub stage: Stage,
    /// Milliseconds.
    pub ms: u64,
}

/// The restored cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRecord {
    /// `system_identifier`, in decimal, as text: JSON's numbers are too short for it.
    pub system_id: String,
    /// The major version.
    pub major: u32,
    /// The server that it was proven with, as it names itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub server: Option<String>,
    /// The timeline that the backup was made on.
    pub timeline: u32,
    /// Where replay began.
    pub start_lsn: Lsn,
    /// Where the backup says that it ends.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stop_lsn: Option<Lsn>,
    /// How far the server replayed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reached_lsn: Option<Lsn>,
    /// Bytes of the restored files.
    pub bytes: u64,
}

/// The outcome of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Nothing wrong.
    Passed,
    /// Something is.
    Failed,
    /// It could not be, or need not be, looked at; the detail says why.
    NotChecked,
    /// Something seems wrong, but this host sorts text in another way than the one that the backup comes from.
    NotComparable,
    /// The check itself did not work here: a library is missing, for instance.
    Broken,
}

/// What is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckName {
    /// The header and checksum of every page.
    PageChecksums,
    /// The links to tablespaces, after recovery.
    TablespaceLinks,
    /// Every database can be opened.
    Databases,
    /// The heap of tables, by amcheck.
    Tables,
    /// Btree indexes, by amcheck, against their tables.
    Indexes,
    /// The objects that were there when the backup was made.
    Objects,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was checked.
    pub name: CheckName,
    /// With what outcome.
    pub outcome: Outcome,
    /// How many pages, tables, indexes, databases.
    pub examined: u64,
    /// How, or why not.
    pub detail: String,
    /// What was found, the first [`FINDINGS_MAX`].
    pub findings: Vec<String>,
    /// How many findings are left out.
    pub findings_left_out: u64,
}

impl Check {
    /// A check that has found nothing yet.
    pub(crate) fn new(name: CheckName, detail: impl Into<String>) -> Self {
        let (findings, findings_left_out) = (Vec::new(), 0);
        Self { name, outcome: Outcome::Passed, examined: 0, detail: detail.into(), findings, findings_left_out }
    }

    /// A check that is left out.
    pub(crate) fn not_checked(name: CheckName, why: impl Into<String>) -> Self {
        Self { outcome: Outcome::NotChecked, ..Self::new(name, why) }
    }

    /// Adds a finding. The worst outcome of all stays.
    pub(crate) fn find(&mut self, outcome: Outcome, finding: &str) {
        let rank = |outcome| match outcome {
            Outcome::Passed => 0,
            Outcome::NotChecked => 1,
            Outcome::NotComparable => 2,
            Outcome::Broken => 3,
            Outcome::Failed => 4,
        };
        if rank(outcome) > rank(self.outcome) {
            self.outcome = outcome;
        }
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(clip(finding));
        } else {
            self.findings_left_out += 1;
        }
    }
}

/// One of the user's own queries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryRecord {
    /// In which database.
    pub database: String,
    /// The query.
    pub sql: String,
    /// What it should give: columns parted by `|`, rows by line ends; absent where only its success counts.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expected: Option<String>,
    /// What it gave, or the error.
    pub got: String,
    /// [`Outcome::Passed`], [`Outcome::Failed`], or [`Outcome::Broken`] where a library is missing.
    pub outcome: Outcome,
    /// Milliseconds.
    pub ms: u64,
}

/// Milliseconds of a duration.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// At most [`TEXT_MAX_BYTES`] of a text.
pub(crate) fn clip(text: &str) -> String {
    if text.len() <= TEXT_MAX_BYTES {
        return text.to_owned();
    }
    let end = (0..=TEXT_MAX_BYTES).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}… ({} bytes in all)", &text[..end], text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_bounded_and_counted_and_the_worst_stays() {
        let mut check = Check::new(CheckName::Indexes, "");
        check.find(Outcome::Failed, &"ö".repeat(TEXT_MAX_BYTES));
        for _ in 0..FINDINGS_MAX {
            check.find(Outcome::NotComparable, "x");
        }
        assert_eq!((check.outcome, check.findings.len(), check.findings_left_out), (Outcome::Failed, FINDINGS_MAX, 1));
        assert!(check.findings[0].len() < TEXT_MAX_BYTES + 40);
    }
}

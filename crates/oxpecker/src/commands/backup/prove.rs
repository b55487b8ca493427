//! `oxpecker backup prove`.

use std::time::Duration;

use backup::proof::{
    self, Check, FurtherWal, Outcome as CheckOutcome, ProofQuery, ProveError, ProveOptions, Receipt, Stage,
    SubjectRecord, Verdict, WalRecord,
};
use model::ByteSize;

use super::{further::Stored, words};
use crate::{
    cli::{Global, ProveArgs},
    config::{self, Config, Overrides},
    exit::{FAILED, FINDING, FINE, Failure, Outcome, REFUSED, USAGE},
    output, place,
    repo::{self, Settings},
    work::{self, Work},
};

/// Below the state directory: records of scratch directories, so that what a killed proof leaves is removed by the next.
const REGISTRY: &str = "proofs";
/// Findings of one check that are shown to a person; JSON has them all.
const FINDINGS_SHOWN: usize = 5;

/// Proves one of our backups, or another tool's.
pub fn prove(global: &Global, args: &ProveArgs) -> Outcome {
    work::step_down();
    match &args.with {
        Some(command) => with(global, args, command),
        None => ours(global, args),
    }
}

fn ours(global: &Global, args: &ProveArgs) -> Outcome {
    let settings = Settings::load(global, &args.repository)?;
    usable(args)?;
    let repository = settings.open()?;
    let found = repo::find(&repository, &settings, &args.id)?;
    let mut options = options(&settings.config, args);
    if let Some(info) = repo::info(&found) {
        options.bin_dirs.extend(info.host.bin_dir.map(Into::into));
        options.expected_bytes = Some(info.bytes + info.wal_bytes);
    }
    let work = Work::begin(global, Some(&place::state_dir(&settings.config)))?;
    let stored = Stored::behind(&repository, &found).filter(|_| !args.own_wal);
    let further = stored.as_ref().map(|stored| stored as &dyn FurtherWal);
    let receipt = proof::prove_backup(&options, &repository, found.id, further, &work);
    work.end();
    match receipt {
        Ok(receipt) => report(global, &receipt),
        Err(ProveError::Unrecorded { receipt, source }) => {
            // What was found out matters more than where it is kept.
            report(global, &receipt)?;
            Err(failure(ProveError::Unrecorded { receipt, source }))
        }
        Err(error) => Err(failure(error)),
    }
}

/// What another tool restores needs no repository of ours.
fn with(global: &Global, args: &ProveArgs, command: &str) -> Outcome {
    let config = config::load(global.config.as_deref(), &Overrides::default())?.config;
    usable(args)?;
    let options = options(&config, args);
    let work = Work::begin(global, Some(&place::state_dir(&config)))?;
    let receipt = proof::prove_command(&options, command, &work);
    work.end();
    report(global, &receipt.map_err(failure)?)
}

/// Whether the flags name things that are there: a proof takes its time, and a server that was not meant proves less.
fn usable(args: &ProveArgs) -> Result<(), Failure> {
    if let Some(programs) = &args.pg_bin
        && !programs.join("postgres").is_file()
    {
        return Err(Failure::usage(anyhow::anyhow!("there is no `postgres` in {}", programs.display()))
            .hint("--pg-bin is the folder that holds it, such as /usr/lib/postgresql/17/bin"));
    }
    if let Some(scratch) = &args.scratch {
        repo::nameable(scratch)?;
        if scratch.exists() && !scratch.is_dir() {
            return Err(Failure::usage(anyhow::anyhow!("{} is no directory", scratch.display()))
                .hint("--scratch is one with room for the whole cluster"));
        }
    }
    Ok(())
}

/// How to prove, as the configuration and the flags say.
pub fn options(config: &Config, args: &ProveArgs) -> ProveOptions {
    let state_dir = place::state_dir(config);
    let scratch = args.scratch.clone().unwrap_or_else(|| config.backup.scratch_dir(&state_dir));
    let mut options = ProveOptions::new(scratch, state_dir.join(REGISTRY));
    options.bin_dirs.extend(args.pg_bin.clone());
    options.preload = config.backup.proof_preload.clone();
    let query = |query: &config::ProofQuery| ProofQuery {
        database: query.database.clone(),
        sql: query.sql.clone(),
        expect: query.expect.clone(),
    };
    options.queries = config.backup.proof.iter().map(query).collect();
    options
}

fn report(global: &Global, receipt: &Receipt) -> Outcome {
    output::result(global.output, "backup_prove", &serde_json::json!({ "receipt": receipt }), || text(receipt))?;
    Ok(if receipt.verdict == Verdict::Proven { FINE } else { FINDING })
}

/// A receipt for people.
pub fn text(receipt: &Receipt) -> String {
    let subject = match &receipt.subject {
        SubjectRecord::Backup { id } => format!("backup {id}"),
        SubjectRecord::Command { command } => format!("what `{command}` restores"),
    };
    let verdict = match receipt.verdict {
        Verdict::Proven => "PROVEN",
        Verdict::NotProven => "NOT PROVEN: nothing is known to be wrong with it, but the proof could not be completed",
        Verdict::Failed => "FAILED",
    };
    let mut text = format!("{subject}: {verdict}\n");
    for reason in &receipt.reasons {
        text.push_str(&format!("  {reason}\n"));
    }
    if let Some(cluster) = &receipt.cluster {
        let server = cluster.server.as_deref().unwrap_or("the server did not come up");
        text.push_str(&format!("  {} restored; {server}\n", ByteSize(cluster.bytes)));
        if let Some(lsn) = cluster.reached_lsn {
            text.push_str(&format!("  recovered from {} to {lsn}, timeline {}\n", cluster.start_lsn, cluster.timeline));
        }
    }
    if let Some(wal) = &receipt.wal {
        text.push_str(&format!("  {}\n", behind(wal)));
    }
    if let Some(ms) = receipt.recovery_time_ms {
        text.push_str(&format!("  up again {} after the restore began\n", work::duration(Duration::from_millis(ms))));
    }
    let stages: Vec<String> = receipt
        .stages
        .iter()
        .map(|stage| format!("{} {}", stage_words(stage.stage), work::duration(Duration::from_millis(stage.ms))))
        .collect();
    text.push_str(&format!("  stages: {}\n\n", stages.join(", ")));
    let rows = receipt.checks.iter().map(|check| {
        [
            check.name.words().to_owned(),
            outcome_words(check.outcome).to_owned(),
            check.examined.to_string(),
            detail(check),
        ]
    });
    let queries = receipt.queries.iter().map(|query| {
        let expected = query.expected.as_ref().map_or_else(String::new, |expected| format!(", expected {expected:?}"));
        let detail = format!("{}: {} gave {:?}{expected}", query.database, query.sql, query.got);
        ["query".to_owned(), outcome_words(query.outcome).to_owned(), String::new(), detail]
    });
    let rows: Vec<[String; 4]> = rows.chain(queries).collect();
    if !rows.is_empty() {
        text.push_str(&output::table(["check", "", "looked at", "how, and what was found"], &[2], rows));
    }
    for note in &receipt.notes {
        text.push_str(&format!("\nNote: {note}\n"));
    }
    text.push_str(&format!("\n{} to {}\n", words::moment(receipt.started_at), words::moment(receipt.finished_at)));
    text
}

/// What came of the WAL behind the backup.
fn behind(wal: &WalRecord) -> String {
    let mut text = match (wal.replayed_to, wal.newest_commit, wal.age()) {
        (Some(lsn), Some(newest), Some(age)) => format!(
            "with the WAL behind it up to {lsn}, timeline {}: the newest commit is of {}, {} before that was looked up",
            wal.timeline,
            words::moment(newest),
            work::duration(Duration::try_from(age).unwrap_or_default())
        ),
        (Some(lsn), ..) => format!("with the WAL behind it up to {lsn}, timeline {}", wal.timeline),
        (None, ..) => "without the WAL behind it".to_owned(),
    };
    if let Some(problem) = &wal.problem {
        text.push_str(&format!("\n  WAL NOT WHOLE: {problem}"));
    }
    text
}

fn detail(check: &Check) -> String {
    let mut text = check.detail.clone();
    for finding in check.findings.iter().take(FINDINGS_SHOWN) {
        text.push_str(&format!("\n{finding}"));
    }
    let hidden = check.findings.len().saturating_sub(FINDINGS_SHOWN) as u64 + check.findings_left_out;
    if hidden > 0 {
        text.push_str(&format!("\nand {hidden} more"));
    }
    text
}

fn outcome_words(outcome: CheckOutcome) -> &'static str {
    match outcome {
        CheckOutcome::Passed => "fine",
        CheckOutcome::Failed => "FAILED",
        CheckOutcome::NotChecked => "not looked at",
        CheckOutcome::NotComparable => "not comparable here",
        CheckOutcome::Broken => "did not work",
    }
}

fn stage_words(stage: Stage) -> &'static str {
    match stage {
        Stage::Restore => "restore",
        Stage::Wal => "write-ahead log",
        Stage::Prepare => "fence",
        Stage::Recovery => "recovery",
        Stage::Checksums => "pages",
        Stage::Structure => "tables and indexes",
        Stage::Objects => "objects",
        Stage::Queries => "queries",
    }
}

fn failure(error: ProveError) -> Failure {
    let code = match &error {
        ProveError::Command { .. } | ProveError::PathTooLong { .. } => USAGE,
        ProveError::NoUser | ProveError::NoSetpriv => REFUSED,
        ProveError::Repository(error) => repo::code(error),
        _ => FAILED,
    };
    Failure { code, error: error.into(), hint: None }
}

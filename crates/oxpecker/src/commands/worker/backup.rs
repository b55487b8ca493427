//! The backup worker (`oxpecker worker backup`): opens the repository, makes a backup, proves it, applies the retention, and says so.
//!
//! It decides nothing: what to do comes with the first line of its input, the rest is configuration. What it says on the way is
//! `guard::backup_protocol`. Killed anywhere, it leaves a repository that is valid; the guard starts another.

use std::{path::PathBuf, time::Duration};

use backup::{
    CreateOptions, Progress as _,
    proof::{self, FurtherWal, Verdict, WalRecord},
};
use jiff::Timestamp;
use model::{ByteSize, reading::Exposure};
use repository::{BackupRecord, Repository};
use tokio::io::BufReader;

use super::teller::Teller;
use crate::{
    cli::ProveArgs,
    commands::{
        backup::{create, further::Stored, prove, prune},
        runtime,
    },
    config::{Config, ProveWhen},
    exit::{FAILED, FINE, Failure, Outcome},
    guard::{
        backup_protocol::{Job, PROTOCOL, Seen, SeenBackup, ToGuard, ToWorker},
        lines::read,
    },
    place,
    repo::{self, Protection, Settings},
    work,
};

/// How many damaged pages, and how many expired backups, one message names.
const NAMED_MAX: usize = 50;

/// Runs the worker on this process's stdin and stdout.
///
/// # Errors
/// Where nobody greets it, or the greeting is of another version. What fails in the work is said to the guard.
pub fn main() -> Outcome {
    // Before there are threads: they inherit it.
    work::step_down();
    let runtime = runtime()?;
    let mut orders = BufReader::new(tokio::io::stdin());
    let begin = runtime.block_on(read::<ToWorker, _>(&mut orders))?;
    let Some(ToWorker::Begin { protocol: PROTOCOL, job, config }) = begin else {
        return Err(Failure::usage(anyhow::anyhow!("backup worker: the first line is no greeting of this version"))
            .hint("it is started by `oxpecker run`, not by hand; restart the guard after an upgrade"));
    };
    let teller = Teller::listen(orders, runtime)?;
    let done = Run { config: &config, teller: &teller }.run(job);
    teller.say(&ToGuard::Ended);
    Ok(if done { FINE } else { FAILED })
}

struct Run<'a> {
    config: &'a Config,
    teller: &'a Teller,
}

impl Run<'_> {
    /// Whether it did what it was to do. What failed was said.
    fn run(&self, job: Job) -> bool {
        let opened = Settings::of(self.config).and_then(|settings| Ok((settings.open()?, settings)));
        let (repository, settings) = match opened {
            Ok(opened) => opened,
            Err(failure) => {
                let error = said(&failure);
                self.teller.say(&match job {
                    Job::Look => ToGuard::NotSeen { error },
                    Job::Create => ToGuard::NotCreated { error },
                    Job::Prove => ToGuard::NotProven { backup: None, damaged: false, reasons: vec![error] },
                });
                return false;
            }
        };
        let done = match job {
            Job::Look => true,
            Job::Create => self.create(&repository, &settings) && self.prove_if_wanted(&repository, &settings),
            Job::Prove => self.prove(&repository, &settings),
        };
        // Also after a failure, for what could not be proven may still expire what is older; but not when the guard is gone.
        let pruned = job == Job::Look || self.teller.cancelled() || self.prune(&repository, &settings);
        self.teller.say(&ToGuard::Seen(self.seen(&repository, &settings)));
        done && pruned
    }

    fn create(&self, repository: &Repository, settings: &Settings) -> bool {
        let made = self.create_options(settings).and_then(|options| {
            let made = backup::create(&options, repository, self.teller).map_err(create::failure)?;
            let took = made.took;
            let info = &made.info;
            let backup = SeenBackup {
                id: made.id.to_string(),
                began: info.start_time,
                consistent_at: info.stop_time,
                size: ByteSize(info.bytes + info.wal_bytes),
                corrupt_pages: info.corrupt_pages_count,
                proven: None,
                recovery_time: None,
                found_age: None,
            };
            Ok(ToGuard::Created { backup, stop_lsn: info.stop_lsn, took, stored: ByteSize(made.stored_bytes) })
        });
        match made {
            Ok(created) => {
                self.teller.say(&created);
                true
            }
            Err(failure) => {
                self.teller.say(&ToGuard::NotCreated { error: said(&failure) });
                false
            }
        }
    }

    fn create_options(&self, settings: &Settings) -> Result<CreateOptions, Failure> {
        let config = self.config;
        let target = place::target(&config.postgres)?;
        let mut options = CreateOptions::new(target.connection, settings.cluster());
        options.data_dir = config.postgres.data_dir.clone();
        options.workers = create::workers(None, config.backup.jobs());
        // Spread over minutes: nobody waits, and the clients would feel a fast one.
        options.fast_checkpoint = false;
        options.road = config.backup.source.into();
        options.held_settings = Some(create::held_settings(&place::state_dir(config)));
        Ok(options)
    }

    fn prove_if_wanted(&self, repository: &Repository, settings: &Settings) -> bool {
        self.config.backup.prove == ProveWhen::Never || self.prove(repository, settings)
    }

    fn prove(&self, repository: &Repository, settings: &Settings) -> bool {
        self.teller.call("proving: ");
        let Some(newest) = newest(repository, settings) else {
            let reasons = vec!["there is no backup of this cluster any more".to_owned()];
            self.teller.say(&ToGuard::NotProven { backup: None, damaged: false, reasons });
            return false;
        };
        let id = newest.id.to_string();
        let mut options = prove::options(self.config, &ProveArgs::default());
        let info = repo::info(&newest);
        if let Some(info) = &info {
            options.bin_dirs.extend(info.host.bin_dir.clone().map(PathBuf::from));
            options.expected_bytes = Some(info.bytes + info.wal_bytes);
        }
        let stored = Stored::behind(repository, &newest);
        let further = stored.as_ref().map(|stored| stored as &dyn FurtherWal);
        let proven = proof::prove_backup(&options, repository, newest.id, further, self.teller);
        let not_proven = |damaged, reasons| ToGuard::NotProven { backup: Some(id.clone()), damaged, reasons };
        let message = match proven {
            Ok(receipt) if receipt.verdict == Verdict::Proven => ToGuard::Proven {
                backup: id.clone(),
                consistent_at: consistent_at(&newest),
                took: Duration::try_from(receipt.finished_at.duration_since(receipt.started_at)).unwrap_or_default(),
                recovery_time: receipt.recovery_time_ms.map(Duration::from_millis),
                found_age: receipt.wal.as_ref().and_then(found_age),
            },
            Ok(receipt) => not_proven(receipt.verdict == Verdict::Failed, receipt.reasons),
            Err(error) => not_proven(false, vec![error.to_string()]),
        };
        self.teller.say(&message);
        matches!(message, ToGuard::Proven { .. })
    }

    fn prune(&self, repository: &Repository, settings: &Settings) -> bool {
        let pruned = prune::plan(repository, settings.cluster(), &self.config.backup.keep).and_then(|plan| {
            let done = prune::apply(settings, repository, &plan)?;
            Ok(ToGuard::Pruned {
                kept: plan.kept.len() as u64,
                expired: plan.expired.keys().take(NAMED_MAX).map(ToString::to_string).collect(),
                freed: ByteSize(done.freed_bytes),
            })
        });
        let done = pruned.is_ok();
        let failed =
            |failure| ToGuard::Problem { problem: format!("the retention was not applied: {}", said(&failure)) };
        self.teller.say(&pruned.unwrap_or_else(failed));
        done
    }

    /// What is there now, also by others' doing.
    fn seen(&self, repository: &Repository, settings: &Settings) -> Seen {
        if let Err(error) = repository.refresh() {
            tracing::warn!(%error, "the repository's newest state could not be read");
        }
        let ours: Vec<BackupRecord> =
            repository.backups().into_iter().filter(|backup| backup.cluster == settings.cluster()).collect();
        let data_dir = create::data_dir_of_server(settings).or_else(|| repo::data_dir(self.config, repository));
        let protection = Protection::of(repository, &settings.directory, data_dir);
        let mut exposures = Vec::new();
        if !protection.recovery_key_confirmed {
            exposures.push(Exposure::NoRecoveryKey);
        }
        if protection.shares_with_database.is_some() {
            exposures.push(Exposure::SameDisk { path: settings.directory.display().to_string() });
        }
        Seen {
            last: ours.iter().max_by_key(|backup| backup.committed).map(seen),
            proven: ours.iter().filter(|b| b.proven() == Some(true)).max_by_key(|b| b.committed).map(seen),
            exposures,
        }
    }
}

fn newest(repository: &Repository, settings: &Settings) -> Option<BackupRecord> {
    repository.backups().into_iter().filter(|b| b.cluster == settings.cluster()).max_by_key(|b| b.committed)
}

fn consistent_at(record: &BackupRecord) -> Timestamp {
    repo::info(record).map_or(record.time, |info| info.stop_time)
}

fn seen(record: &BackupRecord) -> SeenBackup {
    let info = repo::info(record);
    let receipt = record.proofs.iter().rev().find(|proof| proof.passed).map(|proof| &proof.receipt);
    SeenBackup {
        id: record.id.to_string(),
        began: info.as_ref().map_or(record.time, |info| info.start_time),
        consistent_at: consistent_at(record),
        size: ByteSize(info.as_ref().map_or(record.content_bytes, |info| info.bytes + info.wal_bytes)),
        corrupt_pages: info.as_ref().map_or(0, |info| info.corrupt_pages_count),
        proven: record.proven(),
        recovery_time: receipt.and_then(|r| r["recovery_time_ms"].as_u64()).map(Duration::from_millis),
        found_age: receipt.and_then(|r| serde_json::from_value(r["wal"].clone()).ok()).as_ref().and_then(found_age),
    }
}

/// The age of the newest commit that a proof recovered.
fn found_age(wal: &WalRecord) -> Option<Duration> {
    wal.age().and_then(|age| Duration::try_from(age).ok())
}

/// A failure in one text, with its hint.
fn said(failure: &Failure) -> String {
    match &failure.hint {
        Some(hint) => format!("{:#} (hint: {hint})", failure.error),
        None => format!("{:#}", failure.error),
    }
}

//! The receiver of WAL (`oxpecker worker wal`): opens the repository and receives until the guard ends it, and says so.
//!
//! What it says on the way is `guard::wal_protocol`. Killed anywhere, it loses nothing: the server keeps what was not acknowledged.

use std::{
    io::{self, Write as _},
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use model::ByteSize;
use repository::BackupRecord;
use tokio::io::BufReader;
use wal::receive::{CreateSlot, Event, Listener, Options, receive};

use super::canary::Canary;
use crate::{
    commands::runtime,
    config::Config,
    exit::{self, FAILED, FINE, Failure, Outcome},
    guard::{
        Signals,
        lines::{read, to_line},
        wal_protocol::{Begin, PROTOCOL, ToGuard},
    },
    place,
    repo::{self, Settings},
};

/// How long what was received may take to become durable when the guard ends.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs the receiver on this process's stdin and stdout.
///
/// # Errors
/// Where nobody greets it, or the greeting is of another version. What fails in the work is said to the guard.
pub fn main() -> Outcome {
    let runtime = runtime()?;
    let mut orders = BufReader::new(tokio::io::stdin());
    let begin = runtime.block_on(read::<Begin, _>(&mut orders))?;
    let Some(Begin { protocol: PROTOCOL, config }) = begin else {
        return Err(Failure::usage(anyhow::anyhow!("receiver of WAL: the first line is no greeting of this version"))
            .hint("it is started by `oxpecker run`, not by hand (that is `oxpecker wal receive`); restart the guard after an upgrade"));
    };
    let stop = Arc::new(AtomicBool::new(false));
    end_with_the_guard(orders, runtime, Arc::clone(&stop))?;
    match run(&config, &stop) {
        Ok(()) => Ok(FINE),
        Err(failure) => {
            let hint = failure.hint.as_ref().map_or(String::new(), |hint| format!("; hint: {hint}"));
            say(&ToGuard::Failed { error: format!("{:#}{hint}", failure.error) });
            Ok(FAILED)
        }
    }
}

fn run(config: &Config, stop: &AtomicBool) -> Result<(), Failure> {
    let repository = Settings::of(config)?.open()?;
    let of_this = |record: &&BackupRecord| record.cluster == config.postgres.name;
    let newest =
        repository.backups().iter().filter(of_this).filter_map(repo::info).map(|info| info.stop_lsn).next_back();
    if let Some(stop) = newest {
        say(&ToGuard::Based { stop });
    }
    let target = place::target(&config.postgres)?;
    let options = Options {
        target: target.connection.parse().map_err(Failure::usage)?,
        slot: Some(config.wal.slot.parse().map_err(Failure::usage)?),
        create_slot: if config.wal.unlimited_slot { CreateSlot::Always } else { CreateSlot::IfCapped },
        flush_interval: config.wal.flush_interval(config.repository.url.as_deref()),
    };
    let canary =
        config.wal.canary.map(|every| Canary::start(&target, &config.wal.canary_database, every.0)).transpose()?;
    let listener: Listener = Arc::new(move |event| {
        if let (Some(canary), Event::Progress(progress)) = (&canary, event)
            && let Some(said) = canary.arrived(progress.durable)
        {
            say(&said);
        }
        if let Some(message) = message(event) {
            say(&message);
        }
    });
    receive(&options, &repository, stop, &listener).map_err(Failure::from)
}

/// What the guard wants to know of an event.
fn message(event: &Event) -> Option<ToGuard> {
    Some(match event.clone() {
        Event::Connected { timeline, start, slot, slot_cap, .. } => {
            ToGuard::Receiving { timeline, from: start, slot, slot_limit: slot_cap.map(ByteSize) }
        }
        Event::Progress(progress) => {
            ToGuard::Progress { timeline: progress.timeline, durable: progress.durable, server: progress.server }
        }
        Event::Timeline { from, to, switch } => ToGuard::Timeline { from, to, switch },
        Event::BeyondSwitch { timeline, switch, stored } => ToGuard::Beyond { timeline, switch, stored },
        Event::Gap { timeline, from, to, .. } => ToGuard::Missing { timeline, from, to },
        Event::SlotLost { slot, why } => ToGuard::SlotLost { slot, why },
        Event::StoreFailing { error, .. } => ToGuard::StoreFailing { error },
        Event::StoreBack { after } => ToGuard::StoreBack { after },
        Event::GaveWay { why } => ToGuard::Interrupted { why: why.to_owned() },
        Event::Disconnected { why, .. } => ToGuard::Interrupted { why },
        Event::Superseded { timeline, newer } => ToGuard::Superseded { timeline, newer },
        Event::SlotHealth { slot, health, held } => ToGuard::SlotHealth { slot, health, held: ByteSize(held) },
        _ => return None,
    })
}

/// Stops the work when the guard's end of the pipe closes, or a signal asks for it, in bounded time.
fn end_with_the_guard(
    mut orders: BufReader<tokio::io::Stdin>,
    runtime: tokio::runtime::Runtime,
    stop: Arc<AtomicBool>,
) -> Result<(), Failure> {
    let mut signals = {
        let _inside = runtime.enter();
        Signals::listen()?
    };
    thread::Builder::new().name("orders".to_owned()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                // There is nothing more to be told: only the end is awaited.
                _ = async { while let Ok(Some(_)) = read::<serde_json::Value, _>(&mut orders).await {} } => {}
                _ = signals.next() => {}
            }
            stop.store(true, Ordering::Relaxed);
            tokio::time::sleep(END_TIMEOUT).await;
            tracing::error!("the receiver did not stop in time");
            process::exit(exit::FAILED.into());
        });
    })?;
    Ok(())
}

/// Says something. A guard that hears it no more is gone: its end of the pipe ends this process.
pub(super) fn say(message: &ToGuard) {
    let mut stdout = io::stdout().lock();
    if let Err(error) = stdout.write_all(&to_line(message)).and_then(|()| stdout.flush()) {
        tracing::debug!(%error, "the guard hears nothing");
    }
}

//! `oxpecker wal receive`: in the foreground, until a signal.

use std::{
    io::Write as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use model::ByteSize;
use wal::receive::{CreateSlot, Event, Listener, Options, ReceiveError, SlotHealth, receive as stream};

use crate::{
    cli::{Format, Global, ReceiveArgs},
    exit::{FAILED, FINE, Failure, Outcome, REFUSED},
    guard::Signals,
    output, place,
    repo::Settings,
};

/// How often a line says how far it is, where nothing else happens.
const LINE_EVERY: Duration = Duration::from_secs(30);

/// Receives.
pub fn receive(global: &Global, args: &ReceiveArgs) -> Outcome {
    let settings = Settings::load(global, &args.repository)?;
    let config = &settings.config;
    let slot = match &args.slot {
        _ if args.no_slot => None,
        Some(slot) => Some(slot),
        None => Some(&config.wal.slot),
    };
    let by_config = || config.wal.flush_interval(config.repository.url.as_deref());
    let flush_interval = args.flush_every.map_or_else(by_config, |every| every.0);
    let options = Options {
        target: place::target(&config.postgres)?.connection.parse().map_err(Failure::usage)?,
        slot: slot.map(|slot| slot.parse().map_err(Failure::usage)).transpose()?,
        create_slot: match (args.no_create_slot, args.allow_unlimited_slot || config.wal.unlimited_slot) {
            (true, _) => CreateSlot::Never,
            (_, true) => CreateSlot::Always,
            _ => CreateSlot::IfCapped,
        },
        flush_interval,
    };
    let repository = settings.open()?;
    let stop = Arc::new(AtomicBool::new(false));
    stop_at_signals(Arc::clone(&stop))?;
    let listener = listener(global);
    stream(&options, &repository, &stop, &listener).map_err(failure)?;
    Ok(FINE)
}

fn failure(error: ReceiveError) -> Failure {
    use repository::wal::WalError;
    let code = match &error {
        ReceiveError::UnlimitedSlot
        | ReceiveError::NoSlot { .. }
        | ReceiveError::OtherCluster { .. }
        | ReceiveError::Store(WalError::Differs { .. } | WalError::Diverged { .. }) => REFUSED,
        _ => FAILED,
    };
    Failure { code, error: error.into(), hint: None }
}

fn stop_at_signals(stop: Arc<AtomicBool>) -> Result<(), Failure> {
    let runtime = crate::commands::runtime()?;
    let mut signals = {
        let _inside = runtime.enter();
        Signals::listen()?
    };
    // It ends with the process: nothing waits for it.
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            loop {
                signals.next().await;
                if stop.swap(true, Ordering::Relaxed) {
                    std::process::exit(FAILED.into());
                }
            }
        });
    })?;
    Ok(())
}

/// Tells people in lines on stderr, programs in lines of JSON on stdout.
fn listener(global: &Global) -> Listener {
    if global.output == Format::Json {
        return Arc::new(|event: &Event| {
            #[derive(serde::Serialize)]
            struct Line<'a> {
                schema: u32,
                #[serde(flatten)]
                event: &'a Event,
            }
            if let Ok(mut line) = serde_json::to_vec(&Line { schema: output::JSON_SCHEMA, event }) {
                line.push(b'\n');
                let mut out = std::io::stdout().lock();
                // Who reads no more is not worth stopping for.
                let _ = out.write_all(&line).and_then(|()| out.flush());
            }
        });
    }
    let quiet = global.quiet;
    let told: Mutex<Option<Instant>> = Mutex::new(None);
    Arc::new(move |event: &Event| {
        let is_progress = matches!(event, Event::Progress(_));
        if is_progress {
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            if quiet || told.is_some_and(|told| told.elapsed() < LINE_EVERY) {
                return;
            }
            *told = Some(Instant::now());
        }
        output::note(&words(event));
    })
}

/// An event in words.
fn words(event: &Event) -> String {
    match event {
        Event::Connected { host, version, timeline, start, slot, slot_cap, .. } => {
            let held = match (slot, slot_cap) {
                (None, _) => "without a slot".to_owned(),
                (Some(slot), Some(cap)) => format!("slot {slot}, which holds up to {}", ByteSize(*cap)),
                (Some(slot), None) => format!("slot {slot}, which NOTHING BOUNDS (max_slot_wal_keep_size)"),
            };
            format!("receiving from {host}, PostgreSQL {version}: timeline {timeline} from {start}, {held}")
        }
        Event::Progress(progress) => format!(
            "durable up to {} on timeline {}, {} behind the server",
            progress.durable,
            progress.timeline,
            ByteSize(progress.lag_bytes)
        ),
        Event::SlotCreated { slot } => format!("made the slot {slot}"),
        Event::SlotLost { slot, why } => format!("warning: the slot {slot} was lost: {why}"),
        Event::SlotHealth { slot, health, held } => {
            let held = ByteSize(*held);
            match health {
                SlotHealth::Fine => format!("the slot {slot} holds {held} again, far from its bound"),
                SlotHealth::Near => {
                    format!("warning: the slot {slot} holds {held}, half of what it may (max_slot_wal_keep_size)")
                }
                SlotHealth::Critical => format!(
                    "warning: the slot {slot} holds {held}, nearly all that it may (max_slot_wal_keep_size): soon the server gives it up, and WAL is lost"
                ),
            }
        }
        Event::Gap { timeline, from, to, .. } => format!(
            "warning: WAL IS MISSING on timeline {timeline} from {from} to {to}: the server had removed it. Make a base backup now"
        ),
        Event::Timeline { from, to, switch } => format!("timeline {from} ended at {switch}; going on with {to}"),
        Event::Superseded { timeline, newer } => format!(
            "warning: the repository knows timeline {newer}, this server writes {timeline}: is it an old primary that came back?"
        ),
        Event::BeyondSwitch { timeline, switch, stored } => format!(
            "warning: WAL of timeline {timeline} is stored up to {stored}, but the server left it at {switch}: a failover lost what is between"
        ),
        Event::StoreFailing { error, .. } => format!("warning: the repository does not take WAL: {error}"),
        Event::StoreBack { after } => {
            format!("the repository takes WAL again, after {}", crate::work::duration(*after))
        }
        Event::Mapped { timeline, from, to, pages } => {
            format!("page map of timeline {timeline} from {from} to {to}: {pages} pages changed")
        }
        Event::NotMapped { timeline, from, to, why } => {
            format!("warning: no page map of timeline {timeline} from {from} to {to}: {why}")
        }
        Event::GaveWay { why } => format!("disconnected so that the server need not wait: {why}"),
        Event::Disconnected { why, .. } => format!("disconnected: {why}"),
        other => format!("{other:?}"),
    }
}

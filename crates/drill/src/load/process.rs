//! The load's own process: a core of its own where there is one, so that measuring does not slow what is measured.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hyper::{Method, Uri};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    task::JoinSet,
    time::Instant,
};

use super::{Arrival, Latencies, LoadSpec, MAX_IN_FLIGHT, PATIENCE, Ports, Said, Tally, Target, Work, schedule};
use crate::{
    DrillError,
    http::{Announcement, Client, Failure, orphaned, say},
    measure::clock::boot_us,
};

/// A closed loop's arrivals are not timed, so any rate will do.
const ANY_RATE: f64 = 1.0;

/// Announces itself, waits for the word (a line on standard input), does the work and says what came of it.
pub(crate) async fn run(spec: LoadSpec) -> Result<(), DrillError> {
    if let Some(core) = spec.core {
        crate::leash::bind_to(core)
            .map_err(|error| DrillError::helper("load", format!("binding to its core: {error}")))?;
    }
    say("load", &Announcement { helper: "load".into(), port: 0 })?;
    let mut word = String::new();
    let read = BufReader::new(tokio::io::stdin()).read_line(&mut word).await;
    if !matches!(read, Ok(length) if length > 0) {
        return Ok(());
    }
    let work = async {
        match spec.work {
            Work::Closed { users, warm_up, measured } => closed(&spec, users, warm_up, measured).await,
            Work::Open { rate_per_s, length } => open(&spec, rate_per_s, length).await,
        }
    };
    tokio::select! {
        outcome = work => outcome,
        () = orphaned() => Ok(()),
    }
}

/// What one second looked like, for the eyes.
#[derive(Default)]
struct Live {
    latencies: Latencies,
    answered: u64,
    failed: u64,
}

async fn open(spec: &LoadSpec, rate_per_s: f64, length: Duration) -> Result<(), DrillError> {
    let client = Client::new();
    let tally = Arc::new(Mutex::new((Tally::default(), Live::default())));
    let mut in_flight = JoinSet::new();
    say("load", &Said::Started { boot_us: boot_us() })?;
    let start = Instant::now();
    let mut spoken = 0;
    for arrival in schedule(spec.seed, rate_per_s, spec.members).take_while(|arrival| arrival.at < length) {
        let intended = start + arrival.at;
        tokio::time::sleep_until(intended).await;
        while in_flight.try_join_next().is_some() {}
        if arrival.at.as_secs() > spoken {
            spoken = arrival.at.as_secs();
            speak(&tally, in_flight.len())?;
        }
        if in_flight.len() >= MAX_IN_FLIGHT {
            record(&tally, arrival, PATIENCE, Some(Failure::NotSent));
            continue;
        }
        let (client, tally, request) = (client.clone(), Arc::clone(&tally), request(arrival, spec.ports));
        in_flight.spawn(async move {
            let (method, uri) = request;
            // The user's patience began when they came, not when we got round to asking.
            let patience = (intended + PATIENCE).saturating_duration_since(Instant::now());
            let answer = client.send(method, uri, patience).await;
            record(&tally, arrival, intended.elapsed(), answer.err());
        });
    }
    while in_flight.join_next().await.is_some() {}
    let (tally, _) = std::mem::take(&mut *tally.lock().unwrap_or_else(PoisonError::into_inner));
    say("load", &Said::Done { cells: tally.into_cells() })
}

type Shared = Arc<Mutex<(Tally, Live)>>;

fn record(tally: &Shared, arrival: Arrival, latency: Duration, failure: Option<Failure>) {
    let mut both = tally.lock().unwrap_or_else(PoisonError::into_inner);
    both.0.record(arrival.target, arrival.at, latency, failure);
    both.1.latencies.record(latency);
    both.1.answered += u64::from(failure.is_none());
    both.1.failed += u64::from(failure.is_some());
}

fn speak(tally: &Shared, in_flight: usize) -> Result<(), DrillError> {
    let live = std::mem::take(&mut tally.lock().unwrap_or_else(PoisonError::into_inner).1);
    let p99_ms = live.latencies.quantile(0.99).unwrap_or_default().as_secs_f64() * 1e3;
    say("load", &Said::Second { answered: live.answered, failed: live.failed, p99_ms, in_flight })
}

async fn closed(spec: &LoadSpec, users: usize, warm_up: Duration, measured: Duration) -> Result<(), DrillError> {
    let client = Client::new();
    say("load", &Said::Started { boot_us: boot_us() })?;
    let begin = Instant::now() + warm_up;
    let end = begin + measured;
    let mut loops = JoinSet::new();
    for user in 0..users {
        let (client, ports) = (client.clone(), spec.ports);
        let mut arrivals = schedule(spec.seed.wrapping_add(user as u64), ANY_RATE, spec.members);
        loops.spawn(async move {
            let (mut answered, mut failed) = (0_u64, 0_u64);
            while Instant::now() < end {
                let Some(arrival) = arrivals.next() else { break };
                let (method, uri) = request(arrival, ports);
                let answer = client.send(method, uri, PATIENCE).await;
                let now = Instant::now();
                if now >= begin && now < end {
                    answered += u64::from(answer.is_ok());
                    failed += u64::from(answer.is_err());
                }
            }
            (answered, failed)
        });
    }
    let (mut answered, mut failed) = (0, 0);
    while let Some(Ok((good, bad))) = loops.join_next().await {
        answered += good;
        failed += bad;
    }
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 requests")]
    let per_s = answered as f64 / measured.as_secs_f64();
    say("load", &Said::Capacity { per_s, failed })
}

fn request(arrival: Arrival, ports: Ports) -> (Method, Uri) {
    let member = arrival.member;
    let (method, port, path) = match arrival.target {
        Target::Site => (Method::GET, ports.site, "members"),
        Target::Bot => (Method::GET, ports.bot, "commands"),
        Target::Gate => (Method::GET, ports.gate, "enter"),
    };
    let uri = format!("http://127.0.0.1:{port}/{path}/{member}");
    (method, uri.parse().expect("digits and a fixed path make a URI"))
}

//! The whole loop under a real storm: one core, an open-loop load, three unthrottled vacuums. What it shows in figures is the demo's
//! business; here it must only detect, hold, keep vacuum moving and leave nothing behind.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod rig;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use model::{EventKind, Mode, event::ReleaseReason};
use rig::{Rig, allow_vacuum, connect, large_table, release_worker};
use scratch::{ScratchCluster, installation, newest_installation};

type Latencies = Arc<Mutex<Vec<(Instant, Duration)>>>;

/// Requests at fixed times, whether or not the ones before were answered.
async fn load(url: String, per_second: u32, latencies: Latencies, until: Instant) {
    let mut clients = Vec::new();
    for _ in 0..16 {
        clients.push(connect(&url).await);
    }
    let mut next = Instant::now();
    let mut n = 0_usize;
    while Instant::now() < until {
        tokio::time::sleep_until(next.into()).await;
        let (client, latencies, due) = (Arc::clone(&clients[n % clients.len()]), Arc::clone(&latencies), next);
        tokio::spawn(async move {
            client.query("SELECT count(*), sum(i * i) FROM generate_series(1, 8000) i", &[]).await.unwrap();
            latencies.lock().unwrap().push((due, due.elapsed()));
        });
        n += 1;
        next += Duration::from_secs(1) / per_second;
    }
}

fn percentile(latencies: &Latencies, from: Instant, to: Instant, share: f64) -> Duration {
    let mut list: Vec<Duration> =
        latencies.lock().unwrap().iter().filter(|(at, _)| *at >= from && *at < to).map(|(_, took)| *took).collect();
    list.sort();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    list.get(((list.len() as f64 - 1.0).max(0.0) * share) as usize).copied().unwrap_or_default()
}

async fn storm(major: Option<u32>, mode: Mode) {
    let installation = match major {
        Some(major) => installation(major),
        None => newest_installation(),
    };
    let Ok(installation) = installation else {
        println!("skipped: no server");
        return;
    };
    let cluster = ScratchCluster::builder(&installation)
        .tmpfs(true)
        .cpus(&[0])
        .setting("autovacuum_naptime", "1s")
        .setting("autovacuum_vacuum_cost_delay", "0")
        .setting("fsync", "off")
        .setting("shared_buffers", "512MB")
        .setting("max_wal_size", "8GB")
        .start()
        .unwrap();
    let include = cluster.directory().join("throttle.conf");
    cluster.include_line(&include).unwrap();
    let url = cluster.url("postgres");
    let client = connect(&url).await;
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    for table in ["big_a", "big_b", "big_c"] {
        large_table(&client, table, 700_000).await;
    }
    client.batch_execute("CHECKPOINT").await.unwrap();
    let mut rig = Rig::new(&url, &include, mode, release_worker()).await;
    rig.real_cpu = Some(0);
    let latencies = Latencies::default();
    let start = Instant::now();
    let end = start + Duration::from_secs(35);
    tokio::spawn(load(url.clone(), 250, Arc::clone(&latencies), end));
    rig.run_for(Duration::from_secs(5)).await;
    let stormy = Instant::now();
    println!(
        "before: p50 {:?} p99 {:?}, busy {:.2}",
        percentile(&latencies, start, stormy, 0.5),
        percentile(&latencies, start, stormy, 0.99),
        rig.busy
    );
    for table in ["big_a", "big_b", "big_c"] {
        allow_vacuum(&client, table).await;
    }
    let mut detected = None;
    while Instant::now() < end {
        let events = rig.step().await;
        if events.iter().any(|e| matches!(e, EventKind::ThrottleEngaged { .. } | EventKind::ThrottleProposed { .. })) {
            detected.get_or_insert(stormy.elapsed());
        }
    }
    for second in 0..10 {
        let (from, to) = (stormy + Duration::from_secs(3 * second), stormy + Duration::from_secs(3 * second + 3));
        println!(
            "{:2} s: p50 {:?} p99 {:?}",
            3 * second,
            percentile(&latencies, from, to, 0.5),
            percentile(&latencies, from, to, 0.99)
        );
    }
    println!(
        "detected after {detected:?}; p50 {:?} p99 {:?}",
        percentile(&latencies, stormy, end, 0.5),
        percentile(&latencies, stormy, end, 0.99)
    );
    for table in ["big_a", "big_b", "big_c"] {
        println!("{table} vacuumed: {}", rig.was_vacuumed(table).await);
    }
    rig.governor.release(rig::now(), ReleaseReason::GuardStopping).await;
    assert!(detected.is_some(), "no storm was detected");
    assert!(!include.exists());
}

#[tokio::test(flavor = "current_thread")]
async fn slow_alone_storm_observed() {
    storm(None, Mode::Observe).await;
}

#[tokio::test(flavor = "current_thread")]
async fn slow_alone_storm_governed() {
    storm(None, Mode::Act).await;
}

#[tokio::test(flavor = "current_thread")]
async fn slow_alone_storm_governed_15() {
    storm(Some(15), Mode::Act).await;
}

//! Full backup and restore beside the peers: one database, in turn, caches dropped before each, checksums and encryption on where a peer
//! has them.

mod contenders;
mod world;

use std::time::Duration;

use anyhow::Result;

use self::{
    contenders::{CONTENDERS, Contender},
    world::{Measured, World},
};
use super::{
    Args,
    report::{Table, median},
};
use crate::shell;

/// The goals.
const GOAL_THROUGHPUT: f64 = 1.5;
const GOAL_SECOND_PERCENT: f64 = 1.0;
const GOAL_PEAK_MIB: f64 = 256.0;
/// Transactions a second of the clients whose latency is watched: far below what the server can do, so that waiting shows.
const CLIENT_RATE: u32 = 200;
/// How long clients are watched without any backup.
const CALM: Duration = Duration::from_secs(15);

/// What one contender did, by round.
#[derive(Default)]
struct Record {
    create: Vec<Measured>,
    restore: Vec<Measured>,
    repository_mib: Vec<f64>,
}

/// Measures and prints.
pub fn run(args: &Args) -> Result<()> {
    let world = World::new()?;
    let database_mib = world.database_mib()?;
    let mut records: Vec<(&Contender, Record)> = CONTENDERS.iter().map(|c| (c, Record::default())).collect();
    for round in 1..=args.rounds {
        for (contender, record) in &mut records {
            shell::say(&format!("  round {round} of {}: {}", args.rounds, contender.name));
            let place = world.place()?;
            contender.prepare(&world, place.path())?;
            world.drop_caches()?;
            record.create.push(world.measure(contender.create(&world, place.path())?)?);
            record.repository_mib.push(world::tree_mib(&place.path().join("repository"))?);
            if let Some(restore) = contender.restore(&world, place.path()) {
                world.drop_caches()?;
                record.restore.push(world.measure(restore)?);
            }
        }
    }
    let second = second_backup(&world)?;
    let clients = clients(&world, &records)?;

    print_throughput(&records, database_mib, args.rounds);
    let mut judged = Table::new(&["oxpecker", "measured", "goal", ""]);
    judged.judged("second backup of the unchanged database, % of the first one's size", second, 2, GOAL_SECOND_PERCENT);
    let ours = &records[0].1;
    let peak = ours.create.iter().chain(&ours.restore).map(|m| m.peak_mib).fold(0.0, f64::max);
    judged.judged("peak resident memory, MiB", peak, 0, GOAL_PEAK_MIB);
    judged.print("Size and memory");
    clients.print(&format!("Clients at {CLIENT_RATE} transactions a second"));
    Ok(())
}

fn print_throughput(records: &[(&Contender, Record)], database_mib: f64, rounds: u8) {
    let seconds = |of: &[Measured]| of.iter().map(|m| m.seconds).collect::<Vec<_>>();
    // Round by round, so that a machine that drifts does not count.
    let ratio = |ours: &[Measured], theirs: &[Measured]| {
        median(&mut ours.iter().zip(theirs).map(|(a, b)| b.seconds / a.seconds).collect::<Vec<_>>())
    };
    let ours = &records[0].1;
    let mut table = Table::new(&[
        "contender",
        "backup s",
        "MiB/s",
        "ours is faster by",
        "restore s",
        "MiB/s",
        "ours is faster by",
        "repository MiB",
        "peak MiB",
    ]);
    for (contender, record) in records {
        let (create, restore) = (median(&mut seconds(&record.create)), median(&mut seconds(&record.restore)));
        let peak = record.create.iter().chain(&record.restore).map(|m| m.peak_mib).fold(0.0, f64::max);
        let or_dash =
            |value: f64, decimals: usize| if value.is_nan() { "-".into() } else { format!("{value:.decimals$}") };
        table.row(&[
            contender.name,
            &or_dash(create, 1),
            &or_dash(database_mib / create, 0),
            &or_dash(ratio(&ours.create, &record.create), 2),
            &or_dash(restore, 1),
            &or_dash(database_mib / restore, 0),
            &or_dash(ratio(&ours.restore, &record.restore), 2),
            &or_dash(median(&mut record.repository_mib.clone()), 0),
            &or_dash(peak, 0),
        ]);
    }
    table.print(&format!(
        "Full backup and restore of {database_mib:.0} MiB, caches dropped, medians of {rounds} round(s) in turn"
    ));
    let mut goals =
        Table::new(&["against pgBackRest with zstd 3, cipher, bundles, process-max = cores", "times", "goal", ""]);
    if let Some((_, peer)) = records.iter().find(|(c, _)| c.judged) {
        for (what, value) in
            [("backup", ratio(&ours.create, &peer.create)), ("restore", ratio(&ours.restore, &peer.restore))]
        {
            let verdict = if value >= GOAL_THROUGHPUT { "reached" } else { "MISSED" };
            goals.row(&[what, &format!("{value:.2}"), &format!(">= {GOAL_THROUGHPUT}"), verdict]);
        }
        let size = median(&mut ours.repository_mib.clone()) / median(&mut peer.repository_mib.clone());
        let verdict = if size <= 1.0 { "reached" } else { "MISSED" };
        goals.row(&["size of the repository", &format!("{size:.2}"), "<= 1", verdict]);
    }
    goals.print("The goals");
}

/// How much a second backup of the unchanged database adds, in per cent of the first.
fn second_backup(world: &World) -> Result<f64> {
    let ours = &CONTENDERS[0];
    let place = world.place()?;
    ours.prepare(world, place.path())?;
    world.measure(ours.create(world, place.path())?)?;
    let first = world::tree_mib(&place.path().join("repository"))?;
    world.measure(ours.create(world, place.path())?)?;
    let both = world::tree_mib(&place.path().join("repository"))?;
    Ok((both - first) / first * 100.0)
}

/// Clients' latency without a backup and during each contender's.
fn clients(world: &World, records: &[(&Contender, Record)]) -> Result<Table> {
    let mut table = Table::new(&["during", "p50 ms", "p99 ms", "max ms"]);
    let mut row = |what: &str, mut latencies_ms: Vec<f64>| {
        latencies_ms.sort_by(f64::total_cmp);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index"
        )]
        let at = |share: f64| latencies_ms[((latencies_ms.len() - 1) as f64 * share) as usize];
        table.row(&[what, &format!("{:.1}", at(0.5)), &format!("{:.1}", at(0.99)), &format!("{:.1}", at(1.0))]);
    };
    row("no backup", world.clients(CALM, CLIENT_RATE, None)?);
    for (contender, record) in records {
        let place = world.place()?;
        contender.prepare(world, place.path())?;
        world.drop_caches()?;
        let lasts = median(&mut record.create.iter().map(|m| m.seconds).collect::<Vec<_>>());
        let create = contender.create(world, place.path())?;
        row(contender.name, world.clients(Duration::from_secs_f64(lasts.max(3.0)), CLIENT_RATE, Some(create))?);
    }
    Ok(table)
}

//! WAL beside the peers: stored by an archive command, received, and replayed. One server's WAL, in turn.

mod scene;

use anyhow::Result;

use self::scene::{Cost, Scene};
use super::{
    Args,
    report::{Table, median},
};
use crate::shell;

/// The goals.
const GOAL_REPLAY: f64 = 0.9;

/// What one contender did, by round.
struct Record {
    name: &'static str,
    costs: Vec<Cost>,
}

/// Something that is measured.
struct Contender {
    name: &'static str,
    run: fn(&Scene) -> Result<Cost>,
}

const PUSH: &[Contender] = &[
    Contender { name: "oxpecker wal push --ahead 0", run: |scene| scene.push_ours(0) },
    Contender { name: "oxpecker wal push", run: |scene| scene.push_ours(8) },
    Contender { name: "pgBackRest archive-push, zstd 3, aes-256-cbc", run: |scene| scene.push_pgbackrest(false) },
    Contender { name: "the same, asynchronous, process-max = cores", run: |scene| scene.push_pgbackrest(true) },
];
const RECEIVE: &[Contender] = &[
    Contender { name: "oxpecker wal receive (compressed, encrypted)", run: Scene::receive_ours },
    Contender { name: "pg_receivewal, plain", run: |scene| scene.receive_theirs(None) },
    Contender { name: "pg_receivewal, gzip 1", run: |scene| scene.receive_theirs(Some("gzip:1")) },
];
const REPLAY: &[Contender] = &[
    Contender { name: "oxpecker wal get", run: |scene| scene.replay_ours(8) },
    Contender { name: "oxpecker wal get --ahead 0", run: |scene| scene.replay_ours(0) },
    Contender { name: "cp from a local directory", run: Scene::replay_copies },
];

/// Measures and prints.
pub fn run(args: &Args) -> Result<()> {
    let scene = Scene::new()?;
    shell::say(&format!("  {} segments of 16 MiB", scene.segments()));
    let push = in_turn("push", PUSH, &scene, args.rounds)?;
    let receive = in_turn("receive", RECEIVE, &scene, args.rounds)?;
    let replay = in_turn("replay", REPLAY, &scene, args.rounds)?;
    print("Storing segments one call at a time, as PostgreSQL calls", &push, args.rounds);
    print("Receiving what a slot has kept", &receive, args.rounds);
    print("Replaying in a recovery", &replay, args.rounds);
    let mut goals = Table::new(&["goal", "measured", "goal", ""]);
    let rate = ratio(&replay[0], &replay[2]);
    let verdict = |reached| if reached { "reached" } else { "MISSED" };
    goals.row(&[
        "replay with `wal get`, of local files' speed",
        &format!("{rate:.2}"),
        ">= 0.9",
        verdict(rate >= GOAL_REPLAY),
    ]);
    let cpu = cpu(&push[2]) / cpu(&push[1]);
    goals.row(&["CPU a GB of pgBackRest's push, of ours", &format!("{cpu:.2}"), "> 1", verdict(cpu > 1.0)]);
    goals.print("The goals");
    Ok(())
}

fn in_turn(what: &str, contenders: &[Contender], scene: &Scene, rounds: u8) -> Result<Vec<Record>> {
    let mut records: Vec<Record> = contenders.iter().map(|c| Record { name: c.name, costs: Vec::new() }).collect();
    for round in 1..=rounds {
        for (contender, record) in contenders.iter().zip(&mut records) {
            shell::say(&format!("  {what}, round {round} of {rounds}: {}", contender.name));
            record.costs.push((contender.run)(scene)?);
        }
    }
    Ok(records)
}

/// How much faster the first is, round by round.
fn ratio(ours: &Record, theirs: &Record) -> f64 {
    let pairs = ours.costs.iter().zip(&theirs.costs);
    median(&mut pairs.map(|(a, b)| a.segments_a_second / b.segments_a_second).collect::<Vec<_>>())
}

fn cpu(record: &Record) -> f64 {
    median(&mut record.costs.iter().map(|cost| cost.cpu_seconds_a_gib).collect::<Vec<_>>())
}

fn print(title: &str, records: &[Record], rounds: u8) {
    let mut table = Table::new(&["contender", "segments/s", "MiB/s", "ours is faster by", "host CPU s a GiB"]);
    for record in records {
        let rate = median(&mut record.costs.iter().map(|cost| cost.segments_a_second).collect::<Vec<_>>());
        table.row(&[
            record.name,
            &format!("{rate:.1}"),
            &format!("{:.0}", rate * 16.0),
            &format!("{:.2}", ratio(&records[0], record)),
            &format!("{:.1}", cpu(record)),
        ]);
    }
    table.print(&format!("{title}, medians of {rounds} round(s) in turn"));
}

//! Services brought back after a cold restart: by oxpecker, by systemd, and without an order; and the planner on its largest graph.
//!
//! The same processes everywhere: those of the drill's act 3, with a service of a drawn start time for PostgreSQL. Only who starts them differs.

mod node;
mod planner;

use std::{path::Path, process::Command};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use self::node::{Known, Systemd};
use super::{
    Args, program,
    report::{Table, median},
};
use crate::shell;

/// How much faster than the wall's the clock of the services runs.
const SCALE: u32 = 5;
/// The first round's seed; each round draws other start times, the same for all.
const SEED: u64 = 20_201_211;
/// How much later than the critical path with its settle times oxpecker may be done.
const GOAL_RATIO: f64 = 1.2;

/// What came of one restart.
#[derive(Debug, Deserialize)]
pub struct Played {
    scale: u32,
    stable_for_s: f64,
    sides: Vec<Side>,
}

#[derive(Debug, Deserialize)]
struct Side {
    stable_s: Option<f64>,
    wasted: usize,
    early: usize,
    limit_s: Option<f64>,
    settled_limit_s: Option<f64>,
    gave_up: Option<String>,
}

/// One contender's restart. Seconds on the services' clock.
struct Restart {
    stable_s: f64,
    wasted: usize,
    early: usize,
    limit_s: f64,
    settled_limit_s: f64,
}

/// Who brings them back.
struct Contender {
    name: &'static str,
    run: fn(&mut Systemd, u64) -> Result<Played>,
}

const CONTENDERS: &[Contender] = &[
    Contender { name: "oxpecker", run: |_, seed| play("ordered", seed) },
    Contender {
        name: "systemd, Requires= and After=, Type=notify",
        run: |systemd, seed| systemd.restart(Known::Order, seed, SCALE),
    },
    Contender {
        name: "systemd, no order, Restart=always, RestartSec=5s",
        run: |systemd, seed| systemd.restart(Known::Nothing, seed, SCALE),
    },
    Contender { name: "no order, Kubernetes' back-off", run: |_, seed| play("unordered", seed) },
];

/// Measures and prints.
pub fn run(args: &Args) -> Result<()> {
    let mut systemd = Systemd::boot()?;
    let mut records: Vec<Vec<Restart>> = CONTENDERS.iter().map(|_| Vec::new()).collect();
    let mut settle_s = 0.0;
    for round in 1..=args.rounds {
        for (contender, record) in CONTENDERS.iter().zip(&mut records) {
            shell::say(&format!("  round {round} of {}: {}", args.rounds, contender.name));
            let played = (contender.run)(&mut systemd, SEED + u64::from(round) - 1)?;
            settle_s = played.stable_for_s * f64::from(played.scale);
            record.push(played.restart().with_context(|| contender.name.to_owned())?);
        }
    }
    drop(systemd);
    print(&records, settle_s, args.rounds);
    planner::measure()
}

/// One way back, by the program itself.
fn play(how: &str, seed: u64) -> Result<Played> {
    let dir = tempfile::tempdir()?;
    chore(&json!({ "do": "play", "dir": dir.path().join("services"), "seed": seed, "scale": SCALE, "how": how }))
}

/// Has the program do one of its chores.
pub fn chore<T: DeserializeOwned>(what: &Value) -> Result<T> {
    let mut command = Command::new(program::path()?);
    let output = shell::capture(command.args(["drill-service", "cold-start", &what.to_string()]))?;
    serde_json::from_slice(&output.stdout).context("reading what came of a cold restart")
}

/// The program, at another place.
pub fn copy_program(to: &Path) -> Result<()> {
    std::fs::copy(program::path()?, to).map(drop).with_context(|| to.display().to_string())
}

impl Played {
    fn restart(&self) -> Result<Restart> {
        let Some(side) = self.sides.first() else { bail!("nothing was played") };
        if let Some(why) = &side.gave_up {
            bail!("it ended with a call for a person: {why}");
        }
        let scale = f64::from(self.scale);
        let stable_s = side.stable_s.context("never all stable")? * scale;
        let limit_s = side.limit_s.context("no critical path")? * scale;
        let settled_limit_s = side.settled_limit_s.context("no critical path")? * scale;
        Ok(Restart { stable_s, wasted: side.wasted, early: side.early, limit_s, settled_limit_s })
    }
}

fn print(records: &[Vec<Restart>], settle_s: f64, rounds: u8) {
    let mut table = Table::new(&[
        "who",
        "all stable after, s",
        "of the critical path",
        "oxpecker is sooner by",
        "wasted starts",
        "started early",
    ]);
    let of =
        |record: &[Restart], value: &dyn Fn(&Restart) -> f64| median(&mut record.iter().map(value).collect::<Vec<_>>());
    #[expect(clippy::cast_precision_loss, reason = "counts of a few services")]
    for (contender, record) in CONTENDERS.iter().zip(records) {
        let pairs = record.iter().zip(&records[0]);
        let sooner = median(&mut pairs.map(|(other, ours)| other.stable_s / ours.stable_s).collect::<Vec<_>>());
        table.row(&[
            contender.name,
            &format!("{:.0}", of(record, &|one| one.stable_s)),
            &format!("{:.2}", of(record, &|one| one.stable_s / one.limit_s)),
            &format!("{sooner:.2}"),
            &format!("{:.0}", of(record, &|one| one.wasted as f64)),
            &format!("{:.0}", of(record, &|one| one.early as f64)),
        ]);
    }
    let limit = of(&records[0], &|one| one.limit_s);
    let settled = of(&records[0], &|one| one.settled_limit_s);
    table.row(&[
        "critical path: each at the moment that its needs are ready",
        &format!("{limit:.0}"),
        "1.00",
        "",
        "0",
        "0",
    ]);
    table.row(&[
        &format!("critical path where each need settles for {settle_s:.0} s first"),
        &format!("{settled:.0}"),
        &format!("{:.2}", settled / limit),
        "",
        "0",
        "0",
    ]);
    table.print(&format!(
        "Cold restart of 16 services on a clock of 1:{SCALE}, stable once they serve for {settle_s:.0} s, medians of {rounds} round(s) in turn, each with start times of its own"
    ));
    let mut goals = Table::new(&["goal", "measured", "goal", ""]);
    goals.judged(
        "oxpecker, of the critical path with settle times",
        of(&records[0], &|one| one.stable_s / one.settled_limit_s),
        2,
        GOAL_RATIO,
    );
    goals.print("The goals");
}

//! What a drill is asked to do.

use std::{ffi::OsString, fmt, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::DrillError;

/// One run of the storm, or of its absence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActKind {
    /// The load alone: what the services can do when nobody vacuums.
    Baseline,
    /// Act 1a: the storm with PostgreSQL's stock cost settings.
    Stock,
    /// Act 1b: the storm with vacuum's throttling off, as it was in the outage.
    Unthrottled,
    /// Act 2: as act 1b, with oxpecker riding along.
    Guarded,
}

impl ActKind {
    /// All of them, in the order in which they are played.
    pub const ALL: [Self; 4] = [Self::Baseline, Self::Stock, Self::Unthrottled, Self::Guarded];

    /// What the act is called before people.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Baseline => "no vacuum",
            Self::Stock => "1a stock settings",
            Self::Unthrottled => "1b throttling off",
            Self::Guarded => "2 guarded",
        }
    }

    /// Whether the tables are vacuumed in this act.
    pub const fn has_storm(self) -> bool {
        !matches!(self, Self::Baseline)
    }
}

impl fmt::Display for ActKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.title())
    }
}

/// How the drill starts a process of its own: a program and the arguments that come before `KIND SPEC`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelperCommand {
    /// The program, mostly oxpecker itself.
    pub program: PathBuf,
    /// `["drill-service"]` for oxpecker.
    pub args: Vec<OsString>,
}

/// What a drill is asked to do.
#[derive(Clone, Debug)]
pub struct DrillOptions {
    /// The oxpecker that rides along in act 2.
    pub oxpecker: PathBuf,
    /// How services, load and leash are started.
    pub helper: HelperCommand,
    /// Which PostgreSQL; the newest installed where none is named.
    pub postgres: scratch::Installation,
    /// Which acts; played in the order of [`ActKind::ALL`].
    pub acts: Vec<ActKind>,
    /// Repeats data, arrivals and their mix.
    pub seed: u64,
    /// Share of the measured capacity that the users ask for, above 0 and below 1.
    pub load_share: f64,
    /// Rows of each of the three big tables before half of them are deleted.
    pub rows: u32,
    /// How long the storm is measured in each act.
    pub storm: Duration,
    /// How long the load runs before the storm is let loose, or before the baseline counts: caches fill, plans are made.
    pub lead_in: Duration,
    /// How long the baseline is measured.
    pub baseline: Duration,
    /// How long the capacity is measured.
    pub capacity: Duration,
    /// How long, after the load has ended, an unfinished vacuum is watched.
    pub afterwards: Duration,
    /// Where the incident's report is saved.
    pub report: PathBuf,
    /// Leave the last act's cluster running.
    pub keep: bool,
    /// Play the last act too: backup, destruction, restore, proof.
    pub rescue: bool,
    /// Play act 3 too: all services killed, and brought back without an order and in order.
    pub cold_start: bool,
    /// How much faster than the wall's the clock of act 3's services runs.
    pub cold_start_scale: u32,
}

impl DrillOptions {
    /// The default share of the measured capacity.
    pub const LOAD_SHARE: f64 = 0.55;
    /// The default number of rows of each big table: the storm then outlasts 20 s on one core of 2020's make.
    pub const ROWS: u32 = 1_600_000;
    /// The smallest table that still makes a storm worth the name.
    pub const MIN_ROWS: u32 = 10_000;
    /// The largest: three of these and their copy need some 12 GB.
    pub const MAX_ROWS: u32 = 10_000_000;
    /// How much faster act 3's clock runs in the demo.
    pub const COLD_START_SCALE: u32 = 10;
    /// The seed where none is given: the outage's date.
    pub const SEED: u64 = 20_201_211;

    /// The demo's options.
    pub fn new(oxpecker: PathBuf, postgres: scratch::Installation) -> Self {
        Self {
            helper: HelperCommand { program: oxpecker.clone(), args: vec!["drill-service".into()] },
            oxpecker,
            postgres,
            acts: ActKind::ALL.to_vec(),
            seed: Self::SEED,
            load_share: Self::LOAD_SHARE,
            rows: Self::ROWS,
            storm: Duration::from_secs(20),
            lead_in: Duration::from_secs(3),
            baseline: Duration::from_secs(6),
            capacity: Duration::from_secs(3),
            afterwards: Duration::from_secs(5),
            report: PathBuf::from("oxpecker-drill-report.md"),
            keep: false,
            rescue: false,
            cold_start: false,
            cold_start_scale: Self::COLD_START_SCALE,
        }
    }

    /// Refuses what can't work, before anything is started.
    pub(crate) fn check(&self) -> Result<(), DrillError> {
        let refuse = |what: String, hint: &str| Err(DrillError::Options { what, hint: hint.to_owned() });
        if !(self.load_share > 0.0 && self.load_share < 1.0) {
            return refuse(
                format!("a load of {} of the capacity makes no sense", self.load_share),
                "choose a share between 0 and 1, such as 0.55",
            );
        }
        if !(Self::MIN_ROWS..=Self::MAX_ROWS).contains(&self.rows) {
            return refuse(
                format!("{} rows are outside of {} to {}", self.rows, Self::MIN_ROWS, Self::MAX_ROWS),
                "leave the size alone unless you know your machine",
            );
        }
        if self.acts.is_empty() {
            return refuse("no act was chosen".into(), "leave the acts alone to play all four");
        }
        if self.storm < Duration::from_secs(2) || self.lead_in < Duration::from_secs(1) {
            return refuse(
                "a storm below 2 s or a lead-in below 1 s measures nothing".into(),
                "choose longer ones; the demo uses 20 s and 3 s",
            );
        }
        let major = self.postgres.major();
        if major < 13 {
            return refuse(
                format!("PostgreSQL {major} is older than 13: oxpecker only observes it"),
                "choose 13 to 18 with --pg-bin or --pg-major",
            );
        }
        for program in [&self.oxpecker, &self.helper.program] {
            if self.acts.contains(&ActKind::Guarded) && !program.is_file() {
                return refuse(
                    format!("{} is not a program", program.display()),
                    "the drill runs oxpecker itself as the guard: give the path of the built binary",
                );
            }
        }
        Ok(())
    }
}

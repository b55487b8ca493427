//! What the now page shows.

use serde::Serialize;

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Well.
    Well,
    /// Not well.
    NotWell,
    /// Not known, or nobody watches it.
    Unknown,
}

impl State {
    /// In words: colour alone tells nobody who can't see it.
    pub fn words(self) -> &'static str {
        match self {
            Self::Well => "well",
            Self::NotWell => "NOT WELL",
            Self::Unknown => "not known",
        }
    }

    /// The class in the style sheet.
    pub fn class(self) -> &'static str {
        match self {
            Self::Well => "well",
            Self::NotWell => "bad",
            Self::Unknown => "unknown",
        }
    }
}

/// One thing and how it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// What.
    pub name: String,
    /// How it is.
    pub state: State,
    /// In words, perhaps several lines.
    pub text: String,
}

/// The proven backup, in seconds; `None` where it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Backup {
    /// How old the newest proven backup is: what a loss would cost.
    pub proven_age_s: Option<f64>,
    /// How long its proof took to bring it back.
    pub recovery_s: Option<f64>,
}

/// Figures for `/metrics`; `None` where there is no reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Whether the server serves.
    pub server_up: Option<bool>,
    /// Share of the database's CPUs that is busy, 0 to 1.
    pub cpu_busy: Option<f64>,
    /// Available memory in bytes.
    pub memory_available: Option<f64>,
    /// Connections in use.
    pub connections_used: Option<f64>,
    /// Connections that clients may use.
    pub connections_usable: Option<f64>,
    /// Vacuums that run.
    pub vacuums: Option<f64>,
    /// Whether the governor holds one.
    pub governor_engaged: Option<bool>,
    /// Alerts that fire.
    pub alerts_firing: u32,
    /// Whether events reach the disk.
    pub journal_ok: bool,
    /// The proven backup.
    pub backup: Backup,
}

/// What the guard sees, for people and for programs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Now {
    /// Who is guarded and by whom, in one line.
    pub head: String,
    /// When the guard said this.
    pub at: String,
    /// Whether nothing is wrong.
    pub well: bool,
    /// Everything, in the order of `oxpecker status`.
    pub lines: Vec<Line>,
    /// Alerts that fire, worst first.
    pub alerts: Vec<Line>,
    /// Services in the order in which they are declared.
    pub services: Vec<Line>,
    /// Vacuums that run.
    pub vacuums: Vec<Line>,
    /// What is missing and what that costs.
    pub limitations: Vec<String>,
    /// For `/metrics`.
    pub figures: Figures,
}

/// Why nothing is known: nobody guards, or it does not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{0}")]
pub struct Unknown(pub String);

/// Whoever can ask the guard.
pub trait Facts: Send + Sync + 'static {
    /// What the guard sees. Blocks for at most a dozen seconds.
    ///
    /// # Errors
    /// Where no guard answers.
    fn now(&self) -> Result<Now, Unknown>;
}

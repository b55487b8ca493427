//! `oxpecker service ...` and `oxpecker approve`: how the services are, what would bring them back, and doing it.
//!
//! ```text
//! list     how each is, and who is hurt
//! show     the plan: what would be done, in which order, why, and how long it takes
//! apply    doing it
//! stop     stopping on purpose, and taking that back
//! approve  a person's word for what only a person may decide
//! logs     what a service wrote
//! words    states and times in words
//! ```

mod apply;
mod approve;
mod list;
mod logs;
mod show;
mod stop;
mod words;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use model::ServiceName;
use services::{
    execute::{self, ExecuteError, Executor, Round, boot_id},
    graph::Graph,
};

pub use self::{
    apply::apply,
    approve::approve,
    list::list,
    logs::logs,
    show::plan,
    stop::{down, gone, start, stop},
};
use super::block_on;
use crate::{
    cli::{Global, LookArgs},
    config::{self, Config, Overrides},
    exit::{FAILED, FINE, Failure, Outcome, REFUSED, USAGE},
    output, place,
};

/// How long a recovery goes between two looks where no driver says that something changed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Names that are compared to find the one that was meant.
const COMPARED_MAX: usize = 2_000;
/// A misspelt name is taken to mean a known one when they are at least this alike (Jaro-Winkler, 0 to 1).
const ALIKE: f64 = 0.75;

/// What all of these commands begin with.
struct Place {
    config: Config,
    state_dir: PathBuf,
    /// What the executor and the drivers remember.
    dir: PathBuf,
}

impl Place {
    fn load(global: &Global) -> Result<Self, Failure> {
        let config = config::load(global.config.as_deref(), &Overrides::default())?.config;
        if config.service.is_empty() {
            return Err(Failure::usage(anyhow::anyhow!("no service is declared"))
                .hint("[[service]] with a name, what it needs and how it is asked; the guide \"Write down your start order\" shows how"));
        }
        let state_dir = place::state_dir(&config);
        Ok(Self { dir: Config::services_dir(&state_dir), config, state_dir })
    }

    fn graph(&self) -> Result<Graph, Failure> {
        let unusable = |error| Failure::usage(anyhow::Error::new(error)).hint(CHECK_HINT);
        self.config.graph().map_err(unusable)
    }

    fn scene(&self) -> Result<execute::Scene, Failure> {
        let target = place::target(&self.config.postgres)?;
        let scene = self.config.scene(&self.state_dir, &target.connection);
        scene.map_err(|why| Failure::usage(anyhow::anyhow!(why)).hint(CHECK_HINT))
    }

    fn watch(&self) -> Result<Executor, Failure> {
        Executor::watch(&self.dir, &boot_id(), self.scene()?).map_err(failure)
    }

    /// The declared service, or the database, of this name.
    fn named(&self, name: &str) -> Result<ServiceName, Failure> {
        let declared = || self.config.service.iter().map(|one| one.name.as_str());
        let mut known = std::iter::once(self.config.postgres.name.as_str()).chain(declared());
        if let Some(found) = known.find(|known| *known == name) {
            return Ok(found.into());
        }
        let known = std::iter::once(self.config.postgres.name.as_str()).chain(declared()).take(COMPARED_MAX);
        let nearest = known.map(|known| (known, strsim::jaro_winkler(known, name))).max_by(|a, b| a.1.total_cmp(&b.1));
        let hint = match nearest {
            Some((nearest, alike)) if alike >= ALIKE => format!("did you mean {nearest:?}?"),
            _ => "`oxpecker service list` names them all".to_owned(),
        };
        let shown: String = name.chars().take(40).collect();
        Err(Failure::usage(anyhow::anyhow!("no service is called {shown:?}")).hint(hint))
    }
}

const CHECK_HINT: &str = "`oxpecker config check` names the place";

/// One look, or as many as the time that was asked for holds.
async fn look(executor: &mut Executor, args: &LookArgs) -> Result<Round, Failure> {
    let began = Instant::now();
    let look_for = looked_for(args);
    loop {
        let round = executor.round().await.map_err(failure)?;
        let Some(left) = look_for.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) else { return Ok(round) };
        executor.wait(left.min(LOOK_EVERY)).await.map_err(failure)?;
    }
}

fn looked_for(args: &LookArgs) -> Duration {
    args.look_for.map_or(Duration::ZERO, |time| time.0)
}

/// What needs what.
pub fn graph(global: &Global, dot: bool) -> Outcome {
    let graph = Place::load(global)?.graph()?;
    let mut document = graph.to_json();
    if let Some(document) = document.as_object_mut() {
        // Ours says it for all commands.
        document.remove("schema");
    }
    output::result(global.output, "service_graph", &document, || if dot { graph.to_dot() } else { graph.to_text() })?;
    Ok(FINE)
}

/// Who acts, where nobody says so.
fn who(by: Option<&str>) -> String {
    let named = |variable: &str| std::env::var(variable).ok().filter(|name| !name.is_empty());
    let by = by.map(str::to_owned).or_else(|| named("SUDO_USER")).or_else(|| named("USER"));
    by.unwrap_or_else(|| "somebody".to_owned())
}

fn failure(error: ExecuteError) -> Failure {
    let code = match &error {
        ExecuteError::Busy { .. } | ExecuteError::OtherPlan { .. } => REFUSED,
        ExecuteError::File { .. } => FAILED,
        _ => USAGE,
    };
    Failure { code, error: error.into(), hint: None }
}

//! Carrying out the plan: look, plan, look again, write down, act; again and again until all is stable or a person is needed.
//!
//! Invariants: there is one writer (a lock on its directory). Nothing is acted on before it is durably written down, nor without its preconditions having been
//! looked up again just before. Killed anywhere and started again, it goes on: an act that was written down and not done is done then, and does not count as
//! a failure of the service. What was tried in another boot counts no more.
//!
//! ```text
//! record    what is remembered over a kill
//! approval  a person's word for certain steps
//! ```

mod approval;
mod record;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::{
    FutureExt as _,
    stream::{FuturesUnordered, StreamExt as _},
};
use jiff::Timestamp;
use model::ServiceName;

pub use self::approval::{Approval, HOLDS_FOR, Wanted, approvals, approve, wanted};
use self::record::Record;
use crate::{
    driver::{Act, ActError, Doing, Driver},
    graph::Graph,
    health::History,
    look::{Observer, boot_now},
    plan::{Action, Budgets, Input, Plan, Step, plan},
    state::{Intent, Patience, State, Status, classify_all},
};

/// The executor can't go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecuteError {
    /// Another one is at it.
    #[error("{} is held by another process that brings services back\n  hint: the guard does so where [recovery] mode = \"act\"; `oxpecker service list` shows how far it is", path.display())]
    Busy {
        /// The lock.
        path: PathBuf,
    },
    /// What is remembered can't be read or written.
    #[error("{}: {why}\n  hint: {hint}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
        /// What to do.
        hint: &'static str,
    },
    /// An approval names a plan that is not the present one.
    #[error("the plan to approve is {is} now, not {asked}\n  hint: look at it again: `oxpecker service plan`")]
    OtherPlan {
        /// What was asked for.
        asked: String,
        /// What there is.
        is: String,
    },
}

/// All that the executor works with.
pub struct Scene {
    /// The services.
    pub graph: Graph,
    /// Looks at them.
    pub observer: Observer,
    /// Who acts on each; those that are not here are nobody's to act on.
    pub drivers: BTreeMap<ServiceName, Arc<dyn Driver>>,
    /// What each would be made from again, as approvals bind it.
    pub definitions: BTreeMap<ServiceName, String>,
    /// Services that a person has stopped, with who it was.
    pub stopped: BTreeMap<ServiceName, String>,
    /// How much may be done.
    pub budgets: Budgets,
    /// How long something bad is waited for.
    pub patience: Patience,
}

/// An act that was begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Began {
    /// The step.
    pub step: Step,
    /// When, on the boot clock.
    pub at: Duration,
}

/// An attempt that came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// On which service.
    pub service: ServiceName,
    /// What was done.
    pub action: Action,
    /// How long it took.
    pub took: Duration,
    /// Why it failed; `None` where the service is stable.
    pub failure: Option<String>,
}

/// What one round found and did.
#[derive(Clone, Debug)]
pub struct Round {
    /// When, on the boot clock.
    pub at: Duration,
    /// How each service is, by its place in the graph.
    pub statuses: Vec<Status>,
    /// The plan before anything of it was done.
    pub plan: Plan,
    /// What waits for a person.
    pub wanted: Option<Wanted>,
    /// What was begun.
    pub began: Vec<Began>,
    /// What ended.
    pub ended: Vec<Ended>,
}

type Acting = Doing<'static, (ServiceName, Result<(), ActError>)>;

/// Who brings services back.
pub struct Executor {
    scene: Scene,
    dir: PathBuf,
    /// `None`: it only watches.
    lock: Option<File>,
    record: Record,
    histories: Vec<History>,
    acting: FuturesUnordered<Acting>,
    /// On whom this process acts just now.
    acts_now: BTreeSet<ServiceName>,
    seed: u64,
}

impl Executor {
    /// Only watches and plans: writes nothing, and needs no lock. `boot`: the id of this boot.
    ///
    /// # Errors
    /// What an executor remembered can't be read.
    pub fn watch(dir: &Path, boot: &str, scene: Scene) -> Result<Self, ExecuteError> {
        let record = Record::of_boot(dir, boot)?;
        let histories = vec![History::default(); scene.graph.len()];
        // The same in one boot, so that a plan made anew keeps its times.
        let seed = BuildHasherDefault::<DefaultHasher>::default().hash_one(boot);
        let acting = FuturesUnordered::new();
        Ok(Self { scene, dir: dir.to_owned(), lock: None, record, histories, acting, acts_now: BTreeSet::new(), seed })
    }

    /// Acts. Only one process at a time does so on a directory.
    ///
    /// # Errors
    /// `Busy`; or what is remembered can't be read or written.
    pub fn act(dir: &Path, boot: &str, scene: Scene) -> Result<Self, ExecuteError> {
        let path = dir.join("lock");
        let fail = |error: std::io::Error| ExecuteError::File {
            path: path.clone(),
            why: error.to_string(),
            hint: "see that this user may write there",
        };
        fs::create_dir_all(dir).map_err(fail)?;
        let lock = File::options().create(true).truncate(false).write(true).open(&path).map_err(fail)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(ExecuteError::Busy { path }),
            Err(fs::TryLockError::Error(error)) => return Err(fail(error)),
        }
        // Read under the lock.
        let mut executor = Self::watch(dir, boot, scene)?;
        executor.lock = Some(lock);
        Ok(executor)
    }

    /// The services.
    pub fn graph(&self) -> &Graph {
        &self.scene.graph
    }

    /// A person has looked: what was given up is tried again, within what the budgets leave.
    ///
    /// # Errors
    /// It can't be written down.
    pub fn reset(&mut self) -> Result<(), ExecuteError> {
        self.record.ledger.reset();
        self.save()
    }

    /// One round: looks, plans, and acts on what is due, where it may.
    ///
    /// # Errors
    /// What is to be remembered can't be written: nothing is acted on then. What fails in an act is in a later round's `ended`.
    pub async fn round(&mut self) -> Result<Round, ExecuteError> {
        while let Some(Some(finished)) = self.acting.next().now_or_never() {
            self.taken_on(finished)?;
        }
        let (mut at, mut statuses) = self.look().await;
        let ended = self.judge(&statuses, at)?;
        let Planned { plan: first, wanted, approved } = self.plan(&statuses, at)?;
        let mut began = Vec::new();
        let may = self.lock.is_some() && first.due().next().is_some();
        if may {
            // Again, for whatever the look took: only what still has to be done is.
            (at, statuses) = self.look().await;
            for step in first.due() {
                let holds = step
                    .preconditions
                    .iter()
                    .all(|one| one.holds(&self.scene.graph, &statuses, |name| approved.contains(name)));
                if holds && self.begin(step, at)? {
                    began.push(Began { step: step.clone(), at });
                }
            }
        }
        Ok(Round { at, statuses, plan: first, wanted, began, ended })
    }

    /// Returns when a driver says that something changed, or the time is over. Acts go on meanwhile.
    ///
    /// # Errors
    /// What came of an act can't be written down.
    pub async fn wait(&mut self, most: Duration) -> Result<(), ExecuteError> {
        let over = tokio::time::sleep(most);
        tokio::pin!(over);
        loop {
            let finished = tokio::select! {
                () = &mut over => return Ok(()),
                () = self.scene.observer.changed() => return Ok(()),
                Some(finished) = self.acting.next() => finished,
            };
            self.taken_on(finished)?;
        }
    }

    /// Waits for acts that were begun, so that none is left half done; for so long at most. Whether all are done.
    pub async fn finish(&mut self, most: Duration) -> bool {
        let all = async {
            while let Some(finished) = self.acting.next().await {
                // What can't be written down is found out by looking.
                let _ = self.taken_on(finished);
            }
        };
        tokio::time::timeout(most, all).await.is_ok()
    }

    /// Looks at all and says how each is.
    async fn look(&mut self) -> (Duration, Vec<Status>) {
        let look = self.scene.observer.look().await;
        for (history, seen) in self.histories.iter_mut().zip(look.observations) {
            history.observe(seen, self.scene.patience.stale_after);
        }
        let graph = &self.scene.graph;
        let intents: Vec<Intent> = graph
            .ids()
            .map(|id| {
                let by_driver = look.stopped_by[id.index()].clone();
                let by = by_driver.or_else(|| self.scene.stopped.get(graph.name(id)).cloned());
                by.map_or(Intent::Wanted, |by| Intent::Stopped { by })
            })
            .collect();
        let at = boot_now();
        let statuses = classify_all(graph, &self.scene.patience, at, |id| {
            let failed = self.record.ledger.failed(graph.name(id));
            (&intents[id.index()], &self.histories[id.index()], failed)
        });
        (at, statuses)
    }

    /// Judges the open attempts; what came of those that ended.
    fn judge(&mut self, statuses: &[Status], now: Duration) -> Result<Vec<Ended>, ExecuteError> {
        let graph = &self.scene.graph;
        let before = self.record.clone();
        // Acts of a life before: what still is as it was before the act was not acted on.
        for service in &before.begun {
            let acting = self.acts_now.contains(service);
            let state = graph.id(service).map(|id| &statuses[id.index()].state);
            match state {
                _ if acting => {}
                Some(State::Unknown { .. }) => {}
                Some(State::Broken { .. } | State::Stuck { .. } | State::Wrong { .. } | State::Removed) => {
                    self.record.ledger.undone(service);
                    self.record.begun.remove(service);
                }
                _ => {
                    self.record.begun.remove(service);
                }
            }
        }
        self.record.ledger.judge(graph, statuses, now);
        let mut ended = Vec::new();
        for id in graph.ids() {
            let service = graph.name(id);
            let Some(open) = before.ledger.open(service) else { continue };
            let ledger = &self.record.ledger;
            if ledger.open(service).is_some() {
                continue;
            }
            let failure = (ledger.failed(service) > before.ledger.failed(service))
                .then(|| ledger.last_failure(service).unwrap_or("unknown").to_owned());
            if failure.is_some() || statuses[id.index()].state == State::Stable {
                let took = now.saturating_sub(open.at);
                ended.push(Ended { service: service.clone(), action: open.action, took, failure });
            }
        }
        if self.record != before {
            self.save()?;
        }
        Ok(ended)
    }

    fn plan(&self, statuses: &[Status], now: Duration) -> Result<Planned, ExecuteError> {
        let plan_with = |approved: &BTreeSet<ServiceName>| {
            let Scene { graph, budgets, .. } = &self.scene;
            plan(&Input { graph, statuses, ledger: &self.record.ledger, budgets, approved, now, seed: self.seed })
        };
        let unapproved = plan_with(&BTreeSet::new());
        let definition = |name: &ServiceName| self.scene.definitions.get(name).cloned().unwrap_or_default();
        let Some(wanted) = wanted(&unapproved, definition) else {
            return Ok(Planned { plan: unapproved, wanted: None, approved: BTreeSet::new() });
        };
        let approved = approval::approved(&approvals(&self.dir)?, &wanted, Timestamp::now());
        let plan = if approved.is_empty() { unapproved } else { plan_with(&approved) };
        Ok(Planned { plan, wanted: Some(wanted), approved })
    }

    /// Writes an act down and hands it to its driver. Whether there is one.
    fn begin(&mut self, step: &Step, at: Duration) -> Result<bool, ExecuteError> {
        let Some(driver) = self.scene.drivers.get(&step.service).map(Arc::clone) else { return Ok(false) };
        self.record.ledger.acted(&step.service, step.action, at);
        self.record.begun.insert(step.service.clone());
        self.save()?;
        self.acts_now.insert(step.service.clone());
        let (service, act) = (step.service.clone(), Act::from(step.action));
        self.acting.push(Box::pin(async move {
            let done = driver.act(&service, act).await;
            (service, done)
        }));
        Ok(true)
    }

    /// A driver has taken an act on, or not.
    fn taken_on(&mut self, (service, done): (ServiceName, Result<(), ActError>)) -> Result<(), ExecuteError> {
        self.acts_now.remove(&service);
        self.record.begun.remove(&service);
        match done {
            Ok(()) => {}
            // Looking tells whether it was done.
            Err(error @ ActError::NoAnswer { .. }) => tracing::warn!(%error, "no answer of a driver"),
            Err(error) => {
                tracing::warn!(%error, "a driver did not act");
                self.record.ledger.refused(&service, &error.to_string(), boot_now());
            }
        }
        self.save()
    }

    /// Only who holds the lock remembers.
    fn save(&self) -> Result<(), ExecuteError> {
        if self.lock.is_some() { self.record.save(&self.dir) } else { Ok(()) }
    }
}

/// A plan with what of it needed a person.
struct Planned {
    plan: Plan,
    wanted: Option<Wanted>,
    approved: BTreeSet<ServiceName>,
}

/// The id of this boot: no two boots have the same.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|text| text.trim().to_owned()).unwrap_or_default()
}

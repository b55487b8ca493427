//! Carrying out the plan: look, plan, look again, write down, act; again and again until all is stable or a person is needed.
//!
//! Invariants: there is one writer (a lock on its directory). Nothing is acted on before it is durably written down, nor without its preconditions having been
//! looked up again just before. Killed anywhere and started again, it goes on: an act that was written down and not done is done then, and does not count as
//! a failure of the service; so often at most, though ([`crate::plan::UNDONE_MAX`]). What was tried in another boot counts no more. An approval is used up by the
//! same write that says that its act begins. Without the lock it writes nothing and acts on nothing.
//!
//! All of it may be dropped at any await: no act that was begun is forgotten.
//!
//! ```text
//! acts      acts on their way, and what came of them
//! record    what is remembered over a kill
//! intent    services that were stopped on purpose
//! approval  a person's word for certain steps
//! ```

mod acts;
mod approval;
pub mod intent;
mod record;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use model::ServiceName;

pub use self::approval::{Approval, HOLDS_FOR, Wanted, approvals, approve, wanted};
use self::{acts::Acts, approval::Use, record::Record};
use crate::{
    driver::{Act, ActError, Driver},
    graph::{Graph, Id},
    health::History,
    look::{Look, Observer, boot_now},
    plan::{Action, Budgets, Input, Outcome, Plan, Precondition, Step, plan},
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

/// Who brings services back.
pub struct Executor {
    scene: Scene,
    dir: PathBuf,
    boot: String,
    /// `None`: it only watches.
    lock: Option<File>,
    record: Record,
    /// Which state of its file that is.
    mark: Option<(u64, SystemTime)>,
    histories: Vec<History>,
    /// Who stopped each with its driver's own means, as last seen.
    stopped_by: Vec<Option<String>>,
    /// Which of the observer's drivers listed each, as last seen.
    listed_by: Vec<Option<usize>>,
    acts: Acts,
    /// Not told yet.
    ended: Vec<Ended>,
    seed: u64,
}

impl Executor {
    /// Only watches and plans: writes nothing, and needs no lock. `boot`: the id of this boot.
    ///
    /// # Errors
    /// What an executor remembered can't be read.
    pub fn watch(dir: &Path, boot: &str, scene: Scene) -> Result<Self, ExecuteError> {
        let services = scene.graph.len();
        Ok(Self {
            dir: dir.to_owned(),
            boot: boot.to_owned(),
            lock: None,
            mark: Record::mark(dir),
            record: Record::of_boot(dir, boot)?,
            histories: vec![History::default(); services],
            stopped_by: vec![None; services],
            listed_by: vec![None; services],
            acts: Acts::default(),
            ended: vec![],
            // The same in one boot, so that a plan made anew keeps its times.
            seed: BuildHasherDefault::<DefaultHasher>::default().hash_one(boot),
            scene,
        })
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

    /// What was seen of a service, by its place in the graph.
    pub fn history(&self, id: Id) -> &History {
        &self.histories[id.index()]
    }

    /// Who acts on a service; `None` where that is nobody's.
    pub fn driver(&self, name: &ServiceName) -> Option<Arc<dyn Driver>> {
        self.scene.drivers.get(name).map(Arc::clone)
    }

    /// What was tried, and what came of it.
    pub fn ledger(&self) -> &crate::plan::Ledger {
        &self.record.ledger
    }

    /// A person has looked: what was given up is tried again, within what the budgets leave.
    ///
    /// # Errors
    /// It can't be written down.
    pub fn reset(&mut self) -> Result<(), ExecuteError> {
        self.record.ledger.reset();
        self.save()
    }

    /// One round: looks, plans, and acts on what is due, where it may. Acts of earlier rounds go on meanwhile.
    ///
    /// # Errors
    /// What is to be remembered can't be read or written: nothing is acted on then. What fails in an act is in a later round's `ended`.
    pub async fn round(&mut self) -> Result<Round, ExecuteError> {
        self.follow_the_writer()?;
        self.take_on_what_ended()?;
        let (mut at, mut statuses) = self.look(None).await?;
        self.judge(&statuses, at)?;
        let Planned { plan: first, wanted, approved } = self.plan(&statuses, at)?;
        if first.outcome == Outcome::Done && self.record.ledger.close() {
            self.save()?;
        }
        let mut began = Vec::new();
        let due: Vec<&Step> = first.due().filter(|step| self.may_begin(step)).collect();
        if !due.is_empty() {
            // Again, for whatever the first look took: only what still has to be done is.
            (at, statuses) = self.look(Some(&self.named_by(&due))).await?;
            for step in due {
                let is_approved = |name: &ServiceName| approved.contains_key(name);
                let holds = |one: &Precondition| one.holds(&self.scene.graph, &statuses, is_approved);
                if step.preconditions.iter().all(holds) && self.begin(step, approved.get(&step.service), at)? {
                    began.push(Began { step: step.clone(), at });
                }
            }
        }
        let ended = std::mem::take(&mut self.ended);
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
            tokio::select! {
                () = &mut over => return Ok(()),
                () = self.scene.observer.changed() => return Ok(()),
                () = self.acts.advance() => {}
            }
            self.take_on_what_ended()?;
        }
    }

    /// Waits for acts that were begun, so that none is left half done; for so long at most. Whether all are done.
    pub async fn finish(&mut self, most: Duration) -> bool {
        let done = tokio::time::timeout(most, self.acts.finish()).await.is_ok();
        // What can't be written down is found out by looking.
        let _ = self.take_on_what_ended();
        done
    }

    /// Who only watches sees what the one who acts has written down since.
    fn follow_the_writer(&mut self) -> Result<(), ExecuteError> {
        let mark = Record::mark(&self.dir);
        if self.lock.is_none() && mark != self.mark {
            self.record = Record::of_boot(&self.dir, &self.boot)?;
            self.mark = mark;
        }
        Ok(())
    }

    /// Looks at all, or at some, and says how each is.
    async fn look(&mut self, only: Option<&[Id]>) -> Result<(Duration, Vec<Status>), ExecuteError> {
        let Self { scene, acts, lock, listed_by, .. } = self;
        let look = async {
            if lock.is_some() && only.is_none() {
                scene.observer.tend().await;
            }
            match only {
                None => scene.observer.look().await,
                Some(only) => scene.observer.look_at(only, listed_by).await,
            }
        };
        let look = acts.advance_while(look).await;
        self.take_on_what_ended()?;
        self.saw(look);
        let graph = &self.scene.graph;
        // After the look: a stop that was written down meanwhile counts.
        let stopped = intent::load(&self.dir)?;
        let intents: Vec<Intent> = graph
            .ids()
            .map(|id| {
                let by_driver = self.stopped_by[id.index()].clone();
                let by = by_driver.or_else(|| stopped.get(graph.name(id)).map(|stopped| stopped.by.clone()));
                by.map_or(Intent::Wanted, |by| Intent::Stopped { by })
            })
            .collect();
        let at = boot_now();
        let statuses = classify_all(graph, &self.scene.patience, at, |id| {
            let failed = self.record.ledger.failed(graph.name(id));
            (&intents[id.index()], &self.histories[id.index()], failed)
        });
        Ok((at, statuses))
    }

    fn saw(&mut self, look: Look) {
        for one in look.seen {
            let place = one.service.index();
            self.histories[place].observe(one.observation, self.scene.patience.stale_after);
            self.stopped_by[place] = one.stopped_by;
            self.listed_by[place] = one.listed_by;
        }
    }

    /// Judges the attempts that were handed over, and notes those that ended.
    fn judge(&mut self, statuses: &[Status], now: Duration) -> Result<(), ExecuteError> {
        let before = self.record.clone();
        if self.lock.is_some() {
            self.settle_acts_of_a_life_before(statuses, now);
        }
        self.record.ledger.judge(&self.scene.graph, statuses, now);
        let graph = &self.scene.graph;
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
                self.ended.push(Ended { service: service.clone(), action: open.action, took, failure });
            }
        }
        if self.record != before { self.save() } else { Ok(()) }
    }

    /// What still is as it was before the act was not acted on.
    fn settle_acts_of_a_life_before(&mut self, statuses: &[Status], now: Duration) {
        let graph = &self.scene.graph;
        let left: Vec<ServiceName> = self.record.ledger.not_handed_over().cloned().collect();
        for service in left.into_iter().filter(|service| !self.acts.is_acting_on(service)) {
            match graph.id(&service).map(|id| &statuses[id.index()].state) {
                Some(State::Unknown { .. }) => {}
                Some(
                    State::Broken { .. }
                    | State::Stuck { .. }
                    | State::Wrong { .. }
                    | State::Removed
                    | State::Damaged { .. },
                ) => {
                    self.record.ledger.undone(&service);
                    if let Some(unused) = self.record.begun_on.remove(&service) {
                        self.record.used.remove(&unused);
                    }
                }
                _ => {
                    self.record.ledger.handed_over(&service, now);
                    self.record.begun_on.remove(&service);
                }
            }
        }
    }

    fn plan(&self, statuses: &[Status], now: Duration) -> Result<Planned, ExecuteError> {
        let plan_with = |approved: &BTreeSet<ServiceName>| {
            let Scene { graph, budgets, .. } = &self.scene;
            plan(&Input { graph, statuses, ledger: &self.record.ledger, budgets, approved, now, seed: self.seed })
        };
        let unapproved = plan_with(&BTreeSet::new());
        let definition = |name: &ServiceName| self.scene.definitions.get(name).cloned().unwrap_or_default();
        let Some(wanted) = wanted(&unapproved, definition) else {
            return Ok(Planned { plan: unapproved, wanted: None, approved: BTreeMap::new() });
        };
        let approved = approval::approved(&approvals(&self.dir)?, &self.record.used, &wanted, Timestamp::now());
        let names: BTreeSet<ServiceName> = approved.keys().cloned().collect();
        let plan = if names.is_empty() { unapproved } else { plan_with(&names) };
        Ok(Planned { plan, wanted: Some(wanted), approved })
    }

    fn may_begin(&self, step: &Step) -> bool {
        self.lock.is_some() && self.scene.drivers.contains_key(&step.service) && !self.acts.is_acting_on(&step.service)
    }

    /// The services of these steps, and what their preconditions name.
    fn named_by(&self, steps: &[&Step]) -> Vec<Id> {
        let graph = &self.scene.graph;
        let named = steps.iter().flat_map(|step| {
            let needs = step.preconditions.iter().map(Precondition::service);
            needs.chain([&step.service]).filter_map(|name| graph.id(name))
        });
        named.collect::<BTreeSet<Id>>().into_iter().collect()
    }

    /// Writes an act down, uses its approval up with the same write, and hands it to its driver. Whether there is one.
    fn begin(&mut self, step: &Step, approved: Option<&Use>, at: Duration) -> Result<bool, ExecuteError> {
        let Some(driver) = self.scene.drivers.get(&step.service).map(Arc::clone) else { return Ok(false) };
        self.record.ledger.acted(&step.service, step.action, at);
        if let Some(of) = approved.filter(|_| self.scene.budgets.needs_approval(&step.service, step.action)) {
            let kept: BTreeSet<String> = approvals(&self.dir)?.iter().map(Approval::id).collect();
            self.record.used.retain(|one| kept.contains(&one.approval));
            self.record.used.insert(of.clone());
            self.record.begun_on.insert(step.service.clone(), of.clone());
        }
        self.save()?;
        self.acts.begin(driver, step.service.clone(), Act::from(step.action), self.dir.clone());
        Ok(true)
    }

    /// Drivers have taken acts on, or not.
    fn take_on_what_ended(&mut self) -> Result<(), ExecuteError> {
        let ended = self.acts.take_ended();
        if ended.is_empty() {
            return Ok(());
        }
        for one in ended {
            let service = one.service;
            self.record.begun_on.remove(&service);
            let open = self.record.ledger.open(&service);
            match one.done {
                Ok(()) => self.record.ledger.handed_over(&service, one.at),
                // Looking tells whether it was done.
                Err(error @ ActError::NoAnswer { .. }) => {
                    tracing::warn!(%error, "no answer of a driver");
                    self.record.ledger.handed_over(&service, one.at);
                }
                Err(error) => {
                    tracing::warn!(%error, "a driver did not act");
                    self.record.ledger.refused(&service, &error.to_string(), one.at);
                    if let Some(open) = open {
                        let took = one.at.saturating_sub(open.at);
                        let failure = self.record.ledger.last_failure(&service).map(str::to_owned);
                        self.ended.push(Ended { service, action: open.action, took, failure });
                    }
                }
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
    approved: BTreeMap<ServiceName, Use>,
}

/// The id of this boot: no two boots have the same.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|text| text.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests;

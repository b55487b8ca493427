//! The bus: one connection, what is called over it, and the signals that come back.
//!
//! Signals are taken off the connection by a task of their own, or nothing else would come through while nobody asks for them.

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::StreamExt as _;
use tokio::{
    sync::{Notify, broadcast},
    task::JoinHandle,
};
use zbus::{Connection, DynamicType, MatchRule, Message, MessageStream, ObjectPath, OwnedObjectPath, Variant, message};

use super::{CALL_WITHIN, UnitName, refusal::Refusal, seen::Unit};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "/org/freedesktop/systemd1";
const MANAGER_INTERFACE: &str = "org.freedesktop.systemd1.Manager";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
/// Signals that may wait for the task that takes them; then the bus waits.
const SIGNALS_QUEUED: NonZeroUsize = NonZeroUsize::new(256).expect("it is not zero");
/// Ends of jobs that may wait for who waits for one; who misses some looks.
const JOBS_QUEUED: usize = 256;

/// What driver and connection share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Something about one of ours may have changed.
    pub changed: Notify,
    ours: Mutex<Ours>,
}

#[derive(Debug, Default)]
struct Ours {
    names: HashSet<String>,
    paths: HashSet<String>,
}

impl Shared {
    /// Signals of this unit count.
    pub fn watch(&self, unit: &UnitName) {
        let mut ours = self.ours.lock().unwrap_or_else(PoisonError::into_inner);
        ours.names.insert(unit.to_string());
        ours.paths.insert(unit.object());
    }

    /// Also under the name that systemd itself has for it: signals don't know aliases.
    pub fn watch_alias(&self, unit: &UnitName, id: &str) {
        if id != unit.as_str()
            && let Ok(id) = id.parse::<UnitName>()
        {
            self.watch(&id);
        }
    }

    fn has_name(&self, name: &str) -> bool {
        self.ours.lock().unwrap_or_else(PoisonError::into_inner).names.contains(name)
    }

    fn has_path(&self, path: &str) -> bool {
        self.ours.lock().unwrap_or_else(PoisonError::into_inner).paths.contains(path)
    }
}

/// What becomes of jobs.
#[derive(Clone, Debug)]
pub(super) enum JobEvent {
    /// One came to its end.
    Ended {
        /// Its object.
        path: String,
        /// `done`, `failed`, `canceled`, ...
        result: String,
    },
    /// The bus or systemd went away.
    Lost,
}

/// A connection to a bus with a systemd on it.
#[derive(Debug)]
pub(super) struct Link {
    connection: Connection,
    jobs: broadcast::Sender<JobEvent>,
    dead: Arc<AtomicBool>,
    pump: JoinHandle<()>,
    /// Units that were held, or could not be.
    held: Mutex<HashSet<String>>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

impl Link {
    pub async fn connect(address: &str, shared: &Arc<Shared>) -> Result<Self, Refusal> {
        let connection = zbus::connection::Builder::address(address).method_timeout(CALL_WITHIN).build().await?;
        let of_systemd =
            MatchRule::builder().msg_type(message::Type::Signal).sender(SYSTEMD).path_namespace(MANAGER).build()?;
        let signals = MessageStream::for_match_rule(of_systemd, &connection, Some(SIGNALS_QUEUED)).await?;
        let of_the_bus = MatchRule::builder()
            .msg_type(message::Type::Signal)
            .sender("org.freedesktop.DBus")
            .member("NameOwnerChanged")
            .arg(0, SYSTEMD)
            .build()?;
        let owners = MessageStream::for_match_rule(of_the_bus, &connection, None).await?;
        let bus = Some("org.freedesktop.DBus");
        let owner = connection.call_method(bus, "/org/freedesktop/DBus", bus, "GetNameOwner", &(SYSTEMD,)).await?;
        let owner = owner.body().deserialize::<String>()?;
        let (jobs, _) = broadcast::channel(JOBS_QUEUED);
        let dead = Arc::new(AtomicBool::new(false));
        let gone = Gone { dead: Arc::clone(&dead), jobs: jobs.clone(), shared: Arc::clone(shared) };
        let pump = tokio::spawn(pump(signals, owners, owner, gone));
        let link = Self { connection, jobs, dead, pump, held: Mutex::default() };
        // Without it systemd sends nothing. Who may not subscribe still has the intervals at which its caller looks.
        match link.call("Subscribe", &()).await {
            Ok(_) => {}
            Err(error @ Refusal::Said { .. }) => tracing::debug!(why = error.why(), "systemd tells no changes"),
            Err(error) => return Err(error),
        }
        Ok(link)
    }

    pub fn lives(&self) -> bool {
        !self.dead.load(Ordering::Acquire)
    }

    /// What becomes of jobs from now on.
    pub fn jobs(&self) -> broadcast::Receiver<JobEvent> {
        self.jobs.subscribe()
    }

    /// Calls a method of the manager.
    pub async fn call<B>(&self, method: &str, body: &B) -> Result<Message, Refusal>
    where
        B: serde::Serialize + DynamicType,
    {
        Ok(self.connection.call_method(Some(SYSTEMD), MANAGER, Some(MANAGER_INTERFACE), method, body).await?)
    }

    /// Calls a method that queues a job; the job's path.
    pub async fn queue(&self, method: &str, unit: &UnitName) -> Result<String, Refusal> {
        let reply = self.call(method, &(unit.as_str(), "replace")).await?;
        Ok(reply.body().deserialize::<OwnedObjectPath>()?.as_str().to_owned())
    }

    /// Has systemd keep a unit loaded as long as this connection lives. It would forget one that is down, with how it ended, and read its file at each look.
    async fn hold(&self, name: &UnitName) {
        let held = || self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if !held().insert(name.to_string()) {
            return;
        }
        match self.call("RefUnit", &(name.as_str(),)).await {
            Ok(_) => {}
            // It may be provisioned.
            Err(refusal) if refusal.is("NoSuchUnit") => {
                held().remove(name.as_str());
            }
            // Not where it may not be started either, and not before systemd 230; then each look loads it.
            Err(refusal) => {
                tracing::debug!(unit = name.as_str(), why = refusal.why(), "systemd does not keep it loaded");
            }
        }
    }

    /// One unit with all that is said of it: one call, which loads it where it isn't.
    pub async fn unit(&self, name: &UnitName) -> Result<Unit, Refusal> {
        self.hold(name).await;
        // All interfaces at once: what kind it is, its object knows.
        let reply =
            self.connection.call_method(Some(SYSTEMD), name.object(), Some(PROPERTIES), "GetAll", &("",)).await?;
        let body = reply.body();
        let all: HashMap<&str, Variant<'_>> = body.deserialize()?;
        Ok(Unit::of(&all))
    }

    /// What kind of job that is; `None` where it is over.
    pub async fn job_type(&self, path: &str) -> Option<String> {
        let asked = &("org.freedesktop.systemd1.Job", "JobType");
        let path = ObjectPath::try_from(path).ok()?;
        let reply = self.connection.call_method(Some(SYSTEMD), path, Some(PROPERTIES), "Get", asked).await.ok()?;
        match reply.body().deserialize::<Variant<'_>>() {
            Ok(Variant::Str(kind)) => Some(kind.as_str().to_owned()),
            _ => None,
        }
    }
}

/// Says that the connection is over, however that came: also when the task's runtime ends.
struct Gone {
    dead: Arc<AtomicBool>,
    jobs: broadcast::Sender<JobEvent>,
    shared: Arc<Shared>,
}

impl Drop for Gone {
    fn drop(&mut self) {
        self.dead.store(true, Ordering::Release);
        // Nobody may be waiting.
        let _ = self.jobs.send(JobEvent::Lost);
        self.shared.changed.notify_one();
    }
}

async fn pump(mut signals: MessageStream, mut owners: MessageStream, owner: String, gone: Gone) {
    loop {
        let signal = tokio::select! {
            signal = signals.next() => signal,
            // Another systemd, or none: it is asked anew.
            _ = owners.next() => None,
        };
        let Some(Ok(signal)) = signal else { return };
        // Anybody may send a signal to one connection by its name.
        if signal.header().sender().is_some_and(|sender| sender.as_str() == owner) && concerns(&signal, &gone) {
            gone.shared.changed.notify_one();
        }
    }
}

/// Passes on what came of a job; whether the signal is about one of ours.
fn concerns(signal: &Message, to: &Gone) -> bool {
    let header = signal.header();
    let (Some(member), Some(path)) = (header.member(), header.path()) else { return false };
    let body = signal.body();
    match member.as_str() {
        "PropertiesChanged" => to.shared.has_path(path.as_str()),
        "JobNew" => match body.deserialize::<(u32, ObjectPath<'_>, &str)>() {
            Ok((_, _, unit)) => to.shared.has_name(unit),
            Err(_) => false,
        },
        "JobRemoved" => match body.deserialize::<(u32, ObjectPath<'_>, &str, &str)>() {
            Ok((_, path, unit, result)) => {
                let ours = to.shared.has_name(unit);
                if ours {
                    let event = JobEvent::Ended { path: path.as_str().to_owned(), result: result.to_owned() };
                    let _ = to.jobs.send(event);
                }
                ours
            }
            Err(_) => false,
        },
        "UnitFilesChanged" => true,
        "Reloading" => matches!(body.deserialize::<bool>(), Ok(false)),
        // Not UnitNew and UnitRemoved: looking at a unit that isn't loaded makes both.
        _ => false,
    }
}

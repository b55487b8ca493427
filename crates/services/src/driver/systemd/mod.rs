//! Services as units of a systemd, over D-Bus.
//!
//! systemd keeps the processes, their output and their limits; this driver looks, starts, stops and is told of changes. Units may have any `Restart=` of
//! their own: a unit that waits in systemd's back-off is seen as such and can be started before its time. What a unit's ordering says still counts, and
//! starting one starts what it `Requires=`.
//!
//! ```text
//! name     units' names, checked
//! seen     what systemd says, as what a driver sees  (pure)
//! refusal  errors, with what to do                   (pure)
//! bus      the connection, and signals
//! hand     acts
//! ```
//!
//! Looking needs no rights. Acting needs root, or polkit's word for `org.freedesktop.systemd1.manage-units`; provisioning also `manage-unit-files` and
//! `reload-daemon`.
//!
//! A `Type=oneshot` unit without `RemainAfterExit=yes` has ended once it did its work: as a service that others need it is of no use.

mod bus;
mod hand;
mod name;
mod refusal;
mod seen;

use std::{path::PathBuf, sync::Arc, time::Duration};

use futures_util::stream::{self, StreamExt as _};
use model::ServiceName;
use rustix::time::{ClockId, clock_gettime};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout, timeout_at},
};

pub use self::name::{UnitName, UnitNameError};
use self::{
    bus::{Link, Shared},
    refusal::Refusal,
};
use super::{Act, ActError, Doing, Driver, Seen};

/// Where the system's bus is.
pub const SYSTEM_BUS: &str = "unix:path=/run/dbus/system_bus_socket";
/// How long one look at all units may take.
pub const LIST_WITHIN: Duration = Duration::from_secs(5);
/// How long connecting may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// How long one call may take: a systemd that loads many units is slow.
const CALL_WITHIN: Duration = Duration::from_secs(10);
/// How long a job is waited for. One that isn't over by then has been taken on: a start that takes minutes is seen as starting.
const TAKEN_ON_WITHIN: Duration = Duration::from_secs(3);
/// How long one act may take at most.
const ACT_WITHIN: Duration = Duration::from_secs(40);
/// Units that are asked for at the same time.
const ASKED_AT_ONCE: usize = 32;
/// How long is waited before a bus that is away is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A service and its unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// Its name.
    pub name: ServiceName,
    /// Its unit.
    pub unit: UnitName,
    /// What a unit that is gone is provisioned from.
    pub unit_file: Option<PathBuf>,
}

impl Declared {
    /// `unit`: its full name, such as `site.service`. `unit_file`: an absolute path that ends in that name, or in that of its template.
    ///
    /// # Errors
    /// One of them can't be that.
    pub fn new(name: impl Into<ServiceName>, unit: &str, unit_file: Option<PathBuf>) -> Result<Self, UnitNameError> {
        let unit: UnitName = unit.parse()?;
        if let Some(file) = &unit_file {
            unit.check_file(file)?;
        }
        Ok(Self { name: name.into(), unit, unit_file })
    }
}

/// Services that a systemd runs.
#[derive(Debug)]
pub struct Systemd {
    address: String,
    declared: Vec<Declared>,
    shared: Arc<Shared>,
    link: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    link: Option<Arc<Link>>,
    /// Whether there has been one.
    again: bool,
}

impl Systemd {
    /// `address`: the bus as D-Bus writes addresses, mostly [`SYSTEM_BUS`]. Nothing is connected yet.
    pub fn new(address: impl Into<String>, declared: Vec<Declared>) -> Self {
        let shared = Arc::new(Shared::default());
        declared.iter().for_each(|one| shared.watch(&one.unit));
        Self { address: address.into(), declared, shared, link: Mutex::default() }
    }

    /// The connection, made anew where it was lost.
    async fn link(&self) -> Result<Arc<Link>, Refusal> {
        let mut held = self.link.lock().await;
        if let Some(link) = held.link.as_ref().filter(|link| link.lives()) {
            return Ok(Arc::clone(link));
        }
        held.link = None;
        let connecting = timeout(CONNECT_WITHIN, Link::connect(&self.address, &self.shared));
        let late = |_| Refusal::Nothing(format!("no connection within {} s", CONNECT_WITHIN.as_secs()));
        let link = Arc::new(connecting.await.map_err(late)??);
        held.link = Some(Arc::clone(&link));
        if std::mem::replace(&mut held.again, true) {
            // Nobody told what happened meanwhile.
            self.shared.changed.notify_one();
        }
        Ok(link)
    }

    async fn look(&self) -> Vec<(ServiceName, Seen)> {
        let until = Instant::now() + LIST_WITHIN;
        let link = match self.link().await {
            Ok(link) => link,
            Err(refusal) => {
                let why = refusal.unseen(&self.address);
                return self.declared.iter().map(|one| (one.name.clone(), Seen::unknown(why.clone()))).collect();
            }
        };
        let slept = slept();
        let looks: Vec<_> = self.declared.iter().map(|one| self.look_at(&link, one, slept, until)).collect();
        stream::iter(looks).buffered(ASKED_AT_ONCE).collect().await
    }

    async fn look_at(&self, link: &Link, one: &Declared, slept: Duration, until: Instant) -> (ServiceName, Seen) {
        let asking = async {
            let unit = link.unit(&one.unit).await?;
            self.shared.watch_alias(&one.unit, &unit.id);
            let job = match &unit.job {
                Some(job) if unit.is_down() => link.job_type(job).await,
                _ => None,
            };
            Ok::<Seen, Refusal>(seen::seen(&unit, job.as_deref(), slept))
        };
        let seen = match timeout_at(until, asking).await {
            Ok(Ok(seen)) => seen,
            Ok(Err(refusal)) => Seen::unknown(refusal.unseen(&self.address)),
            Err(_) => Seen::unknown(format!("systemd does not tell within {} s", LIST_WITHIN.as_secs())),
        };
        (one.name.clone(), seen)
    }

    async fn until_changed(&self) {
        let mut away = false;
        loop {
            match self.link().await {
                Ok(_) if away => return,
                Ok(_) => return self.shared.changed.notified().await,
                Err(_) => away = true,
            }
            sleep(RETRY_AFTER).await;
        }
    }
}

/// How far the boot clock is ahead of the monotonic one: how long the host slept since its boot.
fn slept() -> Duration {
    let read = |id| {
        let now = clock_gettime(id);
        Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
    };
    let monotonic = read(ClockId::Monotonic);
    read(ClockId::Boottime).saturating_sub(monotonic)
}

impl Driver for Systemd {
    fn kind(&self) -> &'static str {
        "systemd"
    }

    fn list(&self) -> Doing<'_, Vec<(ServiceName, Seen)>> {
        Box::pin(self.look())
    }

    fn act<'a>(&'a self, service: &'a ServiceName, act: Act) -> Doing<'a, Result<(), ActError>> {
        Box::pin(async move {
            let one = self.declared.iter().find(|one| one.name == *service).ok_or_else(|| ActError::Absent {
                act,
                service: service.as_str().escape_default().to_string().into(),
                why: "no service of that name is declared with the driver `systemd`".into(),
                hint: "look at the services of the configuration".into(),
            })?;
            self.act_on(one, act).await
        })
    }

    fn changed(&self) -> Doing<'_, ()> {
        Box::pin(self.until_changed())
    }
}

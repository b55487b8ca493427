//! The services in one directory: described, started, killed, looked at.

use std::{
    fs,
    hash::{BuildHasher as _, RandomState},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use services::driver::{
    Act, Driver as _,
    process::{Declared, ProcessDriver},
};

use super::{
    graph::{self, DATABASE, OUTAGE},
    member::{self, Member, Need, Server},
    record::ColdLane,
};
use crate::{DrillError, HelperCommand};

/// How long processes get to be gone after SIGKILL.
const KILL_PATIENCE: Duration = Duration::from_secs(10);
/// How often is looked.
const POLL: Duration = Duration::from_millis(10);
/// How long all together may take to come up where each starts at once.
const WARM_PATIENCE: Duration = Duration::from_secs(60);
/// Below the range from which the kernel serves outgoing connections (32768 and up), so that they are still free after a restart.
const PORTS: std::ops::Range<u64> = 20_000..32_768;
/// How many ports are tried before giving up.
const PORT_TRIES: usize = 1_000;

/// All services of the graph.
pub(crate) struct World {
    dir: PathBuf,
    pub(crate) members: Vec<Member>,
    pub(crate) driver: Arc<ProcessDriver>,
    /// Where the real database works, where there is one.
    database: Option<PathBuf>,
}

/// Describes the services in files below `dir`; `starts_in`: how long each takes.
pub(crate) fn describe(
    dir: &Path,
    starts_in: &[Duration],
    server: Option<&Server>,
    owner: i32,
) -> Result<Vec<Member>, DrillError> {
    let addresses = addresses(OUTAGE.len())?;
    let members = OUTAGE.iter().zip(&addresses).zip(starts_in).map(|((kind, address), takes)| Member {
        name: kind.name.to_owned(),
        dir: dir.to_owned(),
        address: *address,
        starts_in_us: u64::try_from(takes.as_micros()).unwrap_or(u64::MAX),
        needs: kind
            .needs
            .iter()
            .filter_map(|need| Some((*need, addresses[graph::place(need)?])))
            .map(|(need, address)| Need {
                name: need.to_owned(),
                address,
                url: server.filter(|_| need == DATABASE).map(|server| server.url.clone()),
            })
            .collect(),
        owner,
        server: server.filter(|_| kind.name == DATABASE).cloned(),
    });
    let members: Vec<Member> = members.collect();
    for member in &members {
        let path = description(dir, &member.name);
        let text = serde_json::to_vec(member).map_err(|error| DrillError::helper("member", error.to_string()))?;
        fs::write(&path, text).map_err(DrillError::file("writing", &path))?;
    }
    Ok(members)
}

/// Where a service's description is.
pub(crate) fn description(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.json"))
}

/// What the services below `dir` wrote down.
pub(crate) fn lanes(dir: &Path, from_us: u64) -> Vec<ColdLane> {
    let lane = |kind: &graph::Kind| {
        // One that never began has written nothing.
        let text = fs::read_to_string(member::events(dir, kind.name)).unwrap_or_default();
        ColdLane::parse(kind.name, &text, from_us)
    };
    OUTAGE.iter().map(lane).collect()
}

/// What was written down until now is forgotten.
pub(crate) fn forget(dir: &Path) -> Result<(), DrillError> {
    for kind in &OUTAGE {
        let path = member::events(dir, kind.name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(DrillError::file("removing", &path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

impl World {
    /// `dir` is made. `server` with the directory in which it works: the real database, which is down.
    pub(crate) fn new(
        helper: &HelperCommand,
        dir: &Path,
        starts_in: &[Duration],
        server: Option<(&Server, &Path)>,
    ) -> Result<Self, DrillError> {
        fs::create_dir(dir).map_err(DrillError::file("creating", dir))?;
        let owner = i32::try_from(std::process::id()).unwrap_or(0);
        let members = describe(dir, starts_in, server.map(|(server, _)| server), owner)?;
        let words = |words: &std::ffi::OsStr| words.to_string_lossy().into_owned();
        let declared = members.iter().map(|member| {
            let command = std::iter::once(words(helper.program.as_os_str()))
                .chain(helper.args.iter().map(|argument| words(argument)))
                .chain(["member".to_owned(), words(description(dir, &member.name).as_os_str())]);
            // Its directory tells that it is ours when left-overs are looked for.
            Declared { directory: Some(dir.to_owned()), ..Declared::new(member.name.as_str(), command) }
        });
        let driver = ProcessDriver::new(&dir.join("processes"), declared.collect());
        let driver = driver.with_keeper(&helper.program, helper.args.iter().map(|argument| words(argument)));
        let database = server.map(|(_, path)| path.to_owned());
        Ok(Self { dir: dir.to_owned(), members, driver: Arc::new(driver), database })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Starts all in their order, each at once.
    pub(crate) async fn bring_up(&self) -> Result<(), DrillError> {
        let warm = member::warm(&self.dir);
        fs::write(&warm, "").map_err(DrillError::file("writing", &warm))?;
        let deadline = Instant::now() + WARM_PATIENCE;
        for (at, member) in self.members.iter().enumerate() {
            self.driver
                .act(&member.name.as_str().into(), Act::Start)
                .await
                .map_err(|error| DrillError::cold("starting the services", error.to_string()))?;
            while lanes(&self.dir, 0)[at].ready_s().is_none() {
                if Instant::now() >= deadline {
                    return Err(DrillError::cold("starting the services", format!("{} does not serve", member.name)));
                }
                tokio::time::sleep(POLL).await;
            }
        }
        fs::remove_file(&warm).map_err(DrillError::file("removing", &warm))
    }

    /// SIGKILL to all of it at once. Returns how many processes there were, once none is left.
    pub(crate) async fn kill(&self) -> Result<usize, DrillError> {
        let deadline = Instant::now() + KILL_PATIENCE;
        let mut killed = None;
        loop {
            let left = kill_all(self.below());
            let killed = *killed.get_or_insert(left);
            if left == 0 {
                return Ok(killed);
            }
            if Instant::now() >= deadline {
                return Err(DrillError::cold("killing all services", format!("{left} processes survive SIGKILL")));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Stops all, with what keeps them. The database ends in order.
    pub(crate) async fn stop(&self) -> Result<(), DrillError> {
        let stops = self
            .members
            .iter()
            .rev()
            .map(|member| async { self.driver.act(&member.name.as_str().into(), Act::Stop).await });
        let stopped = futures_util::future::join_all(stops).await;
        let failed = stopped.into_iter().find_map(Result::err);
        failed.map_or(Ok(()), |error| Err(DrillError::cold("stopping the services", error.to_string())))
    }

    /// What was written down since, by service.
    pub(crate) fn lanes(&self, from_us: u64) -> Vec<ColdLane> {
        lanes(&self.dir, from_us)
    }

    fn below(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(self.dir.as_path()).chain(self.database.as_deref())
    }
}

impl Drop for World {
    /// After [`World::stop`] nothing is left; this is for the way out of an error or a cancellation. Keepers end with their services.
    fn drop(&mut self) {
        let deadline = Instant::now() + KILL_PATIENCE;
        while kill_all(self.below()) > 0 && Instant::now() < deadline {
            std::thread::sleep(POLL);
        }
    }
}

/// SIGKILL to what works below these directories; how many there were.
fn kill_all<'a>(directories: impl Iterator<Item = &'a Path>) -> usize {
    let found: Vec<_> = directories.flat_map(scratch::processes_below).collect();
    for process in &found {
        if let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) {
            // Gone in the meantime is what we want.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    found.len()
}

/// Free ports on a loopback address of our own, so that nobody is likely to take one before it is used.
fn addresses(count: usize) -> Result<Vec<SocketAddr>, DrillError> {
    // The standard library's only source of randomness: the keys of a hasher.
    let random = |salt: usize| RandomState::new().hash_one(salt);
    let [_, second, third, ..] = random(0).to_be_bytes();
    let host = Ipv4Addr::new(127, second.max(1), third, 1);
    let mut found: Vec<SocketAddr> = Vec::new();
    for attempt in 0..PORT_TRIES {
        if found.len() == count {
            break;
        }
        let port = PORTS.start + random(attempt) % (PORTS.end - PORTS.start);
        let address = SocketAddr::from((host, u16::try_from(port).unwrap_or(u16::MAX)));
        if !found.contains(&address) && TcpListener::bind(address).is_ok() {
            found.push(address);
        }
    }
    if found.len() < count {
        return Err(DrillError::cold("looking for ports", format!("only {} are free on {host}", found.len())));
    }
    Ok(found)
}

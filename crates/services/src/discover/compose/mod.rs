//! Compose files, by the compose specification: `depends_on`, `links`, `network_mode: service:`, `extends`, `include`, and addresses in `environment`, `env_file`,
//! `command` and `entrypoint`.
//!
//! Several files are one project, laid over one another as compose itself does it. A service that is only waited for until it has ended
//! (`service_completed_successfully`) is a job: it is not proposed, and whoever waits for it needs what it needs.

mod merge;
mod reader;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    rc::Rc,
};

use model::ServiceName;

use self::{merge::Trees, reader::Reader};
use super::{Candidate, Found, How, plain, reached::Reached, usable, variables, yaml, yaml::Node};

/// Bytes of a compose file that is read; a real one has a few thousand.
pub const BYTES_MAX: usize = 4 << 20;
/// Jobs that wait for one another, in a row.
const JOBS_DEEP_MAX: usize = 8;
/// Edges of one project that lead through jobs.
const LED_ON_MAX: usize = 20_000;
/// Services of one project; the rest is told and passed over.
const SERVICES_MAX: usize = 2_000;
/// Notes of one project.
const NOTES_MAX: usize = 100;

/// Why a compose file gave nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Larger than [`BYTES_MAX`].
    #[error("{file}: {bytes} bytes are no compose file; name another file")]
    TooLarge {
        /// Which file.
        file: String,
        /// Its size.
        bytes: usize,
    },
    /// It is not YAML.
    #[error("{file}: {why}; `docker compose config` shows what compose makes of it")]
    Unreadable {
        /// Which file.
        file: String,
        /// Where and why.
        why: String,
    },
    /// It is YAML, but has no services.
    #[error("{file}: has no `services`; is it a compose file?")]
    NoServices {
        /// Which file.
        file: String,
    },
}

/// Reads a file that another one names: what the naming file is called in evidence, and the path as it stands there. Gives what the file is called in
/// evidence and its text, or why it can't be read.
pub type ReadFile<'a> = dyn FnMut(&str, &str) -> Result<(String, String), String> + 'a;

/// What lies beside the compose files of one project.
pub struct Beside<'a> {
    /// Values for `${...}`: the project's `.env`.
    pub variables: &'a BTreeMap<String, String>,
    /// Reads what they name: an `env_file`, a file that a service `extends` another from.
    pub read: &'a mut ReadFile<'a>,
}

/// What the compose files of one project told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compose {
    /// The project's name, as compose gives it.
    pub project: String,
    /// Its services without the jobs, in the files' order.
    pub candidates: Vec<Candidate>,
    /// Services with the image of a PostgreSQL, each with its ports on this host.
    pub postgres: Vec<(ServiceName, Vec<u16>)>,
    /// Ports on this host, and the services that they lead to.
    pub serves: Vec<(ServiceName, u16)>,
    /// The proposed edges.
    pub found: Vec<Found>,
    /// Addresses that lead out of the project.
    pub reached: Vec<Reached>,
    /// What was passed over, and why.
    pub notes: Vec<String>,
}

/// Who answers to which name within a project.
struct Hosts {
    names: BTreeSet<String>,
    /// Host names in lower case; `None` where two services have it.
    hosts: HashMap<String, Option<String>>,
    /// Servers by the kind and source of the folder that holds their socket.
    sockets: HashMap<(&'static str, String), String>,
}

impl Hosts {
    fn answering(&self, host: &str) -> Option<&str> {
        self.hosts.get(host)?.as_deref()
    }
}

/// The files that a compose file includes: the line, and one or several paths that are laid over one another. Nothing where it can't be read: [`read`] says why.
pub fn includes(text: &str) -> Vec<(usize, Vec<String>)> {
    let Some(root) = (text.len() <= BYTES_MAX).then(|| yaml::parse(text, 0).ok().flatten()).flatten() else {
        return vec![];
    };
    let include = root.get("include").map(Node::items).unwrap_or_default().iter().map(|item| {
        let path = item.get("path").unwrap_or(item);
        let paths = path.text().into_iter().chain(path.items().iter().filter_map(Node::text));
        (item.line, paths.map(str::to_owned).collect())
    });
    include.collect()
}

/// Reads the files of a project, each as what it is called in evidence and its text; later ones are laid over the earlier.
///
/// # Errors
/// For each file that can't be read as a compose file at all. A service that is malformed is passed over, with a note.
pub fn read(project: &str, files: &[(String, String)], beside: &mut Beside<'_>) -> (Compose, Vec<Error>) {
    let mut errors = Vec::new();
    let (mut labels, mut roots) = (Vec::new(), Vec::new());
    for (file, text) in files {
        match tree(file, text, roots.len()) {
            Ok(root) => {
                labels.push(plain(file));
                roots.push(Rc::new(root));
            }
            Err(error) => errors.push(error),
        }
    }
    // What the variables say goes before the files, and there the last one counts.
    let named = roots.iter().rev().find_map(|root| root.get("name")?.text());
    let named = named.map(|name| variables::filled_in(name, beside.variables));
    let chosen = beside.variables.get("COMPOSE_PROJECT_NAME").filter(|name| usable(name)).cloned();
    let project = chosen.or(named).unwrap_or_else(|| project_name(project));
    let mut compose = Compose { project: project.clone(), ..Compose::default() };
    let own = roots.len();
    let mut trees = Trees::new(labels, roots, beside);
    let mut services: Vec<(String, Node)> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut left_out = 0_usize;
    for number in 0..own {
        let root = Rc::clone(&trees.roots[number]);
        for (name, service) in root.get("services").map(Node::entries).unwrap_or_default() {
            if !usable(name) {
                compose.notes.push(format!("{}: a service without a usable name", trees.place(service)));
                continue;
            }
            let place = places.get(name).copied();
            if place.is_none() && services.len() >= SERVICES_MAX {
                left_out += 1;
                continue;
            }
            let Some(resolved) = trees.resolved(number, name, service, 0) else { continue };
            match place {
                Some(place) => {
                    let below = services[place].1.clone();
                    let first = (below.line, below.file);
                    services[place].1 = merge::over(below, resolved);
                    (services[place].1.line, services[place].1.file) = first;
                }
                None => {
                    places.insert(name.clone(), services.len());
                    services.push((name.clone(), resolved));
                }
            }
        }
    }
    if left_out > 0 {
        compose.notes.push(format!("{left_out} services beyond the first {SERVICES_MAX} are passed over"));
    }
    let hosts = hosts(&services, trees.beside.variables);
    let mut jobs = Vec::new();
    for (name, service) in &services {
        let how = How::Docker { project: project.clone(), service: name.clone() };
        compose.candidates.push(Candidate::new(name.as_str(), how, trees.place(service)));
    }
    for (number, (name, service)) in services.iter().enumerate() {
        Reader { name, number, hosts: &hosts, trees: &mut trees, compose: &mut compose, jobs: &mut jobs }
            .service(service);
    }
    compose.notes.append(&mut trees.notes);
    jobs.sort_unstable();
    jobs.dedup();
    through_jobs(&mut compose, &jobs);
    if compose.notes.len() > NOTES_MAX {
        let more = compose.notes.len() - NOTES_MAX;
        compose.notes.truncate(NOTES_MAX);
        compose.notes.push(format!("and {more} more notes on the project {}", plain(&project)));
    }
    (compose, errors)
}

/// As [`read`], for one file with nothing beside it.
///
/// # Errors
/// As [`read`].
pub fn parse(file: &str, text: &str) -> Result<Compose, Error> {
    let mut nothing = |_: &str, path: &str| Err(format!("{}: not looked for", plain(path)));
    let mut beside = Beside { variables: &BTreeMap::new(), read: &mut nothing };
    let (compose, errors) = read("project", &[(file.to_owned(), text.to_owned())], &mut beside);
    errors.into_iter().next().map_or(Ok(compose), Err)
}

fn tree(file: &str, text: &str, number: usize) -> Result<Node, Error> {
    let file = plain(file);
    if text.len() > BYTES_MAX {
        return Err(Error::TooLarge { file, bytes: text.len() });
    }
    let root = yaml::parse(text, number).map_err(|why| Error::Unreadable { file: file.clone(), why })?;
    let says = |root: &Node| {
        root.get("services").is_some_and(|services| !services.entries().is_empty()) || root.get("include").is_some()
    };
    root.filter(says).ok_or(Error::NoServices { file })
}

/// As compose makes it of a folder's name: lower case, nothing but letters, digits, `-` and `_`.
fn project_name(folder: &str) -> String {
    let kept = folder
        .to_lowercase()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
        .collect::<String>();
    kept.trim_start_matches(['-', '_']).to_owned()
}

/// The names of services go before other names of others.
fn hosts(services: &[(String, Node)], known: &BTreeMap<String, String>) -> Hosts {
    let mut hosts: HashMap<String, Option<String>> = HashMap::new();
    for (name, service) in services {
        let named = ["container_name", "hostname"].iter().filter_map(|key| service.get(key)?.text());
        let networks = service.get("networks").map(Node::entries).unwrap_or_default();
        let aliases = networks.iter().filter_map(|(_, network)| network.get("aliases")).flat_map(Node::items);
        let addresses = networks.iter().filter_map(|(_, network)| network.get("ipv4_address")?.text());
        for host in named.chain(aliases.filter_map(Node::text)).chain(addresses) {
            let host = variables::filled_in(host, known).to_ascii_lowercase();
            let entry = hosts.entry(host).or_insert_with(|| Some(name.clone()));
            if entry.as_deref() != Some(name) {
                *entry = None;
            }
        }
    }
    for (name, _) in services {
        hosts.insert(name.to_ascii_lowercase(), Some(name.clone()));
    }
    let mut sockets = HashMap::new();
    for (name, service) in services {
        for (kind, volume, _) in reader::sockets(service).filter(|(kind, ..)| reader::serves(name, service, kind)) {
            sockets.entry((kind, volume.to_owned())).or_insert_with(|| name.clone());
        }
    }
    Hosts { names: services.iter().map(|(name, _)| name.clone()).collect(), hosts, sockets }
}

/// Takes the jobs out: who waits for one needs what it needs, and reaches what it reaches.
fn through_jobs(compose: &mut Compose, jobs: &[String]) {
    if jobs.is_empty() {
        return;
    }
    let jobs: BTreeSet<&str> = jobs.iter().map(String::as_str).collect();
    let is_job = |name: &ServiceName| jobs.contains(name.as_str());
    // Who waits for each job, directly or behind another job.
    let mut waits: BTreeMap<ServiceName, BTreeSet<ServiceName>> = BTreeMap::new();
    for found in compose.found.iter().filter(|found| is_job(&found.need)) {
        waits.entry(found.need.clone()).or_default().insert(found.service.clone());
    }
    for _ in 0..JOBS_DEEP_MAX {
        let mut more = waits.clone();
        for behind in more.values_mut() {
            let further: Vec<ServiceName> =
                behind.iter().filter_map(|name| waits.get(name)).flatten().take(SERVICES_MAX).cloned().collect();
            behind.extend(further);
        }
        if more == waits {
            break;
        }
        waits = more;
    }
    let (of_jobs, rest): (Vec<Found>, Vec<Found>) =
        std::mem::take(&mut compose.found).into_iter().partition(|found| is_job(&found.service));
    // Where each says that it waits for a job.
    let places: BTreeMap<&ServiceName, &Found> =
        rest.iter().filter(|found| is_job(&found.need)).map(|found| (&found.service, found)).collect();
    let behind = |job: &ServiceName| waits.get(job).into_iter().flatten().filter(|name| !is_job(name));
    let mut led_on = Vec::new();
    for needs in of_jobs.iter().filter(|found| !is_job(&found.need)) {
        for service in behind(&needs.service).filter(|service| **service != needs.need) {
            let Some(by) = places.get(service) else { continue };
            if led_on.len() < LED_ON_MAX {
                led_on.push(Found {
                    service: service.clone(),
                    need: needs.need.clone(),
                    place: by.place.clone(),
                    what: format!("waits for the job {}, which needs it", plain(needs.service.as_str())),
                    confidence: by.confidence.min(needs.confidence),
                });
            }
        }
    }
    compose.found = rest.into_iter().filter(|found| !is_job(&found.need)).chain(led_on).collect();
    let (of_jobs, mut reached): (Vec<Reached>, Vec<Reached>) =
        std::mem::take(&mut compose.reached).into_iter().partition(|one| is_job(&one.service));
    for one in &of_jobs {
        for service in behind(&one.service).take(LED_ON_MAX) {
            let what = format!("waits for the job {} ({})", plain(one.service.as_str()), one.what);
            reached.push(Reached { service: service.clone(), what, ..one.clone() });
        }
    }
    compose.reached = reached;
    for candidate in compose.candidates.iter().filter(|candidate| is_job(&candidate.service)) {
        compose.notes.push(format!(
            "{}: {} runs once and ends: a job, not proposed",
            candidate.place,
            plain(candidate.service.as_str())
        ));
    }
    compose.candidates.retain(|candidate| !is_job(&candidate.service));
    compose.postgres.retain(|(name, _)| !is_job(name));
    compose.serves.retain(|(name, _)| !is_job(name));
}

#[cfg(test)]
mod tests;

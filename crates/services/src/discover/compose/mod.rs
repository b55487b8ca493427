//! Compose files, by the compose specification: `depends_on`, `links`, `network_mode: service:`, `extends`, and addresses in `environment`, `env_file`,
//! `command` and `entrypoint`.
//!
//! Several files are one project, as compose itself joins them. A service that is only waited for until it has ended (`service_completed_successfully`) is a
//! job: it is not proposed, and whoever waits for it needs what it needs.

mod reader;

use std::collections::BTreeMap;

use model::ServiceName;

use self::reader::Reader;
use super::{Candidate, Found, How, Known, plain, usable, yaml, yaml::Node};

/// Bytes of a compose file that is read; a real one has a few thousand.
pub const BYTES_MAX: usize = 4 << 20;
/// Jobs that wait for one another, in a row.
const JOBS_DEEP_MAX: usize = 8;

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

/// What a file is called in evidence and its text, or why it can't be read.
pub type ReadEnvFile<'a> = dyn FnMut(&str) -> Result<(String, String), String> + 'a;

/// What lies beside the compose files of one project.
pub struct Beside<'a> {
    /// Values for `${...}`: the project's `.env`.
    pub variables: &'a BTreeMap<String, String>,
    /// Reads a file that a service names as its `env_file`: what the file is called in evidence and its text, or why it can't be read.
    pub env_file: &'a mut ReadEnvFile<'a>,
}

/// What the compose files of one project told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compose {
    /// Its services without the jobs, in the files' order.
    pub candidates: Vec<Candidate>,
    /// Services with the image of a PostgreSQL, each with its ports on this host.
    pub postgres: Vec<(ServiceName, Vec<u16>)>,
    /// The proposed edges.
    pub found: Vec<Found>,
    /// How its services are reached from one another.
    pub known: Vec<Known>,
    /// What was passed over, and why.
    pub notes: Vec<String>,
}

/// Reads the files of a project, each as what it is called in evidence and its text; later ones add to the earlier.
///
/// # Errors
/// For each file that can't be read as a compose file at all. A service that is malformed is passed over, with a note.
pub fn read(project: &str, files: &[(String, String)], beside: &mut Beside<'_>) -> (Compose, Vec<Error>) {
    let mut compose = Compose::default();
    let mut errors = Vec::new();
    let mut roots = Vec::new();
    for (file, text) in files {
        match tree(file, text) {
            Ok(root) => roots.push((plain(file), root)),
            Err(error) => errors.push(error),
        }
    }
    // The project's own name counts, the last one.
    let named = roots.iter().rev().find_map(|(_, root)| root.get("name")?.text());
    let project =
        named.map_or_else(|| project_name(project), |name| super::variables::filled_in(name, beside.variables));
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for (file, root) in &roots {
        for include in root.get("include").map(Node::items).unwrap_or_default() {
            compose
                .notes
                .push(format!("{file}:{}: includes other files, which are not followed; name them too", include.line));
        }
        let services = root.get("services").map(Node::entries).unwrap_or_default();
        for (name, service) in services {
            if !usable(name) {
                compose.notes.push(format!("{file}:{}: a service without a usable name", service.line));
            } else if let Some(place) = seen.get(name.as_str()) {
                let known: &mut Known = &mut compose.known[*place];
                known.hosts.extend(hosts(name, service));
            } else {
                seen.insert(name, compose.candidates.len());
                // The port inside the network is the image's own business: the host decides.
                compose.known.push(Known { service: name.as_str().into(), hosts: hosts(name, service), port: None });
                compose.candidates.push(Candidate::new(
                    name.as_str(),
                    How::Docker { project: project.clone(), service: name.clone() },
                    format!("{file}:{}", service.line),
                ));
            }
        }
    }
    let mut jobs = Vec::new();
    for (file, root) in &roots {
        let services = root.get("services").map(Node::entries).unwrap_or_default();
        for (name, service) in services.iter().filter(|(name, _)| usable(name)) {
            Reader { file, name, services, compose: &mut compose, jobs: &mut jobs, beside: &mut *beside }
                .service(service, 0);
        }
    }
    jobs.sort_unstable();
    jobs.dedup();
    through_jobs(&mut compose, &jobs);
    (compose, errors)
}

/// As [`read`], for one file with nothing beside it.
///
/// # Errors
/// As [`read`].
pub fn parse(file: &str, text: &str) -> Result<Compose, Error> {
    let mut nothing = |path: &str| Err(format!("{}: not looked for", plain(path)));
    let mut beside = Beside { variables: &BTreeMap::new(), env_file: &mut nothing };
    let (compose, errors) = read("project", &[(file.to_owned(), text.to_owned())], &mut beside);
    errors.into_iter().next().map_or(Ok(compose), Err)
}

fn tree(file: &str, text: &str) -> Result<Node, Error> {
    let file = plain(file);
    if text.len() > BYTES_MAX {
        return Err(Error::TooLarge { file, bytes: text.len() });
    }
    let root = yaml::parse(text).map_err(|why| Error::Unreadable { file: file.clone(), why })?;
    root.filter(|root| root.get("services").is_some_and(|services| !services.entries().is_empty()))
        .ok_or(Error::NoServices { file })
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

fn hosts(name: &str, service: &Node) -> Vec<String> {
    let mut hosts = vec![name.to_ascii_lowercase()];
    let named = ["container_name", "hostname"].iter().filter_map(|key| service.get(key)?.text());
    hosts.extend(named.map(str::to_ascii_lowercase));
    let networks = service.get("networks").map(Node::entries).unwrap_or_default();
    let aliases = networks.iter().filter_map(|(_, network)| network.get("aliases")).flat_map(Node::items);
    hosts.extend(aliases.filter_map(Node::text).map(str::to_ascii_lowercase));
    hosts
}

/// Takes the jobs out: who waits for one needs what it needs.
fn through_jobs(compose: &mut Compose, jobs: &[String]) {
    if jobs.is_empty() {
        return;
    }
    let is_job = |name: &ServiceName| jobs.iter().any(|job| job == name.as_str());
    for _ in 0..JOBS_DEEP_MAX {
        let (to_jobs, mut rest): (Vec<Found>, Vec<Found>) =
            std::mem::take(&mut compose.found).into_iter().partition(|found| is_job(&found.need));
        if to_jobs.is_empty() {
            compose.found = rest;
            break;
        }
        let mut led_on = Vec::new();
        for waits in &to_jobs {
            for needs in rest.iter().chain(&to_jobs).filter(|found| found.service == waits.need) {
                led_on.push(Found {
                    service: waits.service.clone(),
                    need: needs.need.clone(),
                    place: waits.place.clone(),
                    what: format!("waits for the job {}, which needs it", plain(waits.need.as_str())),
                    confidence: waits.confidence.min(needs.confidence),
                });
            }
        }
        rest.extend(led_on.into_iter().filter(|found| found.service != found.need));
        compose.found = rest;
    }
    compose.found.retain(|found| !is_job(&found.service) && !is_job(&found.need));
    for candidate in compose.candidates.iter().filter(|candidate| is_job(&candidate.service)) {
        compose.notes.push(format!(
            "{}: {} runs once and ends: a job, not proposed",
            candidate.place,
            plain(candidate.service.as_str())
        ));
    }
    compose.candidates.retain(|candidate| !is_job(&candidate.service));
    compose.known.retain(|known| !is_job(&known.service));
}

#[cfg(test)]
mod tests;

//! systemd units: who needs whom.
//!
//! A requirement (`Requires=`, `Requisite=`, `BindsTo=`) says who needs whom but not in which order; `After=` says the order but not that anything is needed.
//! Only both together are a need for sure. Addresses in `Environment=`, `EnvironmentFile=` and `ExecStart=` are compared with the ports of well-known servers.

mod file;

use std::collections::{BTreeMap, BTreeSet};

use model::ServiceName;

pub use self::file::{BYTES_MAX, Mention, Unit, shown, unit_file};
use super::{Candidate, Confidence, Found, How, Known, answering, dsn, plain, usable, variables};

/// Notes of one kind that are told; the rest is counted.
const NOTES_MAX: usize = 20;

/// The beginnings of names of services that are the boot itself, sessions of people or housekeeping: systemd brings them up, and no application is lost with one.
const PLUMBING: &[&str] = &[
    "systemd-",
    "dbus",
    "getty",
    "serial-getty",
    "console-getty",
    "container-getty",
    "autovt",
    "plymouth",
    "udev",
    "initrd-",
    "emergency",
    "rescue",
    "dracut",
    "lvm2",
    "modprobe@",
    "user@",
    "user-runtime-dir@",
    "apt-daily",
    "cloud-",
    "networking",
    "ifup@",
    "polkit",
    "rc-local",
    "quotaon",
    "fsck",
    "cryptdisks",
    "keyboard-setup",
    "console-setup",
    "hwclock",
    "kmod",
    "procps",
    "x11-common",
    "packagekit",
    "apparmor",
    "auditd",
    "NetworkManager",
    "alsa-",
    "dm-event",
    "display-manager",
    "nss-lookup",
    "firewalld",
    "ufw",
    "nftables",
    "iptables",
    "syslog",
    "rsyslog",
];

/// Servers by the beginning of their unit's name, with the port that they have unless somebody changed it.
const PORTS: &[(&str, u16)] = &[
    ("postgresql", 5432),
    ("pgbouncer", 6432),
    ("redis", 6379),
    ("valkey", 6379),
    ("mariadb", 3306),
    ("mysql", 3306),
    ("mongod", 27017),
    ("mongodb", 27017),
    ("rabbitmq", 5672),
    ("memcached", 11211),
    ("elasticsearch", 9200),
    ("opensearch", 9200),
    ("nats", 4222),
    ("slapd", 389),
    ("clickhouse-server", 9000),
    ("etcd", 2379),
];

/// What the units of a host told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Those that are worth a place in the graph.
    pub candidates: Vec<Candidate>,
    /// The proposed edges.
    pub found: Vec<Found>,
    /// Servers and their usual ports on this host.
    pub known: Vec<Known>,
    /// What was passed over, and why.
    pub notes: Vec<String>,
}

/// Makes edges of units. `aliases`: other names of units, each with the unit that it is. `read` reads an `EnvironmentFile=`.
pub fn read(
    units: &[Unit],
    aliases: &BTreeMap<String, String>,
    read: &mut dyn FnMut(&str) -> Result<String, String>,
) -> Told {
    let by_id: BTreeMap<&str, &Unit> = units.iter().map(|unit| (unit.id.as_str(), unit)).collect();
    let mut told = Told::default();
    for unit in units.iter().filter(|unit| is_proposed(unit)) {
        let Some(service) = service_of(&unit.id) else { continue };
        let port = PORTS.iter().find(|(name, _)| service.starts_with(name)).map(|(_, port)| *port);
        if let Some(port) = port {
            let hosts = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
            told.known.push(Known { service: service.into(), hosts, port: Some(port) });
        }
    }
    let mut absent = BTreeSet::new();
    for unit in units.iter().filter(|unit| is_proposed(unit)) {
        let Some(service) = service_of(&unit.id) else { continue };
        told.found.extend(named(unit, service, &by_id, aliases, &mut absent));
        let mut values = unit.values.clone();
        for (path, required, place) in &unit.environment_files {
            match read(path) {
                Ok(text) => {
                    let lines = variables::lines(&text).into_iter();
                    values.extend(lines.map(|(name, value, line)| (name, value, format!("{}:{line}", plain(path)))));
                }
                Err(why) if *required => told.notes.push(format!("{place}: {}: {}", plain(path), plain(&why))),
                Err(_) => {}
            }
        }
        for (variable, value, place) in values {
            told.found.extend(addressed(&told.known, service, &variable, &value, &place));
        }
    }
    if told.notes.len() > NOTES_MAX {
        let more = told.notes.len() - NOTES_MAX;
        told.notes.truncate(NOTES_MAX);
        told.notes.push(format!("and {more} more files that can't be read"));
    }
    if !absent.is_empty() {
        let names: Vec<String> = absent.iter().take(NOTES_MAX).map(|name| plain(name)).collect();
        told.notes.push(format!("{} services are named by units and not here: {}", absent.len(), names.join(", ")));
    }
    told.candidates = candidates(units, &told.found);
    told
}

/// The edges among units by what `systemctl show` or their files say, without looking anything up.
pub fn edges(units: &[Unit]) -> Vec<Found> {
    let mut absent = BTreeSet::new();
    let (by_id, aliases) = (BTreeMap::new(), BTreeMap::new());
    let proposed = units.iter().filter_map(|unit| Some((unit, service_of(&unit.id)?)));
    proposed.flat_map(|(unit, service)| named(unit, service, &by_id, &aliases, &mut absent)).collect()
}

/// The units that a unit names. Where units are given, one that is not among them is no service of this host.
fn named(
    unit: &Unit,
    service: &str,
    units: &BTreeMap<&str, &Unit>,
    aliases: &BTreeMap<String, String>,
    absent: &mut BTreeSet<String>,
) -> Vec<Found> {
    let mut by_other: BTreeMap<&str, Vec<&Mention>> = BTreeMap::new();
    for mention in &unit.mentions {
        let other = aliases.get(&mention.other).unwrap_or(&mention.other);
        by_other.entry(other).or_default().push(mention);
    }
    let mut found = Vec::new();
    for (other, mentions) in by_other {
        let (Some(need), true) = (service_of(other), other != unit.id) else { continue };
        match units.get(other) {
            Some(other) if !is_proposed(other) => continue,
            None if !units.is_empty() => {
                absent.insert(other.to_owned());
                continue;
            }
            _ => {}
        }
        let of = |property: &str| mentions.iter().find(|mention| mention.property == property);
        let after = of("After");
        let required = file::PROPERTIES[..3].iter().find_map(|property| of(property));
        let (mention, what, confidence) = match (required, of("Wants"), after) {
            (Some(by), _, Some(_)) => (by, format!("{}= and After= {other}", by.property), Confidence::High),
            (Some(by), _, None) => (by, format!("{}= {other}, without an order", by.property), Confidence::Medium),
            (None, Some(by), Some(_)) => (by, format!("Wants= and After= {other}"), Confidence::Medium),
            (None, Some(by), None) => (by, format!("Wants= {other}, without an order"), Confidence::Low),
            (None, None, Some(by)) if unit.is_local => {
                (by, format!("After= {other}, in a unit written for this host"), Confidence::Medium)
            }
            (None, None, Some(by)) => (by, format!("After= {other}, which is an order and no need"), Confidence::Low),
            (None, None, None) => continue,
        };
        found.push(Found {
            service: service.into(),
            need: need.into(),
            place: mention.place.clone(),
            what: plain(&what),
            confidence,
        });
    }
    found
}

/// The servers on this host whose address a value holds.
fn addressed(known: &[Known], service: &str, variable: &str, value: &str, place: &str) -> Vec<Found> {
    let mut endpoints = dsn::mentioned(variable, value);
    endpoints.extend(dsn::local_socket(variable, value));
    let mut found = Vec::new();
    for endpoint in endpoints {
        let usual = dsn::usual_port(endpoint.kind);
        // A host alone says nothing here: every server is at localhost.
        let Some(port) = endpoint.port.or(usual) else { continue };
        let Some(answers) = answering(known, &endpoint.host, Some(port)) else { continue };
        if answers.service.as_str() != service {
            let by =
                if variable.is_empty() { "command".to_owned() } else { format!("environment {}", plain(variable)) };
            found.push(Found {
                service: service.into(),
                need: answers.service.clone(),
                place: place.to_owned(),
                what: format!("{by}: {endpoint}"),
                confidence: Confidence::Medium,
            });
        }
    }
    found
}

/// Units that stand in an edge that is more than an order, and those that were written for this host.
fn candidates(units: &[Unit], found: &[Found]) -> Vec<Candidate> {
    let sure = found.iter().filter(|found| found.confidence >= Confidence::Medium);
    let mentioned: BTreeSet<&ServiceName> = sure.flat_map(|found| [&found.service, &found.need]).collect();
    let mut candidates = Vec::new();
    for unit in units.iter().filter(|unit| is_proposed(unit)) {
        let Some(name) = service_of(&unit.id) else { continue };
        let service = ServiceName::from(name);
        if !unit.is_local && !mentioned.contains(&service) {
            continue;
        }
        let mut candidate = Candidate::new(service, How::Systemd { unit: unit.id.clone() }, unit.place.clone());
        candidate.has_health = true;
        candidate.alone = unit.is_local;
        candidates.push(candidate);
    }
    candidates
}

/// Not a job, and no part of the boot.
fn is_proposed(unit: &Unit) -> bool {
    // Debian's postgresql.service does nothing and ends; whoever names it means the database.
    !unit.is_boot && (!unit.is_oneshot || unit.id == "postgresql.service") && service_of(&unit.id).is_some()
}

/// Only services are proposed: targets, slices, mounts and devices are systemd's own order, and are there before any of it matters.
fn service_of(unit: &str) -> Option<&str> {
    let name = unit.strip_suffix(".service")?;
    let is_plumbing = PLUMBING.iter().any(|plumbing| name.starts_with(plumbing));
    (usable(name) && !is_plumbing && !name.ends_with('@')).then_some(name)
}

#[cfg(test)]
mod tests;

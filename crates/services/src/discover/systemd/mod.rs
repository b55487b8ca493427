//! systemd units: who needs whom.
//!
//! A requirement (`Requires=`, `Requisite=`, `BindsTo=`) says who needs whom but not in which order; `After=` says the order but not that anything is needed.
//! Only both together are a need for sure. Addresses in `Environment=`, `EnvironmentFile=` and `ExecStart=` are compared with the ports of well-known servers.

mod file;

use std::collections::{BTreeMap, BTreeSet};

use model::ServiceName;

pub use self::file::{BYTES_MAX, Mention, Unit, shown, unit_file};
use super::{
    Candidate, Confidence, Found, How, Known, answering, dsn, plain,
    reached::{self, Given, Reached},
    usable, variables,
};

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

/// A `Before=` of the other unit: an order that this unit's own file does not speak of.
const TURNED: &str = "(Before)";
/// Debian's unit for all clusters at once: it does nothing and ends; whoever names it means the database.
const META: &str = "postgresql.service";

/// What the units of a host told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Those that are worth a place in the graph.
    pub candidates: Vec<Candidate>,
    /// The proposed edges.
    pub found: Vec<Found>,
    /// Servers and their ports on this host.
    pub known: Vec<Known>,
    /// Addresses at which none of them answers.
    pub reached: Vec<Reached>,
    /// What was passed over, and why.
    pub notes: Vec<String>,
}

/// What lies beside the units.
pub struct Beside<'a> {
    /// Reads an `EnvironmentFile=`.
    pub read: &'a mut dyn FnMut(&str) -> Result<String, String>,
    /// The port that a server's own configuration names, where somebody found it.
    pub port: &'a mut dyn FnMut(&str) -> Option<u16>,
}

/// Makes edges of units. `aliases`: other names of units, each with the unit that it is.
pub fn read(units: &[Unit], aliases: &BTreeMap<String, String>, beside: &mut Beside<'_>) -> Told {
    let by_id: BTreeMap<&str, &Unit> = units.iter().map(|unit| (unit.id.as_str(), unit)).collect();
    let aliases = &with_declared(units, &by_id, aliases);
    let units = &ordered(units, aliases);
    let by_id: BTreeMap<&str, &Unit> = units.iter().map(|unit| (unit.id.as_str(), unit)).collect();
    let mut told = Told::default();
    for unit in units.iter().filter(|unit| is_proposed(unit)) {
        let Some(service) = service_of(&unit.id) else { continue };
        let usual = PORTS.iter().find(|(name, _)| service.starts_with(name)).map(|(_, port)| *port);
        if aliases.contains_key(&unit.id) {
            continue;
        }
        if let Some(port) = (beside.port)(&unit.id).or(usual) {
            let hosts = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
            told.known.push(Known { service: service.into(), hosts, port: Some(port) });
        }
    }
    let mut absent = BTreeSet::new();
    for unit in units.iter().filter(|unit| is_proposed(unit)) {
        let Some(service) = service_of(&unit.id) else { continue };
        told.found.extend(named(unit, service, &by_id, aliases, &mut absent));
        let given = given(unit, beside, &mut told.notes);
        for mut reached in reached::of(&service.into(), &given, true) {
            let port = reached.endpoint.port.or_else(|| dsn::usual_port(reached.endpoint.kind));
            reached.endpoint.port = port;
            // A host alone says nothing here: every server is at localhost.
            let known = port.and_then(|port| answering(&told.known, &reached.endpoint.host, Some(port)));
            match known {
                Some(known) if known.service.as_str() != service => told.found.push(Found {
                    service: service.into(),
                    need: known.service.clone(),
                    place: reached.place,
                    what: reached.what,
                    confidence: Confidence::Medium,
                }),
                Some(_) => {}
                None => told.reached.push(reached),
            }
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

/// What a unit's variables and commands are; a later variable of one name counts.
fn given(unit: &Unit, beside: &mut Beside<'_>, notes: &mut Vec<String>) -> Vec<Given> {
    let mut named: BTreeMap<String, Given> = BTreeMap::new();
    let mut commands = Vec::new();
    for (variable, value, place) in &unit.values {
        let by = if variable.is_empty() { "command" } else { "environment" };
        let one = Given { variable: variable.clone(), value: value.clone(), place: place.clone(), by };
        if variable.is_empty() {
            commands.push(one);
        } else {
            named.insert(variable.clone(), one);
        }
    }
    // systemd reads the files after the variables.
    for (path, required, place) in &unit.environment_files {
        match (beside.read)(path) {
            Ok(text) => {
                for (variable, value, line) in variables::lines(&text) {
                    let place = format!("{}:{line}", plain(path));
                    named.insert(variable.clone(), Given { variable, value, place, by: "environment" });
                }
            }
            Err(why) if *required => notes.push(format!("{place}: {}: {}", plain(path), plain(&why))),
            Err(_) => {}
        }
    }
    named.into_values().chain(commands).collect()
}

/// `Alias=` counts where no unit has that name: a folder of a package has no links yet.
fn with_declared(
    units: &[Unit],
    by_id: &BTreeMap<&str, &Unit>,
    aliases: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut all = aliases.clone();
    for unit in units {
        for alias in unit.aliases.iter().filter(|alias| !by_id.contains_key(alias.as_str())) {
            all.entry(alias.clone()).or_insert_with(|| unit.id.clone());
        }
    }
    let mut clusters = units.iter().filter(|unit| unit.id.starts_with("postgresql@") && service_of(&unit.id).is_some());
    if let (Some(only), None, true) =
        (clusters.next(), clusters.next(), by_id.get(META).is_none_or(|meta| meta.is_oneshot))
    {
        all.insert(META.to_owned(), only.id.clone());
    }
    // A socket stands for what it starts.
    for unit in units {
        if let (Some(name), None) = (unit.id.strip_suffix(".socket"), all.get(&unit.id)) {
            let service = unit.activates.clone().unwrap_or_else(|| format!("{name}.service"));
            if by_id.contains_key(service.as_str()) {
                all.insert(unit.id.clone(), service);
            }
        }
    }
    all
}

/// `Before=` said the other way round: the other comes after this one.
fn ordered(units: &[Unit], aliases: &BTreeMap<String, String>) -> Vec<Unit> {
    let mut units = units.to_vec();
    let places: BTreeMap<String, usize> = units.iter().enumerate().map(|(at, unit)| (unit.id.clone(), at)).collect();
    let mut turned: Vec<(usize, Mention)> = Vec::new();
    for unit in &units {
        for mention in unit.mentions.iter().filter(|mention| mention.property == "Before") {
            let other = aliases.get(&mention.other).unwrap_or(&mention.other);
            if let Some(at) = places.get(other) {
                let place = mention.place.clone();
                turned.push((*at, Mention { property: TURNED, other: unit.id.clone(), place }));
            }
        }
    }
    for (at, mention) in turned {
        units[at].linked(mention.property, mention.other, mention.place);
    }
    units
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
        let one_of = |properties: &[&'static str]| properties.iter().find_map(|property| of(property));
        let after = of("After").or_else(|| of(TURNED));
        let starts_later = units.get(other).is_some_and(|other| comes_after(other, &unit.id, aliases));
        let (mention, what, confidence) = match (one_of(file::NEEDS), one_of(file::WISHES), after) {
            // It ends with the other, and does not need it to start.
            (Some(by), _, None) | (None, Some(by), None) if starts_later => {
                (by, format!("{}= {}, which starts after it", by.property, by.other), Confidence::Low)
            }
            (Some(by), _, Some(_)) => (by, format!("{}= and After= {}", by.property, by.other), Confidence::High),
            (Some(by), _, None) => (by, format!("{}= {}, without an order", by.property, by.other), Confidence::Medium),
            (None, Some(by), Some(_)) => (by, format!("{}= and After= {}", by.property, by.other), Confidence::Medium),
            (None, Some(by), None) => (by, format!("{}= {}, without an order", by.property, by.other), Confidence::Low),
            (None, None, Some(by)) if unit.is_local && by.property == "After" => {
                (by, format!("After= {other}, in a unit written for this host"), Confidence::Medium)
            }
            (None, None, Some(by)) => {
                (by, format!("After= {}, which is an order and no need", by.other), Confidence::Low)
            }
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

/// Whether a unit waits for another one's start.
fn comes_after(unit: &Unit, other: &str, aliases: &BTreeMap<String, String>) -> bool {
    unit.mentions.iter().filter(|mention| matches!(mention.property, "After" | TURNED)).any(|mention| {
        let named = aliases.get(&mention.other).unwrap_or(&mention.other);
        named == other
    })
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
    !unit.is_boot && (!unit.is_oneshot || unit.id == META) && service_of(&unit.id).is_some()
}

/// Only services are proposed: targets, slices, mounts and devices are systemd's own order, and are there before any of it matters.
fn service_of(unit: &str) -> Option<&str> {
    let name = unit.strip_suffix(".service")?;
    let is_plumbing = PLUMBING.iter().any(|plumbing| name.starts_with(plumbing));
    (usable(name) && !is_plumbing && !name.ends_with('@')).then_some(name)
}

#[cfg(test)]
mod tests;

//! What a running PostgreSQL said, each part by itself: a role that may not see one of them is told the rest.

use std::{collections::BTreeMap, sync::Arc};

use serde::Deserialize;

use crate::finding::{Evidence, Place};

/// A part that was asked for: what it said, or why it said nothing.
pub type Asked<T> = Result<T, String>;

/// A running PostgreSQL.
#[derive(Clone, Debug)]
pub struct Server {
    /// What it is called here.
    pub name: Arc<str>,
    /// Its main process, where that is one of this machine.
    pub postmaster: Option<u32>,
    /// What it is.
    pub identity: Identity,
    /// The settings in force.
    pub settings: Asked<LiveSettings>,
    /// Settings of single roles and databases, as `name=value`.
    pub role_settings: Asked<Vec<RoleSetting>>,
    /// Replication slots.
    pub slots: Asked<Vec<Slot>>,
    /// Sessions of clients, our own excepted.
    pub sessions: Asked<Vec<Sessions>>,
    /// The archiver.
    pub archiver: Asked<Archiver>,
    /// Who receives its WAL now.
    pub senders: Asked<Vec<Sender>>,
    /// How far transaction ids have gone, by database.
    pub ages: Asked<Vec<Age>>,
    /// Prepared transactions.
    pub prepared: Asked<Vec<Prepared>>,
    /// Lines of configuration files that the server could not take.
    pub faults: Asked<Vec<FileFault>>,
}

impl Server {
    /// `PostgreSQL/main`.
    pub fn object(&self) -> String {
        format!("PostgreSQL/{}", self.name)
    }

    /// The server as a place.
    pub fn here(&self) -> Place {
        Place { file: format!("PostgreSQL {}", self.name).into(), line: 0 }
    }

    /// 17 of 17.6.
    pub fn major(&self) -> u32 {
        self.identity.version / 10_000
    }

    /// 6 of 17.6.
    pub fn minor(&self) -> u32 {
        self.identity.version % 10_000
    }
}

/// What the server is, and who asks.
#[derive(Clone, Debug, Deserialize)]
pub struct Identity {
    /// `server_version_num`: 150014 is 15.14.
    pub version: u32,
    /// A standby, or in recovery.
    pub standby: bool,
    /// Our role.
    pub role: String,
    /// Our backend's process id, as the server counts.
    pub backend: u32,
}

/// A row of pg_settings.
#[derive(Clone, Debug, Deserialize)]
pub struct LiveSetting {
    /// Its name.
    pub name: String,
    /// Its value, in its unit.
    pub setting: String,
    /// `8kB`, `ms` ...; absent for plain numbers and texts.
    pub unit: Option<String>,
    /// `default`, `configuration file`, `command line` ...
    pub source: String,
    /// The file that set it; only for those who may see that.
    pub sourcefile: Option<String>,
    /// Its line there.
    pub sourceline: Option<u32>,
    /// A new value waits for a restart.
    pub pending_restart: bool,
    /// What the server would have without any configuration.
    pub boot_val: Option<String>,
    /// When it may change: `postmaster`, `sighup`, `user` ...
    pub context: String,
}

/// The settings in force.
#[derive(Clone, Debug, Default)]
pub struct LiveSettings {
    server: Arc<str>,
    values: BTreeMap<String, LiveSetting>,
}

impl LiveSettings {
    /// Of a server.
    pub fn new(server: Arc<str>, rows: Vec<LiveSetting>) -> Self {
        Self { server, values: rows.into_iter().map(|row| (row.name.clone(), row)).collect() }
    }

    /// A setting; absent where this version has none of that name, or the role may not see it.
    pub fn get(&self, name: &str) -> Option<&LiveSetting> {
        self.values.get(name)
    }

    /// All of them, by name.
    pub fn all(&self) -> impl Iterator<Item = &LiveSetting> {
        self.values.values()
    }

    /// Its value as text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).map(|setting| setting.setting.as_str())
    }

    /// A whole number, without regard to its unit; -1 is a number.
    pub fn number(&self, name: &str) -> Option<i64> {
        self.text(name)?.parse().ok()
    }

    /// A fraction, without regard to its unit.
    pub fn fraction(&self, name: &str) -> Option<f64> {
        self.text(name)?.parse().ok()
    }

    /// A size in bytes; absent for -1, which stands for something else each time.
    pub fn bytes(&self, name: &str) -> Option<u64> {
        let setting = self.get(name)?;
        let unit = match setting.unit.as_deref() {
            Some("B") | None => 1,
            Some("kB") => 1 << 10,
            Some("8kB") => 8 << 10,
            Some("MB") => 1 << 20,
            Some("16MB") => 16 << 20,
            Some(_) => return None,
        };
        u64::try_from(self.number(name)?).ok()?.checked_mul(unit)
    }

    /// Whether it is off.
    pub fn is_off(&self, name: &str) -> bool {
        self.text(name) == Some("off")
    }

    /// Where it was set, or that it was not.
    pub fn place(&self, name: &str) -> Place {
        let file = self.get(name).and_then(|setting| Some((setting.sourcefile.as_deref()?, setting.sourceline?)));
        match file {
            Some((file, line)) => Place { file: crate::words::shown_path(file).into(), line },
            None => self.here(),
        }
    }

    /// The server as a place.
    pub fn here(&self) -> Place {
        Place { file: format!("PostgreSQL {}", self.server).into(), line: 0 }
    }

    /// `name = value` with its unit, at its place.
    pub fn evidence(&self, name: &str) -> Evidence {
        let value = self.get(name).map_or_else(
            || "not shown".to_owned(),
            |setting| match (setting.unit.as_deref(), setting.setting.parse::<u64>()) {
                (Some(unit), Ok(number)) => format!("{} ({})", setting.setting, amount(number, unit)),
                // Below zero it stands for something else, and has no unit.
                _ => setting.setting.clone(),
            },
        );
        let source =
            self.get(name).filter(|setting| setting.sourcefile.is_none()).map(|setting| setting.source.as_str());
        let from = source.map(|source| format!("  [{source}]")).unwrap_or_default();
        Evidence { place: self.place(name), value: crate::words::shown(&format!("{name} = {value}{from}")) }
    }
}

/// What a number of a unit comes to, for people.
fn amount(number: u64, unit: &str) -> String {
    // As PostgreSQL itself shows it: in the largest unit without a remainder.
    let bytes = |factor: u64| {
        let units = ["B", "kB", "MB", "GB", "TB"];
        let (mut size, mut unit) = (number.saturating_mul(factor), 0);
        while size > 0 && size.is_multiple_of(1024) && unit + 1 < units.len() {
            (size, unit) = (size / 1024, unit + 1);
        }
        format!("{size} {}", units[unit])
    };
    match unit {
        "kB" => bytes(1 << 10),
        "8kB" => bytes(8 << 10),
        "MB" => bytes(1 << 20),
        "16MB" => bytes(16 << 20),
        "ms" if number >= 1_000 => crate::quantity::span(number / 1_000),
        _ => format!("{number} {unit}"),
    }
}

/// A setting of a role, a database, or a role in a database.
#[derive(Clone, Debug, Deserialize)]
pub struct RoleSetting {
    /// The role; empty for all.
    pub role: String,
    /// The database; empty for all.
    pub database: String,
    /// `name=value`.
    pub setting: String,
}

/// A replication slot.
#[derive(Clone, Debug, Deserialize)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// Whether someone reads from it now.
    pub active: bool,
    /// `reserved`, `extended`, `unreserved`, `lost`; absent where it holds none.
    pub wal_status: Option<String>,
    /// Bytes of WAL that are kept for it.
    pub held: Option<f64>,
}

/// Sessions of one role in one database under one application name.
#[derive(Clone, Debug, Deserialize)]
pub struct Sessions {
    /// The role.
    pub role: String,
    /// The database.
    pub database: String,
    /// What the client calls itself.
    pub application: String,
    /// Whether the role is a superuser.
    pub superuser: bool,
    /// How many.
    pub count: u64,
    /// Seconds since the oldest open transaction among them began.
    pub transaction: Option<f64>,
    /// Seconds since the transaction of an idle one among them began.
    pub idle_in_transaction: Option<f64>,
}

/// pg_stat_archiver.
#[derive(Clone, Debug, Deserialize)]
pub struct Archiver {
    /// Segments archived since the statistics were reset.
    pub archived: u64,
    /// Seconds since the last of them.
    pub since_archived: Option<f64>,
    /// Attempts that failed.
    pub failed: u64,
    /// Seconds since the last of them.
    pub since_failed: Option<f64>,
}

/// Someone who receives WAL or a base backup.
#[derive(Clone, Debug, Deserialize)]
pub struct Sender {
    /// What it calls itself.
    pub application: String,
    /// `streaming`, `backup` ...
    pub state: String,
}

/// How far transaction ids of a database have gone.
#[derive(Clone, Debug, Deserialize)]
pub struct Age {
    /// The database.
    pub database: String,
    /// `age(datfrozenxid)`.
    pub transactions: i64,
    /// `mxid_age(datminmxid)`.
    pub multixacts: i64,
}

/// A prepared transaction.
#[derive(Clone, Debug, Deserialize)]
pub struct Prepared {
    /// Its name.
    pub name: String,
    /// Seconds since it was prepared.
    pub age: f64,
}

/// A line that the server could not take.
#[derive(Clone, Debug, Deserialize)]
pub struct FileFault {
    /// The file.
    pub file: Option<String>,
    /// The line.
    pub line: Option<u32>,
    /// The setting, where it is one.
    pub name: Option<String>,
    /// The server's words.
    pub error: String,
}

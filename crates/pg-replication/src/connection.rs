//! A connection for replication.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use model::Lsn;
use postgres_protocol::message::frontend;

use crate::{
    BaseBackup, BaseBackupOptions, Error, Host, StreamOptions, Target, WalStream, auth,
    refusal::HISTORY,
    socket::{SILENCE_MAX, Socket},
    tls,
    wire::{RawRow, Wire, parse_raw_row, parse_row},
};

/// A result's rows, as text.
type Rows = Vec<Vec<Option<String>>>;

/// The most rows that are taken of the answer to a command. The longest is a base backup's list of tablespaces.
const ROWS_MAX: usize = 1 << 16;
/// The major versions whose protocol is known.
const MAJORS: std::ops::RangeInclusive<u32> = 13..=18;

/// What a cluster says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemIdentity {
    /// Made by initdb, the same in the cluster, its standbys and its backups.
    pub system_identifier: u64,
    /// The timeline it writes, or a standby replays.
    pub timeline: u32,
    /// How far its WAL is flushed.
    pub flushed: Lsn,
}

/// A place in WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalPosition {
    /// Where.
    pub lsn: Lsn,
    /// On which timeline.
    pub timeline: u32,
}

/// A timeline's history file, as the server has it. `pg_format::wal::TimelineHistory` reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimelineFile {
    /// Its name, `00000002.history`.
    pub name: String,
    /// What is in it: mostly text, but a restore point's name in it can be in any encoding.
    pub content: Vec<u8>,
}

/// A connection for physical replication. Dropping it ends it.
#[derive(Debug)]
pub struct Connection {
    pub(crate) wire: Wire,
    major: u32,
    /// A stream was begun: what comes is of that, until it was finished.
    pub(crate) in_stream: bool,
}

impl Connection {
    /// Connects to the first of the target's hosts that lets us in.
    ///
    /// # Errors
    /// When none does: the last host's reason. A host that refuses us ends the search, as with libpq.
    pub fn open(target: &Target) -> Result<Self, Error> {
        let mut last = None;
        for host in &target.hosts {
            match Self::open_one(target, host) {
                Err(error @ (Error::Connect { .. } | Error::Io { .. })) => last = Some(error),
                result => return result,
            }
        }
        Err(last.unwrap_or_else(|| Error::Connect {
            host: "nowhere".to_owned(),
            source: std::io::Error::new(std::io::ErrorKind::InvalidInput, "no host is named"),
        }))
    }

    fn open_one(target: &Target, host: &Host) -> Result<Self, Error> {
        const DOING: &str = "logging in";
        let failed = |source| Error::Connect { host: host.to_string(), source };
        let deadline = Instant::now() + target.connect_timeout;
        let socket = Socket::connect(host, deadline).map_err(failed)?;
        socket.set_patience(target.connect_timeout).map_err(failed)?;
        let socket = tls::begin(socket, target, host)?;
        let mut wire = Wire::new(socket, host.to_string(), target.connect_timeout).map_err(failed)?;
        let mut out = BytesMut::new();
        let parameters = [
            ("user", target.user.as_str()),
            ("replication", "true"),
            ("client_encoding", "UTF8"),
            ("application_name", &target.application_name),
        ];
        frontend::startup_message(parameters, &mut out).map_err(failed)?;
        wire.send(&out, DOING)?;
        auth::log_in(&mut wire, target, host)?;
        loop {
            let message = wire.read(DOING)?;
            match message.tag {
                b'Z' => break,
                // How to cancel us, which nobody will.
                b'K' => {}
                _ => return Err(wire.unexpected(DOING, &message)),
            }
        }
        wire.patience = SILENCE_MAX;
        let version = wire.parameters.get("server_version").cloned().unwrap_or_default();
        let digits = version.split(|character: char| !character.is_ascii_digit()).next().unwrap_or_default();
        match digits.parse() {
            Ok(major) if MAJORS.contains(&major) => Ok(Self { wire, major, in_stream: false }),
            _ => Err(Error::Version { host: host.to_string(), version }),
        }
    }

    /// The server's major version.
    #[must_use]
    pub const fn major(&self) -> u32 {
        self.major
    }

    /// The server's version, as it prints it: `15.14 (Debian 15.14-0+deb12u1)`.
    #[must_use]
    pub fn version(&self) -> &str {
        self.wire.parameters.get("server_version").map_or("", String::as_str)
    }

    /// The host that let us in.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.wire.host
    }

    /// Whether the connection is encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.wire.socket.look(|socket| matches!(socket, Socket::Tls(_)))
    }

    /// Whether the server is a standby; servers before 14 do not say.
    #[must_use]
    pub fn is_standby(&self) -> Option<bool> {
        self.wire.parameters.get("in_hot_standby").map(|value| value == "on")
    }

    /// Asks which cluster this is.
    ///
    /// # Errors
    /// When the connection breaks or the answer makes no sense.
    pub fn identify_system(&mut self) -> Result<SystemIdentity, Error> {
        const DOING: &str = "IDENTIFY_SYSTEM";
        let rows = self.query("IDENTIFY_SYSTEM", DOING)?;
        let column = |index: usize| rows.first()?.get(index)?.as_deref();
        let identity = (|| {
            Some(SystemIdentity {
                system_identifier: column(0)?.parse().ok()?,
                timeline: column(1)?.parse().ok()?,
                flushed: column(2)?.parse().ok()?,
            })
        })();
        identity.ok_or_else(|| self.wire.protocol(DOING, "the answer has no identity"))
    }

    /// The value of a server's setting, as `SHOW` prints it.
    ///
    /// # Errors
    /// When there is none of that name, this role may not see it, or the connection breaks.
    pub fn show(&mut self, setting: &str) -> Result<String, Error> {
        const DOING: &str = "SHOW";
        // The replication grammar takes plain words only: anything else is said to be none by us.
        let plain = setting.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.');
        if !plain || setting.is_empty() {
            return Err(self.wire.protocol(DOING, format!("{setting:?} is no name of a setting")));
        }
        let rows = self.query(&format!("SHOW {setting}"), DOING)?;
        let value = rows.into_iter().next().and_then(|row| row.into_iter().next().flatten());
        value.ok_or_else(|| self.wire.protocol(DOING, "the answer has no value"))
    }

    /// Bytes of a WAL segment.
    ///
    /// # Errors
    /// As [`Connection::show`].
    pub fn wal_segment_size(&mut self) -> Result<u64, Error> {
        let text = self.show("wal_segment_size")?;
        let units = [("kB", 1 << 10), ("MB", 1 << 20), ("GB", 1 << 30), ("B", 1), ("", 1)];
        let size = units
            .into_iter()
            .find_map(|(unit, factor): (&str, u64)| text.strip_suffix(unit)?.parse::<u64>().ok()?.checked_mul(factor));
        size.ok_or_else(|| self.wire.protocol("SHOW", format!("{text:?} is no size")))
    }

    /// A setting that is a time; zero where that means "never".
    ///
    /// # Errors
    /// As [`Connection::show`].
    pub fn show_time(&mut self, setting: &str) -> Result<Duration, Error> {
        let text = self.show(setting)?;
        let units = [("ms", 1), ("min", 60_000), ("s", 1000), ("h", 3_600_000), ("d", 86_400_000), ("", 1)];
        let millis = units
            .into_iter()
            .find_map(|(unit, factor): (&str, u64)| text.strip_suffix(unit)?.parse::<u64>().ok()?.checked_mul(factor));
        millis.map(Duration::from_millis).ok_or_else(|| self.wire.protocol("SHOW", format!("{text:?} is no time")))
    }

    /// Fetches the history file of a timeline. Timeline 1 has none.
    ///
    /// # Errors
    /// When the server does not have it ([`crate::Refusal::NoHistory`]), or the connection breaks.
    pub fn timeline_history(&mut self, timeline: u32) -> Result<TimelineFile, Error> {
        let rows = self.query_bytes(&format!("TIMELINE_HISTORY {timeline}"), HISTORY)?;
        let mut columns = rows.into_iter().next().unwrap_or_default().into_iter();
        let (name, content) = (columns.next().flatten(), columns.next().flatten());
        let expected = format!("{timeline:08X}.history");
        match (name, content) {
            (Some(name), Some(content)) if name == expected.as_bytes() => Ok(TimelineFile { name: expected, content }),
            _ => Err(self.wire.protocol(HISTORY, format!("the answer is not {expected}"))),
        }
    }

    /// Begins to stream WAL.
    ///
    /// # Errors
    /// When the server refuses ([`Error::refusal`] tells why), or the connection breaks. Not everything is refused at once: see
    /// [`WalStream::next`].
    pub fn stream_wal(&mut self, options: &StreamOptions) -> Result<WalStream<'_>, Error> {
        WalStream::begin(self, options)
    }

    /// Begins a base backup. Returns when the server has done its checkpoint and sends.
    ///
    /// # Errors
    /// When the server refuses, or the connection breaks.
    pub fn base_backup(&mut self, options: &BaseBackupOptions) -> Result<BaseBackup<'_>, Error> {
        BaseBackup::begin(self, options)
    }

    pub(crate) fn send_query(&mut self, command: &str, doing: &'static str) -> Result<(), Error> {
        if self.in_stream {
            return Err(self.wire.protocol(doing, "a stream was begun on this connection and not finished"));
        }
        let mut out = BytesMut::new();
        frontend::query(command, &mut out).map_err(|error| self.wire.protocol(doing, error.to_string()))?;
        self.wire.send(&out, doing)
    }

    /// The rows of the next result, up to its end.
    pub(crate) fn read_result(&mut self, doing: &'static str) -> Result<Rows, Error> {
        self.read_result_as(doing, parse_row)
    }

    fn read_result_as<R>(&mut self, doing: &'static str, parse: fn(&[u8]) -> Option<R>) -> Result<Vec<R>, Error> {
        let mut rows = Vec::new();
        loop {
            let message = self.wire.read(doing)?;
            match message.tag {
                b'T' => {}
                b'D' if rows.len() == ROWS_MAX => return Err(self.wire.protocol(doing, "it has too many rows")),
                b'D' => {
                    let row = parse(self.wire.bytes(&message));
                    rows.push(row.ok_or_else(|| self.wire.protocol(doing, "a row is malformed"))?);
                }
                b'C' => return Ok(rows),
                _ => return Err(self.wire.unexpected(doing, &message)),
            }
        }
    }

    /// Reads until the server is ready for the next command.
    pub(crate) fn read_ready(&mut self, doing: &'static str) -> Result<(), Error> {
        loop {
            let message = self.wire.read(doing)?;
            match message.tag {
                b'Z' => return Ok(()),
                b'C' => {}
                _ => return Err(self.wire.unexpected(doing, &message)),
            }
        }
    }

    pub(crate) fn query(&mut self, command: &str, doing: &'static str) -> Result<Rows, Error> {
        self.query_as(command, doing, parse_row)
    }

    /// As [`Connection::query`], with the columns as whatever bytes they are.
    pub(crate) fn query_bytes(&mut self, command: &str, doing: &'static str) -> Result<Vec<RawRow>, Error> {
        self.query_as(command, doing, parse_raw_row)
    }

    fn query_as<R>(
        &mut self,
        command: &str,
        doing: &'static str,
        parse: fn(&[u8]) -> Option<R>,
    ) -> Result<Vec<R>, Error> {
        self.send_query(command, doing)?;
        match self.read_result_as(doing, parse) {
            Ok(rows) => self.read_ready(doing).map(|()| rows),
            Err(refused @ Error::Server { .. }) => {
                // A refused command leaves the connection in order: what ended it says so itself.
                let _ = self.read_ready(doing);
                Err(refused)
            }
            Err(error) => Err(error),
        }
    }
}

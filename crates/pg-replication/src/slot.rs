//! Replication slots: the server keeps WAL until their owner has it.

use std::{fmt, str::FromStr};

use model::Lsn;

use crate::{Connection, Error, refusal::READ_SLOT};

/// The longest name, in bytes (`NAMEDATALEN` less the end).
const NAME_MAX: usize = 63;
/// From here on the commands have options in parentheses, and slots can be read.
const MAJOR_WITH_OPTIONS: u32 = 15;

/// A slot's name: lower-case letters, digits and underscores.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotName(String);

/// A text that is no name of a slot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no name of a replication slot; hint: take 1 to 63 lower-case letters, digits and underscores")]
pub struct ParseSlotNameError(String);

impl FromStr for SlotName {
    type Err = ParseSlotNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let fits = (1..=NAME_MAX).contains(&text.len()) && text.bytes().all(plain);
        if fits { Ok(Self(text.to_owned())) } else { Err(ParseSlotNameError(text.to_owned())) }
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a slot shall be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotOptions {
    /// Whether it goes with the connection, or with the first command on it that the server refuses.
    pub temporary: bool,
    /// Whether it holds WAL from its creation on, and not only from the first acknowledgement: from the redo point of the last
    /// checkpoint, or on a standby from the last restart point.
    pub reserve_wal: bool,
}

/// A slot, as the server describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotState {
    /// WAL is held from here on. `None` where none ever was, or where the server gave the slot up because of
    /// `max_slot_wal_keep_size`: then WAL is missing, whatever a stream with this slot still brings.
    pub restart: Option<Lsn>,
    /// The timeline of that place.
    pub timeline: Option<u32>,
}

impl Connection {
    /// Creates a slot for physical replication.
    ///
    /// Nothing bounds what it makes the server keep unless `max_slot_wal_keep_size` does: see [`Connection::show`].
    ///
    /// # Errors
    /// When there is one of that name ([`crate::Refusal::SlotExists`]), none is left, or the connection breaks.
    pub fn create_slot(&mut self, name: &SlotName, options: SlotOptions) -> Result<(), Error> {
        const DOING: &str = "CREATE_REPLICATION_SLOT";
        let command = create_command(self.major(), name, options);
        self.query(&command, DOING).map(drop)
    }

    /// Drops a slot. The server then removes the WAL that only this slot held.
    ///
    /// # Errors
    /// When there is none ([`crate::Refusal::SlotAbsent`]), somebody streams with it ([`crate::Refusal::SlotInUse`]), or the connection
    /// breaks.
    pub fn drop_slot(&mut self, name: &SlotName) -> Result<(), Error> {
        const DOING: &str = "DROP_REPLICATION_SLOT";
        self.query(&format!("DROP_REPLICATION_SLOT \"{name}\""), DOING).map(drop)
    }

    /// Looks at a slot; `None` when there is none of that name.
    ///
    /// # Errors
    /// When the slot is a logical one, the connection breaks, or the server is of 13 or 14, which know no such command
    /// ([`Error::TooOld`]): ask `pg_replication_slots` there.
    pub fn read_slot(&mut self, name: &SlotName) -> Result<Option<SlotState>, Error> {
        if self.major() < MAJOR_WITH_OPTIONS {
            return Err(Error::TooOld {
                host: self.host().to_owned(),
                doing: READ_SLOT,
                major: self.major(),
                hint: "select wal_status, restart_lsn from pg_replication_slots",
            });
        }
        let rows = self.query(&format!("READ_REPLICATION_SLOT \"{name}\""), READ_SLOT)?;
        let fail = |why: &str| self.wire.protocol(READ_SLOT, why);
        let row = rows.first().ok_or_else(|| fail("the answer has no row"))?;
        let column = |index: usize| row.get(index).and_then(Option::as_deref);
        // Without a type there is no slot.
        if column(0).is_none() {
            return Ok(None);
        }
        let bad = |_| fail("a slot's place in WAL is none");
        let restart = column(1).map(|text| text.parse().map_err(|_| bad(()))).transpose()?;
        let timeline = column(2).map(|text| text.parse().map_err(|_| bad(()))).transpose()?;
        Ok(Some(SlotState { restart, timeline }))
    }
}

fn create_command(major: u32, name: &SlotName, options: SlotOptions) -> String {
    let temporary = if options.temporary { " TEMPORARY" } else { "" };
    let reserve = match (options.reserve_wal, major >= MAJOR_WITH_OPTIONS) {
        (true, true) => " (RESERVE_WAL)",
        (true, false) => " RESERVE_WAL",
        (false, _) => "",
    };
    format!("CREATE_REPLICATION_SLOT \"{name}\"{temporary} PHYSICAL{reserve}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "oxpecker_1", &"x".repeat(63)] {
            assert_eq!(good.parse::<SlotName>().unwrap().to_string(), good);
        }
        for bad in ["", "A", "a-b", "a\"b", "ä", &"x".repeat(64)] {
            assert!(bad.parse::<SlotName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn commands() {
        let name = "s".parse().unwrap();
        let all = SlotOptions { temporary: true, reserve_wal: true };
        let none = SlotOptions { temporary: false, reserve_wal: false };
        for (major, options, expected) in [
            (13, all, "CREATE_REPLICATION_SLOT \"s\" TEMPORARY PHYSICAL RESERVE_WAL"),
            (14, none, "CREATE_REPLICATION_SLOT \"s\" PHYSICAL"),
            (15, all, "CREATE_REPLICATION_SLOT \"s\" TEMPORARY PHYSICAL (RESERVE_WAL)"),
            (18, none, "CREATE_REPLICATION_SLOT \"s\" PHYSICAL"),
        ] {
            assert_eq!(create_command(major, &name, options), expected);
        }
    }
}

//! What a refusal of the server means to whoever wants WAL.
//!
//! Messages are translated (`lc_messages`), and a replication role may not change that. So nothing here rests on words: only on SQLSTATE,
//! on the name of the source's function, on whether there is a detail, and on what stays the same in every language, as the names of settings.
//! Sources: walsender.c, slot.c, xlog.c and proc.c of 13 to 18.

use crate::ServerError;

/// A refusal that a receiver of WAL answers with something else than another try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The WAL that was asked for is gone from the server: no stream will bring it. Its segment, where the server named it.
    SegmentRemoved(Option<String>),
    /// The start lies beyond the server's WAL: we have WAL that it does not. It was restored to an earlier point, or is another server.
    AheadOfServer,
    /// The timeline was left before the start, or is no ancestor of the server's: we have WAL of a branch that it did not take.
    NotInHistory,
    /// The server has no history file of that timeline.
    NoHistory,
    /// There is no slot of that name: it was dropped, or never followed the primary to this server.
    SlotAbsent,
    /// There is one of that name already.
    SlotExists,
    /// Somebody streams with the slot; perhaps our own last connection, whose end the server did not notice yet.
    SlotInUse,
    /// The slot was given up by the server (`max_slot_wal_keep_size`, and from 18 on `idle_replication_slot_timeout`): the WAL that it held is
    /// gone. Servers before 18 say nothing and let it stream again: see [`crate::SlotState::restart`].
    SlotInvalidated,
    /// The slot is one for logical decoding.
    SlotIsLogical,
    /// All of `max_replication_slots` are taken, or it is zero.
    NoSlotLeft,
    /// `wal_level` is minimal.
    WalLevelTooLow,
    /// All of `max_wal_senders` are taken, or it is zero.
    NoSenderLeft,
    /// The role lacks the right.
    NotPermitted,
}

impl Refusal {
    /// What `error`, said while we were `doing` something, means; `None` for what is nothing special here.
    pub(crate) fn of(doing: &str, error: &ServerError) -> Option<Self> {
        let says = |word: &str| error.message.contains(word) || error.detail.as_deref().unwrap_or("").contains(word);
        Some(match error.code.as_str() {
            "53300" if says("max_wal_senders") => Self::NoSenderLeft,
            "53400" => Self::NoSlotLeft,
            "42501" => Self::NotPermitted,
            "42704" => Self::SlotAbsent,
            "42710" => Self::SlotExists,
            "55006" => Self::SlotInUse,
            "0A000" if doing == READ_SLOT => Self::SlotIsLogical,
            "55000" if says("wal_level") => Self::WalLevelTooLow,
            "55000" if says("max_replication_slots") => Self::NoSlotLeft,
            // Up to 17 the only such error of START_REPLICATION is that the slot is logical; from 18 on also that it was invalidated, with a detail.
            "55000" if doing == START && error.detail.is_some() => Self::SlotInvalidated,
            "55000" if doing == START => Self::SlotIsLogical,
            "58P01" if doing == HISTORY => Self::NoHistory,
            "58P01" if doing == START || doing == STREAM => Self::SegmentRemoved(segment_in(&error.message)),
            // Neither has a code of its own. Only the one has a detail: where the server's history forked.
            "XX000" if error.routine == "StartReplication" && error.detail.is_some() => Self::NotInHistory,
            "XX000" if error.routine == "StartReplication" => Self::AheadOfServer,
            "XX000" if doing == START && error.routine == "tliSwitchPoint" => Self::NotInHistory,
            _ => return None,
        })
    }

    /// What a person can do about it.
    pub(crate) const fn hint(&self) -> &'static str {
        match self {
            Self::SegmentRemoved(_) => {
                "this WAL can only come from an archive; without it make a new base backup now, and keep a slot or raise wal_keep_size"
            }
            Self::AheadOfServer => {
                "this server lacks WAL that was received: it was restored to an earlier point, or is another one. Don't overwrite what is stored; see which of the two is right"
            }
            Self::NotInHistory => {
                "this server took another branch before that point. Don't overwrite what is stored; follow its timeline from where it branched off"
            }
            Self::NoHistory => "the file is missing in the server's pg_wal: fetch it from an archive",
            Self::SlotAbsent => {
                "somebody dropped the slot, or this server was promoted: slots don't follow. Create it, and see that no WAL is missing since"
            }
            Self::SlotExists => "use it, or drop it if it is nobody's",
            Self::SlotInUse => {
                "another receiver has it (pg_replication_slots.active_pid); after a broken connection it is free within wal_sender_timeout"
            }
            Self::SlotInvalidated => {
                "WAL was lost to the archive: make a new base backup now, drop and create the slot, and see max_slot_wal_keep_size"
            }
            Self::SlotIsLogical => "choose another name: this slot is somebody else's, for logical decoding",
            Self::NoSlotLeft => "raise max_replication_slots and restart the server, or drop slots that nobody uses",
            Self::WalLevelTooLow => "set wal_level = replica and restart the server",
            Self::NoSenderLeft => {
                "raise max_wal_senders (0 where wal_level is minimal: set replica) and restart the server, or end another session"
            }
            Self::NotPermitted => "the role needs REPLICATION: ALTER ROLE ... REPLICATION",
        }
    }
}

/// What we were doing, as errors name it.
pub(crate) const START: &str = "START_REPLICATION";
pub(crate) const STREAM: &str = "streaming WAL";
pub(crate) const HISTORY: &str = "TIMELINE_HISTORY";
pub(crate) const READ_SLOT: &str = "READ_REPLICATION_SLOT";

/// Digits of a segment's file name.
const SEGMENT_DIGITS: usize = 24;

/// The name of a segment in a message of any language.
fn segment_in(message: &str) -> Option<String> {
    let is_digit = |character: char| character.is_ascii_digit() || ('A'..='F').contains(&character);
    let mut words = message.split(|character: char| !is_digit(character));
    words.find(|word| word.len() == SEGMENT_DIGITS).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: &str, message: &str, detail: Option<&str>, routine: &str) -> ServerError {
        ServerError {
            code: code.to_owned(),
            message: message.to_owned(),
            detail: detail.map(str::to_owned),
            routine: routine.to_owned(),
            ..ServerError::default()
        }
    }

    #[test]
    fn meanings() {
        let segment = "00000001000000000000000A".to_owned();
        let removed = "das angeforderte WAL-Segment 00000001000000000000000A wurde schon entfernt";
        let started = "StartReplication";
        for (doing, error, expected) in [
            (STREAM, error("58P01", removed, None, "WalSndSegmentOpen"), Some(Refusal::SegmentRemoved(Some(segment)))),
            (START, error("58P01", "gone", None, "XLogRead"), Some(Refusal::SegmentRemoved(None))),
            (HISTORY, error("58P01", "gone", None, "SendTimeLineHistory"), Some(Refusal::NoHistory)),
            (START, error("XX000", "voraus", None, started), Some(Refusal::AheadOfServer)),
            (START, error("XX000", "nicht", Some("abgezweigt"), started), Some(Refusal::NotInHistory)),
            (START, error("XX000", "else", None, "other"), None),
            (START, error("55000", "nicht", Some("wal_removed"), "x"), Some(Refusal::SlotInvalidated)),
            (START, error("55000", "logisch", None, started), Some(Refusal::SlotIsLogical)),
            ("x", error("55000", "nur mit wal_level >= replica", None, "x"), Some(Refusal::WalLevelTooLow)),
            ("x", error("53300", "max_wal_senders (aktuell 0)", None, "x"), Some(Refusal::NoSenderLeft)),
            ("x", error("53300", "zu viele Verbindungen", None, "x"), None),
            ("x", error("28000", "", None, "x"), None),
        ] {
            assert_eq!(Refusal::of(doing, &error), expected, "{doing}: {error}");
        }
    }
}

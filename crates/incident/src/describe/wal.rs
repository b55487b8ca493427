//! What the events of the WAL that streams into the repository say.

use model::EventKind;

use crate::words::{duration, quote};

pub(super) fn line(kind: &EventKind) -> String {
    match kind {
        EventKind::WalReceiving { timeline, from, slot, slot_limit } => {
            let held = match (slot, slot_limit) {
                (Some(slot), Some(limit)) => format!(", held by slot {} up to {limit}", quote(slot)),
                (Some(slot), None) => format!(", held by slot {} WITHOUT A LIMIT", quote(slot)),
                (None, _) => ", held by no slot".to_owned(),
            };
            format!("WAL of timeline {timeline} streamed into the repository from {from} on{held}")
        }
        EventKind::WalInterrupted { error, behind } => {
            format!("WAL streamed no more, {} behind: {}", duration(*behind), quote(error))
        }
        EventKind::WalTimelineChanged { from, to, switch } => {
            format!("The server left timeline {from} at {switch} and went on with timeline {to}")
        }
        EventKind::WalMissing { timeline, from, to } => {
            format!(
                "WAL of timeline {timeline} from {from} to {to} IS MISSING: the server had removed it before it was received"
            )
        }
        EventKind::WalSlotLost { slot, why } => {
            format!("The replication slot {} was lost: {}", quote(slot), quote(why))
        }
        EventKind::WalStoreFailing { error } => format!("The repository took no WAL: {}", quote(error)),
        EventKind::WalStoreBack { after } => format!("The repository took WAL again, after {}", duration(*after)),
        other => format!("An event of kind {}", other.name()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use model::{ByteSize, Lsn};

    use super::*;

    #[test]
    fn each_event_has_its_words() {
        let second = Duration::from_secs(1);
        let receiving = |slot: Option<&str>, slot_limit| EventKind::WalReceiving {
            timeline: 2,
            from: Lsn(16),
            slot: slot.map(str::to_owned),
            slot_limit,
        };
        for (kind, says) in [
            (receiving(Some("ox"), Some(ByteSize(1 << 30))), "from 0/10 on, held by slot ox up to 1.0 GiB"),
            (receiving(Some("ox"), None), "WITHOUT A LIMIT"),
            (receiving(None, None), "held by no slot"),
            (EventKind::WalInterrupted { error: "gone".into(), behind: second }, "no more, 1.0 s behind: gone"),
            (EventKind::WalTimelineChanged { from: 1, to: 2, switch: Lsn(1) }, "left timeline 1 at 0/1"),
            (EventKind::WalMissing { timeline: 1, from: Lsn(1), to: Lsn(2) }, "from 0/1 to 0/2 IS MISSING"),
            (EventKind::WalSlotLost { slot: "s".into(), why: "dropped".into() }, "slot s was lost: dropped"),
            (EventKind::WalStoreFailing { error: "full".into() }, "took no WAL: full"),
            (EventKind::WalStoreBack { after: second }, "again, after 1.0 s"),
        ] {
            let line = line(&kind);
            assert!(line.contains(says), "{line}");
        }
    }
}

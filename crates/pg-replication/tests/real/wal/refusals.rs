//! Servers that are not set up for it.

use pg_replication::{Connection, Refusal};

use super::{KEPT, slot};
use crate::{builder, socket};

pub fn are_named(major: u32) {
    let Some(builder) = builder(major) else { return };
    let minimal = builder.clone().setting("wal_level", "minimal").setting("max_wal_senders", "0").start().unwrap();
    let error = Connection::open(&socket(&minimal)).err().unwrap();
    assert_eq!(error.refusal(), Some(Refusal::NoSenderLeft), "{error:?}");
    assert!(error.to_string().contains("wal_level"), "{error}");
    drop(minimal);

    let few = builder.setting("max_wal_senders", "1").setting("max_replication_slots", "0").start().unwrap();
    let mut connection = Connection::open(&socket(&few)).unwrap();
    let error = Connection::open(&socket(&few)).err().unwrap();
    assert_eq!((error.refusal(), error.is_passing()), (Some(Refusal::NoSenderLeft), true), "{error}");
    let error = connection.create_slot(&slot("ours"), KEPT).unwrap_err();
    assert_eq!((error.refusal(), error.is_passing()), (Some(Refusal::NoSlotLeft), false), "{error}");
    assert!(error.to_string().contains("hint: raise max_replication_slots"), "{error}");
}

//! `BASE_BACKUP`: the command of each version, and its stream as events.

mod command;
mod stream;

pub use command::{BaseBackupOptions, ManifestChecksums};
pub use stream::{BaseBackup, Event, Tablespace};

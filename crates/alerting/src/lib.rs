//! Rules over observations, and the delivery of what they say.
//!
//! Invariants
//! - [`decide`] is pure: it sees observations and settings, nothing else.
//! - An alert is handed to its routes first and persisted right after; neither a full disk nor a dead worker keeps it back.
//! - Each alert goes to the log, whatever becomes of the routes.
//! - A persisted alert is delivered at least once, with the same key each time, or given up in so many words.
//! - No secret of a route leaves the pipe to the worker: not in arguments, environment, files, events, errors or logs.

mod clock;
pub mod decide;
pub mod deliver;
pub mod delivery;
pub mod heartbeat;
pub mod hush;
mod lines;
pub mod outbox;
pub mod peer;
mod protocol;
pub mod route;
pub mod settings;
pub mod template;
#[cfg(test)]
mod testing;

pub use decide::{
    Rules, Subject,
    members::{Members, MembersSettings},
    own::{FIGURES, Figure, OwnRule, OwnRuleError},
};
pub use deliver::{Trial, check_email, check_webhook_url, try_routes};
pub use delivery::{Delivery, DeliveryOptions, Started, WorkerCommand};
pub use heartbeat::{Heartbeat, Method, SENSED_WITHIN};
pub use hush::{Ack, Book, Silence};
pub use peer::Peer;
pub use route::{Carrier, Command, Email, Matches, Route, Secret, Security, Webhook};
pub use settings::{RuleSettings, SettingsError};
pub use template::{Template, TemplateError};

//! The dead man's switch towards the outside: a check somewhere else is told again and again that this guard lives, and alarms when it is not.
//!
//! A guard that lives and sees nothing is worse than none, since it looks well: so the loop says for each reading of the host that reached it
//! when that was taken ([`crate::Delivery::senses`]), and the deliver worker, which has the HTTP stack, sends heartbeats only while such a
//! reading is younger than [`SENSED_WITHIN`]. A guard that hangs, was stopped or is blind says nothing, and neither does a worker without one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::route::Secret;

/// A guard senses while its newest reading of the host is younger. They come twice a second; on a host short of everything the sampler and the
/// loop may be late by some seconds, and just then must not be taken for dead.
pub const SENSED_WITHIN: Duration = Duration::from_secs(15);

/// So many heartbeats missed in a row are a limitation: one or two are the weather, and the check outside allows for them.
pub(crate) const TOLD_AFTER: u32 = 3;

/// How an external check wants to be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// What nearly all of them take.
    #[default]
    Get,
    /// For those that let a GET change nothing. The body is empty.
    Post,
}

/// Where heartbeats go, and how often.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The check's URL. Whoever has it can keep the check quiet: a secret.
    pub url: Secret,
    /// How it is asked.
    pub method: Method,
    /// From one that was taken to the next.
    pub every: Duration,
    /// How long one may take, from its start to the end of the answer.
    pub timeout: Duration,
}

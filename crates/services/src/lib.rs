//! Bringing services back in their order: the graph, what is seen of each service, and the plan.
//!
//! Its heart is pure: data in, data out, no file, no socket, no clock; every instant is a [`std::time::Duration`] on the boot clock
//! (`model::Moment::boot_us`) that the caller passes in. Only [`driver`], [`probe`], [`look`],
//! [`evidence`] and [`execute`] touch the world.
//!
//! - [`graph`]: services and what each needs; cycles are errors that show the cycle; layers, the critical path, text, DOT and JSON.
//! - [`health`]: what a probe says, and what a run of such verdicts amounts to: *stable* is healthy for a time with no restart in it.
//! - [`state`]: from that to one word per service: stable, settling, starting, broken, stuck, wrong, stopped, removed, unknown.
//! - [`plan`]: which services to start, restart or provision, in which order and when; and when to stop and call a person.
//! - [`probe`]: asking a service whether it does its work.
//! - [`driver`]: who starts and stops them, behind one interface.
//! - [`look`]: one round of observations, of all drivers and probes at once.
//! - [`execute`]: carries the plan out: one writer, written down before it is done, going on after a kill.
//! - [`boot`]: when and why a host or a server died, from what is left of it.
//! - [`damage`]: whether a server can still be started on a data directory.
//! - [`evidence`]: reads what is left of it.
//! - [`discover`]: edges that compose files, systemd units, connection strings and sessions suggest. They are proposed, never added.

pub mod boot;
pub mod damage;
pub mod discover;
pub mod driver;
pub mod evidence;
pub mod execute;
pub mod graph;
pub mod health;
pub mod look;
pub mod plan;
pub mod probe;
pub mod state;

#[cfg(test)]
mod simulation;

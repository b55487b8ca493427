//! The governor: the closed loop that keeps vacuum from starving the host.
//!
//! Invariants: [`controller`] is pure. Nothing is written to PostgreSQL below mode `act`. Every act is preceded by a synced record and by at
//! least one armed means that undoes it when the guard is killed. A signal goes only through a pidfd to a process that was
//! checked after the pidfd was opened. Vacuums against wraparound are never slowed.
//!
//! | module | what it knows |
//! |---|---|
//! | [`controller`] | when to hold whom, where, and when to let go |
//! | [`levers`] | which way of changing a running vacuum this server has |
//! | [`governor`] | carrying it out, in an order that may be killed anywhere |
//! | [`switch`] | letting go from within the server when all our processes are dead |
//! | [`release_worker`] | letting go from a child that outlives the guard |
//! | [`undo`] | how a throttle is undone, whoever does it |
//! | [`include_file`], [`alter_system`] | the two homes of a temporary setting |
//! | `include_writer` | the one hand that writes it: nothing that hung lands late |
//! | `by_hand` | what a person would run in our place |
//! | [`host_process`] | `/proc` and signals that can't hit the wrong process |

pub mod alter_system;
mod by_hand;
pub mod controller;
pub mod governor;
pub mod host_process;
pub mod include_file;
mod include_writer;
pub mod levers;
mod limits;
pub mod record;
pub mod release_worker;
pub mod switch;
pub mod undo;

pub use governor::{Governor, GovernorOptions, GovernorStatus, ReleaseCommand, default_include_file};
pub use include_file::{install_include_line, remove_include_line};
pub use limits::Limits;
pub use release_worker::undo_left_behind;

//! What may be done to whom and when: the shedding ladder, and below it the [`relief`] of a server that runs out of connections. Pure: facts, its own state and settings in, a decision out.
//!
//! When a host runs out of CPU, memory or disk, something must give way before the host does. The ladder gives way in a declared
//! order, one rung at a time, from what nobody notices to what everybody does ([`Rung`]): throttle vacuum, pause own work, cancel a
//! vacuum, stop the services marked `shed` in the order of their numbers, and last, only where it is declared and approved in the
//! configuration, stop PostgreSQL cleanly so that the host survives.
//!
//! # What holds, whatever comes
//! - **No rung is skipped.** One is taken only when each declared rung below it is in force and had its time to help, was tried since
//!   the last calm, or can't be taken now (nothing to act on, somebody else's, no lever): [`Decision::passed`] says which and why. One
//!   that *may* not be taken (cooldown, daily limit, no approval) is not passed: the ladder waits below it, and says so.
//! - **No bound is exceeded**: acts in any 24 hours, the wait between giving back and taking again, one act at a time.
//! - **What is taken is given back**, the highest first: after a calm time, or after the rung's longest time, whatever the pressure. A
//!   rung that can't be given back is tried for ever. What another has ended is forgotten, not fought over.
//! - **Without readings it holds**: neither up nor down, but for a rung's longest time.
//! - **What is proposed only, stays proposed above**: a rung goes no further than those below it ([`RungSettings::mode`]).
//! - A rung changes at most `2 * per_day` times a day, and a relapse doubles the calm that the next way down needs: that bounds flapping.
//!
//! # How it is wired
//! 1. With each reading of the host, at least every second, make [`Facts`]: the newest readings, and for each lever a [`Hand`]: can it be
//!    used now, and what does it do. The governor's own hold is [`Effect::Elsewhere`] for the throttle's rung; so is a backup worker that
//!    stands back by itself for own work's. A service's `Ability` comes from its driver and its owner.
//! 2. `let (next, decision) = decide(&facts, &state, &settings);`
//! 3. If `decision.step` is no hold and `carry_out`: write `next` to the state directory, synced, *then* hand the act to the executor of
//!    that capability (governor, backup worker, `services::execute`), which looks its precondition up again. From then on its effect is
//!    `Underway`, and after its own bounded time `InForce`, `Off` or `Failed`. An act whose executor died shows as `Off` and counts as failed;
//!    one that was done though nobody knows of it shows as `InForce`, and is adopted so that it is given back. Without `carry_out`, record
//!    the proposal with the act's words.
//! 4. If `decision.news`: record an event with step, reason ([`Decision::why`]), reading ([`Decision::cause`]), passed rungs and notes.
//!    [`HoldKind::Blocked`] and [`HoldKind::Exhausted`] are worth an alert: a person is needed.
//! 5. After a restart: `saved_state.restarted(now, same_boot)`.
//!
//! `status` shows [`view`]. The manual is `docs/src/concepts/shedding.md`.

mod facts;
mod ladder;
mod pressure;
mod reconcile;
pub mod relief;
mod rung;
mod settings;
mod standing;
mod state;
mod view;
mod words;

pub use facts::{Ability, Effect, Facts, Hand, Server, Sheddable};
pub use ladder::{Decision, HoldKind, Step, decide, rungs};
pub use pressure::{Cause, Level, Resource};
pub use rung::{Act, Rung};
pub use settings::{LONGEST_MAX, PER_DAY_MAX, RungSettings, Settings, SettingsError, Thresholds};
pub use state::{Held, State};
pub use view::{RungView, view};

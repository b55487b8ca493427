//! The journal as others see it: through its files, from other processes and after `kill -9`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "all of it is tests, also outside of functions marked so")]

mod any_event;
mod any_reading;
mod full_disk;
mod golden;
mod kill;
mod readers;
mod round_trip;
mod state_dir;
mod support;

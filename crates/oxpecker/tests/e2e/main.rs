//! End to end: the real program against real PostgreSQL.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and says why it skips")]

mod act;
mod alerts;
mod audit;
mod backup;
mod command_line;
mod console;
mod deaths;
mod discover;
mod drills;
mod faults;
mod guard;
mod guarded_backup;
mod guarded_wal;
mod harness;
mod heartbeat;
mod holds;
mod kept_wal;
mod last_rung;
mod map_wal;
mod mended;
mod node;
mod over_the_network;
mod own_words;
mod peers;
mod pitr;
mod prompts;
mod protected;
mod prove_newest;
mod recovery_run;
mod relief;
mod services;
mod shedding;
mod soak;
mod terminal;
mod timelines;
mod wal;
mod wal_fault_guard;
mod wal_fault_moments;
mod wal_fault_recovery;
mod wrong_input;

//! Replays of incidents on scratch databases and scratch services.
//!
//! Invariant: a drill touches nothing that it did not make itself (its cluster, its processes, its directory), leaves
//! nothing behind but the report that it names, and judges by measurement alone: no figure in a [`DrillResult`] comes from
//! anywhere but the run that it describes.
//!
//! The parts: [`run`] is the drill, [`helper`] is what its child processes run, [`render`] puts a result before a person.

mod act;

mod children;
mod cluster;
mod cold_start;
mod detect;
mod error;
mod guard;
pub mod helper;
mod http;
mod leash;
mod leftovers;
mod load;
mod measure;
mod mistake;
mod oom;
mod options;
mod place;
mod progress;
mod remains;
mod render;
mod rescue;
mod result;
mod run;
mod services;
mod sink;
mod storm;
mod surge;
mod tables;
mod verdict;

pub use cold_start::{ColdKind, ColdLane, ColdRun, ColdSide, ColdStart};
pub use error::DrillError;
pub use helper::helper;
pub use oom::{Oom, OomAlone, OomClients, OomGuarded};
pub use options::{ActKind, DrillOptions, HelperCommand};
pub use progress::{Progress, ProgressEvent};
pub use render::{render, render_cold_start, render_oom, render_surge};
pub use result::*;
pub use run::{cold_start, connection_surge, out_of_memory, run};
pub use surge::{Surge, SurgeAlone, SurgeGuarded};

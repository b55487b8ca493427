//! The host: CPU, pressure, memory, file systems, own control group and watched processes, once a second.

mod cgroup;
mod family;
mod kept_file;
mod largest;
mod oom;
mod parse;
pub mod process;
mod sampler;
mod thread;

pub use cgroup::Cgroups;
pub use family::Watched;
pub use oom::MAX_VICTIMS;
pub use process::{CpuTime, ProcessSnapshot, ProcessTable};
pub use sampler::{HostError, HostOptions, HostSampler};
pub use thread::{CLOCK_STEP, HostThread, SILENCE, spawn};

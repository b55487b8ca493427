//! What the drill measures itself, from the kernel's own counters.

pub(crate) mod clock;
pub(crate) mod cpu;
pub(crate) mod saturation;

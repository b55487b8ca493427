//! What is looked at once the server has recovered.

pub(super) mod pages;
pub(super) mod queries;
pub(super) mod structure;

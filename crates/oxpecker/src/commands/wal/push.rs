//! `oxpecker wal push`: for `archive_command`. PostgreSQL takes every exit code but 0 for "not stored", keeps the file, and asks again.

use wal::push::{Options, make_maps, push as store};

use super::beside;
use crate::{
    cli::{Format, Global, PushArgs},
    exit::{FAILED, FINE, Failure, Outcome, REFUSED},
    output,
    repo::Settings,
    work,
};

/// Stores a file.
pub fn push(global: &Global, args: &PushArgs) -> Outcome {
    let repository = Settings::load(global, &args.repository)?.open()?;
    let pushed = store(&args.path, &repository, &Options { ahead: args.ahead }).map_err(|error| Failure {
        code: if error.is_conflict() { REFUSED } else { FAILED },
        error: error.into(),
        hint: None,
    })?;
    // The server waits for the segment, not for what can be made of it.
    if pushed.over.is_some() {
        beside("push", "map");
    }
    // Nobody reads a line for each segment; a program that asks gets one.
    if global.output == Format::Json {
        let stored = pushed.stored == repository::wal::Stored::Now;
        let value = serde_json::json!({ "name": pushed.name, "stored": stored, "ahead": pushed.ahead });
        output::result(global.output, "wal_push", &value, String::new)?;
    }
    Ok(FINE)
}

/// Makes the page maps of the ranges that a push ended.
pub fn map(global: &Global, args: &PushArgs) -> Outcome {
    work::step_down();
    let repository = Settings::load(global, &args.repository)?.open()?;
    make_maps(&args.path, args.ahead, &repository).map_err(|error| Failure {
        code: FAILED,
        error: error.into(),
        hint: None,
    })?;
    Ok(FINE)
}

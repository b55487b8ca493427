//! `oxpecker wal push`: for `archive_command`. PostgreSQL takes every exit code but 0 for "not stored", keeps the file, and asks again.

use wal::push::{Options, push as store};

use crate::{
    cli::{Format, Global, PushArgs},
    exit::{FAILED, FINE, Failure, Outcome, REFUSED},
    output,
    repo::Settings,
};

/// Stores a file.
pub fn push(global: &Global, args: &PushArgs) -> Outcome {
    let repository = Settings::load(global, &args.repository)?.open()?;
    let pushed = store(&args.path, &repository, &Options { ahead: args.ahead }).map_err(|error| Failure {
        code: if error.is_conflict() { REFUSED } else { FAILED },
        error: error.into(),
        hint: None,
    })?;
    // Nobody reads a line for each segment; a program that asks gets one.
    if global.output == Format::Json {
        let stored = pushed.stored == repository::wal::Stored::Now;
        let value = serde_json::json!({ "name": pushed.name, "stored": stored, "ahead": pushed.ahead });
        output::result(global.output, "wal_push", &value, String::new)?;
    }
    Ok(FINE)
}

//! The only place that prints: results on stdout, all else on stderr, colour on terminals only.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this module is where printing is done")]

use std::io::{self, Write};

use owo_colors::OwoColorize as _;
use serde::Serialize;

use crate::cli::Format;

/// The version of the shape of all JSON that commands print. Raised when a field changes its meaning or goes.
pub const JSON_SCHEMA: u32 = 1;

/// Prints a result: `text` for people, `value` for programs, wrapped with its kind and the schema's version.
///
/// # Errors
/// When stdout can't be written. A reader that has gone (`oxpecker status | head -1`) is no error.
pub fn result<T: Serialize>(format: Format, kind: &str, value: &T, text: impl FnOnce() -> String) -> io::Result<()> {
    #[derive(Serialize)]
    struct Document<'a, T> {
        schema: u32,
        kind: &'a str,
        #[serde(flatten)]
        value: &'a T,
    }
    let mut out = match format {
        Format::Json => serde_json::to_string_pretty(&Document { schema: JSON_SCHEMA, kind, value })?,
        Format::Text => text(),
    };
    if !out.ends_with('\n') {
        out.push('\n');
    }
    match anstream::stdout().write_all(out.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Prints text as it is to stdout.
///
/// # Errors
/// As [`result`].
pub fn text(text: &str) -> io::Result<()> {
    result(Format::Text, "text", &(), || text.to_owned())
}

/// Prints a line of progress or advice to stderr.
pub fn note(text: &str) {
    anstream::eprintln!("{text}");
}

/// Prints an error with its causes and its hint to stderr.
pub fn error(error: &anyhow::Error, hint: Option<&str>) {
    anstream::eprintln!("{} {error}", "error:".red().bold());
    let mut said = error.to_string();
    for cause in error.chain().skip(1) {
        // Many libraries repeat the cause in the outer message; nobody needs to read it twice.
        let cause = cause.to_string();
        if !said.contains(&cause) {
            anstream::eprintln!("  {} {cause}", "because:".red());
            said = cause;
        }
    }
    if let Some(hint) = hint {
        anstream::eprintln!("  {} {hint}", "hint:".cyan().bold());
    }
}

//! `oxpecker wal`.

mod get;
mod list;
mod push;
mod receive;
mod streams;
mod verify;

use std::{
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
};

use crate::{
    cli::{Global, WalCommand},
    exit::Outcome,
};

/// What the command line says.
pub fn run(global: &Global, command: WalCommand) -> Outcome {
    match command {
        WalCommand::Receive(args) => receive::receive(global, &args),
        WalCommand::Push(args) => push::push(global, &args),
        WalCommand::Get(args) => get::get(global, &args),
        WalCommand::List(args) => list::list(global, &args),
        WalCommand::Verify(args) => verify::verify(global, &args),
        WalCommand::Ahead(args) => get::ahead(global, &args),
        WalCommand::Map(args) => push::map(global, &args),
    }
}

/// Starts this program again with the same arguments but another command of `wal`, beside whoever waits for this one. It ends by itself; nobody
/// waits for it.
fn beside(command: &str, other: &str) {
    let mut arguments: Vec<_> = std::env::args_os().skip(1).collect();
    // The last word may be part of a path; the command is the first behind "wal".
    let Some(wal) = arguments.iter().position(|word| word == "wal") else { return };
    let Some(at) = arguments[wal..].iter().position(|word| word == command) else { return };
    arguments[wal + at] = other.into();
    let Ok(program) = std::env::current_exe() else { return };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // Not in the server's group: a signal to that one is none of its business, and it must not keep anybody's pipes open.
    if let Err(error) = command.process_group(0).spawn() {
        tracing::warn!(%error, other, "nothing is done beside");
    }
}

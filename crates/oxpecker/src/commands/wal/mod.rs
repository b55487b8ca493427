//! `oxpecker wal`.

mod get;
mod list;
mod push;
mod receive;
mod streams;
mod verify;

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
    }
}

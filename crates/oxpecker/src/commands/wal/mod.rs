//! `oxpecker wal`.

mod get;
mod push;
mod receive;

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
        WalCommand::Ahead(args) => get::ahead(global, &args),
    }
}

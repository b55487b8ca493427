//! `oxpecker backup ...`.

mod check;
pub mod create;
pub mod further;
mod holds;
mod init;
mod list;
pub mod prove;
pub mod prune;
mod reach;
mod show;
pub mod words;

use crate::{
    cli::{BackupCommand, Global},
    exit::Outcome,
};

/// Does what the command line says.
pub fn run(global: &Global, command: BackupCommand) -> Outcome {
    match command {
        BackupCommand::Init { repository } => init::init(global, &repository),
        BackupCommand::Create(args) => create::create(global, &args),
        BackupCommand::List { repository } => list::list(global, &repository),
        BackupCommand::Show { id, repository } => show::show(global, &id, &repository),
        BackupCommand::Check { deep, repository } => check::check(global, deep, &repository),
        BackupCommand::Prune(args) => prune::prune(global, &args),
        BackupCommand::Prove(args) => prove::prove(global, &args),
    }
}

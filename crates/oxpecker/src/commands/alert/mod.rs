//! `oxpecker alert list|test|figures|silence|unsilence|ack`.

mod figures;
mod hush;
mod list;
mod test;

use std::path::PathBuf;

use crate::{
    cli::{AlertCommand, Global},
    config::{self, Overrides},
    exit::{Failure, Outcome},
    place,
};

/// Does what `oxpecker alert` was asked for.
pub fn run(global: &Global, command: AlertCommand) -> Outcome {
    match command {
        AlertCommand::List => list::list(global),
        AlertCommand::Test { route } => test::test(global, &route),
        AlertCommand::Figures => figures::figures(global),
        AlertCommand::Silence(args) => hush::silence(global, &args),
        AlertCommand::Unsilence { id } => hush::unsilence(global, &id),
        AlertCommand::Ack(args) => hush::ack(global, &args),
    }
}

/// Where the guard keeps its alerts, below its state directory.
fn outbox_dir(global: &Global) -> Result<(PathBuf, PathBuf), Failure> {
    let config = config::load(global.config.as_deref(), &Overrides::default())?.config;
    let state = place::state_dir(&config);
    let outbox = state.join(crate::guard::OUTBOX);
    Ok((state, outbox))
}

//! `oxpecker keep ROLE NAME`: the keeper of a service that runs as a process. Started by the driver, never by people.

use crate::{
    cli::KeepArgs,
    exit::{FINE, Outcome},
};

pub fn keep(args: &KeepArgs) -> Outcome {
    services::driver::process::keep(&args.role)?;
    Ok(FINE)
}

//! Processes that the guard and the drill start for themselves.

mod autopsy;
mod backup;
mod canary;
mod recovery;
mod teller;
mod wal;

use super::block_on;
use crate::{
    cli::DrillServiceArgs,
    exit::{FINE, Outcome},
    guard, work,
};

/// `oxpecker worker deliver`.
pub fn deliver() -> Outcome {
    // Where it may not, the guard may not either, and says so.
    if let Err(why) = guard::lock_memory() {
        tracing::debug!("this worker's memory is not locked: {why}");
    }
    alerting::deliver::main()?;
    Ok(FINE)
}

/// `oxpecker worker autopsy`.
pub fn autopsy() -> Outcome {
    work::ordinary();
    autopsy::main()
}

/// `oxpecker worker backup`.
pub fn backup() -> Outcome {
    backup::main()
}

/// `oxpecker worker wal`.
pub fn wal() -> Outcome {
    work::ordinary();
    wal::main()
}

/// `oxpecker worker recovery`.
pub fn recovery() -> Outcome {
    work::ordinary();
    recovery::main()
}

/// `oxpecker worker release`.
pub fn release() -> Outcome {
    let orders = tokio::io::BufReader::new(tokio::io::stdin());
    block_on(autovacuum::release_worker::run(orders))??;
    Ok(FINE)
}

/// `oxpecker drill-service KIND SPEC`.
pub fn drill_service(args: &DrillServiceArgs) -> Outcome {
    drill::helper(&args.kind, &args.spec)?;
    Ok(FINE)
}

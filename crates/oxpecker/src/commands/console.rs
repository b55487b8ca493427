//! `oxpecker console`.

use std::{path::PathBuf, sync::Arc};

use console::{Access, Console, Facts, Now, Unknown};
use tokio::signal::unix::{SignalKind, signal};

use super::block_on;
use crate::{
    cli::Global,
    config::{self, Overrides},
    exit::{FINE, Failure, Outcome},
    guard::{self, GuardStatus, Request},
    output, place,
};

/// Serves the console until a signal says otherwise.
pub fn console(global: &Global) -> Outcome {
    let loaded = config::load(global.config.as_deref(), &Overrides::default())?;
    let declared = &loaded.config.console;
    let access = declared.access().map_err(|error| {
        let (what, hint) =
            error.split_once(". Hint: ").unwrap_or((&error, "the console's user must be able to read it"));
        Failure::usage(anyhow::anyhow!("[console] can't be used: {what}")).hint(hint)
    })?;
    let state_dir = place::state_dir(&loaded.config);
    block_on(serve(declared.listen, access, state_dir))?
}

async fn serve(listen: std::net::SocketAddr, access: Access, state_dir: PathBuf) -> Outcome {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let facts = Arc::new(Guard { state_dir: state_dir.clone() });
    let console = Console::listen(listen, access, state_dir, facts).await.map_err(Failure::usage)?;
    output::note(&format!("the console is at http://{}/", console.address()?));
    tokio::select! {
        () = console.serve() => {}
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(FINE)
}

/// The guard behind its socket.
struct Guard {
    state_dir: PathBuf,
}

impl Facts for Guard {
    fn now(&self) -> Result<Now, Unknown> {
        let status = guard::ask::<GuardStatus>(&self.state_dir, Request::Status).map_err(|e| Unknown(e.to_string()))?;
        Ok(guard::now(&status))
    }
}

//! Looks into a death (`oxpecker worker autopsy`): reads one question, reads what is left, prints one answer.

use std::io::{self, Write as _};

use services::{boot, evidence};
use tokio::io::BufReader;

use crate::{
    commands::block_on,
    exit::{FINE, Failure, Outcome},
    guard::{
        Answered, Ask,
        lines::{read, to_line},
    },
};

/// Runs on this process's stdin and stdout.
///
/// # Errors
/// Where nobody asks.
pub fn main() -> Outcome {
    let asked: Option<Ask> = block_on(async { read(&mut BufReader::new(tokio::io::stdin())).await })??;
    let asked = asked.ok_or_else(|| {
        Failure::usage(anyhow::anyhow!("the first line is no question of this version"))
            .hint("it is started by `oxpecker run`, not by hand")
    })?;
    let death = match asked {
        Ask::Host { boot_id, newest_record, guard_stopped } => {
            let root = "/".into();
            let newest_record = Some(newest_record);
            boot::host(&evidence::host::host(&evidence::host::Asked { root, boot_id, newest_record, guard_stopped }))
        }
        Ask::Server { data_dir, last_seen, started } => {
            let (last_seen, started) = (Some(last_seen), Some(started));
            boot::server_death(&evidence::server::server(&evidence::server::Asked { data_dir, last_seen, started }))
        }
    };
    let mut stdout = io::stdout().lock();
    stdout.write_all(&to_line(&Answered { death })).and_then(|()| stdout.flush())?;
    Ok(FINE)
}

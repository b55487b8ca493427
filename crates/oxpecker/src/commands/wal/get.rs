//! `oxpecker wal get`: for `restore_command`.

use repository::Repository;
use wal::get::{Answer, Failed, Recovery, Request, fetch_ahead, from_spool, get as fetch};

use super::beside;
use crate::{
    cli::{Format, GetArgs, Global},
    exit::{FINE, Failure, Outcome, WAL_ABSENT, WAL_UNKNOWN},
    output,
    repo::Settings,
    work,
};

fn request(args: &GetArgs) -> Request {
    Request {
        name: args.name.clone(),
        target: args.path.clone(),
        data_dir: args.data_dir.clone(),
        recovery: if args.standby { Recovery::Standby } else { Recovery::Ends },
        ahead: args.ahead,
        patience: args.patience.map(|patience| patience.0),
    }
}

/// Brings a file. Whatever goes wrong has one exit code, and only what is certainly not there has the other: see `exit`.
pub fn get(global: &Global, args: &GetArgs) -> Outcome {
    let answer = bring(global, args).map_err(|failure| Failure { code: WAL_UNKNOWN, ..failure })?;
    let there = answer == Answer::There;
    if global.output == Format::Json {
        output::result(
            global.output,
            "wal_get",
            &serde_json::json!({ "name": args.name, "there": there }),
            String::new,
        )?;
    }
    Ok(if there { FINE } else { WAL_ABSENT })
}

fn bring(global: &Global, args: &GetArgs) -> Result<Answer, Failure> {
    let request = request(args);
    let spooled = from_spool(&request)?;
    if spooled.served {
        if spooled.fetch_ahead {
            beside("get", "ahead");
        }
        return Ok(Answer::There);
    }
    let settings = Settings::load(global, &args.repository)?;
    // Opened once; again only where that went wrong.
    let mut opened: Option<Repository> = None;
    let open = || -> Result<Repository, Said> {
        if let Some(repository) = &opened {
            return Ok(repository.clone());
        }
        let repository = settings.open().map_err(Said)?;
        opened = Some(repository.clone());
        Ok(repository)
    };
    let answer = fetch(&request, open).map_err(|failed| match failed {
        Failed::Open(Said(failure)) => failure,
        Failed::Get(error) => error.into(),
    })?;
    // A standby at the end of WAL asks every few seconds: where there is nothing, nothing is ahead.
    if answer == Answer::There && spooled.fetch_ahead {
        beside("get", "ahead");
    }
    Ok(answer)
}

/// A failure that can be printed.
struct Said(Failure);

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#}", self.0.error)
    }
}

/// Fetches ahead.
pub fn ahead(global: &Global, args: &GetArgs) -> Outcome {
    work::step_down();
    let repository = Settings::load(global, &args.repository)?.open()?;
    fetch_ahead(&request(args), &repository)?;
    Ok(FINE)
}

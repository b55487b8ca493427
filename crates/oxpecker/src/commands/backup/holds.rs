//! What keeps backups from expiring: restores and proofs that run, or that nobody saw end.

use repository::{HoldRecord, Repository, RepositoryError, SessionId, Standing};

use super::words;
use crate::{exit::Failure, output, repo};

/// The digits of a hold's id that are shown. There are never so many holds that more are needed; `--release-hold` says so if there are.
const DIGITS: usize = 8;

/// For people: nothing where there are none. Says of those that nobody here can judge how to end them.
pub fn in_words(holds: &[HoldRecord]) -> String {
    if holds.is_empty() {
        return String::new();
    }
    let rows = holds.iter().map(|hold| {
        let backups: Vec<String> = hold.backups.iter().map(|id| id.to_string()[..DIGITS].to_owned()).collect();
        [short(hold.session), backups.join(", "), whose(hold), words::moment(hold.since), standing(hold).to_owned()]
    });
    let mut text = output::table(["hold", "keeps", "for", "since", "is it running?"], &[], rows);
    if let Some(unknown) = holds.iter().find(|hold| hold.standing == Standing::Unknown) {
        text.push_str(&format!(
            "No time-out ends a hold. Of one that certainly runs no more: `oxpecker backup prune --release-hold {}`\n",
            short(unknown.session)
        ));
    }
    text
}

/// Releases the holds that `texts` name, because a person says that their processes are dead.
///
/// # Errors
/// Where one names none or several, or a process of this host that runs. Then none is released.
pub fn release(repository: &Repository, texts: &[String]) -> Result<Vec<HoldRecord>, Failure> {
    let all = repository.holds();
    let mut chosen: Vec<SessionId> = Vec::new();
    for text in texts {
        let hold = find(&all, text)?;
        if let (Standing::Running, Some(holder)) = (hold.standing, &hold.holder) {
            let runs = RepositoryError::HoldRuns { session: hold.session, pid: holder.pid };
            return Err(repo::failure(runs));
        }
        if !chosen.contains(&hold.session) {
            chosen.push(hold.session);
        }
    }
    chosen.into_iter().map(|session| repository.release_hold(session).map_err(repo::failure)).collect()
}

fn find<'a>(holds: &'a [HoldRecord], text: &str) -> Result<&'a HoldRecord, Failure> {
    let text = text.to_ascii_lowercase();
    let fitting: Vec<&HoldRecord> =
        holds.iter().filter(|hold| !text.is_empty() && hold.session.to_string().starts_with(&text)).collect();
    match fitting[..] {
        [hold] => Ok(hold),
        _ => Err(Failure::usage(anyhow::anyhow!("{text:?} names {} holds, not one", fitting.len()))
            .hint("`oxpecker backup prune --dry-run` lists them; nothing was changed")),
    }
}

fn whose(hold: &HoldRecord) -> String {
    let what = ["restore", "proof"].into_iter().find(|what| hold.told.get(what).is_some()).unwrap_or("a reader");
    match &hold.holder {
        Some(holder) => format!("{what}: process {} on {}", holder.pid, holder.host),
        None => format!("{what}, nobody wrote down where"),
    }
}

fn standing(hold: &HoldRecord) -> &'static str {
    match hold.standing {
        Standing::Running => "yes",
        Standing::Gone => "no: the next prune releases it",
        Standing::Unknown => "can't be seen from here",
    }
}

/// The first digits of its id.
pub fn short(session: SessionId) -> String {
    session.to_string()[..DIGITS].to_owned()
}

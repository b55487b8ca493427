//! What a database whose data directory is damaged can be brought back from: the newest backup that was proven, by the guard's journal, with its age, what would be
//! lost, how long its restore took, and the commands. The journal is on this host: it can be asked while the repository is out of reach.

use std::{
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use journal::Reader;
use model::{EventKind, Reading, reading::ReceiveReading};
use services::health;

use crate::{config::Config, work};

/// How long an answer is given again: the journal is not asked at each look.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// A backup that was proven.
#[derive(Clone, Debug, PartialEq)]
struct Proven {
    id: String,
    consistent_at: Timestamp,
    recovery_time: Option<Duration>,
}

/// What is on offer.
#[derive(Debug)]
struct Offer {
    data_dir: PathBuf,
    has_repository: bool,
    proven: Option<Proven>,
    receive: Option<ReceiveReading>,
    /// The unit that runs the server, where systemd does.
    unit: Option<String>,
    is_run: bool,
}

/// What is offered, to people and to [`crate::mend`].
pub struct Offers {
    state_dir: PathBuf,
    has_repository: bool,
    data_dir: PathBuf,
    unit: Option<String>,
    /// Whether there is somebody who can stop and start the server.
    is_run: bool,
    said: Mutex<Option<(Instant, health::Offer, Option<Chosen>)>>,
}

/// A backup, and whether WAL leads on from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Its id.
    pub id: String,
    /// Whether it is restored to the newest moment that there is WAL for.
    pub latest: bool,
}

impl Offers {
    /// Of the guarded database.
    pub fn new(config: &Config, state_dir: &Path, data_dir: PathBuf) -> Self {
        Self {
            state_dir: state_dir.to_owned(),
            has_repository: config.repository.url.is_some(),
            data_dir,
            unit: config.postgres.unit.clone(),
            is_run: config.postgres.is_run(),
            said: Mutex::default(),
        }
    }

    /// What is on offer.
    pub fn offer(&self) -> health::Offer {
        let mut said = self.said.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((at, offer, _)) = said.as_ref()
            && at.elapsed() < KEPT_FOR
        {
            return offer.clone();
        }
        let (proven, receive) = known(&self.state_dir);
        let (data_dir, unit) = (self.data_dir.clone(), self.unit.clone());
        let known = Offer { data_dir, has_repository: self.has_repository, proven, receive, unit, is_run: self.is_run };
        let chosen = known.chosen();
        let remedy = chosen.as_ref().filter(|_| self.is_run).map(|Chosen { id, latest }| health::Remedy {
            from: if *latest {
                format!("the proven backup {id} and all WAL since")
            } else {
                format!("the proven backup {id}")
            },
            takes: known.proven.as_ref().and_then(|proven| proven.recovery_time),
        });
        let offer = health::Offer { words: known.in_words(Timestamp::now()), remedy };
        *said = Some((Instant::now(), offer.clone(), chosen));
        offer
    }

    /// The backup that was last offered: what an approval was given for.
    pub fn chosen(&self) -> Option<Chosen> {
        let said = self.said.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        said.as_ref().and_then(|(.., chosen)| chosen.clone())
    }
}

fn known(state_dir: &Path) -> (Option<Proven>, Option<ReceiveReading>) {
    let Ok(mut reader) = Reader::open(state_dir) else { return (None, None) };
    let proven = reader.latest_event("proof_finished").ok().flatten().and_then(|event| match event.kind {
        EventKind::ProofFinished { backup, consistent_at, recovery_time, .. } => {
            Some(Proven { id: backup, consistent_at, recovery_time })
        }
        _ => None,
    });
    let receive = match reader.latest_reading("receive").ok().flatten() {
        Some(Reading::Receive(reading)) => Some(reading),
        _ => None,
    };
    (proven, receive)
}

impl Offer {
    /// WAL that leads on from the backup: only where it does so without a gap.
    fn wal(&self) -> Option<&ReceiveReading> {
        self.receive.as_ref().filter(|receive| receive.durable.is_some() && receive.gap.is_none())
    }

    fn chosen(&self) -> Option<Chosen> {
        let proven = self.proven.as_ref().filter(|_| self.has_repository)?;
        Some(Chosen { id: proven.id.clone(), latest: self.wal().is_some() })
    }

    fn in_words(&self, now: Timestamp) -> String {
        let aside = format!("{}.damaged-{}", self.data_dir.display(), now.strftime("%Y%m%dT%H%M%SZ"));
        let (keep, start) = (
            format!("mv {} {}", quoted(&self.data_dir.display().to_string()), quoted(&aside)),
            self.unit
                .as_ref()
                .map_or_else(|| "start it".to_owned(), |unit| format!("systemctl start {}", quoted(unit))),
        );
        if !self.has_repository {
            return format!(
                "No [repository] is declared, so no backup of it is known here. Keep what is left ({keep}) before anything else is tried"
            );
        }
        let Some(proven) = &self.proven else {
            return format!(
                "No proven backup of it is known here; `oxpecker backup list` shows what the repository has. Keep what is left ({keep}) before anything else is tried"
            );
        };
        let age = Duration::try_from(now.duration_since(proven.consistent_at)).unwrap_or(Duration::ZERO);
        let took = proven.recovery_time.map_or_else(
            || "how long its restore takes was not measured".to_owned(),
            |took| format!("its restore was measured to take {}", work::duration(took)),
        );
        let (lost, latest) = match self.wal().and_then(|receive| Some((receive, receive.durable?))) {
            Some((receive, durable)) => {
                let behind = work::duration(receive.behind);
                let seen = receive.at.wall.strftime("%Y-%m-%d %H:%M:%S UTC");
                (
                    format!(
                        "WAL in the repository reached {durable} at {seen}, {behind} behind the server: what came after that would be lost"
                    ),
                    " --latest --action promote --no-fence",
                )
            }
            None => (
                format!(
                    "no WAL is known to lead on from it: all changes of the last {} would be lost, and it archives no WAL and runs no subscriptions until somebody \
                     lifts its fence (ALTER SYSTEM RESET archive_mode; ALTER SYSTEM RESET max_logical_replication_workers; a restart)",
                    work::duration(age)
                ),
                "",
            ),
        };
        let stop = self
            .unit
            .as_ref()
            .map_or_else(|| "stop it, if anything runs".to_owned(), |unit| format!("systemctl stop {}", quoted(unit)));
        let who = if self.is_run {
            "It replaces the database, so a person has to approve it; then the damaged directory is kept beside, and this is done. By hand it is"
        } else {
            "It replaces the database, and nobody is declared who runs it, so a person has to do it"
        };
        format!(
            "The newest proven backup is {} of {} ({} old; {took}); {lost}. {who}: {stop}; {keep}; oxpecker restore {}{latest} --pgdata {}; {start}",
            proven.id,
            proven.consistent_at.strftime("%Y-%m-%d %H:%M:%S UTC"),
            work::duration(age),
            proven.id,
            quoted(&self.data_dir.display().to_string()),
        )
    }
}

/// For a shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-@:+=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use model::{Lsn, Moment};

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn receive() -> ReceiveReading {
        ReceiveReading {
            at: Moment { wall: at("2026-03-01T02:05:00Z"), boot_us: 0 },
            repository: "file:///b".into(),
            max_behind: Duration::from_secs(60),
            receiving: true,
            timeline: Some(1),
            durable: Some(Lsn(0x300_0000)),
            server: None,
            behind: Duration::from_secs(2),
            canary: None,
            failures: 0,
            last_error: None,
            gap: None,
        }
    }

    #[test]
    fn what_is_offered_says_what_it_costs() {
        let now = at("2026-03-01T05:00:00Z");
        let proven = Proven {
            id: "a5".into(),
            consistent_at: at("2026-03-01T03:00:00Z"),
            recovery_time: Some(Duration::from_secs(90)),
        };
        let offer = Offer {
            data_dir: "/srv/pg data".into(),
            has_repository: true,
            proven: Some(proven),
            receive: Some(receive()),
            unit: Some("postgresql@15-main.service".into()),
            is_run: true,
        };
        let text = offer.in_words(now);
        for part in [
            "a5 of 2026-03-01 03:00:00 UTC (2 h 0 min old",
            "reached 0/3000000 at 2026-03-01 02:05:00 UTC",
            "systemctl stop postgresql@15-main.service; mv '/srv/pg data' '/srv/pg data.damaged-20260301T050000Z'; oxpecker restore a5 --latest --action promote --no-fence --pgdata '/srv/pg data'; systemctl start postgresql@15-main.service",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let without_wal = Offer { receive: None, unit: None, ..offer };
        let text = without_wal.in_words(now);
        assert!(text.contains("all changes of the last 2 h 0 min would be lost"), "{text}");
        assert!(text.contains("oxpecker restore a5 --pgdata") && text.contains("lifts its fence"), "{text}");
        let gap = model::reading::Gap { from: Lsn(1), to: Lsn(2) };
        let gapped = Offer { receive: Some(ReceiveReading { gap: Some(gap), ..receive() }), ..without_wal };
        assert!(!gapped.in_words(now).contains("--latest"));
        let unproven = Offer { proven: None, ..gapped };
        assert!(unproven.in_words(now).contains("No proven backup of it is known"));
        let nothing = Offer { has_repository: false, ..unproven };
        assert!(nothing.in_words(now).contains("No [repository] is declared"));
    }
}

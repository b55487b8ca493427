//! The backups on the screen: the last, the last *proven*, what a loss would cost now, how long getting up again takes.

use std::time::Duration;

use jiff::Timestamp;
use model::{
    Share,
    reading::{BackupReading, BackupSeen, Exposure},
};

use super::{Line, State};
use crate::work::moment;

/// Digits of an id that are shown, as `backup list` does.
const ID_CHARS: usize = 8;

/// The line; of several, in truth.
pub fn line(reading: Option<&BackupReading>, receiving: bool, now: Timestamp) -> Line {
    let name = "backup";
    let Some(reading) = reading else {
        let text = "none is configured: [repository] names no place".to_owned();
        return Line { name, state: State::Unknown, text };
    };
    let mut parts = vec![proven(reading), last(reading)];
    // Where WAL is received its own line says what would be lost.
    parts.extend(rpo(reading).filter(|_| !receiving));
    parts.push(format!("repository {}{}", reading.repository, exposed(&reading.exposures)));
    parts.extend(running(reading));
    if reading.failures > 0 {
        let error = reading.last_error.as_deref().unwrap_or("no reason given");
        let times =
            if reading.failures == 1 { "once".to_owned() } else { format!("{} times in a row", reading.failures) };
        parts.push(format!("FAILED {times}: {error}"));
    }
    parts.push(match reading.next_run {
        Some(at) if at <= now => "next run now".to_owned(),
        Some(at) => format!("next run {}", moment(at)),
        None => "next run: none, [backup] names no schedule".to_owned(),
    });
    Line { name, state: state(reading), text: parts.join("\n") }
}

fn state(reading: &BackupReading) -> State {
    let proven_age = reading.proven.as_ref().map_or(reading.known_for, |proven| proven.age);
    let too_old = reading.looked && reading.max_age.is_some_and(|max_age| proven_age > max_age);
    let damaged = reading.last.as_ref().is_some_and(|last| last.corrupt_pages > 0);
    let same_disk = reading.exposures.iter().any(|exposure| matches!(exposure, Exposure::SameDisk { .. }));
    if too_old || damaged || same_disk || reading.failures > 0 {
        State::NotWell
    } else if !reading.looked || reading.proven.is_none() {
        State::Unknown
    } else {
        State::Well
    }
}

fn proven(reading: &BackupReading) -> String {
    let limit = reading.max_age.map_or(String::new(), |max_age| format!(", may be {} old", age(max_age)));
    match &reading.proven {
        Some(proven) => {
            let rto = proven
                .recovery_time
                .map_or("RTO not measured".to_owned(), |time| format!("RTO measured {}", super::short(time)));
            let found = proven
                .found_age
                .map_or(String::new(), |found| format!("; with WAL up to {} before that proof", super::short(found)));
            format!("last proven {}{found}; {rto}{limit}", seen(proven))
        }
        None if reading.looked => format!("NONE WAS EVER PROVEN, since {} ago{limit}", age(reading.known_for)),
        None => "the repository was not looked at yet".to_owned(),
    }
}

fn last(reading: &BackupReading) -> String {
    match &reading.last {
        Some(last) if last.corrupt_pages > 0 => {
            format!("last {}; {} DAMAGED PAGES in the cluster", seen(last), last.corrupt_pages)
        }
        Some(last) if reading.proven.as_ref().is_some_and(|proven| proven.id == last.id) => "last: the same".to_owned(),
        Some(last) => format!("last {}, not proven", seen(last)),
        None if reading.looked => "last: none".to_owned(),
        None => "last: not known".to_owned(),
    }
}

/// Without an archive of WAL all since the newest backup is lost with the cluster.
fn rpo(reading: &BackupReading) -> Option<String> {
    let last = reading.last.as_ref().or(reading.proven.as_ref())?;
    let proven = reading.proven.as_ref().filter(|proven| proven.id != last.id);
    let counted = proven.map_or(String::new(), |proven| format!("; {} by what is proven", age(proven.age)));
    Some(format!("RPO now {} (no WAL is archived: all since the last backup){counted}", age(last.age)))
}

fn running(reading: &BackupReading) -> Option<String> {
    let running = reading.running.as_ref()?;
    let done = if running.total.0 > 0 {
        format!(", {} of {}", Share::of(running.done.0 as f64, running.total.0 as f64), running.total)
    } else {
        String::new()
    };
    let left = running.remaining.map_or(String::new(), |left| format!(", about {} to go", super::short(left)));
    let paused = if running.paused { "; steps back: the host is under pressure" } else { "" };
    Some(format!("running: {}{done}{left}{paused}", running.stage))
}

fn exposed(exposures: &[Exposure]) -> String {
    exposures
        .iter()
        .map(|exposure| match exposure {
            Exposure::NoRecoveryKey => ", recovery key NOT CONFIRMED",
            Exposure::SameDisk { .. } => ", ON THE DATABASE'S OWN DISK",
        })
        .collect()
}

fn seen(backup: &BackupSeen) -> String {
    let id: String = backup.id.chars().take(ID_CHARS).collect();
    format!("{id} of {} ({} ago), {}", moment(backup.consistent_at), age(backup.age), backup.size)
}

fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use model::{ByteSize, Moment, reading::BackupRunning};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn backup(id: &str, hours: u64) -> BackupSeen {
        BackupSeen {
            id: id.into(),
            consistent_at: at(1_800_000_000),
            age: Duration::from_secs(hours * 3600),
            size: ByteSize(5 << 30),
            corrupt_pages: 0,
            recovery_time: Some(Duration::from_secs(42)),
            found_age: None,
        }
    }

    fn fine() -> BackupReading {
        BackupReading {
            at: Moment { wall: at(1_800_030_000), boot_us: 0 },
            repository: "file:///srv/backup".into(),
            known_for: Duration::from_secs(900 * 3600),
            max_age: Some(Duration::from_secs(48 * 3600)),
            looked: true,
            last: Some(backup("aaaaaaaabbbb", 8)),
            proven: Some(backup("aaaaaaaabbbb", 8)),
            failures: 0,
            last_error: None,
            exposures: Vec::new(),
            running: None,
            next_run: Some(at(1_800_060_000)),
        }
    }

    #[test]
    fn each_state_has_its_words() {
        use State::{NotWell, Unknown, Well};
        let running = BackupRunning {
            stage: "copying".into(),
            done: ByteSize(1 << 30),
            total: ByteSize(4 << 30),
            remaining: Some(Duration::from_secs(60)),
            paused: true,
        };
        for (what, reading, state, says) in [
            ("well", fine(), Well, "RTO measured 42.0 s"),
            (
                "runs",
                BackupReading { running: Some(running), ..fine() },
                Well,
                "25 % of 4.0 GiB, about 60.0 s to go; steps back",
            ),
            ("too old", BackupReading { proven: Some(backup("c", 49)), ..fine() }, NotWell, "RPO now 8 h 0 min"),
            ("never", BackupReading { proven: None, ..fine() }, NotWell, "NONE WAS EVER PROVEN"),
            (
                "new",
                BackupReading { proven: None, last: None, known_for: Duration::ZERO, ..fine() },
                Unknown,
                "last: none",
            ),
            (
                "blind",
                BackupReading { looked: false, last: None, proven: None, ..fine() },
                Unknown,
                "not looked at yet",
            ),
            (
                "failed",
                BackupReading { failures: 2, last_error: Some("disk".into()), ..fine() },
                NotWell,
                "FAILED 2 times in a row: disk",
            ),
            ("key", BackupReading { exposures: vec![Exposure::NoRecoveryKey], ..fine() }, Well, "NOT CONFIRMED"),
            (
                "disk",
                BackupReading { exposures: vec![Exposure::SameDisk { path: "/srv".into() }], ..fine() },
                NotWell,
                "ON THE DATABASE'S OWN DISK",
            ),
            (
                "pages",
                BackupReading { last: Some(BackupSeen { corrupt_pages: 3, ..backup("c", 1) }), ..fine() },
                NotWell,
                "3 DAMAGED PAGES",
            ),
            ("by hand", BackupReading { next_run: None, ..fine() }, Well, "names no schedule"),
        ] {
            let line = line(Some(&reading), false, at(1_800_030_000));
            assert_eq!(line.state, state, "{what}");
            assert!(line.text.contains(says), "{what}: {}", line.text);
        }
        assert_eq!(line(None, false, at(0)).state, State::Unknown);
    }
}

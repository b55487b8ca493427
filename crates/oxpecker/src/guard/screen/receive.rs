//! The WAL that streams into the repository, on the screen: what would be lost now.

use model::reading::ReceiveReading;

use super::{Line, State, short};

/// The line; none where no WAL is received.
pub fn line(reading: Option<&ReceiveReading>) -> Option<Line> {
    let reading = reading?;
    let position = |lsn: Option<model::Lsn>| lsn.map_or_else(|| "?".to_owned(), |lsn| lsn.to_string());
    let how = if reading.receiving { "streams into the repository" } else { "DOES NOT STREAM" };
    let timeline = reading.timeline.map_or(String::new(), |timeline| format!(", timeline {timeline}"));
    let mut parts = vec![format!(
        "{how}; RPO now {}, may be {}; in the repository up to {}, the server is at {}{timeline}",
        short(reading.behind),
        short(reading.max_behind),
        position(reading.durable),
        position(reading.server)
    )];
    parts.extend(reading.canary.map(|took| format!("canary: a commit is there after {}", short(took))));
    parts.extend(reading.gap.map(|gap| {
        format!(
            "MISSING from {} to {}: no point in time is reached over it; `oxpecker backup create` helps",
            gap.from, gap.to
        )
    }));
    parts.extend(reading.last_error.iter().map(|error| format!("FAILED: {error}")));
    let bad = reading.behind > reading.max_behind || reading.gap.is_some() || reading.last_error.is_some();
    let state = match (bad, reading.receiving) {
        (true, _) => State::NotWell,
        (false, true) => State::Well,
        (false, false) => State::Unknown,
    };
    Some(Line { name: "WAL", state, text: parts.join("\n") })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use model::{Lsn, Moment, reading::Gap};

    use super::*;

    #[test]
    fn each_state_has_its_words() {
        use State::{NotWell, Unknown, Well};
        let fine = ReceiveReading {
            at: Moment { wall: jiff::Timestamp::UNIX_EPOCH, boot_us: 0 },
            repository: "file:///srv/backup".into(),
            max_behind: Duration::from_secs(60),
            receiving: true,
            timeline: Some(2),
            durable: Some(Lsn(16)),
            server: Some(Lsn(32)),
            behind: Duration::from_millis(700),
            canary: Some(Duration::from_millis(800)),
            failures: 0,
            last_error: None,
            gap: None,
        };
        let gap = Some(Gap { from: Lsn(1), to: Lsn(2) });
        for (reading, state, says) in [
            (
                fine.clone(),
                Well,
                "RPO now 700 ms, may be 60.0 s; in the repository up to 0/10, the server is at 0/20, timeline 2",
            ),
            (fine.clone(), Well, "a commit is there after 800 ms"),
            (ReceiveReading { behind: Duration::from_secs(61), ..fine.clone() }, NotWell, "RPO now 61.0 s"),
            (ReceiveReading { gap, ..fine.clone() }, NotWell, "MISSING from 0/1 to 0/2"),
            (ReceiveReading { last_error: Some("no".into()), ..fine.clone() }, NotWell, "FAILED: no"),
            (ReceiveReading { receiving: false, durable: None, ..fine }, Unknown, "DOES NOT STREAM"),
        ] {
            let line = line(Some(&reading)).unwrap();
            assert!(line.state == state && line.text.contains(says), "{:?}: {}", line.state, line.text);
        }
        assert!(line(None).is_none());
    }
}

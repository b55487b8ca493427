//! The newest death on the screen: a day later it is for the journal.

use model::event::{Death, Died};

use super::{Line, State};
use jiff::{SignedDuration, Timestamp};

/// So long it is shown.
const SHOWN_FOR: SignedDuration = SignedDuration::from_hours(24);

/// The line; none where nothing died lately.
pub fn line(death: Option<&Death>, now: Timestamp) -> Option<Line> {
    let death = death?;
    let at = death.before.or(death.after)?;
    let name = match death.of {
        Died::Host => "reboot",
        Died::Server => "restart",
    };
    let mut parts = vec![death.in_words()];
    parts.extend(death.notes.iter().cloned());
    (now.duration_since(at) < SHOWN_FOR).then(|| Line { name, state: State::Unknown, text: parts.join("\n") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_death_is_shown_for_a_day() {
        let at = |hours: i64| Timestamp::from_second(hours * 3_600).unwrap();
        let death = Death {
            of: Died::Host,
            after: Some(at(99)),
            before: Some(at(100)),
            established: None,
            hypotheses: vec![],
            notes: vec!["a note".into()],
        };
        let line_at = |hours| line(Some(&death), at(hours));
        let text = line_at(101).unwrap().text;
        assert!(text.starts_with("the host died between") && text.ends_with("a note"), "{text}");
        assert!(line_at(124).is_none());
        assert!(line(None, at(1)).is_none());
    }
}

//! What the shedding ladder did.

use model::{EventKind, event::SheddingStep};

use crate::words::{list, quote};

pub(super) fn line(kind: &EventKind) -> String {
    let EventKind::SheddingStepped { step, rung, act, why, passed, notes, .. } = kind else { return String::new() };
    let rung = quote(rung.as_deref().unwrap_or("a rung"));
    let act = act.as_ref().map_or(String::new(), |act| format!(", {}", quote(act)));
    let what = match step {
        SheddingStep::Taken => format!("The shedding ladder took the rung {rung}{act}"),
        SheddingStep::GivenBack => format!("The shedding ladder gives the rung {rung} back{act}"),
        SheddingStep::Proposed => format!("The shedding ladder would take the rung {rung}{act}"),
        SheddingStep::Withdrawn => format!("The shedding ladder would no longer take the rung {rung}"),
        SheddingStep::Held => "The shedding ladder holds".to_owned(),
        SheddingStep::Blocked => "The shedding ladder may not go on: a person is needed".to_owned(),
        SheddingStep::Exhausted => "The shedding ladder has no rung left: a person is needed".to_owned(),
    };
    let mut text = format!("{what}: {}", quote(why));
    if !passed.is_empty() {
        text.push_str(&format!("; passed: {}", list(passed.iter().map(|one| quote(one)))));
    }
    if !notes.is_empty() {
        text.push_str(&format!("; {}", list(notes.iter().map(|one| quote(one)))));
    }
    text
}

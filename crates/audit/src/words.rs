//! What others wrote, made fit to be shown.

/// Characters of a foreign text that a message shows.
const SHOWN_MAX: usize = 160;

/// A foreign text on one line, without control characters, cut to a length.
pub fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(SHOWN_MAX));
    for (index, character) in text.chars().enumerate() {
        if index == SHOWN_MAX {
            out.push('…');
            break;
        }
        if character.is_control() || is_disguise(character) {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

/// A path on one line; as [`shown`], with room for a long one.
pub fn shown_path(path: &str) -> String {
    path.chars()
        .flat_map(|c| if c.is_control() || is_disguise(c) { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect()
}

/// Text of several lines: as [`shown_path`], newlines stay.
pub fn lines(text: &str) -> String {
    text.split('\n').map(shown_path).collect::<Vec<_>>().join("\n")
}

/// A foreign name as one word of a shell, whatever is in it.
pub fn quoted(word: &str) -> String {
    let word = shown(word);
    if !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "._-/:@".contains(c)) {
        return word;
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// Marks that change how a line is read: directions, zero widths, line and paragraph separators.
fn is_disguise(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// `a, b and c`, at most so many, then a count.
pub fn list<T: AsRef<str>>(items: &[T], most: usize) -> String {
    let shown: Vec<&str> = items.iter().take(most).map(AsRef::as_ref).collect();
    match (shown.split_last(), items.len().saturating_sub(most)) {
        (None, _) => String::new(),
        (Some((last, [])), 0) => (*last).to_owned(),
        (Some((last, first)), 0) => format!("{} and {last}", first.join(", ")),
        (Some(_), rest) => format!("{} and {rest} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_stays_on_its_line() {
        assert_eq!(shown("a\nb\u{1b}[31m\u{202e}"), "a\\nb\\u{1b}[31m\\u{202e}");
        assert_eq!(shown(&"x".repeat(500)).chars().count(), SHOWN_MAX + 1);
    }

    #[test]
    fn a_name_can_not_leave_its_word() {
        assert_eq!(quoted("bot-env"), "bot-env");
        assert_eq!(quoted("x; rm -rf /"), "'x; rm -rf /'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
    }

    #[test]
    fn lists() {
        assert_eq!(list(&["a"], 3), "a");
        assert_eq!(list(&["a", "b", "c"], 3), "a, b and c");
        assert_eq!(list(&["a", "b", "c", "d"], 2), "a, b and 2 more");
    }
}

//! Text that others wrote, for a screen.

/// The longest text that is shown, in characters: whoever names a table may be no friend.
const CHARS_MAX: usize = 2_000;

/// `text` without what draws on a screen instead of standing on it: ANSI sequences, control characters but the line break, and the
/// characters that turn the direction of writing (Unicode Technical Report 36). HTML is escaped by the templates, not here.
pub fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(CHARS_MAX));
    let mut chars = text.chars().peekable();
    let mut taken = 0;
    while let Some(c) = chars.next() {
        if taken == CHARS_MAX {
            out.push('…');
            break;
        }
        match c {
            // A control sequence of ECMA-48: parameters and intermediates, then one final byte.
            '\u{1b}' => {
                if chars.next_if_eq(&'[').is_some() {
                    while chars.next_if(|c| ('\u{20}'..='\u{3f}').contains(c)).is_some() {}
                    let _ = chars.next_if(|c| ('\u{40}'..='\u{7e}').contains(c));
                }
            }
            '\n' => out.push('\n'),
            '\t' => out.push(' '),
            c if c.is_control() || turns(c) => out.push(char::REPLACEMENT_CHARACTER),
            c => out.push(c),
        }
        taken += 1;
    }
    out
}

/// Whether a character changes the direction of those after it, or can't be seen at all.
fn turns(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_draws_on_the_screen() {
        for (text, shown) in [
            ("public.big", "public.big"),
            ("\u{1b}[1;31mred\u{1b}[0m", "red"),
            ("\u{1b}]0;title\u{7}", "]0;title\u{fffd}"),
            ("a\u{1b}[", "a"),
            ("a\nb\tc\rd\0", "a\nb c\u{fffd}d\u{fffd}"),
            ("evil\u{202e}gpj.exe", "evil\u{fffd}gpj.exe"),
            ("größe ✓", "größe ✓"),
        ] {
            assert_eq!(plain(text), shown, "{text:?}");
        }
        assert_eq!(plain(&"x".repeat(CHARS_MAX + 5)).chars().count(), CHARS_MAX + 1);
    }
}

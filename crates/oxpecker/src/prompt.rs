//! Questions to the person at the terminal.
//!
//! While one is asked, the keys that would send a signal end the line instead: a process that a signal kills at the prompt would leave
//! behind a terminal that shows nothing of what is typed.

use std::io::{self, IsTerminal as _, Write as _};

use rustix::{
    io::Errno,
    termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr},
};
use zeroize::Zeroizing;

use crate::{exit::Failure, output};

/// The longest line that Linux's terminals give in one piece, in bytes (termios(3): 4096 with the newline).
const LINE_BYTES_MAX: usize = 4096;

/// Whether what is typed is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echo {
    /// It is.
    On,
    /// It is a secret.
    Off,
}

/// How a line of a terminal ended.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Typed(Zeroizing<String>),
    /// By Ctrl-C or Ctrl-\, wherever the person has put them.
    BrokenOff,
    /// By Ctrl-D before anything was typed.
    Ended,
    /// There is a character in it that no one types on purpose.
    Strange,
}

/// One line from the person at the terminal; `None` where there is no terminal.
///
/// # Errors
/// Where the person breaks off, or types what is no text.
pub fn ask(prompt: &str, echo: Echo) -> Result<Option<Zeroizing<String>>, Failure> {
    if !is_possible() {
        return Ok(None);
    }
    let line = {
        let asking = Asking::begin(echo)?;
        // Only now: what is typed in answer to the prompt must be neither shown nor thrown away.
        anstream::stderr().write_all(prompt.as_bytes())?;
        asking.line()
    };
    // The newline that was typed is shown where the rest is.
    if echo == Echo::Off || !matches!(line, Ok(Line::Typed(_))) {
        output::note("");
    }
    let refused = |why: &'static str| Err(Failure::refused(anyhow::anyhow!("{why}: nothing more was done")));
    match line? {
        Line::Typed(text) => Ok(Some(text)),
        Line::BrokenOff => refused("broken off at the prompt"),
        Line::Ended => refused("the input ended at the prompt"),
        Line::Strange => {
            Err(Failure::usage(anyhow::anyhow!("what was typed holds a control character, or is no UTF-8"))
                .hint("nothing was changed; try again, and see that the terminal uses UTF-8"))
        }
    }
}

/// Whether the person at the terminal agrees; `None` where there is no terminal.
///
/// # Errors
/// As [`ask`].
pub fn consent(question: &str) -> Result<Option<bool>, Failure> {
    let answer = ask(&format!("{question} [y/N] "), Echo::On)?;
    Ok(answer.map(|answer| matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")))
}

/// Whether somebody can be asked: what is typed is read from stdin, and the prompt shows on stderr.
fn is_possible() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// A terminal while a question is asked, as it was before once this goes.
struct Asking {
    before: Termios,
    ends: [u8; 2],
}

impl Asking {
    fn begin(echo: Echo) -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut asking = before.clone();
        let signals = [SpecialCodeIndex::VINTR, SpecialCodeIndex::VQUIT];
        let ends = signals.map(|code| before.special_codes[code]);
        asking.local_modes.remove(LocalModes::ISIG);
        asking.local_modes.insert(LocalModes::ICANON | LocalModes::IEXTEN);
        for (code, end) in [SpecialCodeIndex::VEOL, SpecialCodeIndex::VEOL2].into_iter().zip(ends) {
            asking.special_codes[code] = end;
        }
        if echo == Echo::Off {
            asking.local_modes.remove(LocalModes::ECHO | LocalModes::ECHONL);
        }
        // What was typed before the question was asked is no answer to it.
        tcsetattr(io::stdin(), OptionalActions::Flush, &asking)?;
        Ok(Self { before, ends })
    }

    /// One line. Not by way of the standard library's buffer: it waits for a newline, whatever else ends a line.
    fn line(&self) -> io::Result<Line> {
        let mut bytes = Zeroizing::new([0; LINE_BYTES_MAX]);
        let read = loop {
            match rustix::io::read(io::stdin(), &mut bytes[..]) {
                // A stop and a going on, for instance.
                Err(Errno::INTR) => {}
                other => break other?,
            }
        };
        Ok(line(&bytes[..read], self.ends))
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that has gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// What a terminal gave, where `ends` end a line in a signal's place; 0 stands for a key that is not there.
fn line(bytes: &[u8], ends: [u8; 2]) -> Line {
    match bytes.last() {
        None => return Line::Ended,
        Some(last) if *last != 0 && ends.contains(last) => return Line::BrokenOff,
        Some(_) => {}
    }
    let typed = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    match std::str::from_utf8(typed) {
        Ok(text) if !text.contains(|c: char| c.is_control() && c != '\t') => {
            Line::Typed(Zeroizing::new(text.to_owned()))
        }
        _ => Line::Strange,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_in_their_ways() {
        let typed = |text: &str| Line::Typed(Zeroizing::new(text.to_owned()));
        for (bytes, expected) in [
            (&b"correct horse\n"[..], typed("correct horse")),
            (b"\n", typed("")),
            ("Stra\u{df}e\n".as_bytes(), typed("Stra\u{df}e")),
            // Ctrl-D behind something: what was typed so far.
            (b"no newline", typed("no newline")),
            (b"", Line::Ended),
            (b"half\x03", Line::BrokenOff),
            (b"\x1c", Line::BrokenOff),
            (b"Ctrl-Z\x1a\n", Line::Strange),
            (b"\xff\xfe\n", Line::Strange),
        ] {
            assert_eq!(line(bytes, [3, 0x1c]), expected, "{bytes:?}");
        }
        // A terminal without such keys.
        assert_eq!(line(b"\0", [0, 0]), Line::Strange);
    }
}

//! Lines of configuration files, as far as a backup or restore has to understand them: `postgresql.auto.conf` above all.
//!
//! Source: PostgreSQL's guc-file.l. Files are bytes: a value may be in any encoding.

/// What a line of a configuration file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Empty, or a comment only.
    Blank,
    /// A setting, or an include.
    Setting(Setting),
    /// Something that the server would refuse.
    Unreadable,
}

/// A setting as a file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// In lower case, as the server compares names.
    pub name: String,
    /// Without its quotes.
    pub value: Vec<u8>,
}

/// A file without some of its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scrubbed {
    /// What is left, byte for byte.
    pub bytes: Vec<u8>,
    /// What was removed, in order.
    pub removed: Vec<Setting>,
}

/// Takes the settings out of a file for which `remove` says so. All other lines stay as they are.
#[must_use]
pub fn scrub(bytes: &[u8], mut remove: impl FnMut(&Setting) -> bool) -> Scrubbed {
    let mut scrubbed = Scrubbed { bytes: Vec::with_capacity(bytes.len()), removed: Vec::new() };
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        match parse_line(line) {
            Line::Setting(setting) if remove(&setting) => scrubbed.removed.push(setting),
            _ => scrubbed.bytes.extend_from_slice(line),
        }
    }
    scrubbed
}

/// The settings of a file in order; the last of a name counts.
pub fn settings(bytes: &[u8]) -> impl Iterator<Item = Setting> + '_ {
    bytes.split(|byte| *byte == b'\n').filter_map(|line| match parse_line(line) {
        Line::Setting(setting) => Some(setting),
        Line::Blank | Line::Unreadable => None,
    })
}

/// Reads a line, with or without its newline.
#[must_use]
pub fn parse_line(line: &[u8]) -> Line {
    let rest = line.trim_ascii();
    if rest.is_empty() || rest[0] == b'#' {
        return Line::Blank;
    }
    let end = rest.iter().position(|byte| !is_name_byte(*byte)).unwrap_or(rest.len());
    let (name, rest) = rest.split_at(end);
    // What begins with a digit is no name.
    let name = match std::str::from_utf8(name) {
        Ok(name) if !name.is_empty() && !name.as_bytes()[0].is_ascii_digit() => name.to_ascii_lowercase(),
        _ => return Line::Unreadable,
    };
    let rest = rest.trim_ascii_start();
    let rest = rest.strip_prefix(b"=").unwrap_or(rest).trim_ascii_start();
    let Some((value, rest)) = take_value(rest) else { return Line::Unreadable };
    let rest = rest.trim_ascii_start();
    if rest.is_empty() || rest[0] == b'#' { Line::Setting(Setting { name, value }) } else { Line::Unreadable }
}

/// A value for a configuration file, quoted.
#[must_use]
pub fn quote(value: &[u8]) -> Vec<u8> {
    let mut quoted = vec![b'\''];
    for &byte in value {
        match byte {
            b'\'' => quoted.extend(b"''"),
            b'\\' => quoted.extend(b"\\\\"),
            b'\n' => quoted.extend(b"\\n"),
            byte => quoted.push(byte),
        }
    }
    quoted.push(b'\'');
    quoted
}

const fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.' || byte == b'$' || byte >= 0x80
}

/// A quoted or bare value at the start of `text`, and what follows it.
fn take_value(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let Some(quoted) = text.strip_prefix(b"'") else {
        let end = text.iter().position(|byte| byte.is_ascii_whitespace() || *byte == b'#').unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return (!value.is_empty() && !value.contains(&b'\'')).then(|| (value.to_vec(), rest));
    };
    let (mut value, mut rest) = (Vec::new(), quoted);
    loop {
        match rest {
            [b'\'', b'\'', more @ ..] => {
                value.push(b'\'');
                rest = more;
            }
            [b'\'', more @ ..] => return Some((value, more)),
            [b'\\', more @ ..] => rest = take_escape(more, &mut value)?,
            [byte, more @ ..] => {
                value.push(*byte);
                rest = more;
            }
            [] => return None,
        }
    }
}

/// What follows a backslash: a letter for a control character, up to three octal digits, or the character itself.
fn take_escape<'a>(text: &'a [u8], value: &mut Vec<u8>) -> Option<&'a [u8]> {
    let (first, rest) = text.split_first()?;
    let plain = match first {
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'0'..=b'7' => {
            let count = text.iter().take(3).take_while(|byte| matches!(byte, b'0'..=b'7')).count();
            let (digits, rest) = text.split_at(count);
            let code = digits.iter().fold(0u32, |code, digit| code * 8 + u32::from(digit - b'0'));
            // Three digits may say more than a byte holds; the server cuts it off.
            value.push(code.to_le_bytes()[0]);
            return Some(rest);
        }
        other => *other,
    };
    value.push(plain);
    Some(rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn setting(name: &str, value: &str) -> Line {
        Line::Setting(Setting { name: name.to_owned(), value: value.as_bytes().to_vec() })
    }

    #[test]
    fn lines() {
        for (line, expected) in [
            ("", Line::Blank),
            ("  # work_mem = 1", Line::Blank),
            ("work_mem = '4MB'\n", setting("work_mem", "4MB")),
            ("Work_Mem 4MB # more", setting("work_mem", "4MB")),
            ("a.b='it''s \\'x\\\\ \\101\\n'", setting("a.b", "it's 'x\\ A\n")),
            ("include_if_exists '/run/x.conf'", setting("include_if_exists", "/run/x.conf")),
            ("work_mem = '4MB", Line::Unreadable),
            ("work_mem =", Line::Unreadable),
            ("work_mem = 1 2", Line::Unreadable),
            ("1a = 1", Line::Unreadable),
            ("= 1", Line::Unreadable),
        ] {
            assert_eq!(parse_line(line.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn scrubbing_leaves_the_rest_alone() {
        let text = b"# Do not edit this file manually!\nAutovacuum_Vacuum_Cost_Limit = '1'\nwork_mem = '4MB'\nautovacuum_vacuum_cost_limit = '200'";
        let scrubbed = scrub(text, |setting| setting.name == "autovacuum_vacuum_cost_limit");
        assert_eq!(scrubbed.bytes, b"# Do not edit this file manually!\nwork_mem = '4MB'\n");
        assert_eq!(scrubbed.removed.iter().map(|one| one.value.as_slice()).collect::<Vec<_>>(), [&b"1"[..], b"200"]);
        assert_eq!(scrub(text, |_| false).bytes, text);
        assert_eq!(settings(text).map(|one| one.name).nth(1).as_deref(), Some("work_mem"));
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse_line(&bytes);
            prop_assert_eq!(scrub(&bytes, |_| false).bytes, bytes);
        }

        #[test]
        fn what_is_quoted_is_read_back(value in proptest::collection::vec(1u8.., 0..40)) {
            let mut line = b"a = ".to_vec();
            line.extend(quote(&value));
            prop_assert_eq!(parse_line(&line), Line::Setting(Setting { name: "a".to_owned(), value }));
        }
    }
}

//! Files of variables (`.env`, `EnvironmentFile=`) and the variables in compose files.

use std::collections::BTreeMap;

/// Variables of one file.
const VARIABLES_MAX: usize = 10_000;
/// Defaults within defaults: `${A:-${B:-c}}`.
const NESTED_MAX: usize = 4;
/// Bytes of one value after its variables are filled in.
const VALUE_BYTES_MAX: usize = 64 << 10;

/// The lines `NAME=value` of a text with their numbers, counted from one. Comments, `export` and quotes around a value are understood.
pub fn lines(text: &str) -> Vec<(String, String, usize)> {
    let pairs = text.lines().zip(1..).filter_map(|(line, number)| {
        let line = line.trim().strip_prefix("export ").unwrap_or(line.trim());
        let (name, value) = line.split_once('=')?;
        let name = name.trim();
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.' || c == '-';
        if name.is_empty() || !name.chars().all(fits) {
            return None;
        }
        Some((name.to_owned(), unquoted(value.trim()), number))
    });
    pairs.take(VARIABLES_MAX).collect()
}

fn unquoted(value: &str) -> String {
    for quote in ['"', '\''] {
        if let Some((inner, _)) = value.strip_prefix(quote).and_then(|rest| rest.rsplit_once(quote)) {
            return inner.to_owned();
        }
    }
    // A comment needs a blank before it.
    value.split(" #").next().unwrap_or_default().trim_end().to_owned()
}

/// Fills variables in as compose does: `$A`, `${A}`, `${A:-default}`, `${A-default}`, `${A:+other}`, `${A:?message}`; `$$` is a dollar. One that is not known and has no default
/// stays as it is, so that nothing is taken for an address that isn't one.
pub fn filled_in(text: &str, known: &BTreeMap<String, String>) -> String {
    fill(text, known, 0)
}

fn fill(text: &str, known: &BTreeMap<String, String>, depth: usize) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if out.len() > VALUE_BYTES_MAX || depth > NESTED_MAX {
            return out;
        }
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(braced) = after.strip_prefix('{')
            && let Some(end) = closing(braced)
        {
            match of_braces(&braced[..end], known, depth) {
                Some(value) => out.push_str(&value),
                None => out.push_str(&format!("${{{}}}", unknown(&braced[..end]))),
            }
            rest = &braced[end + 1..];
        } else {
            let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
            match known.get(&after[..end]) {
                Some(value) if end > 0 => out.push_str(value),
                _ => {
                    out.push('$');
                    out.push_str(&after[..end]);
                }
            }
            rest = &after[end..];
        }
    }
    out.push_str(rest);
    out
}

/// Where the brace that was opened before is closed.
fn closing(text: &str) -> Option<usize> {
    let mut open = 1_usize;
    for (at, c) in text.char_indices() {
        match c {
            '{' => open += 1,
            '}' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Some(at);
        }
    }
    None
}

/// What stays of one that is not known: `${A:?say it}` has words for people, that would be taken for parts of an address.
fn unknown(inner: &str) -> &str {
    match inner.split_once('?') {
        Some((name, _)) if !name.is_empty() => name.strip_suffix(':').unwrap_or(name),
        _ => inner,
    }
}

fn of_braces(inner: &str, known: &BTreeMap<String, String>, depth: usize) -> Option<String> {
    let end = inner.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(inner.len());
    let (name, rest) = inner.split_at(end);
    let value = known.get(name);
    let set = value.filter(|value| !value.is_empty());
    let filled = |text: &str| fill(text, known, depth + 1);
    if let Some(default) = rest.strip_prefix(":-") {
        Some(set.cloned().unwrap_or_else(|| filled(default)))
    } else if let Some(default) = rest.strip_prefix('-') {
        Some(value.cloned().unwrap_or_else(|| filled(default)))
    } else if let Some(other) = rest.strip_prefix(":+").or_else(|| rest.strip_prefix('+')) {
        Some(if set.is_some() { filled(other) } else { String::new() })
    } else if rest.starts_with(":?") {
        set.cloned()
    } else {
        value.cloned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn files_of_variables() {
        let text = "# no\nexport A=1\nB = \"x y\" # tail\nC='q#r'\nD=v # tail\nno line\n=x\nE=\n";
        let read: Vec<String> =
            lines(text).into_iter().map(|(name, value, line)| format!("{line} {name}={value}")).collect();
        assert_eq!(read, ["2 A=1", "3 B=x y", "4 C=q#r", "5 D=v", "8 E="]);
    }

    #[test]
    fn variables_are_filled_in() {
        let known = BTreeMap::from([("A".to_owned(), "a".to_owned()), ("E".to_owned(), String::new())]);
        for (text, expected) in [
            ("$A-${A}", "a-a"),
            ("${B:-x}/${B-y}/${E:-z}/${E-w}", "x/y/z/"),
            ("${B:-${A:-q}}", "a"),
            ("${B:+x}${A:+x}", "x"),
            ("postgres://${USER}@db", "postgres://${USER}@db"),
            ("$$A $ ${", "$A $ ${"),
            ("$B", "$B"),
            ("postgres://u:${B:?say (it) in .env}@db", "postgres://u:${B}@db"),
            ("${B?}${B:?}${E:?no}${E?no}${A:?no}", "${B}${B}${E}a"),
            ("${?}", "${?}"),
        ] {
            assert_eq!(filled_in(text, &known), expected, "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_text_panics(text in "([${}A:+-]|\\PC){0,60}") {
            let known = BTreeMap::from([("A".to_owned(), "${A}".to_owned())]);
            let _ = filled_in(&text, &known);
            let _ = lines(&text);
        }
    }
}

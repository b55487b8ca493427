//! Files of environment variables: `NAME=VALUE`, one a line. Pure.

use std::path::PathBuf;

/// Where programs are looked for, unless the environment says otherwise.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The longest file of variables, in bytes.
pub(super) const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The variables of a file in their order. Empty lines and those that begin with `#` or `;` are passed over, `export ` before a name too, and quotes around
/// a value. Nothing is expanded.
///
/// # Errors
/// What is wrong in which line. No value is shown.
pub(super) fn parse(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut variables = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let (name, value) = line.split_once('=').ok_or_else(|| format!("line {number} has no '='"))?;
        check(name.trim_end()).map_err(|why| format!("line {number}: {why}"))?;
        let value = value.trim();
        let unquoted = ['"', '\''].into_iter().find_map(|quote| {
            (value.len() >= 2).then_some(())?;
            value.strip_prefix(quote)?.strip_suffix(quote)
        });
        let value = unquoted.unwrap_or(value);
        if value.contains('\0') {
            return Err(format!("line {number} holds a NUL"));
        }
        variables.push((name.trim_end().to_owned(), value.to_owned()));
    }
    Ok(variables)
}

/// Whether this can be a variable's name.
pub(super) fn check(name: &str) -> Result<(), String> {
    let good = !name.is_empty() && !name.contains(['=', '\0']) && !name.chars().any(char::is_whitespace);
    if good { Ok(()) } else { Err("that is no name of a variable".to_owned()) }
}

/// A file's path, and whether it may be missing: systemd's leading `-`.
pub(super) fn optional(path: &str) -> (PathBuf, bool) {
    match path.strip_prefix('-') {
        Some(path) => (path.into(), true),
        None => (path.into(), false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files() {
        let text = "# a comment\n\nA=1\n export B = \"two words\" \n; also\nC='x=y'\nD=\nE=\"\nF=$A\nA=2\n";
        let expected = [("A", "1"), ("B", "two words"), ("C", "x=y"), ("D", ""), ("E", "\""), ("F", "$A"), ("A", "2")];
        assert_eq!(parse(text).unwrap(), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        for (text, why) in
            [("A=1\ns3cr3t", "line 2"), ("=s3cr3t", "line 1"), ("A B=s3cr3t", "line 1"), ("A=s3cr3t\0", "NUL")]
        {
            let error = parse(text).unwrap_err();
            assert!(error.contains(why) && !error.contains("s3cr3t"), "{error}");
        }
        assert_eq!(optional("-/a"), ("/a".into(), true));
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_it_panic(text in ".{0,200}") {
            let _ = parse(&text);
        }
    }
}

//! Names of objects.

use std::{fmt, str::FromStr};

/// Longest name, in bytes. S3 allows 1024 with the prefix.
const MAX_NAME_BYTES: usize = 512;

/// Longest part of a name between slashes, in bytes. File systems allow 255.
const MAX_PART_BYTES: usize = 200;

/// Most parts of a name: also the depth to which a directory is walked.
pub(super) const MAX_PARTS: usize = 8;

/// A text can't name an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not an object's name: {why}\n  hint: names are parts of a-z, 0-9, '.', '_' and '-' joined by '/', none beginning with a dot"
)]
pub struct BadName {
    text: String,
    why: &'static str,
}

/// The name of an object: parts of `a-z 0-9 . _ -`, joined by `/`.
///
/// Lower case only, so that file systems which ignore case keep two names apart. No part begins with a dot: `.` and `..` can't occur,
/// and temporary files, whose names do, can never be taken for objects.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(String);

impl ObjectName {
    /// Checks `text` and makes it a name.
    ///
    /// # Errors
    /// Says which rule is broken.
    pub fn new(text: impl Into<String>) -> Result<Self, BadName> {
        let text = text.into();
        match fault(&text) {
            None => Ok(Self(text)),
            Some(why) => Err(BadName { text: text.chars().take(80).collect(), why }),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What comes before the last slash (empty where there is none), and what comes after it.
    pub fn split(&self) -> (&str, &str) {
        self.0.rsplit_once('/').unwrap_or(("", &self.0))
    }
}

fn fault(text: &str) -> Option<&'static str> {
    if text.is_empty() {
        return Some("it is empty");
    }
    if text.len() > MAX_NAME_BYTES {
        return Some("it is longer than 512 bytes");
    }
    if text.split('/').count() > MAX_PARTS {
        return Some("it has more than 8 parts");
    }
    text.split('/').find_map(|part| {
        if part.is_empty() {
            Some("a part is empty")
        } else if part.len() > MAX_PART_BYTES {
            Some("a part is longer than 200 bytes")
        } else if part.starts_with('.') {
            Some("a part begins with a dot")
        } else if part.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-')) {
            None
        } else {
            Some("it has a character that is not allowed")
        }
    })
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ObjectName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_none() {
        for good in ["log/000000000001", "a", "packs/0a/b.c_d-e", "a..b"] {
            assert_eq!(ObjectName::new(good).unwrap().as_str(), good);
        }
        let long = "a".repeat(201);
        let deep = "a/".repeat(8) + "a";
        let longest = format!("{}/{}/{}", "a".repeat(200), "b".repeat(200), "c".repeat(200));
        for bad in [
            "", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", ".tmp-1", "a/.b", "A", "ä", "a b", "a\0", "a\\b",
            &long, &deep, &longest,
        ] {
            assert!(ObjectName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_split_at_the_last_slash() {
        assert_eq!(ObjectName::new("a/b/c").unwrap().split(), ("a/b", "c"));
        assert_eq!(ObjectName::new("c").unwrap().split(), ("", "c"));
    }
}

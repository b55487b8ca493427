//! Which version of the API is spoken.

use std::{fmt, str::FromStr};

use super::{answer, error::EngineError};

/// The oldest that we speak: Docker 1.13, of 2017. Older ones don't refuse a bind mount whose source is missing.
pub const VERSION_MIN: ApiVersion = ApiVersion { major: 1, minor: 25 };
/// The newest that this was written for. Newer engines speak it too, until they give it up.
pub const VERSION_MAX: ApiVersion = ApiVersion { major: 1, minor: 52 };

/// A version of the engine's API, such as 1.41.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion {
    major: u32,
    minor: u32,
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for ApiVersion {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (major, minor) = text.split_once('.').ok_or(())?;
        let number = |digits: &str| match digits.as_bytes() {
            [b'0'..=b'9', ..] => digits.parse::<u32>().map_err(drop),
            _ => Err(()),
        };
        Ok(Self { major: number(major)?, minor: number(minor)? })
    }
}

/// What was agreed on with an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Agreed {
    pub(super) version: ApiVersion,
    /// It is Podman's service.
    pub(super) is_podman: bool,
}

/// The highest version that both know.
pub(super) fn agree(engine: &answer::Version) -> Result<Agreed, EngineError> {
    let unreadable = |what: &str| EngineError::Unreadable {
        what: "the engine's version".to_owned(),
        why: format!("{what} is no version of an API"),
    };
    let newest: ApiVersion = engine.api_version.parse().map_err(|()| unreadable("ApiVersion"))?;
    let oldest = match engine.min_api_version.as_deref() {
        // Engines that don't say so are of a time when all spoke all older ones.
        None | Some("") => VERSION_MIN.min(newest),
        Some(text) => text.parse().map_err(|()| unreadable("MinAPIVersion"))?,
    };
    let software = super::error::plain(engine.version.as_deref().unwrap_or("of an unknown version"));
    if newest < VERSION_MIN {
        return Err(EngineError::TooOld { software, newest });
    }
    if oldest > VERSION_MAX {
        return Err(EngineError::TooNew { software, oldest });
    }
    let components = engine.components.iter().flatten();
    let is_podman = components.filter_map(|one| one.name.as_deref()).any(|name| name.starts_with("Podman"));
    Ok(Agreed { version: newest.min(VERSION_MAX), is_podman })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine(newest: &str, oldest: Option<&str>) -> answer::Version {
        let json = serde_json::json!({"Version": "20.10.24", "ApiVersion": newest, "MinAPIVersion": oldest});
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn the_highest_that_both_know() {
        for (newest, oldest, expected) in [
            ("1.41", Some("1.12"), "1.41"),
            ("1.25", None, "1.25"),
            ("1.99", Some("1.44"), "1.52"),
            ("2.0", Some("1.52"), "1.52"),
        ] {
            assert_eq!(agree(&engine(newest, oldest)).unwrap().version.to_string(), expected);
        }
        for (newest, oldest, word) in [
            ("1.24", Some("1.12"), "too old"),
            ("1.9", None, "too old"),
            ("2.4", Some("2.0"), "too new"),
            ("1.60", Some("1.53"), "too new"),
            ("", None, "no version"),
            ("1.", None, "no version"),
            ("1.-4", None, "no version"),
            ("1.41.2", None, "no version"),
            ("1.99999999999", None, "no version"),
            ("1.41", Some("x"), "no version"),
        ] {
            let error = agree(&engine(newest, oldest)).unwrap_err().to_string();
            assert!(error.contains(word), "{newest} {oldest:?}: {error}");
        }
    }

    #[test]
    fn podman_says_so_among_its_parts() {
        let json = serde_json::json!({
            "Version": "4.3.1", "ApiVersion": "1.41", "MinAPIVersion": "1.24",
            "Components": [{"Name": "Podman Engine", "Version": "4.3.1"}, {"Name": "Conmon"}]
        });
        assert!(agree(&serde_json::from_value(json).unwrap()).unwrap().is_podman);
        assert!(!agree(&engine("1.41", None)).unwrap().is_podman);
    }
}

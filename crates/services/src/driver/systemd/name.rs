//! Names of units: checked before any is sent, and as the paths of their objects.

use std::{fmt, path::Path, str::FromStr};

/// The longest name of a unit, in bytes (systemd's `UNIT_NAME_MAX`).
const BYTES_MAX: usize = 255;
/// Kinds of units that can be started and stopped.
const KINDS: &[&str] = &["service", "socket", "target", "mount", "automount", "swap", "path", "timer", "slice"];
/// Below it, systemd has an object for each unit.
pub(super) const UNITS: &str = "/org/freedesktop/systemd1/unit";

/// The name of a unit that can be started: `site.service`, `worker@3.service`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UnitName(String);

/// What is no name of such a unit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitNameError {
    /// No name of a unit.
    #[error(
        "'{shown}' is no name of a unit: {why}; hint: a name as `systemctl list-units` shows them, such as site.service"
    )]
    Name {
        /// What was given, made harmless.
        shown: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A file that can't define it.
    #[error("'{shown}' can't be the file of {unit}: {why}; hint: an absolute path that ends in the unit's name")]
    File {
        /// What was given, made harmless.
        shown: String,
        /// The unit.
        unit: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

fn shown(text: &str) -> String {
    text.chars().take(60).collect::<String>().escape_default().to_string()
}

impl UnitName {
    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `worker@.service` for `worker@3.service`.
    pub fn template(&self) -> Option<String> {
        let (prefix, rest) = self.0.split_once('@')?;
        let (_, kind) = rest.rsplit_once('.')?;
        Some(format!("{prefix}@.{kind}"))
    }

    /// The path of its object on the bus.
    pub(super) fn object(&self) -> String {
        let mut path = String::with_capacity(UNITS.len() + 1 + self.0.len());
        path.push_str(UNITS);
        path.push('/');
        for (at, byte) in self.0.bytes().enumerate() {
            // sd_bus_path_encode(3).
            if byte.is_ascii_alphabetic() || (byte.is_ascii_digit() && at > 0) {
                path.push(char::from(byte));
            } else {
                path.push_str(&format!("_{byte:02x}"));
            }
        }
        path
    }

    /// Checks that a file can define it: systemd goes by the file's name.
    pub(super) fn check_file(&self, path: &Path) -> Result<(), UnitNameError> {
        let wrong = |why| {
            let shown = shown(&path.to_string_lossy());
            Err(UnitNameError::File { shown, unit: self.0.clone(), why })
        };
        let Some(text) = path.to_str() else { return wrong("it is not UTF-8") };
        if !path.is_absolute() {
            return wrong("it is not absolute");
        }
        if text.chars().any(char::is_control) || path.components().any(|part| part.as_os_str() == "..") {
            return wrong("it has control characters, or .. in it");
        }
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name != self.0 && Some(name) != self.template().as_deref() {
            return wrong("its name is another one");
        }
        Ok(())
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for UnitName {
    type Err = UnitNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |why| Err(UnitNameError::Name { shown: shown(text), why });
        if text.len() > BYTES_MAX {
            return wrong("it has more than 255 bytes");
        }
        let Some((prefix, kind)) = text.rsplit_once('.') else { return wrong("it says no kind, such as .service") };
        if !KINDS.contains(&kind) {
            return wrong("units of that kind can't be started");
        }
        // systemd.unit(5), "Unit file names".
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
        if prefix.is_empty() || !prefix.bytes().all(fits) {
            return wrong("a name has letters, digits and : - _ . \\ @ only");
        }
        if prefix.starts_with('@') {
            return wrong("nothing stands before its @");
        }
        if prefix.ends_with('@') {
            return wrong("it is a template; an instance has something between @ and the kind");
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for text in ["site.service", "worker@3.service", "dev-sda1.swap", "a.b.service", "x\\x2dy.mount", "9.target"] {
            assert_eq!(text.parse::<UnitName>().unwrap().as_str(), text);
        }
        let long = format!("{}.service", "a".repeat(250));
        for text in [
            "",
            "site",
            ".service",
            "site.",
            "site.exe",
            "a b.service",
            "a/b.service",
            "../a.service",
            "a\n.service",
            "ä.service",
            "worker@.service",
            "@3.service",
            "\u{1b}[31m.service",
            "-H evil.service",
            &long,
            "a*.service",
        ] {
            let error = text.parse::<UnitName>().unwrap_err().to_string();
            assert!(error.contains("hint: ") && !error.contains('\u{1b}') && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn paths_of_objects() {
        for (name, expected) in [
            ("site.service", "site_2eservice"),
            ("worker@3.service", "worker_403_2eservice"),
            ("9a-b.target", "_39a_2db_2etarget"),
        ] {
            assert_eq!(name.parse::<UnitName>().unwrap().object(), format!("{UNITS}/{expected}"));
        }
    }

    #[test]
    fn files_that_define_a_unit() {
        let name = |text: &str| text.parse::<UnitName>().unwrap();
        for (unit, file, fits) in [
            ("site.service", "/srv/units/site.service", true),
            ("worker@3.service", "/srv/worker@.service", true),
            ("worker@3.service", "/srv/worker@3.service", true),
            ("site.service", "site.service", false),
            ("site.service", "/srv/other.service", false),
            ("site.service", "/srv/../site.service", false),
            ("site.service", "/srv/\nx/site.service", false),
            ("site.service", "/", false),
        ] {
            assert_eq!(name(unit).check_file(Path::new(file)).is_ok(), fits, "{unit} {file:?}");
        }
    }
}

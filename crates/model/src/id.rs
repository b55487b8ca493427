//! Identities: of processes, relations, databases and services.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A process id of the operating system, as the guard's PID namespace sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pid(pub i32);

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A process that can't be mistaken for a later one with the same pid: the pid with its start time in clock ticks since
/// boot (field 22 of `/proc/PID/stat`, proc(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    /// The pid.
    pub pid: Pid,
    /// Start time in clock ticks since boot.
    pub start_ticks: u64,
}

/// An object identifier of PostgreSQL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Oid(pub u32);

impl fmt::Display for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self(name.to_owned())
            }
        }

        impl From<String> for $name {
            fn from(name: String) -> Self {
                Self(name)
            }
        }
    };
}

name!(
    /// A database of the cluster.
    DatabaseName
);
name!(
    /// A table as people write it, schema-qualified: `public.users`.
    TableName
);
name!(
    /// A service of the configuration's service graph, or a PostgreSQL by its `name`.
    ServiceName
);

/// Bytes of a name in the configuration: what fits a label everywhere.
pub const NAME_MAX: usize = 63;

/// Whether the configuration takes this as a name: ASCII letters, digits, dots, dashes and underscores, no dot first,
/// [`NAME_MAX`] bytes at most.
pub fn is_configured_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_MAX && !name.starts_with('.') && name.chars().all(is_name_char)
}

/// The same name as far as the configuration takes it: each other character is a dash. `None` where nothing is left.
pub fn as_configured_name(name: &str) -> Option<String> {
    let name: String = name.trim_start_matches('.').chars().take(NAME_MAX).collect();
    let written: String = name.chars().map(|c| if is_name_char(c) { c } else { '-' }).collect();
    written.contains(|c: char| c.is_ascii_alphanumeric()).then_some(written)
}

const fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_written_as_the_configuration_takes_it() {
        let long = "x".repeat(NAME_MAX + 1);
        for (name, written) in [
            ("site", Some("site")),
            ("work@1", Some("work-1")),
            ("..hidden", Some("hidden")),
            ("caf\u{e9} au lait", Some("caf--au-lait")),
            (&long, Some(&long[1..])),
            ("\u{5e97}", None),
            ("", None),
        ] {
            assert_eq!(as_configured_name(name).as_deref(), written, "{name}");
            assert_eq!(is_configured_name(name), Some(name) == written, "{name}");
            assert!(written.is_none_or(is_configured_name), "{name}");
        }
    }
}

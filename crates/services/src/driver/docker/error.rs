//! Why an engine did not do it.

use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::version::{ApiVersion, VERSION_MAX, VERSION_MIN};

/// How much of an engine's words is shown, in characters.
const SHOWN_MAX: usize = 400;

/// An engine can't be asked, or refuses. [`EngineError::hint`] says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// There is no socket.
    #[error("there is no engine's socket {}", socket.display())]
    NoSocket {
        /// Where.
        socket: PathBuf,
    },
    /// We may not use the socket.
    #[error("this user may not use the engine's socket {}", socket.display())]
    Denied {
        /// Which.
        socket: PathBuf,
        /// The group that may, where it has a name.
        group: Option<String>,
    },
    /// Nobody listens there.
    #[error("no engine listens on {}", socket.display())]
    NotRunning {
        /// Where.
        socket: PathBuf,
    },
    /// The answer did not come.
    #[error("no answer from the engine on {}: {why}", socket.display())]
    NoAnswer {
        /// Where.
        socket: PathBuf,
        /// What happened instead.
        why: String,
    },
    /// It speaks only versions of the API that are older than ours.
    #[error(
        "the engine {software} is too old: it speaks version {newest} of the API at most, and {VERSION_MIN} is the oldest that will do"
    )]
    TooOld {
        /// The engine's own version.
        software: String,
        /// The newest version of the API that it speaks.
        newest: ApiVersion,
    },
    /// It speaks only versions of the API that are newer than ours.
    #[error(
        "the engine {software} is too new: it speaks no version of the API before {oldest}, and {VERSION_MAX} is the newest that is known here"
    )]
    TooNew {
        /// The engine's own version.
        software: String,
        /// The oldest version of the API that it speaks.
        oldest: ApiVersion,
    },
    /// It refuses.
    #[error("the engine answered {status}: {message}")]
    Refused {
        /// The status of HTTP.
        status: u16,
        /// Its words.
        message: String,
    },
    /// The answer is larger than anything that is asked for.
    #[error("{what} has more than {bytes_max} bytes")]
    TooLarge {
        /// Of what.
        what: String,
        /// How large it may be.
        bytes_max: usize,
    },
    /// The answer is none of this API.
    #[error("{what} can't be read: {why}")]
    Unreadable {
        /// Of what.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// We can't ask at all.
    #[error("no client for the engine can be made: {why}")]
    NoClient {
        /// Why not.
        why: String,
    },
}

impl EngineError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::NoSocket { .. } => {
                "start the engine (systemctl start docker), or say where its socket is: `socket` of the service"
                    .to_owned()
            }
            Self::Denied { group, .. } => {
                let group = group.as_deref().unwrap_or("docker");
                format!(
                    "add this user to the group {group} and start it anew (usermod -aG {group} USER); whoever is in it is as good as root on this host"
                )
            }
            Self::NotRunning { .. } => "start the engine: systemctl start docker".to_owned(),
            Self::NoAnswer { .. } => "look at the engine's log: journalctl -u docker".to_owned(),
            Self::TooOld { .. } => "update the engine".to_owned(),
            Self::TooNew { .. } => "update oxpecker".to_owned(),
            Self::Refused { .. } => "look at the container: docker inspect NAME, docker logs NAME".to_owned(),
            Self::TooLarge { .. } | Self::Unreadable { .. } => {
                "see that this socket is a container engine's, and nothing else listens on it".to_owned()
            }
            Self::NoClient { .. } => "this is a fault of oxpecker or of its installation".to_owned(),
        }
    }

    /// What is wrong and what to do, in one line.
    pub(super) fn told(&self) -> String {
        format!("{self}; hint: {}", self.hint())
    }

    /// No answer in time.
    pub(super) fn silent(socket: &Path, within: Duration) -> Self {
        Self::NoAnswer { socket: socket.to_owned(), why: format!("nothing within {} s", within.as_secs()) }
    }

    /// What a failed request was.
    pub(super) fn of_request(socket: &Path, error: &reqwest::Error) -> Self {
        let mut cause: Option<&(dyn Error + 'static)> = Some(error);
        while let Some(one) = cause {
            if let Some(error) = one.downcast_ref::<io::Error>().filter(|error| error.get_ref().is_none()) {
                return Self::of_io(socket, error);
            }
            cause = one.source();
        }
        let mut words = Vec::new();
        let mut cause = error.source();
        while let Some(one) = cause {
            words.push(one.to_string());
            cause = one.source();
        }
        words.dedup();
        let why = if words.is_empty() { error.to_string() } else { words.join(": ") };
        Self::NoAnswer { socket: socket.to_owned(), why: plain(&why) }
    }

    fn of_io(socket: &Path, error: &io::Error) -> Self {
        let socket = socket.to_owned();
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::NoSocket { socket },
            io::ErrorKind::PermissionDenied => Self::Denied { group: group_of(&socket), socket },
            io::ErrorKind::ConnectionRefused => Self::NotRunning { socket },
            _ => Self::NoAnswer { socket, why: error.to_string() },
        }
    }
}

/// The name of the group that a file belongs to.
fn group_of(path: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt as _;
    let gid = std::fs::metadata(path).ok()?.gid();
    // Root's own group opens nothing to anybody.
    if gid == 0 {
        return None;
    }
    Some(nix::unistd::Group::from_gid(gid.into()).ok()??.name)
}

/// A stranger's words: short, and without control characters.
pub(super) fn plain(text: &str) -> String {
    let spaced: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let words = spaced.trim();
    let more = if words.chars().nth(SHOWN_MAX).is_some() { "..." } else { "" };
    words.chars().take(SHOWN_MAX).chain(more.chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_socket() {
        let socket = Path::new("/run/x.sock");
        for (kind, word, hint) in [
            (io::ErrorKind::NotFound, "there is no", "start the engine"),
            (io::ErrorKind::PermissionDenied, "may not use", "group docker"),
            (io::ErrorKind::ConnectionRefused, "no engine listens", "start the engine"),
            (io::ErrorKind::TimedOut, "no answer", "log"),
        ] {
            let error = EngineError::of_io(socket, &kind.into());
            assert!(error.to_string().contains(word) && error.to_string().contains("/run/x.sock"), "{error}");
            assert!(error.hint().contains(hint), "{}", error.hint());
        }
    }

    #[test]
    fn words_of_an_engine_are_plain_and_short() {
        assert_eq!(plain("\u{1b}[31mred\n"), "[31mred");
        assert_eq!(plain(&"x".repeat(10_000)).len(), SHOWN_MAX + 3);
    }
}

//! What a store can't do, and whether trying again makes sense.

use std::{fmt, io};

use super::ObjectName;

/// What was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Making the store ready.
    Open,
    /// Writing an object.
    Put,
    /// Reading an object or a part of it.
    Get,
    /// Asking for an object's size.
    Size,
    /// Removing an object.
    Delete,
    /// Listing objects.
    List,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "opening",
            Self::Put => "writing",
            Self::Get => "reading",
            Self::Size => "looking for",
            Self::Delete => "removing",
            Self::List => "listing",
        })
    }
}

/// Why it failed, as far as it decides what to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoreErrorKind {
    /// There is no such object.
    NotFound,
    /// The store does not let us.
    Permission,
    /// It is full, or our quota is.
    NoSpace,
    /// It takes no writes at all.
    ReadOnly,
    /// It does not answer, or not now: the only kind that is worth trying again at once.
    Unavailable,
    /// The medium or its driver failed.
    Io,
    /// The object is larger than anything of ours.
    TooLarge,
    /// The object ends before the bytes that were asked for.
    Short,
    /// The store can't create an object only if it is absent.
    NoCreateIfAbsent,
    /// The process was stopped here on purpose (only [`super::FaultyStore`]).
    Stopped,
}

impl StoreErrorKind {
    fn hint(self) -> &'static str {
        match self {
            Self::NotFound => "if nobody removed it by hand, `oxpecker backup check` says what is affected",
            Self::Permission => "see owner and mode of the directory, or the rights of the credential",
            Self::NoSpace => {
                "free space or raise the quota; `oxpecker backup prune` removes what the retention no longer keeps"
            }
            Self::ReadOnly => "the file system may have been remounted read-only after an error: see the kernel's log",
            Self::Unavailable => "it may pass by itself; if not, see network, mount and the store's own log",
            Self::Io => "see the kernel's log for the disk, then run `oxpecker backup check --deep`",
            Self::TooLarge => "this object was not written by oxpecker",
            Self::Short => "the object was cut off: `oxpecker backup check` says what is affected",
            Self::NoCreateIfAbsent => {
                "use a file system with hard links, or an object store that honours `If-None-Match: *`; without it two writers could overwrite each other"
            }
            Self::Stopped => "this is a test",
        }
    }
}

/// An operation of a store failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{operation} {object} in {place}: {reason}\n  hint: {}", kind.hint())]
pub struct StoreError {
    operation: Operation,
    object: String,
    place: String,
    kind: StoreErrorKind,
    reason: String,
}

impl StoreError {
    /// An error about `object` (a name, or what else was touched) in the store `place`.
    pub fn new(
        operation: Operation,
        object: impl fmt::Display,
        place: impl fmt::Display,
        kind: StoreErrorKind,
        reason: impl fmt::Display,
    ) -> Self {
        Self { operation, object: object.to_string(), place: place.to_string(), kind, reason: reason.to_string() }
    }

    /// There is no object `name`.
    pub fn not_found(operation: Operation, name: &ObjectName, place: impl fmt::Display) -> Self {
        Self::new(operation, name, place, StoreErrorKind::NotFound, "there is no such object")
    }

    /// From an error of the operating system.
    pub fn from_io(
        operation: Operation,
        object: impl fmt::Display,
        place: impl fmt::Display,
        source: &io::Error,
    ) -> Self {
        Self::new(operation, object, place, classify(source), source)
    }

    /// Why it failed.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// There is no such object.
    pub fn is_not_found(&self) -> bool {
        self.kind == StoreErrorKind::NotFound
    }

    /// It may go well when tried again soon, with nothing done about it.
    pub fn is_passing(&self) -> bool {
        self.kind == StoreErrorKind::Unavailable
    }
}

/// An EIO is not passing: after a failed write-back Linux calls the pages clean, and a second fsync would lie. (A new attempt writes a
/// new file, but a disk with such errors is not one to go on with unasked.)
fn classify(source: &io::Error) -> StoreErrorKind {
    use io::ErrorKind as K;
    use rustix::io::Errno;
    match source.kind() {
        K::NotFound => StoreErrorKind::NotFound,
        K::PermissionDenied => StoreErrorKind::Permission,
        K::StorageFull | K::QuotaExceeded => StoreErrorKind::NoSpace,
        K::ReadOnlyFilesystem => StoreErrorKind::ReadOnly,
        K::FileTooLarge => StoreErrorKind::TooLarge,
        K::Interrupted
        | K::TimedOut
        | K::WouldBlock
        | K::ResourceBusy
        | K::StaleNetworkFileHandle
        | K::NetworkDown
        | K::NetworkUnreachable
        | K::HostUnreachable
        | K::ConnectionReset
        | K::ConnectionAborted
        | K::ConnectionRefused
        | K::NotConnected
        | K::BrokenPipe
        | K::OutOfMemory => StoreErrorKind::Unavailable,
        _ => match Errno::from_io_error(source) {
            Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOLCK) => StoreErrorKind::Unavailable,
            _ => StoreErrorKind::Io,
        },
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn errors_of_the_system_are_told_apart() {
        use StoreErrorKind as K;
        for (errno, kind) in [
            (Errno::NOENT, K::NotFound),
            (Errno::ACCESS, K::Permission),
            (Errno::PERM, K::Permission),
            (Errno::NOSPC, K::NoSpace),
            (Errno::DQUOT, K::NoSpace),
            (Errno::ROFS, K::ReadOnly),
            (Errno::STALE, K::Unavailable),
            (Errno::MFILE, K::Unavailable),
            (Errno::TIMEDOUT, K::Unavailable),
            (Errno::IO, K::Io),
            (Errno::NOTDIR, K::Io),
        ] {
            let error = StoreError::from_io(Operation::Put, "a/b", "/srv", &errno.into());
            assert_eq!(error.kind(), kind, "{errno:?}");
            assert_eq!(error.is_passing(), kind == K::Unavailable);
            assert!(error.to_string().starts_with("writing a/b in /srv: "), "{error}");
            assert!(error.to_string().contains("\n  hint: "), "{error}");
        }
    }
}

//! Names that the repository gives: 16 random bytes each, so that no two writers ever choose the same and nothing can be read
//! from them. People see them as 32 hexadecimal digits.

use std::{fmt, str::FromStr};

use data_encoding::HEXLOWER;
use ring::rand::SecureRandom;
use serde::{Deserialize, Serialize};

/// Bytes in every id.
pub const ID_LEN: usize = 16;

/// A text is not an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an id\n  hint: an id is 32 hexadecimal digits in lower case, as the lists show it")]
pub struct BadId {
    /// What was given.
    pub text: String,
}

/// The system's source of random numbers failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random numbers\n  hint: /dev/urandom or getrandom(2) must work for this process")]
pub struct NoRandom;

/// `N` bytes from the system's random numbers.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], NoRandom> {
    let mut bytes = [0; N];
    ring::rand::SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandom)?;
    Ok(bytes)
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(pub [u8; ID_LEN]);

        impl $name {
            /// A new one, from the system's random numbers.
            ///
            /// # Errors
            /// Only where the system gives no random numbers.
            pub fn random() -> Result<Self, NoRandom> {
                random().map(Self)
            }

            /// Its bytes.
            pub fn as_bytes(&self) -> &[u8; ID_LEN] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                let bad = || BadId { text: text.chars().take(64).collect() };
                let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| bad())?;
                bytes.try_into().map(Self).map_err(|_| bad())
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadId;

            fn try_from(text: String) -> Result<Self, BadId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.to_string()
            }
        }
    };
}

id!(
    /// A repository.
    RepositoryId
);
id!(
    /// A pack. Never used twice, also not after its pack was deleted.
    PackId
);
id!(
    /// A writing session.
    SessionId
);
id!(
    /// A committed backup.
    BackupId
);
id!(
    /// A key slot.
    SlotId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_their_digits() {
        let id = PackId([0xa5; 16]);
        assert_eq!(id.to_string(), "a5".repeat(16));
        assert_eq!(id.to_string().parse::<PackId>().unwrap(), id);
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{id}\""));
        for bad in ["", "a5", &"A5".repeat(16), &"g5".repeat(16), &"a5".repeat(17)] {
            assert!(bad.parse::<PackId>().is_err(), "{bad}");
        }
        assert_ne!(PackId::random().unwrap(), PackId::random().unwrap());
    }
}

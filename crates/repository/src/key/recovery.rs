//! The recovery key: what stands on paper in a safe.

use std::{fmt, str::FromStr};

use data_encoding::{Encoding, Specification};
use zeroize::Zeroizing;

use crate::{
    id::{self, NoRandom},
    seal::context,
};

/// Random bytes in a recovery key: 160 bits.
pub(super) const RECOVERY_SECRET_LEN: usize = 20;
/// Characters of the secret and of the checksum behind it, five bits each.
const SECRET_CHARS: usize = 32;
const CHECK_CHARS: usize = 4;
/// Characters between two dashes.
const GROUP: usize = 4;

/// A text is not a recovery key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadRecoveryKey {
    /// It has not the right length.
    #[error(
        "a recovery key has 36 characters in nine groups of four; this text has {found}\n  hint: compare it with the paper, \
         group by group"
    )]
    Length {
        /// Characters found, dashes and blanks left out.
        found: usize,
    },
    /// It has a character that is never in one.
    #[error(
        "{character:?} is in no recovery key\n  hint: they are written with digits and the letters A to Z without I, L, O and U"
    )]
    Character {
        /// The character.
        character: char,
    },
    /// The checksum does not fit.
    #[error(
        "the recovery key has a typing error: its checksum does not fit\n  hint: compare it with the paper, group by group"
    )]
    Checksum,
}

/// 160 random bits that open the repository when everything else is lost. Written as nine groups of four characters of
/// Crockford's base32 (no I, L, O, U; small letters, and I, L, O for 1, 1, 0, are understood), the last group a checksum.
#[derive(Clone, PartialEq, Eq)]
pub struct RecoveryKey(Zeroizing<[u8; RECOVERY_SECRET_LEN]>);

impl RecoveryKey {
    pub(crate) fn random() -> Result<Self, NoRandom> {
        id::random().map(|bytes| Self(Zeroizing::new(bytes)))
    }

    pub(super) fn secret(&self) -> &[u8] {
        &*self.0
    }

    /// As it goes on paper. A secret: show it once, to a person, and keep it nowhere.
    pub fn text(&self) -> Zeroizing<String> {
        let chars = Zeroizing::new(crockford().encode(&*self.0) + &checksum(&*self.0));
        let mut text = Zeroizing::new(String::with_capacity(SECRET_CHARS + CHECK_CHARS + 8));
        for (at, character) in chars.chars().enumerate() {
            if at > 0 && at % GROUP == 0 {
                text.push('-');
            }
            text.push(character);
        }
        text
    }
}

impl FromStr for RecoveryKey {
    type Err = BadRecoveryKey;

    fn from_str(text: &str) -> Result<Self, BadRecoveryKey> {
        let mut chars = Zeroizing::new(String::with_capacity(SECRET_CHARS + CHECK_CHARS));
        for character in text.chars().filter(|c| !c.is_whitespace() && *c != '-') {
            match character.to_ascii_uppercase() {
                'I' | 'L' => chars.push('1'),
                'O' => chars.push('0'),
                upper if upper.is_ascii_alphanumeric() && upper != 'U' => chars.push(upper),
                _ => return Err(BadRecoveryKey::Character { character }),
            }
        }
        if chars.len() != SECRET_CHARS + CHECK_CHARS {
            return Err(BadRecoveryKey::Length { found: chars.len() });
        }
        let (secret, check) = chars.split_at(SECRET_CHARS);
        let secret = Zeroizing::new(crockford().decode(secret.as_bytes()).map_err(|_| BadRecoveryKey::Checksum)?);
        if checksum(&secret) != check {
            return Err(BadRecoveryKey::Checksum);
        }
        let mut bytes = Zeroizing::new([0; RECOVERY_SECRET_LEN]);
        bytes.copy_from_slice(&secret);
        Ok(Self(bytes))
    }
}

impl fmt::Debug for RecoveryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryKey(..)")
    }
}

fn crockford() -> Encoding {
    let mut specification = Specification::new();
    specification.symbols.push_str("0123456789ABCDEFGHJKMNPQRSTVWXYZ");
    specification.encoding().expect("32 different symbols make a base32")
}

/// The first 20 bits of a hash of the secret, as four characters.
fn checksum(secret: &[u8]) -> String {
    let hash = blake3::derive_key(context::RECOVERY_CHECK, secret);
    // Five bytes are eight characters; the first four are the first 20 bits.
    crockford().encode(&hash[..5])[..CHECK_CHARS].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paper_gives_it_back() {
        let key = RecoveryKey::random().unwrap();
        let text = key.text();
        assert_eq!(text.len(), 9 * 4 + 8);
        assert_eq!(text.parse::<RecoveryKey>().unwrap(), key);
        assert_eq!(text.to_lowercase().replace('-', " ").parse::<RecoveryKey>().unwrap(), key);
        assert_eq!(text.replace('1', "l").replace('0', "o").parse::<RecoveryKey>().unwrap(), key);
        assert_eq!(format!("{key:?}"), "RecoveryKey(..)");
    }

    #[test]
    fn typing_errors_are_found() {
        let text = RecoveryKey(Zeroizing::new([0x5a; RECOVERY_SECRET_LEN])).text();
        let mut wrong = 0;
        for at in (0..text.len()).filter(|at| text.as_bytes()[*at] != b'-') {
            let other = if text.as_bytes()[at] == b'7' { "8" } else { "7" };
            let mut typed = text.to_string();
            typed.replace_range(at..=at, other);
            wrong += usize::from(typed.parse::<RecoveryKey>() == Err(BadRecoveryKey::Checksum));
        }
        assert_eq!(wrong, 36);
        assert_eq!(text[1..].parse::<RecoveryKey>(), Err(BadRecoveryKey::Length { found: 35 }));
        assert_eq!("".parse::<RecoveryKey>(), Err(BadRecoveryKey::Length { found: 0 }));
        assert_eq!("U".parse::<RecoveryKey>(), Err(BadRecoveryKey::Character { character: 'U' }));
        assert_eq!("ä".parse::<RecoveryKey>(), Err(BadRecoveryKey::Character { character: 'ä' }));
    }
}

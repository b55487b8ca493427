//! Two guards that watch each other: each says to the other that it lives and senses, in datagrams that only who has the key can make.
//!
//! A datagram and not a connection: nothing waits, nothing can be held open, and a stranger's costs one hash. What it says is signed
//! (HMAC-SHA256, RFC 2104) with a secret that both have: who speaks, and when by its wall clock. One that was heard before, is older than the
//! newest, or far off our clock is not taken, and neither is our own that somebody sends back.

use std::{fmt, net::SocketAddr, time::Duration};

use ring::hmac;
use serde::{Deserialize, Serialize};

use crate::route::Secret;

/// What a datagram begins with: the protocol and its version.
const MAGIC: &[u8; 16] = b"oxpecker-peer-1\n";
/// Bytes of the time of sending.
const TIME: usize = 8;
/// Bytes of the signature.
const TAG: usize = 32;
/// Longest name of a peer, in bytes.
pub const MAX_NAME: usize = 64;
/// Longest datagram, in bytes.
pub(crate) const MAX_DATAGRAM: usize = MAGIC.len() + TIME + MAX_NAME + TAG;
/// Fewest characters of a key that are no joke.
pub const LEAST_KEY: usize = 16;
/// How far the wall clocks of two guards may be apart: a recorded datagram is worth nothing after that, also to a worker that just began.
const CLOCKS_APART: Duration = Duration::from_secs(300);

/// The guard on another host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// What it calls itself.
    pub name: String,
    /// What we call ourselves.
    pub own_name: String,
    /// What both know.
    pub key: Secret,
    /// Where it listens, `host:port`; none where it need not hear of us.
    pub send_to: Option<String>,
    /// Where we listen; none where we don't watch it.
    pub listen: Option<SocketAddr>,
    /// From one datagram to the next.
    pub every: Duration,
}

/// Why a datagram was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Not ours, or not signed with our key.
    Stranger,
    /// Signed, by somebody of another name; perhaps our own.
    OtherName,
    /// Heard before, or older than what was.
    Old,
    /// The clocks are too far apart.
    Clock,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stranger => "it is not signed with our key",
            Self::OtherName => "it is signed by somebody of another name",
            Self::Old => "it was heard before",
            Self::Clock => "its clock and ours are more than five minutes apart",
        })
    }
}

/// Says who we are.
pub(crate) fn datagram(peer: &Peer, wall_us: i64) -> Vec<u8> {
    let mut text = MAGIC.to_vec();
    text.extend(wall_us.to_be_bytes());
    text.extend(peer.own_name.as_bytes());
    let tag = hmac::sign(&key(peer), &text);
    text.extend(tag.as_ref());
    text
}

/// Takes a datagram apart. Answers when it was sent, in microseconds of the sender's wall clock.
pub(crate) fn judge(peer: &Peer, datagram: &[u8], newest_us: Option<i64>, now_us: i64) -> Result<i64, Refused> {
    let (text, tag) = datagram.split_last_chunk::<TAG>().ok_or(Refused::Stranger)?;
    let rest = text.strip_prefix(MAGIC).ok_or(Refused::Stranger)?;
    let (time, name) = rest.split_first_chunk::<TIME>().ok_or(Refused::Stranger)?;
    // In constant time.
    hmac::verify(&key(peer), text, tag).map_err(|_| Refused::Stranger)?;
    if name != peer.name.as_bytes() {
        return Err(Refused::OtherName);
    }
    let sent_us = i64::from_be_bytes(*time);
    if u128::from(sent_us.abs_diff(now_us)) > CLOCKS_APART.as_micros() {
        return Err(Refused::Clock);
    }
    if newest_us.is_some_and(|newest| sent_us <= newest) {
        return Err(Refused::Old);
    }
    Ok(sent_us)
}

fn key(peer: &Peer) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, peer.key.reveal().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(own: &str, other: &str, key: &str) -> Peer {
        Peer {
            name: other.into(),
            own_name: own.into(),
            key: Secret::new(key),
            send_to: None,
            listen: None,
            every: Duration::from_secs(1),
        }
    }

    #[test]
    fn only_the_other_one_is_heard_and_each_word_once() {
        let (a, b) = (peer("a", "b", "0123456789abcdef"), peer("b", "a", "0123456789abcdef"));
        let now = 1_800_000_000_000_000;
        let said = datagram(&b, now);
        assert!(said.len() <= MAX_DATAGRAM);
        assert_eq!(judge(&a, &said, None, now + 7), Ok(now));
        assert_eq!(judge(&a, &said, Some(now - 1), now), Ok(now));
        for (why, datagram, newest, at) in [
            (Refused::Old, said.clone(), Some(now), now),
            (Refused::Old, said.clone(), Some(now + 1), now),
            (Refused::Clock, said.clone(), None, now + 301_000_000),
            (Refused::Clock, said.clone(), None, now - 301_000_000),
            (Refused::OtherName, datagram(&a, now), None, now),
            (Refused::Stranger, datagram(&peer("b", "a", "another key here"), now), None, now),
            (Refused::Stranger, Vec::new(), None, now),
            (Refused::Stranger, said[..said.len() - 1].to_vec(), None, now),
        ] {
            assert_eq!(judge(&a, &datagram, newest, at), Err(why));
        }
        for at in 0..said.len() {
            let mut forged = said.clone();
            forged[at] ^= 1;
            assert_eq!(judge(&a, &forged, None, now), Err(Refused::Stranger), "byte {at}");
        }
    }
}

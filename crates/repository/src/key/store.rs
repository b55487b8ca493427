//! Key objects in a store: walking to the last generation, and making the next.

use std::sync::Arc;

use super::{
    BadKeys, KdfCost, KeyObject, RecoveryKey, Secret, SlotInfo, SlotKind,
    object::{KEY_OBJECT_MAX, SlotBytes},
};
use crate::{
    id::{NoRandom, RepositoryId, SlotId},
    log::{Digest, KeyTip},
    seal::{KeyRing, MasterKey},
    store::{ObjectName, Put, Store, StoreError},
    wire::BadBytes,
};

/// The most slots in a repository.
pub(crate) const SLOTS_MAX: usize = 32;
/// The most generations of keys: each added, removed or rotated key makes one.
const GENERATIONS_MAX: u32 = 10_000;
/// How often a change is tried again when somebody else's came first.
const CHANGE_ATTEMPTS: usize = 5;

/// Keys could not be opened or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// There is no repository.
    #[error(
        "there is no repository at {place}\n  hint: see that the address is right and the disk mounted; `oxpecker backup init` makes one"
    )]
    NoRepository {
        /// Where was looked.
        place: String,
    },
    /// There is one already.
    #[error(
        "there is a repository at {place} already; nothing was changed\n  hint: open it with its secret, or choose an empty place"
    )]
    Exists {
        /// Where.
        place: String,
    },
    /// No slot opens.
    #[error(
        "no key slot of the repository at {place} opens with this {kind}{damage}\n  hint: see that it is the secret of this very repository; \
         another one may open it: it has {slots}; the recovery key on paper opens it too, if one was exported"
    )]
    WrongSecret {
        /// The repository.
        place: String,
        /// The kind of secret that was tried.
        kind: SlotKind,
        /// The slots that it has, counted by kind.
        slots: String,
        /// What is wrong with newer key objects, in which it may have a slot; mostly nothing.
        damage: String,
    },
    /// Every generation of keys is damaged.
    #[error(
        "the key object {object} at {place} is damaged ({what}), and no other gives the keys\n  hint: bring the objects below key/ back from \
         a copy of the repository; without one of them it can't be read"
    )]
    Damaged {
        /// The object.
        object: String,
        /// The repository.
        place: String,
        /// What is wrong.
        what: String,
    },
    /// The keys went back to an earlier state. [`crate::Repository::open`] makes an alarm of it.
    #[error("the keys at {place} went back: it {found}\n  hint: bring the object back from a copy of the repository")]
    WentBack {
        /// The repository.
        place: String,
        /// What is there instead.
        found: String,
    },
    /// Somebody put it together.
    #[error(
        "the key object {object} at {place} was not made by a holder of the keys\n  hint: somebody writes to the store who should not; compare it with \
         a copy"
    )]
    Forged {
        /// The object.
        object: String,
        /// The repository.
        place: String,
    },
    /// There is no such slot.
    #[error("there is no key slot {slot}\n  hint: `oxpecker key list` shows them")]
    NoSlot {
        /// The id that was given.
        slot: SlotId,
    },
    /// The last slot of daily use can't go.
    #[error(
        "no key slot would be left but those of recovery keys: no host could open the repository in its daily work, and a lost paper would \
         be the end of it\n  hint: add a passphrase or a key file first (`oxpecker key add`), then do this again"
    )]
    LastSlot,
    /// There are too many.
    #[error("the repository has {SLOTS_MAX} key slots, and can't have more\n  hint: remove one that nobody uses")]
    TooMany,
    /// It was changed by others again and again.
    #[error("the keys at {place} are being changed by somebody else\n  hint: try again when they are done")]
    Busy {
        /// The repository.
        place: String,
    },
    /// The typed recovery key belongs to no slot.
    #[error(
        "this recovery key opens no slot of the repository\n  hint: it may be of another repository, or was removed; `oxpecker key export` makes a \
         new one"
    )]
    NotOurRecoveryKey,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No random numbers.
    #[error(transparent)]
    NoRandom(#[from] NoRandom),
}

/// A key slot, for people.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Slot {
    /// Its id.
    pub id: SlotId,
    /// What opens it.
    pub kind: SlotKind,
    /// What its maker called it.
    pub label: String,
    /// When it was made, as its maker's clock said.
    pub created: jiff::Timestamp,
    /// Of a recovery key: it was typed in again from the paper.
    pub confirmed: bool,
}

/// The keys as they are now.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    pub(crate) keys: KeyRing,
    pub(crate) generation: u32,
    /// The newest generation that could be read, and its hash.
    pub(crate) tip: KeyTip,
    slots: Vec<SlotBytes>,
    infos: Vec<SlotInfo>,
    /// Generations that could not be read, and why.
    pub(crate) damaged: Vec<(u32, String)>,
}

impl Opened {
    pub(crate) fn slots(&self) -> Vec<Slot> {
        let slot = |(bytes, info): (&SlotBytes, &SlotInfo)| Slot {
            id: bytes.id,
            kind: bytes.kind,
            label: info.label.clone(),
            created: info.created,
            confirmed: info.confirmed,
        };
        self.slots.iter().zip(&self.infos).map(slot).collect()
    }

    /// `name` is one of its generations.
    pub(crate) fn has_object(&self, name: &ObjectName) -> bool {
        let generation = name.as_str().strip_prefix("key/").and_then(|n| n.parse().ok());
        generation.is_some_and(|n: u32| n <= self.generation && object_name(n) == *name)
    }

    /// A recovery key was exported and typed in again.
    pub(crate) fn is_recoverable(&self) -> bool {
        self.slots().iter().any(|slot| slot.kind == SlotKind::Recovery && slot.confirmed)
    }
}

/// What the next generation holds.
struct Next {
    keys: KeyRing,
    slots: Vec<SlotBytes>,
    infos: Vec<SlotInfo>,
}

impl Next {
    fn of(opened: &Opened) -> Self {
        Self { keys: opened.keys.clone(), slots: opened.slots.clone(), infos: opened.infos.clone() }
    }

    fn add(
        &mut self,
        id: SlotId,
        secret: &Secret,
        cost: KdfCost,
        label: &str,
        confirmed: bool,
    ) -> Result<(), KeyError> {
        if self.slots.len() >= SLOTS_MAX {
            return Err(KeyError::TooMany);
        }
        self.slots.push(SlotBytes::seal(&self.keys, id, secret, cost)?);
        self.infos.push(SlotInfo { id, label: label.to_owned(), created: jiff::Timestamp::now(), confirmed });
        Ok(())
    }
}

impl Next {
    /// Recovery keys lie in safes. One other slot must be there for hosts and people, or the next backup can't be made.
    fn is_of_daily_use(&self) -> Result<(), KeyError> {
        let daily = self.slots.iter().any(|slot| slot.kind != SlotKind::Recovery);
        if daily { Ok(()) } else { Err(KeyError::LastSlot) }
    }
}

/// The key objects of one repository.
#[derive(Clone, Debug)]
pub(crate) struct KeyStore(pub(crate) Arc<dyn Store>);

pub(crate) fn object_name(generation: u32) -> ObjectName {
    ObjectName::new(format!("key/{generation}")).expect("digits are allowed in a name")
}

impl KeyStore {
    /// Makes the first generation of a new repository.
    pub(crate) fn create(&self, secret: &Secret, cost: KdfCost, label: &str) -> Result<Opened, KeyError> {
        let keys = KeyRing::new(RepositoryId::random()?, vec![MasterKey::random()?]);
        let mut next = Next { keys, slots: Vec::new(), infos: Vec::new() };
        next.add(SlotId::random()?, secret, cost, label, false)?;
        match self.put(0, [0; 32], &next)? {
            Some(opened) => Ok(opened),
            None => Err(KeyError::Exists { place: self.0.describe() }),
        }
    }

    /// Opens the newest generation that can be read; `seen` is one that must still be there.
    pub(crate) fn open(&self, secret: &Secret, seen: Option<KeyTip>) -> Result<Opened, KeyError> {
        let open = |object: &KeyObject, bytes: &[u8]| object.open(bytes, secret).map(|(keys, infos, _)| (keys, infos));
        self.newest(open, secret.kind(), seen)
    }

    /// The newest generation, by keys that are known.
    pub(crate) fn reload(&self, keys: &KeyRing) -> Result<Opened, KeyError> {
        self.newest(|object, bytes| object.open_with(bytes, keys), SlotKind::Recovery, None)
    }

    fn newest(
        &self,
        open: impl Fn(&KeyObject, &[u8]) -> Result<(KeyRing, Vec<SlotInfo>), BadKeys>,
        kind: SlotKind,
        seen: Option<KeyTip>,
    ) -> Result<Opened, KeyError> {
        let mut seen_now = None;
        let mut intact: Option<(Vec<u8>, KeyObject)> = None;
        let mut damaged: Vec<(u32, String)> = Vec::new();
        let mut end = 0;
        while end < GENERATIONS_MAX {
            let bytes = match self.get(end) {
                Ok(bytes) => bytes,
                Err(error) if error.is_not_found() => break,
                Err(error) => return Err(error.into()),
            };
            if seen.is_some_and(|seen| seen.generation == end) {
                seen_now = Some(Digest::of(&bytes));
            }
            match parse(&bytes, end, intact.as_ref().map(|(_, object)| object)) {
                Ok(object) => intact = Some((bytes, object)),
                Err(BadBytes(what)) => damaged.push((end, what.to_owned())),
            }
            end += 1;
        }
        let place = || self.0.describe();
        let Some((bytes, object)) = intact else {
            return Err(match damaged.pop() {
                Some((generation, what)) => {
                    KeyError::Damaged { object: object_name(generation).to_string(), place: place(), what }
                }
                None => KeyError::NoRepository { place: place() },
            });
        };
        if let Some(seen) = seen.filter(|seen| seen_now != Some(seen.digest)) {
            let name = object_name(seen.generation);
            let found = match (seen_now, end.checked_sub(1)) {
                (Some(other), _) => format!("has another {name}, with hash {other}"),
                (None, newest) => format!("has no {name}; its newest keys are {}", object_name(newest.unwrap_or(0))),
            };
            return Err(KeyError::WentBack { place: place(), found });
        }
        let named = || object_name(object.generation).to_string();
        match open(&object, &bytes) {
            Ok((keys, infos)) => {
                let tip = KeyTip { generation: object.generation, digest: Digest::from_bytes(object.hash) };
                Ok(Opened { keys, generation: end - 1, tip, slots: object.slots, infos, damaged })
            }
            Err(BadKeys::WrongSecret) => {
                let newer = damaged.iter().rfind(|(generation, _)| *generation > object.generation);
                let damage = newer.map_or_else(String::new, |(generation, what)| {
                    format!(", and {}, which may have one, is damaged ({what})", object_name(*generation))
                });
                Err(KeyError::WrongSecret { place: place(), kind, slots: count_kinds(&object.slots), damage })
            }
            Err(BadKeys::Forged) => Err(KeyError::Forged { object: named(), place: place() }),
            Err(BadKeys::Bytes(BadBytes(what))) => {
                Err(KeyError::Damaged { object: named(), place: place(), what: what.to_owned() })
            }
        }
    }

    fn get(&self, generation: u32) -> Result<Vec<u8>, StoreError> {
        let name = object_name(generation);
        // A forged giant is damage, and is found as such from its first bytes.
        match self.0.size(&name)? {
            Some(size) if size > KEY_OBJECT_MAX as u64 => self.0.get_range(&name, 0, KEY_OBJECT_MAX),
            _ => self.0.get(&name),
        }
    }

    /// Writes a generation. `None` when somebody else's is there.
    fn put(&self, generation: u32, previous: [u8; 32], next: &Next) -> Result<Option<Opened>, KeyError> {
        let bytes = KeyObject::build(&next.keys, generation, previous, &next.slots, &next.infos)?;
        let name = object_name(generation);
        // After an unclear reply "exists" may mean our own: its salt makes every object unlike any other.
        if self.0.put_if_absent(&name, &bytes)? == Put::Exists && self.0.get(&name)? != bytes {
            return Ok(None);
        }
        Ok(Some(Opened {
            keys: next.keys.clone(),
            generation,
            tip: KeyTip { generation, digest: Digest::of(&bytes) },
            slots: next.slots.clone(),
            infos: next.infos.clone(),
            damaged: Vec::new(),
        }))
    }

    fn change(&self, keys: &KeyRing, edit: impl Fn(&mut Next) -> Result<(), KeyError>) -> Result<Opened, KeyError> {
        for _ in 0..CHANGE_ATTEMPTS {
            let opened = self.reload(keys)?;
            let mut next = Next::of(&opened);
            edit(&mut next)?;
            if let Some(opened) = self.put(opened.generation + 1, opened.tip.digest.0, &next)? {
                return Ok(opened);
            }
        }
        Err(KeyError::Busy { place: self.0.describe() })
    }

    /// Adds a slot.
    pub(crate) fn add(
        &self,
        keys: &KeyRing,
        secret: &Secret,
        cost: KdfCost,
        label: &str,
    ) -> Result<(Opened, SlotId), KeyError> {
        let id = SlotId::random()?;
        Ok((self.change(keys, |next| next.add(id, secret, cost, label, false))?, id))
    }

    /// Removes a slot.
    pub(crate) fn remove(&self, keys: &KeyRing, slot: SlotId) -> Result<Opened, KeyError> {
        self.change(keys, |next| {
            let at = next.slots.iter().position(|known| known.id == slot).ok_or(KeyError::NoSlot { slot })?;
            next.slots.remove(at);
            next.infos.remove(at);
            next.is_of_daily_use()
        })
    }

    /// Makes a new master key, and slots for these secrets only. A secret that had a slot keeps its id, label and confirmation.
    pub(crate) fn rotate(&self, keys: &KeyRing, secrets: &[Secret], cost: KdfCost) -> Result<Opened, KeyError> {
        self.change(keys, |next| {
            let before = Next { keys: next.keys.clone(), slots: next.slots.clone(), infos: next.infos.clone() };
            let mut masters = before.keys.masters().to_vec();
            masters.push(MasterKey::random()?);
            *next = Next { keys: KeyRing::new(before.keys.repository, masters), slots: Vec::new(), infos: Vec::new() };
            for secret in secrets {
                match before.slots.iter().position(|slot| slot.opens(&before.keys, secret)) {
                    Some(at) => {
                        let info = before.infos[at].clone();
                        next.add(info.id, secret, cost, &info.label, info.confirmed)?;
                        if let Some(last) = next.infos.last_mut() {
                            last.created = info.created;
                        }
                    }
                    None => next.add(SlotId::random()?, secret, cost, "added at rotation", false)?,
                }
            }
            next.is_of_daily_use()
        })
    }

    /// Adds a slot for a new recovery key, which is shown once.
    pub(crate) fn export_recovery(&self, keys: &KeyRing, label: &str) -> Result<(Opened, RecoveryKey), KeyError> {
        let recovery = RecoveryKey::random()?;
        let (opened, _) = self.add(keys, &Secret::of_recovery_key(&recovery), KdfCost::NONE, label)?;
        Ok((opened, recovery))
    }

    /// Records that a recovery key was typed in again and opens its slot.
    pub(crate) fn confirm_recovery(&self, keys: &KeyRing, recovery: &RecoveryKey) -> Result<Opened, KeyError> {
        let secret = Secret::of_recovery_key(recovery);
        self.change(keys, |next| {
            let at = next.slots.iter().position(|slot| slot.opens(&next.keys, &secret));
            let at = at.ok_or(KeyError::NotOurRecoveryKey)?;
            next.infos[at].confirmed = true;
            Ok(())
        })
    }
}

/// Parses generation `n`, and sees that it follows the last one that could be read.
fn parse(bytes: &[u8], n: u32, before: Option<&KeyObject>) -> Result<KeyObject, BadBytes> {
    let object = KeyObject::parse(bytes)?;
    if object.generation != n {
        return Err(BadBytes("it is another generation under this one's name"));
    }
    match before {
        Some(before) if before.repository != object.repository => Err(BadBytes("it is of another repository")),
        Some(before) if before.epoch > object.epoch => Err(BadBytes("it goes back to older keys")),
        Some(before) if before.generation + 1 == n && before.hash != object.previous => {
            Err(BadBytes("it does not follow the generation before it"))
        }
        _ => Ok(object),
    }
}

fn count_kinds(slots: &[SlotBytes]) -> String {
    let count = |kind| slots.iter().filter(|slot| slot.kind == kind).count();
    let kinds = [SlotKind::Passphrase, SlotKind::KeyFile, SlotKind::Recovery];
    let named = kinds.map(|kind| (count(kind), kind)).into_iter().filter(|(count, _)| *count > 0);
    named.map(|(count, kind)| format!("{count} of kind {kind}")).collect::<Vec<_>>().join(", ")
}

//! The bytes of one key object. No I/O.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{
    SLOTS_MAX,
    secret::{KdfCost, Secret, SlotKind},
};
use crate::{
    id::{self, NoRandom, RepositoryId, SlotId},
    seal::{Aead, Epoch, KEY_LEN, KeyRing, MasterKey, NONCE_ZERO, TAG_LEN, context, derive},
    wire::{BadBytes, Bytes, Put, len_u32},
};

const MAGIC: [u8; 8] = *b"OXPKKEYS";
/// The only format of key objects so far.
const VERSION: u32 = 1;
const SALT_LEN: usize = 16;
const WRAPPED_LEN: usize = KEY_LEN + TAG_LEN;
const SLOT_LEN: usize = id::ID_LEN + 1 + 3 * 4 + SALT_LEN + WRAPPED_LEN;
/// BLAKE3 of all before: tells damage from a wrong secret.
const CHECKSUM_LEN: usize = 32;
/// A key object is never larger. Bounds what is read before anything is authenticated.
pub(super) const KEY_OBJECT_MAX: usize = 256 << 10;

/// Why a key object gives no keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadKeys {
    /// Damaged, or of a format that is not known.
    #[error("{0}")]
    Bytes(#[from] BadBytes),
    /// Intact, and no slot opens with the secret.
    #[error("no slot opens with this secret")]
    WrongSecret,
    /// A slot opens, but what it gives does not fit: somebody put it together.
    #[error("it was put together by somebody without the keys")]
    Forged,
}

/// One slot: the master key, sealed for one secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SlotBytes {
    pub(crate) id: SlotId,
    pub(crate) kind: SlotKind,
    pub(crate) cost: KdfCost,
    salt: [u8; SALT_LEN],
    wrapped: [u8; WRAPPED_LEN],
}

/// What people know of a slot; sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SlotInfo {
    pub(crate) id: SlotId,
    pub(crate) label: String,
    /// When it was made, as the clock of its maker said. For people only.
    pub(crate) created: jiff::Timestamp,
    /// Somebody typed the recovery key in again.
    #[serde(default)]
    pub(crate) confirmed: bool,
}

/// The sealed part of a key object.
#[derive(Serialize, Deserialize)]
struct Body {
    /// The master keys of all earlier epochs, as hexadecimal digits.
    masters: Vec<Zeroizing<String>>,
    slots: Vec<SlotInfo>,
}

/// A key object, parsed and intact; nothing in it is opened yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyObject {
    pub(crate) generation: u32,
    pub(crate) repository: RepositoryId,
    pub(crate) epoch: Epoch,
    /// BLAKE3 of the generation before; noughts for the first.
    pub(crate) previous: [u8; 32],
    pub(crate) slots: Vec<SlotBytes>,
    body_salt: [u8; SALT_LEN],
    body: Vec<u8>,
    /// All before the sealed body: what it is bound to.
    clear_len: usize,
    /// BLAKE3 of the whole object.
    pub(crate) hash: [u8; 32],
}

impl SlotBytes {
    /// Seals the newest master key for `secret`, under a salt that is used this once.
    pub(crate) fn seal(keys: &KeyRing, id: SlotId, secret: &Secret, cost: KdfCost) -> Result<Self, NoRandom> {
        let cost = secret.cost(cost);
        let mut slot = Self { id, kind: secret.kind(), cost, salt: id::random()?, wrapped: [0; WRAPPED_LEN] };
        let key = slot.key(keys.repository, keys.newest(), secret).expect("our own costs are allowed");
        let master = keys.masters().last().expect("a ring is never empty");
        let mut wrapped = Zeroizing::new(master.0.to_vec());
        key.seal_vec(NONCE_ZERO, &slot.bound(keys.repository, keys.newest()), &mut wrapped);
        slot.wrapped.copy_from_slice(&wrapped);
        Ok(slot)
    }

    fn key(&self, repository: RepositoryId, epoch: Epoch, secret: &Secret) -> Option<Aead> {
        let stretched = secret.stretched(&self.salt, self.cost)?;
        let parts: &[&[u8]] = &[repository.as_bytes(), &epoch.to_le_bytes(), self.id.as_bytes(), &self.salt];
        Some(Aead::new(&derive(context::SLOT, &*stretched, parts)))
    }

    fn bound(&self, repository: RepositoryId, epoch: Epoch) -> Vec<u8> {
        let mut bound = repository.as_bytes().to_vec();
        bound.put_u32(epoch);
        self.put_head(&mut bound);
        bound
    }

    fn put_head(&self, out: &mut Vec<u8>) {
        out.put(self.id.as_bytes());
        out.put_u8(self.kind as u8);
        for n in [self.cost.memory_kib, self.cost.passes, self.cost.lanes] {
            out.put_u32(n);
        }
        out.put(&self.salt);
    }

    fn parse(bytes: &mut Bytes<'_>) -> Result<Self, BadBytes> {
        Ok(Self {
            id: SlotId(bytes.array()?),
            kind: SlotKind::from_code(bytes.u8()?).ok_or(BadBytes("a slot is of an unknown kind"))?,
            cost: KdfCost { memory_kib: bytes.u32()?, passes: bytes.u32()?, lanes: bytes.u32()? },
            salt: bytes.array()?,
            wrapped: bytes.array()?,
        })
    }

    /// `secret` is this slot's, and the slot gives the newest master key of `keys`.
    pub(crate) fn opens(&self, keys: &KeyRing, secret: &Secret) -> bool {
        self.open(keys.repository, keys.newest(), secret).as_ref() == keys.masters().last()
    }

    fn open(&self, repository: RepositoryId, epoch: Epoch, secret: &Secret) -> Option<MasterKey> {
        if self.kind != secret.kind() {
            return None;
        }
        let mut wrapped = Zeroizing::new(self.wrapped);
        let key = self.key(repository, epoch, secret)?;
        let master = key.open(NONCE_ZERO, &self.bound(repository, epoch), &mut *wrapped).ok()?;
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        bytes.copy_from_slice(master);
        Some(MasterKey(bytes))
    }
}

impl KeyObject {
    /// The bytes of a new generation.
    pub(crate) fn build(
        keys: &KeyRing,
        generation: u32,
        previous: [u8; 32],
        slots: &[SlotBytes],
        infos: &[SlotInfo],
    ) -> Result<Vec<u8>, NoRandom> {
        let salt: [u8; SALT_LEN] = id::random()?;
        let mut out = Vec::new();
        out.put(&MAGIC);
        out.put_u32(VERSION);
        out.put_u32(generation);
        out.put(keys.repository.as_bytes());
        out.put_u32(keys.newest());
        out.put(&previous);
        out.put_u32(len_u32(slots.len()));
        for slot in slots {
            slot.put_head(&mut out);
            out.put(&slot.wrapped);
        }
        out.put(&salt);
        let older = &keys.masters()[..keys.masters().len() - 1];
        let masters = older.iter().map(|master| Zeroizing::new(data_encoding::HEXLOWER.encode(&*master.0))).collect();
        let body = Body { masters, slots: infos.to_vec() };
        let mut body = Zeroizing::new(serde_json::to_vec(&body).expect("texts and numbers always serialise"));
        out.put_u32(len_u32(body.len() + TAG_LEN));
        let master = keys.masters().last().expect("a ring is never empty");
        body_key(keys.repository, master, generation, &salt).seal_vec(NONCE_ZERO, &out, &mut body);
        out.put(&body);
        let checksum = blake3::hash(&out);
        out.put(checksum.as_bytes());
        Ok(out)
    }

    pub(crate) fn parse(object: &[u8]) -> Result<Self, BadBytes> {
        let at = object.len().checked_sub(CHECKSUM_LEN).ok_or(BadBytes("it is cut off"))?;
        let (text, checksum) = object.split_at(at);
        if blake3::hash(text).as_bytes() != checksum {
            return Err(BadBytes("its checksum does not fit: it was changed or cut off"));
        }
        let mut bytes = Bytes::new(text);
        bytes.magic(&MAGIC, "it does not begin like a key object")?;
        if bytes.u32()? != VERSION {
            return Err(BadBytes("it is a key object of an unknown version"));
        }
        let (generation, repository) = (bytes.u32()?, RepositoryId(bytes.array()?));
        let (epoch, previous) = (bytes.u32()?, bytes.array()?);
        let count = bytes.count(SLOT_LEN)?;
        if count > SLOTS_MAX {
            return Err(BadBytes("it has too many slots"));
        }
        let slots = (0..count).map(|_| SlotBytes::parse(&mut bytes)).collect::<Result<_, _>>()?;
        let body_salt = bytes.array()?;
        let body_len = bytes.count(1)?;
        let clear_len = text.len() - bytes.rest();
        let body = bytes.take(body_len)?.to_vec();
        bytes.end()?;
        let hash = *blake3::hash(object).as_bytes();
        Ok(Self { generation, repository, epoch, previous, slots, body_salt, body, clear_len, hash })
    }

    /// Opens it with `secret`. `object` are the bytes that it was parsed from. Also says which slot opened.
    pub(crate) fn open(&self, object: &[u8], secret: &Secret) -> Result<(KeyRing, Vec<SlotInfo>, SlotId), BadKeys> {
        for slot in &self.slots {
            if let Some(master) = slot.open(self.repository, self.epoch, secret) {
                let (keys, infos) = self.open_body(object, master)?;
                return Ok((keys, infos, slot.id));
            }
        }
        Err(BadKeys::WrongSecret)
    }

    fn open_body(&self, object: &[u8], master: MasterKey) -> Result<(KeyRing, Vec<SlotInfo>), BadKeys> {
        let key = body_key(self.repository, &master, self.generation, &self.body_salt);
        let mut body = Zeroizing::new(self.body.clone());
        let body = key.open(NONCE_ZERO, &object[..self.clear_len], &mut body).map_err(|_| BadKeys::Forged)?;
        let body: Body =
            serde_json::from_slice(body).map_err(|_| BadBytes("its sealed part is of an unknown version"))?;
        let mut masters = Vec::with_capacity(body.masters.len() + 1);
        for text in &body.masters {
            let bytes = Zeroizing::new(data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap_or_default());
            let bytes: [u8; KEY_LEN] = bytes.as_slice().try_into().map_err(|_| BadKeys::Forged)?;
            masters.push(MasterKey(Zeroizing::new(bytes)));
        }
        masters.push(master);
        let slots_match = body.slots.len() == self.slots.len()
            && body.slots.iter().zip(&self.slots).all(|(info, slot)| info.id == slot.id);
        if masters.len() as u64 != u64::from(self.epoch) + 1 || !slots_match {
            return Err(BadKeys::Forged);
        }
        Ok((KeyRing::new(self.repository, masters), body.slots))
    }

    /// Opens the sealed part with keys that are known already: whoever has them needs no slot.
    pub(crate) fn open_with(&self, object: &[u8], keys: &KeyRing) -> Result<(KeyRing, Vec<SlotInfo>), BadKeys> {
        let master = keys.master(self.epoch).map_err(|_| BadKeys::WrongSecret)?;
        self.open_body(object, master.clone())
    }
}

fn body_key(repository: RepositoryId, master: &MasterKey, generation: u32, salt: &[u8; SALT_LEN]) -> Aead {
    let parts: &[&[u8]] = &[repository.as_bytes(), &generation.to_le_bytes(), salt];
    Aead::new(&derive(context::KEY_BODY, &*master.0, parts))
}

//! From a secret to the keys, and what is sealed with a key of its own.

use std::path::{Path, PathBuf};

use argon2::{Algorithm, Argon2, Params, Version};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use crate::{bytes::Cursor, object};

pub type Key = [u8; 32];

/// `K(context, parent, parts)`.
pub fn derive(context: &str, parent: &[u8], parts: &[&[u8]]) -> Key {
    let context = format!("oxpecker repository v1 2026-11 {context}");
    blake3::derive_key(&context, &[parent, &parts.concat()].concat())
}

pub fn open_sealed(key: &Key, nonce: u32, associated: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let mut counter = [0; 12];
    counter[..4].copy_from_slice(&nonce.to_le_bytes());
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap());
    let mut text = sealed.to_vec();
    let nonce = Nonce::assume_unique_for_key(counter);
    let len = key.open_in_place(nonce, Aad::from(associated), &mut text).ok()?.len();
    text.truncate(len);
    Some(text)
}

/// A secret and the kind of slot that it opens.
pub struct Secret {
    kind: u8,
    bytes: Vec<u8>,
}

pub struct Secrets {
    passphrase: String,
    key_file: String,
    recovery_key: String,
}

impl Secrets {
    pub fn read(golden: &Path) -> Self {
        let text = |name: &str| std::fs::read_to_string(golden.join(name)).unwrap();
        Self {
            passphrase: text("passphrase.txt"),
            key_file: text("key-file.txt"),
            recovery_key: text("recovery-key.txt"),
        }
    }

    pub fn all(&self) -> [Secret; 3] {
        let secret = |kind, bytes: &[u8]| Secret { kind, bytes: bytes.to_vec() };
        [
            secret(1, self.passphrase.trim_end_matches('\n').as_bytes()),
            secret(2, self.key_file.as_bytes().trim_ascii_end()),
            secret(3, &recovery(self.recovery_key.trim())),
        ]
    }
}

/// Crockford's base32, the checksum left out of the secret and compared.
fn recovery(text: &str) -> Vec<u8> {
    let value = |c: char| "0123456789ABCDEFGHJKMNPQRSTVWXYZ".find(c).unwrap() as u128;
    let digits: Vec<u128> = text.chars().filter(|c| *c != '-').map(value).collect();
    assert_eq!(digits.len(), 36);
    let eight = |group: &[u128]| group.iter().fold(0, |sum, digit| sum << 5 | digit).to_be_bytes()[11..].to_vec();
    let secret: Vec<u8> = digits[..32].chunks(8).flat_map(eight).collect();
    let check = derive("recovery key checksum", &secret, &[]);
    let check = u32::from_be_bytes(check[..4].try_into().unwrap()) >> 12;
    assert_eq!(digits[32..].iter().fold(0, |sum, digit| sum << 5 | digit), u128::from(check));
    secret
}

/// The opened keys.
#[derive(PartialEq, Eq)]
pub struct Keys {
    /// Where the repository lies.
    pub root: PathBuf,
    pub repository: [u8; 16],
    /// By epoch.
    masters: Vec<Key>,
}

/// Opens the newest key object.
pub fn open(root: &Path, secret: &Secret) -> Keys {
    let (mut newest, mut previous) = (None, [0; 32]);
    for generation in 0_u32.. {
        let Some(bytes) = object(root, &format!("key/{generation}")) else { break };
        let (text, checksum) = bytes.split_at(bytes.len() - 32);
        assert_eq!(blake3::hash(text), <[u8; 32]>::try_from(checksum).unwrap());
        assert_eq!(bytes[12..16], generation.to_le_bytes());
        assert_eq!(bytes[36..68], previous);
        previous = *blake3::hash(&bytes).as_bytes();
        newest = Some(bytes);
    }
    let object = newest.unwrap();
    let text = &object[..object.len() - 32];
    let mut cursor = Cursor(text);
    assert_eq!((cursor.take(8), cursor.u32()), (&b"OXPKKEYS"[..], 1));
    let (generation, repository, epoch) = (cursor.u32(), cursor.array::<16>(), cursor.u32());
    cursor.take(32);
    let mut master = None;
    for _ in 0..cursor.u32() {
        let head = cursor.take(16 + 1 + 12 + 16);
        let wrapped = cursor.take(48);
        if head[16] == secret.kind && master.is_none() {
            master = open_slot(secret, repository, epoch, head, wrapped);
        }
    }
    let master: Key = master.expect("a slot opens");
    let salt = cursor.take(16);
    let body_len = cursor.u32() as usize;
    let clear = &text[..text.len() - cursor.0.len()];
    let body = cursor.take(body_len);
    cursor.end();
    let key = derive("key object body", &master, &[&repository, &generation.to_le_bytes(), salt]);
    let body: serde_json::Value = serde_json::from_slice(&open_sealed(&key, 0, clear, body).unwrap()).unwrap();
    let older = body["masters"].as_array().unwrap().iter().map(|text| {
        let bytes = data_encoding::HEXLOWER.decode(text.as_str().unwrap().as_bytes()).unwrap();
        Key::try_from(bytes).unwrap()
    });
    let masters: Vec<Key> = older.chain([master]).collect();
    assert_eq!(masters.len(), epoch as usize + 1);
    Keys { root: root.to_owned(), repository, masters }
}

fn open_slot(secret: &Secret, repository: [u8; 16], epoch: u32, head: &[u8], wrapped: &[u8]) -> Option<Key> {
    let mut cursor = Cursor(head);
    let (id, _kind) = (cursor.array::<16>(), cursor.u8());
    let (memory, passes, lanes) = (cursor.u32(), cursor.u32(), cursor.u32());
    let salt = cursor.array::<16>();
    let mut stretched = [0; 32];
    match secret.kind {
        1 => {
            let params = Params::new(memory, passes, lanes, Some(32)).unwrap();
            let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
            argon.hash_password_into(&secret.bytes, &salt, &mut stretched).unwrap();
        }
        2 => stretched = derive("key file secret", &salt, &[&secret.bytes]),
        _ => stretched = derive("recovery key secret", &salt, &[&secret.bytes]),
    }
    let key = derive("key slot", &stretched, &[&repository, &epoch.to_le_bytes(), &id, &salt]);
    let bound = [&repository[..], &epoch.to_le_bytes(), head].concat();
    open_sealed(&key, 0, &bound, wrapped)?.try_into().ok()
}

impl Keys {
    pub fn open_record(&self, n: u64, sealed: &[u8]) -> Vec<u8> {
        let (header, text) = sealed.split_at(28);
        assert_eq!((&header[..4], &header[4..8]), (&b"OXLR"[..], &1_u32.to_le_bytes()[..]));
        let epoch = u32::from_le_bytes(header[8..12].try_into().unwrap());
        let parts: &[&[u8]] = &[&self.repository, &n.to_le_bytes(), &header[12..]];
        let key = derive("log record key", &self.masters[epoch as usize], parts);
        open_sealed(&key, 0, header, text).expect("the record opens")
    }

    pub fn pack(&self, epoch: u32, pack: &[u8; 16]) -> Key {
        derive("pack key", &self.masters[epoch as usize], &[&self.repository, pack])
    }

    pub fn identity(&self) -> Key {
        derive("frame identity key", &self.masters[0], &[&self.repository])
    }

    /// 16 bytes that name a stream of WAL.
    pub fn wal_stream(&self, name: &str) -> String {
        let key = derive("wal stream name", &self.masters[0], &[&self.repository, name.as_bytes()]);
        data_encoding::HEXLOWER.encode(&key[..16])
    }

    pub fn wal_object(&self, epoch: u32, salt: &[u8], name: &str) -> Key {
        derive("wal object key", &self.masters[epoch as usize], &[&self.repository, salt, name.as_bytes()])
    }

    pub fn wal_identity(&self) -> Key {
        derive("wal identity key", &self.masters[0], &[&self.repository])
    }
}

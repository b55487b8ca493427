//! WAL: segments, rows of chunks, indexes, histories, and what the log says of them.

use std::collections::BTreeMap;

use crate::{
    bytes::Cursor,
    keys::{Keys, open_sealed},
    object,
};

/// Segments of a range.
const RANGE: u64 = 64;
/// Plain bytes of a frame.
const FRAME: usize = 1 << 20;

/// An object of WAL, opened.
struct Content {
    epoch: u32,
    start: u64,
    identity: [u8; 32],
    bytes: Vec<u8>,
}

struct Stream<'a> {
    keys: &'a Keys,
    prefix: String,
    segment_bytes: u64,
}

impl Stream<'_> {
    fn segment_name(&self, line: u32, segment: u64) -> String {
        format!("{}/{line:08x}/{:016x}/{segment:016x}", self.prefix, segment / RANGE)
    }

    fn get(&self, name: &str) -> Option<Content> {
        let object = object(&self.keys.root, name)?;
        let (header, rest) = object.split_at(32);
        let mut clear = Cursor(header);
        assert_eq!((clear.take(8), clear.u32()), (&b"OXPKWAL\n"[..], 1));
        let epoch = clear.u32();
        let key = self.keys.wal_object(epoch, clear.take(16), name);
        let mut cursor = Cursor(rest);
        let summary = open_sealed(&key, u32::MAX, header, cursor.take(52 + 16)).expect("the summary opens");
        let mut summary = Cursor(&summary);
        let (start, len) = (summary.u64(), usize::try_from(summary.u64()).unwrap());
        let (identity, frames) = (summary.array(), summary.u32());
        summary.end();
        assert_eq!(frames as usize, len.div_ceil(FRAME));
        let mut bytes = Vec::new();
        for ordinal in 0..frames {
            let sealed_len = cursor.u32() as usize;
            let encoded = open_sealed(&key, ordinal, header, cursor.take(sealed_len)).expect("the frame opens");
            let plain_len = FRAME.min(len - bytes.len());
            bytes.extend(match encoded[0] {
                0 => encoded[1..].to_vec(),
                1 => zstd::bulk::decompress(&encoded[1..], plain_len).unwrap(),
                other => panic!("unknown encoding {other}"),
            });
        }
        cursor.end();
        assert_eq!(bytes.len(), len);
        assert_eq!(blake3::keyed_hash(&self.keys.wal_identity(), &bytes), identity);
        Some(Content { epoch, start, identity, bytes })
    }

    fn segment(&self, line: u32, segment: u64) -> Option<Content> {
        let found = self.get(&self.segment_name(line, segment))?;
        assert_eq!((found.start, found.bytes.len() as u64), (0, self.segment_bytes));
        Some(found)
    }

    /// The beginning of a segment that grows, from its newest chunk back.
    fn tail(&self, line: u32, segment: u64) -> Vec<u8> {
        let chunk = |m: u32| format!("{}.t/{:08}", self.segment_name(line, segment), m - 1);
        let mut m = (1..).take_while(|&m| object(&self.keys.root, &chunk(m)).is_some()).last().unwrap_or(0);
        let (mut pieces, mut begins, mut steps): (Vec<Vec<u8>>, Option<u64>, _) = (Vec::new(), None, 0);
        while m > 0 {
            let found = self.get(&chunk(m)).unwrap();
            assert!(begins.is_none_or(|begins| begins == found.start + found.bytes.len() as u64));
            begins = Some(found.start);
            pieces.push(found.bytes);
            let mut s = 1;
            while m % (s * 8) == 0 {
                s *= 8;
            }
            m -= s;
            steps += 1;
        }
        assert!(begins.is_none_or(|begins| begins == 0) && steps <= 28);
        pieces.into_iter().rev().flatten().collect()
    }

    /// The origin of a range's run, and its segments' identities.
    fn index(&self, line: u32, range: u64) -> Option<(u64, Vec<[u8; 32]>)> {
        let found = self.get(&format!("{}/{line:08x}/{range:016x}/index", self.prefix))?;
        let mut bytes = Cursor(&found.bytes);
        assert_eq!((bytes.take(4), bytes.u32(), bytes.u64()), (&b"OXWI"[..], 1, range));
        let (origin, count) = (bytes.u64(), bytes.u32());
        let identities: Vec<[u8; 32]> = (0..count).map(|_| bytes.array()).collect();
        bytes.end();
        assert_eq!(identities.len() as u64, RANGE);
        Some((origin, identities))
    }
}

fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// By line: the first segment that stays. The rules of the records are seen to on the way.
fn floors(records: &[serde_json::Value], stream: &str) -> BTreeMap<u64, u64> {
    let mut floors: BTreeMap<u64, u64> = BTreeMap::new();
    let mut starts: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for body in records.iter().map(|record| &record["body"]) {
        if body["kind"] == "commit" && body["wal"]["stream"] == stream {
            let (line, segment) = (body["wal"]["line"].as_u64().unwrap(), body["wal"]["segment"].as_u64().unwrap());
            assert!(segment >= floors.get(&line).copied().unwrap_or(0));
            starts.insert(body["backup"].as_str().unwrap().to_owned(), (line, segment));
        }
        if body["kind"] == "wal-expire" && body["stream"] == stream {
            for cut in body["cut"].as_array().unwrap() {
                starts.remove(cut.as_str().unwrap()).expect("who is cut was there");
            }
            for pair in body["lines"].as_array().unwrap() {
                let (line, first) = (pair[0].as_u64().unwrap(), pair[1].as_u64().unwrap());
                assert!(floors.insert(line, first).is_none_or(|before| before < first));
                assert!(starts.values().all(|&(of, from)| of > line || from >= first), "nobody loses it unseen");
            }
        }
    }
    floors
}

/// Reads all WAL of the golden repository, from what its log names.
pub fn is_read(keys: &Keys, records: &[serde_json::Value], expected: &serde_json::Value) {
    let commit = records.iter().rfind(|record| record["body"].get("wal").is_some()).unwrap();
    let start = &commit["body"]["wal"];
    let name = start["stream"].as_str().unwrap();
    let segment_bytes = start["segment_bytes"].as_u64().unwrap();
    let stream = Stream { keys, prefix: format!("wal/{}", keys.wal_stream(name)), segment_bytes };
    assert_eq!(expected["stream"], name);
    let floors = floors(records, name);
    assert_eq!(serde_json::to_value(&floors).unwrap(), expected["floors"]);

    for (line, told) in expected["lines"].as_object().unwrap() {
        let line: u32 = line.parse().unwrap();
        let (first, end) = (told["first"].as_u64().unwrap(), told["end"].as_u64().unwrap());
        let hashes = told["segments"].as_array().unwrap();
        assert_eq!(hashes.len() as u64, end - first);
        let mut epoch = 0;
        for (segment, expected) in (first..end).zip(hashes) {
            let found = stream.segment(line, segment).unwrap();
            assert_eq!(hash(&found.bytes), expected.as_str().unwrap(), "segment {segment} of line {line}");
            assert!(found.epoch >= epoch, "keys become newer along a line");
            epoch = found.epoch;
            if let Some((origin, identities)) = stream.index(line, segment / RANGE) {
                assert_eq!(identities[usize::try_from(segment % RANGE).unwrap()], found.identity);
                assert!(origin <= segment);
            }
        }
        assert_eq!(u64::from(epoch), told["epoch"].as_u64().unwrap());
        assert!(stream.segment(line, end).is_none());
        let tail = stream.tail(line, end);
        assert_eq!(
            (hash(&tail), tail.len() as u64),
            (told["tail"].as_str().unwrap().to_owned(), told["tail_bytes"].as_u64().unwrap())
        );
        let before = first.checked_sub(1).and_then(|before| stream.segment(line, before));
        assert!(before.is_none(), "what has expired was removed");
        let history = stream.get(&format!("{}/history/{line:08x}", stream.prefix));
        assert_eq!(history.map(|found| hash(&found.bytes)).as_deref(), told["history"].as_str());
    }
    assert_eq!(stream.index(1, 0).unwrap().0, expected["origin"].as_u64().unwrap());
    for (name, expected) in expected["others"].as_object().unwrap() {
        let found = stream.get(&format!("{}/{name}", stream.prefix)).unwrap();
        assert_eq!(hash(&found.bytes), expected.as_str().unwrap(), "{name}");
    }
}

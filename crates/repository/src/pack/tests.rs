use proptest::prelude::*;
use zeroize::Zeroizing;

use super::*;
use crate::{
    frame::{COMPRESSION_LEVEL, Decoder, Encoder, Identity},
    id::SessionId,
    seal::{KeyRing, MasterKey},
};

fn keys() -> KeyRing {
    KeyRing::new(RepositoryId([1; 16]), vec![MasterKey(Zeroizing::new([2; 32]))])
}

fn build(keys: &KeyRing, frames: &[&[u8]]) -> SealedPack {
    let mut encoder = Encoder::new(COMPRESSION_LEVEL).unwrap();
    let mut builder = PackBuilder::new(keys, SessionId([3; 16]), PACK_TARGET, vec![7; 100]).unwrap();
    for plain in frames {
        builder.append(Kind::Data, Identity::of(&keys.identity(), plain), plain, &mut encoder);
    }
    builder.finish()
}

fn open_all(keys: &KeyRing, pack: PackId, bytes: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let (opener, _, table) = PackOpener::whole(keys, pack, bytes).map_err(|error| error.to_string())?;
    let mut decoder = Decoder::new().unwrap();
    let frames = (0..table.frames.len()).map(|ordinal| {
        let place = table.locate(u32::try_from(ordinal).unwrap()).unwrap();
        let mut sealed = bytes[place.offset as usize..(place.offset + place.sealed_len) as usize].to_vec();
        opener.frame(&place, table.frames[ordinal].kind, &mut sealed, &mut decoder).map_err(|error| error.to_string())
    });
    frames.collect()
}

const FRAMES: [&[u8]; 3] = [b"first", b"", &[0; 300]];

#[test]
fn a_pack_comes_back() {
    let keys = keys();
    let pack = build(&keys, &FRAMES);
    assert_eq!(pack.bytes().len() as u64, pack.table.object_len());
    assert_eq!(open_all(&keys, pack.table.pack, pack.bytes()).unwrap(), FRAMES);
    let (_, session, table) = PackOpener::whole(&keys, pack.table.pack, pack.bytes()).unwrap();
    assert_eq!((session, table), (SessionId([3; 16]), pack.table));
}

#[test]
fn every_flipped_bit_and_every_cut_is_found() {
    let keys = keys();
    let pack = build(&keys, &FRAMES);
    for bit in 0..pack.bytes().len() * 8 {
        let mut changed = pack.bytes().to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(open_all(&keys, pack.table.pack, &changed).is_err(), "bit {bit} of {}", pack.bytes().len() * 8);
    }
    for len in 0..pack.bytes().len() {
        assert!(open_all(&keys, pack.table.pack, &pack.bytes()[..len]).is_err(), "cut to {len}");
    }
    let mut longer = pack.bytes().to_vec();
    longer.push(0);
    assert!(open_all(&keys, pack.table.pack, &longer).is_err());
}

#[test]
fn swapped_and_foreign_packs_are_found() {
    let keys = keys();
    let (one, other) = (build(&keys, &FRAMES), build(&keys, &FRAMES));
    assert_ne!(one.bytes(), other.bytes(), "equal content makes unlike packs");
    assert!(open_all(&keys, one.table.pack, other.bytes()).is_err());
    // The other pack's header changed to this name: the key is another one.
    let mut renamed = other.bytes().to_vec();
    renamed[16..32].copy_from_slice(one.table.pack.as_bytes());
    assert!(open_all(&keys, one.table.pack, &renamed).is_err());
    let foreign = KeyRing::new(RepositoryId([9; 16]), vec![MasterKey(Zeroizing::new([2; 32]))]);
    assert!(open_all(&foreign, one.table.pack, one.bytes()).is_err());
}

#[test]
fn swapped_frames_are_found() {
    let keys = keys();
    let pack = build(&keys, &[b"aaaa", b"bbbb"]);
    let [a, b] = [pack.table.frames[0], pack.table.frames[1]];
    assert_eq!(a.sealed_len, b.sealed_len);
    let mut swapped = pack.bytes().to_vec();
    let len = a.sealed_len as usize;
    swapped.copy_within(b.offset as usize..b.end() as usize, a.offset as usize);
    swapped[b.offset as usize..][..len].copy_from_slice(&pack.bytes()[a.offset as usize..][..len]);
    assert!(open_all(&keys, pack.table.pack, &swapped).is_err());
}

#[test]
fn a_kind_never_passes_for_another() {
    let keys = keys();
    let pack = build(&keys, &[b"aaaa"]);
    let opener = PackOpener::new(&keys, pack.table.pack, 0).unwrap();
    let place = pack.table.locate(0).unwrap();
    let sealed = &pack.bytes()[place.offset as usize..(place.offset + place.sealed_len) as usize];
    let open = |kind| opener.frame(&place, kind, &mut sealed.to_vec(), &mut Decoder::new().unwrap());
    assert!(open(Kind::Data).is_ok());
    for kind in [Kind::Table, Kind::Entries, Kind::Root] {
        assert!(open(kind).is_err(), "{kind:?}");
    }
}

#[test]
fn names_are_the_ids() {
    let pack = PackId([0xab; 16]);
    assert_eq!(object_name(pack), format!("pack/ab/{}", "ab".repeat(16)));
    assert_eq!(pack_of(&object_name(pack)), Some(pack));
    for bad in ["pack/ab", "pack/ac/abababababababababababababababab", "log/0", "pack/ab/zz"] {
        assert_eq!(pack_of(bad), None, "{bad}");
    }
}

#[test]
fn a_full_pack_stays_within_its_bounds() {
    let keys = keys();
    let mut encoder = Encoder::new(COMPRESSION_LEVEL).unwrap();
    let mut builder = PackBuilder::new(&keys, SessionId([3; 16]), 4096, Vec::new()).unwrap();
    let noise: Vec<u8> = (0..40_000_u32).flat_map(|n| *blake3::hash(&n.to_le_bytes()).as_bytes()).collect();
    while !builder.is_full() {
        builder.append(Kind::Data, Identity([0; 32]), &noise[..1_000_000], &mut encoder);
    }
    assert!(builder.finish().bytes().len() <= PACK_LEN_MAX);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(PackOpener::whole(&keys(), PackId([1; 16]), &bytes).is_err());
        let _ = parse_trailer(&bytes);
        let _ = table::parse_footer(&bytes);
        let _ = Locator::parse(&mut crate::wire::Bytes::new(&bytes));
        let _ = PackTable::parse(&mut crate::wire::Bytes::new(&bytes));
    }
}

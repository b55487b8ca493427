use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    frame::{Identity, Kind},
    id::PackId,
    pack::{FrameInfo, HEADER_LEN, Locator, PackTable},
};

fn locator(n: u8) -> Locator {
    Locator {
        pack: PackId([n; 16]),
        epoch: 1,
        ordinal: 2,
        offset: 32,
        sealed_len: 40,
        plain_len: 100,
        identity: Identity([n; 32]),
    }
}

type TestEntry = RawEntry<(Identity, u32)>;

fn any_entry() -> impl Strategy<Value = (Vec<u8>, TestEntry)> {
    let name = proptest::collection::vec(any::<u8>(), 1..12);
    let run = prop_oneof![
        any::<u64>().prop_map(|len| RawRun::Zero { len }),
        (0..4_u8, 0..9_u32, any::<u32>(), any::<u32>()).prop_map(|(table, index, first, count)| RawRun::Frames {
            pack: (Identity([table; 32]), index),
            first,
            count
        }),
    ];
    let rest = (proptest::collection::vec(any::<u8>(), 0..20), any::<u64>(), proptest::collection::vec(run, 0..6));
    (name, rest).prop_map(|(name, (meta, size, runs))| (name.clone(), RawEntry { name, meta, size, runs }))
}

proptest! {
    #[test]
    fn pages_come_back(entries in proptest::collection::vec(any_entry(), 0..40)) {
        let sorted: BTreeMap<_, _> = entries.into_iter().collect();
        let mut builder = PageBuilder::default();
        sorted.values().for_each(|entry| builder.push(entry));
        prop_assert_eq!(builder.entries() as usize, sorted.len());
        let (plain, first) = builder.finish();
        let page = Page::parse(&plain).unwrap();
        prop_assert_eq!(&page.entries, &sorted.into_values().collect::<Vec<_>>());
        prop_assert_eq!(page.entries.first().map_or(&[][..], |entry| &entry.name), &first);
        for len in (0..plain.len()).step_by(1 + plain.len() / 40) {
            prop_assert!(Page::parse(&plain[..len]).is_err());
        }
    }

    #[test]
    fn roots_come_back(
        tables in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<bool>(), 0..40)), 0..5),
        names in proptest::collection::btree_set(proptest::collection::vec(any::<u8>(), 0..9), 0..9),
    ) {
        let tables = tables.into_iter().map(|(n, used)| TableRef { place: locator(n), used }).collect();
        let pages: Vec<_> = names.into_iter().map(|first| PageRef { place: locator(7), entries: 3, first }).collect();
        let root = Root { entries: pages.len() as u64 * 3, content_bytes: 9, tables, pages };
        let plain = root.encode();
        prop_assert_eq!(Root::parse(&plain).unwrap(), root);
        for len in (0..plain.len()).step_by(1 + plain.len() / 40) {
            prop_assert!(Root::parse(&plain[..len]).is_err());
        }
    }

    #[test]
    fn no_bytes_make_it_panic(
        magic in prop_oneof![Just(&b"OXRT"[..]), Just(&b"OXEP"[..]), Just(&b"OXTB"[..])],
        bytes in proptest::collection::vec(prop_oneof![Just(0_u8), Just(1), any::<u8>()], 0..300),
    ) {
        let plain = [magic, &1_u32.to_le_bytes(), &bytes].concat();
        let _ = Root::parse(&plain);
        let _ = Page::parse(&plain);
        let _ = parse_tables(&plain);
    }
}

#[test]
fn tables_come_back() {
    let frame =
        |offset| FrameInfo { kind: Kind::Data, offset, sealed_len: 40, plain_len: 100, identity: Identity([5; 32]) };
    let header = u32::try_from(HEADER_LEN).unwrap();
    let packs = [
        PackTable { pack: PackId([1; 16]), epoch: 0, frames: vec![frame(header), frame(header + 40)] },
        PackTable { pack: PackId([2; 16]), epoch: 3, frames: Vec::new() },
    ];
    let mut builder = TableBuilder::default();
    assert_eq!(packs.iter().map(|pack| builder.push(pack)).collect::<Vec<_>>(), [0, 1]);
    let plain = builder.finish();
    assert_eq!(parse_tables(&plain).unwrap(), packs);
    for len in 0..plain.len() {
        assert!(parse_tables(&plain[..len]).is_err());
    }
}

#[test]
fn what_is_not_known_is_refused() {
    let plain = Root::default().encode();
    let mut features = plain.clone();
    features[8] = 1;
    assert!(Root::parse(&features).unwrap_err().0.contains("features"));
    let mut version = plain;
    version[4] = 2;
    assert!(Root::parse(&version).unwrap_err().0.contains("version"));
}

/// A new file changes the page that it falls into, and no other.
#[test]
fn pages_are_cut_where_names_say() {
    let entry = |n: u32| RawEntry {
        name: format!("base/16384/{n:07}").into_bytes(),
        meta: vec![0; 80],
        size: 0,
        runs: Vec::new(),
    };
    let pages = |names: &mut dyn Iterator<Item = u32>| {
        let (mut pages, mut builder) = (Vec::new(), PageBuilder::default());
        for n in names {
            builder.push(&entry(n));
            if builder.is_full() {
                pages.push(std::mem::take(&mut builder).finish().0);
            }
        }
        pages.push(builder.finish().0);
        pages
    };
    let before = pages(&mut (0..20_000).map(|n| n * 2));
    let after = pages(
        &mut (0..20_000).map(|n| n * 2).chain([]).flat_map(|n| if n == 17_000 { vec![n, n + 1] } else { vec![n] }),
    );
    assert!(before.len() > 50, "{} pages", before.len());
    let shared = before.iter().filter(|page| after.contains(page)).count();
    assert!(shared + 2 >= before.len(), "{shared} of {} pages are the same", before.len());
}

/// The bound on entries is one that the root's frame can hold, with names and metadata as a cluster has them.
#[test]
fn the_most_entries_fit_into_a_root() {
    const TRIED: u32 = 100_000;
    let in_table = (Identity([1; 32]), 0);
    let (mut root, mut builder) = (Root::default(), PageBuilder::default());
    for n in 0..TRIED {
        builder.push(&RawEntry {
            name: format!("base/16384/{:07}", n + 1_000_000).into_bytes(),
            meta: br#"{"k":"file","m":384,"t":1795395600,"c":4294967295}"#.to_vec(),
            size: 8192,
            runs: vec![RawRun::Frames { pack: in_table, first: 0, count: 1 }],
        });
        if builder.is_full() {
            let entries = builder.entries();
            let (_, first) = std::mem::take(&mut builder).finish();
            root.pages.push(PageRef { place: locator(7), entries, first });
        }
    }
    let bytes = root.encode().len() as u64 * ENTRIES_MAX / u64::from(TRIED);
    // An eighth stays for tables of packs: those of ten times ten terabytes.
    assert!(bytes < crate::FRAME_PLAIN_MAX as u64 * 7 / 8, "{bytes} bytes for {ENTRIES_MAX} entries");
}

//! The checksum of a page (PostgreSQL's storage/checksum_impl.h): 32 sums side by side, each over every 32nd word of four bytes, so that
//! the compiler makes vector instructions of it.

/// How many sums run side by side.
const LANES: usize = 32;
/// Bytes that the lanes take in one step.
const ROW: usize = LANES * 4;
/// The prime of the 32-bit Fowler-Noll-Vo hash.
const PRIME: u32 = 16_777_619;
/// The first row's word that holds `pd_checksum` in its lower half, which counts as zero, and `pd_flags` in its upper.
const CHECKSUM_LANE: usize = 2;
const FLAGS_MASK: u32 = 0xFFFF_0000;

/// The lanes' first values: chosen at random by PostgreSQL's authors, part of the format.
const BASE: [u32; LANES] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

#[inline(always)]
fn mix(sum: u32, word: u32) -> u32 {
    let mixed = sum ^ word;
    mixed.wrapping_mul(PRIME) ^ (mixed >> 17)
}

#[inline(always)]
fn words(row: &[u8; ROW]) -> [u32; LANES] {
    let (words, _) = row.as_chunks::<4>();
    std::array::from_fn(|lane| u32::from_le_bytes(words[lane]))
}

#[inline(always)]
fn add(sums: &mut [u32; LANES], words: &[u32; LANES]) {
    for (sum, word) in sums.iter_mut().zip(words) {
        *sum = mix(*sum, *word);
    }
}

/// The checksum that belongs into the header of `page` as block `block` of its relation (counted over all its segment files). The
/// checksum that the page holds does not matter. Only whole steps of 128 bytes count; every page size is a multiple of that.
#[must_use]
pub fn checksum(page: &[u8], block: u32) -> u16 {
    let mut sums = BASE;
    let (rows, _) = page.as_chunks::<ROW>();
    if let Some((first, rest)) = rows.split_first() {
        let mut first = words(first);
        first[CHECKSUM_LANE] &= FLAGS_MASK;
        add(&mut sums, &first);
        for row in rest {
            add(&mut sums, &words(row));
        }
    }
    for _ in 0..2 {
        add(&mut sums, &[0; LANES]);
    }
    let folded = sums.iter().fold(0, |all, sum| all ^ sum);
    // Never zero, and never more than 65535.
    u16::try_from((folded ^ block) % 65_535 + 1).expect("a remainder by 65535, and one")
}

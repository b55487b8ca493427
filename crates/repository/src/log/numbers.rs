//! Sets of pack numbers, as ranges: a backup that shares tens of thousands of packs with the one before says so in a few bytes.

use serde::{Deserialize, Serialize};

/// A set of pack numbers. In records: `[[first, count], ...]`, ascending, neither empty, overlapping nor adjacent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(u32, u32)>", into = "Vec<(u32, u32)>")]
pub struct Numbers(Vec<(u32, u32)>);

impl Numbers {
    /// All of them, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().flat_map(|&(first, count)| first..first + count)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many.
    pub fn len(&self) -> u64 {
        self.0.iter().map(|&(_, count)| u64::from(count)).sum()
    }

    /// Whether `number` is among them.
    pub fn contains(&self, number: u32) -> bool {
        let at = self.0.partition_point(|&(first, _)| first <= number);
        at.checked_sub(1).is_some_and(|at| number - self.0[at].0 < self.0[at].1)
    }
}

impl FromIterator<u32> for Numbers {
    fn from_iter<I: IntoIterator<Item = u32>>(numbers: I) -> Self {
        let mut all: Vec<u32> = numbers.into_iter().filter(|&n| n != u32::MAX).collect();
        all.sort_unstable();
        all.dedup();
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for number in all {
            match ranges.last_mut() {
                Some((first, count)) if *first + *count == number => *count += 1,
                _ => ranges.push((number, 1)),
            }
        }
        Self(ranges)
    }
}

impl TryFrom<Vec<(u32, u32)>> for Numbers {
    type Error = &'static str;

    fn try_from(ranges: Vec<(u32, u32)>) -> Result<Self, Self::Error> {
        let mut after = None;
        for &(first, count) in &ranges {
            if count == 0 || after.is_some_and(|after| first <= after) {
                return Err("ranges of pack numbers that are empty, adjacent or out of order");
            }
            after = Some(first.checked_add(count).ok_or("a range of pack numbers beyond 2^32")?);
        }
        Ok(Self(ranges))
    }
}

impl From<Numbers> for Vec<(u32, u32)> {
    fn from(numbers: Numbers) -> Self {
        numbers.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_comes_back(all in proptest::collection::btree_set(0_u32..200, 0..100)) {
            let numbers: Numbers = all.iter().rev().copied().collect();
            prop_assert_eq!(&numbers.iter().collect::<BTreeSet<_>>(), &all);
            prop_assert_eq!(numbers.len(), all.len() as u64);
            for n in 0..200 {
                prop_assert_eq!(numbers.contains(n), all.contains(&n));
            }
            let json = serde_json::to_string(&numbers).unwrap();
            prop_assert_eq!(serde_json::from_str::<Numbers>(&json).unwrap(), numbers);
        }
    }

    #[test]
    fn ranges_that_are_none_are_refused() {
        for bad in ["[[1,0]]", "[[1,2],[3,1]]", "[[1,2],[2,1]]", "[[5,1],[1,1]]", "[[4294967295,1]]", "[[0,-1]]"] {
            assert!(serde_json::from_str::<Numbers>(bad).is_err(), "{bad}");
        }
        assert_eq!(serde_json::to_string(&[7, 3, 4].into_iter().collect::<Numbers>()).unwrap(), "[[3,2],[7,1]]");
    }
}

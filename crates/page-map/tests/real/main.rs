//! The map against the truth: what `pg_waldump` reads from the same WAL, and two copies of the cluster compared page by page.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "test helpers, which clippy does not take for tests")]

mod copies;
mod dump;
mod load;
mod truth;

macro_rules! majors {
    ($($name:ident = $major:literal, $crash:literal, $steps:literal;)*) => {
        $(#[test]
        fn $name() {
            truth::agrees($major, $crash, $steps);
        })*
    };
}

majors! {
    map_14 = 14, true, 100;
    map_18 = 18, false, 100;
    slow_map_13 = 13, true, 250;
    slow_map_15 = 15, true, 250;
    slow_map_16 = 16, false, 250;
    slow_map_17 = 17, true, 250;
    slow_map_18_crash = 18, true, 250;
}

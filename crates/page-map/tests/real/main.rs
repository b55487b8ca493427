//! The map against the truth: what `pg_waldump` reads from the same WAL, and two copies of the cluster compared page by page.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "test helpers, which clippy does not take for tests")]

mod dump;
mod load;
mod truth;

macro_rules! majors {
    ($($name:ident = $major:literal, $crash:literal;)*) => {
        $(#[test]
        fn $name() {
            truth::agrees($major, $crash);
        })*
    };
}

majors! {
    map_14 = 14, true;
    map_18 = 18, false;
    slow_map_13 = 13, true;
    slow_map_15 = 15, true;
    slow_map_16 = 16, false;
    slow_map_17 = 17, true;
    slow_map_18_crash = 18, true;
}

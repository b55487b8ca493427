//! WAL of real servers, received into repositories.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "test helpers, which clippy does not take for tests")]

mod apart;
mod faults;
mod follow;
mod map;
#[path = "../../../page-map/tests/real/copies.rs"]
mod map_copies;
#[path = "../../../page-map/tests/real/load.rs"]
mod map_load;
mod same;
mod shutdown;
mod slots;
mod support;
mod timelines;
mod wal_fault_disk;
mod wal_fault_network;

macro_rules! majors {
    ($($module:ident::$check:ident: $($name:ident = $major:literal),*;)*) => {
        $($(#[test]
        fn $name() {
            $module::$check($major);
        })*)*
    };
}

majors! {
    same::as_pg_wal: slow_same_13 = 13, slow_same_14 = 14, slow_same_15 = 15, slow_same_16 = 16, slow_same_17 = 17, same_18 = 18;
    follow::a_promotion: slow_promotion_13 = 13, slow_promotion_15 = 15, promotion_18 = 18, slow_promotion_14 = 14, slow_promotion_16 = 16, slow_promotion_17 = 17;
    follow::a_failover: slow_failover_14 = 14, failover_17 = 17, slow_failover_15 = 15, slow_failover_16 = 16, slow_failover_18 = 18;
    shutdown::is_not_held_up: slow_shutdown_13 = 13, slow_shutdown_16 = 16, shutdown_18 = 18, slow_shutdown_14 = 14, slow_shutdown_15 = 15, slow_shutdown_17 = 17;
    slots::come_and_go: slow_slots_13 = 13, slow_slots_15 = 15, slots_18 = 18, slow_slots_14 = 14, slow_slots_16 = 16, slow_slots_17 = 17;
    slots::leave_a_gap: slow_gap_14 = 14, slow_gap_17 = 17, gap_18 = 18, slow_gap_15 = 15, slow_gap_16 = 16;
    faults::a_store_that_fails: slow_store_13 = 13, store_18 = 18, slow_store_14 = 14, slow_store_15 = 15, slow_store_16 = 16, slow_store_17 = 17;
    faults::a_store_that_is_stuck_for_long: slow_stuck_15 = 15, slow_stuck_18 = 18, slow_stuck_14 = 14, slow_stuck_16 = 16, slow_stuck_17 = 17;
    faults::a_kill_at_any_write: kills_18 = 18, slow_kills_14 = 14, slow_kills_15 = 15, slow_kills_16 = 16, slow_kills_17 = 17;
    faults::a_server_without_wal: slow_minimal_13 = 13, slow_minimal_18 = 18, slow_minimal_14 = 14, slow_minimal_15 = 15, slow_minimal_16 = 16, slow_minimal_17 = 17;
    map::of_a_load: slow_map_13 = 13, slow_map_14 = 14, slow_map_15 = 15, slow_map_16 = 16, slow_map_17 = 17, map_18 = 18;
    map::over_a_promotion: slow_map_promotion_14 = 14, slow_map_promotion_18 = 18;
    timelines::promoted_again_and_again: slow_promotions_14 = 14, slow_promotions_15 = 15, slow_promotions_16 = 16, slow_promotions_17 = 17, slow_promotions_18 = 18;
    timelines::another_server_under_the_same_address: slow_address_14 = 14, slow_address_15 = 15, slow_address_16 = 16, slow_address_17 = 17, address_18 = 18;
    timelines::a_history_that_comes_late: slow_late_history_14 = 14, slow_late_history_15 = 15, slow_late_history_16 = 16, slow_late_history_17 = 17, late_history_18 = 18;
    wal_fault_network::is_cut: slow_cut_14 = 14, slow_cut_15 = 15, slow_cut_16 = 16, slow_cut_17 = 17, slow_cut_18 = 18;
    wal_fault_network::forgets_the_receiver: slow_half_open_14 = 14, slow_half_open_15 = 15, slow_half_open_16 = 16, slow_half_open_17 = 17, slow_half_open_18 = 18;
    wal_fault_network::is_slow: slow_network_14 = 14, slow_network_15 = 15, slow_network_16 = 16, slow_network_17 = 17, slow_network_18 = 18;
    wal_fault_disk::of_the_store_is_full: slow_store_full_14 = 14, slow_store_full_15 = 15, slow_store_full_16 = 16, slow_store_full_17 = 17, store_full_18 = 18;
    wal_fault_disk::of_the_store_takes_no_writes: slow_store_read_only_14 = 14, slow_store_read_only_15 = 15, slow_store_read_only_16 = 16, slow_store_read_only_17 = 17, slow_store_read_only_18 = 18;
    wal_fault_disk::of_the_server_is_full: slow_pg_wal_full_14 = 14, slow_pg_wal_full_15 = 15, slow_pg_wal_full_16 = 16, slow_pg_wal_full_17 = 17, pg_wal_full_18 = 18;
    faults::another_history_of_the_same: slow_diverged_14 = 14, diverged_18 = 18, slow_diverged_15 = 15, slow_diverged_16 = 16, slow_diverged_17 = 17;
}

#[test]
fn hundreds_of_timelines() {
    timelines::hundreds();
}

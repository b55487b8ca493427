//! The governor's settings: every threshold, window and bound that the controller uses, in one place.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Thresholds and bounds of the controller. The defaults are judgement, not measurement: `make bench` shows what they
/// reach, and where.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Busy share of the database's CPUs from which they count as saturated.
    pub saturated: f64,
    /// Busy share up to which there is room for more vacuum. The band up to `saturated` is the hysteresis.
    pub room: f64,
    /// Busy share that opening up aims at.
    pub target: f64,
    /// Share of the database's CPUs that governable vacuums must use together to count as a cause.
    pub substantial: f64,
    /// Share of the database's CPUs from which a worker joins a hold while the CPUs stay saturated. Far below `substantial`: on a
    /// starved core each of many gets little, and three workers that are each too small to matter are what starves it.
    pub joining: f64,
    /// CPU pressure (`some`) from which somebody counts as waiting.
    pub pressure: f64,
    /// CPU pressure (`some`) that needs no second reading.
    pub pressure_strong: f64,
    /// Canary latency below which nobody is hurt, whatever it was before.
    pub canary_floor: Duration,
    /// How many times its quiet latency the canary must take to count as slow. Twice that needs no second reading.
    pub canary_factor: f64,
    /// How long the pressure must have lasted, by the readings' windows, where it is strong.
    pub confirm_strong: Duration,
    /// The same where it is not.
    pub confirm_weak: Duration,
    /// Age of the newest host reading from which readings count as lost.
    pub host_lost: Duration,
    /// Age of the newest activity reading from which readings count as lost; longer, for a starved server is slow to answer.
    pub activity_lost: Duration,
    /// Age of the newest reading of transaction ids' ages from which nothing is held, for nobody knows how near wraparound is. They grow
    /// slowly, and a starved server may be ten minutes late with them.
    pub ages_lost: Duration,
    /// The pace, in cost units a second for each worker, at which a hold begins. Stock settings allow 100,000.
    pub first_pace: f64,
    /// The pace that a hold does not go below unless the CPUs stay saturated for `floor_patience`: vacuum must end some day.
    pub floor_pace: f64,
    /// See `floor_pace`.
    pub floor_patience: Duration,
    /// The pace that collective levers leave while an ANALYZE runs, for it holds a snapshot.
    pub analyze_pace: f64,
    /// Least time between two changes of a hold.
    pub adjust_every: Duration,
    /// When the workers are checked for obedience after a hold began.
    pub verify_after: Duration,
    /// How long the pressure may stay without any relief before the hold counts as useless.
    pub unhelped_for: Duration,
    /// How long a fully opened hold is watched before it ends.
    pub calm_for: Duration,
    /// The longest hold.
    pub max_hold: Duration,
    /// Least time between the end of a hold and the next.
    pub cooldown: Duration,
    /// The same after a useless hold; doubles with each in a row.
    pub cooldown_unhelped: Duration,
    /// Where that doubling ends.
    pub cooldown_max: Duration,
    /// Heap blocks below which a table counts as small: its worker is left alone.
    pub small_table_blocks: u64,
    /// Dead tuples of a small table below which it never counts as waiting.
    pub hot_dead_floor: u64,
    /// Dead tuples per live tuple from which a small table counts as waiting.
    pub hot_dead_share: f64,
    /// The age in transactions or multixacts from which vacuum in any database is left alone.
    pub wraparound_age: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            saturated: 0.90,
            room: 0.75,
            target: 0.82,
            substantial: 0.15,
            joining: 0.02,
            pressure: 0.20,
            pressure_strong: 0.50,
            canary_floor: Duration::from_millis(50),
            canary_factor: 5.0,
            confirm_strong: Duration::from_millis(900),
            confirm_weak: Duration::from_millis(1_900),
            host_lost: Duration::from_secs(5),
            activity_lost: Duration::from_secs(10),
            ages_lost: Duration::from_secs(20 * 60),
            first_pace: 2_000.0,
            floor_pace: 500.0,
            floor_patience: Duration::from_secs(5),
            analyze_pace: 20_000.0,
            adjust_every: Duration::from_secs(1),
            verify_after: Duration::from_secs(3),
            unhelped_for: Duration::from_secs(8),
            calm_for: Duration::from_secs(3),
            max_hold: Duration::from_secs(30 * 60),
            cooldown: Duration::from_secs(2),
            cooldown_unhelped: Duration::from_secs(60),
            cooldown_max: Duration::from_secs(600),
            small_table_blocks: 4_096,
            hot_dead_floor: 1_000,
            hot_dead_share: 0.5,
            wraparound_age: 1_000_000_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::float_cmp)]
    fn the_manual_has_the_same_figures() {
        let manual = include_str!("../../../docs/src/concepts/governor.md").replace('\n', " ");
        let limits = Limits::default();
        let percent = |share: f64| format!("{:.0} %", share * 100.0);
        let seconds = |time: Duration| format!("{} s", time.as_secs_f64());
        let minutes = |time: Duration| format!("{} minutes", time.as_secs() / 60);
        let thousands = |n: u64| if n < 1_000 { n.to_string() } else { format!("{},{:03}", n / 1_000, n % 1_000) };
        assert_eq!((limits.cooldown, limits.verify_after), (Duration::from_secs(2), Duration::from_secs(3)));
        assert_eq!((limits.adjust_every, limits.canary_factor), (Duration::from_secs(1), 5.0));
        assert_eq!(
            (limits.cooldown_unhelped, limits.cooldown_max),
            (Duration::from_secs(60), Duration::from_secs(600))
        );
        assert_eq!((limits.hot_dead_share, limits.wraparound_age), (0.5, 1_000_000_000));
        assert_eq!((limits.first_pace, limits.floor_pace), (2_000.0, 500.0));
        for said in [
            format!("are saturated ({})", percent(limits.saturated)),
            format!("({} of those CPUs)", percent(limits.substantial)),
            format!("CPU pressure of {}", percent(limits.pressure)),
            format!("at least {} ms", limits.canary_floor.as_millis()),
            format!("last for {} of readings", seconds(limits.confirm_weak)),
            format!(
                "or for {} where the pressure is strong ({}",
                seconds(limits.confirm_strong),
                percent(limits.pressure_strong)
            ),
            format!("uses {} of them or more joins", percent(limits.joining)),
            "2,000 cost units a second for each worker".to_owned(),
            format!("(below {} busy)", percent(limits.room)),
            format!("({} is aimed at)", percent(limits.target)),
            format!("not go below 500 unless the CPUs stay saturated for {} without", seconds(limits.floor_patience)),
            format!("after {} without any relief", seconds(limits.unhelped_for)),
            format!("{} dead tuples or more, and one for every two live ones", thousands(limits.hot_dead_floor)),
            "age of 1,000 million transactions or multixacts".to_owned(),
            format!("(host {}, sessions {})", seconds(limits.host_lost), seconds(limits.activity_lost)),
            format!("older than {}", minutes(limits.ages_lost)),
            format!("held for {}", minutes(limits.max_hold)),
            format!("below {} blocks", thousands(limits.small_table_blocks)),
            format!("watched wide open for {}", seconds(limits.calm_for)),
            format!("not go below {} cost units a second while an ANALYZE runs", thousands(limits.analyze_pace as u64)),
        ] {
            assert!(manual.contains(&said), "the manual does not say: {said}");
        }
    }
}

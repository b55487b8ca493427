//! Which alert told of which saturation: pure. All times are seconds from the storm's release, within the judged window.

use crate::result::{AlertSeen, Detection, Saturation};

/// The longest time to detect, in seconds.
pub(crate) const MAX_DETECTION_S: f64 = 3.0;
/// An alert may be so much earlier than the saturation that it tells of, in seconds: the guard and the drill read the core at
/// different moments. One that is earlier still tells of something else, and the time between the two means nothing.
pub(crate) const MAX_AHEAD_S: f64 = 1.0;

/// The alerts that count: they fired within the window and are about the CPU or a vacuum.
fn counting(alerts: &[AlertSeen], window_s: f64) -> impl Iterator<Item = &AlertSeen> {
    alerts
        .iter()
        .filter(|alert| alert.state == "firing" && ["cpu", "vacuum"].iter().any(|about| alert.rule.contains(about)))
        .filter(move |alert| (0.0..=window_s).contains(&alert.decided_s))
}

/// The first alert that counts.
pub(crate) fn first(alerts: &[AlertSeen], window_s: f64) -> Option<&AlertSeen> {
    counting(alerts, window_s).min_by(|a, b| a.decided_s.total_cmp(&b.decided_s))
}

/// The first saturation that an alert covers, with that alert. One that was over before it had to be detected may pass without an
/// alert; a longer one may not: then the next alert counts, however late.
pub(crate) fn detection(saturations: &[Saturation], alerts: &[AlertSeen], window_s: f64) -> Option<Detection> {
    saturations.iter().find_map(|saturation| {
        let short = saturation.to_s - saturation.from_s < MAX_DETECTION_S;
        let until = if short { saturation.to_s } else { window_s };
        let alert = counting(alerts, window_s)
            .filter(|alert| (saturation.from_s - MAX_AHEAD_S..=until).contains(&alert.decided_s))
            .min_by(|a, b| a.decided_s.total_cmp(&b.decided_s))?;
        Some(Detection {
            rule: alert.rule.clone(),
            summary: alert.summary.clone(),
            saturated_s: saturation.from_s,
            decided_after_s: alert.decided_s - saturation.from_s,
            delivered_after_s: alert.arrived_s - saturation.from_s,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(rule: &str, state: &str, decided_s: f64) -> AlertSeen {
        AlertSeen {
            rule: rule.into(),
            state: state.into(),
            summary: String::new(),
            decided_s,
            arrived_s: decided_s + 0.1,
        }
    }

    #[test]
    fn an_alert_is_paired_with_the_saturation_that_it_covers() {
        let fired = |at| alert("vacuum-starves-host", "firing", at);
        for (name, saturations, alerts, expected) in [
            ("in time", &[(1.0, 9.0)][..], vec![fired(2.5)], Some((1.0, 1.5))),
            ("late", &[(1.0, 9.0)], vec![fired(7.0)], Some((1.0, 6.0))),
            ("later than the saturation lasted", &[(1.0, 5.0)], vec![fired(8.0)], Some((1.0, 7.0))),
            ("a moment ahead", &[(1.5, 9.0)], vec![fired(1.0)], Some((1.5, -0.5))),
            ("far ahead means nothing", &[(9.0, 15.0)], vec![fired(2.0)], None),
            ("far ahead, and again in time", &[(9.0, 15.0)], vec![fired(2.0), fired(10.0)], Some((9.0, 1.0))),
            ("before the storm", &[(0.5, 9.0)], vec![fired(-0.3)], None),
            ("after the window", &[(1.0, 19.0)], vec![fired(20.1)], None),
            ("a short one is let go", &[(1.0, 2.2), (8.0, 12.0)], vec![fired(9.0)], Some((8.0, 1.0))),
            ("a long one is not", &[(1.0, 6.0), (8.0, 12.0)], vec![fired(9.0)], Some((1.0, 8.0))),
            ("a short one that was told", &[(1.0, 2.2), (8.0, 12.0)], vec![fired(2.0)], Some((1.0, 1.0))),
            ("the first alert counts", &[(1.0, 9.0)], vec![fired(3.0), fired(2.0)], Some((1.0, 1.0))),
            ("about something else", &[(1.0, 9.0)], vec![alert("server-down", "firing", 2.0)], None),
            ("a resolve", &[(1.0, 9.0)], vec![alert("cpu-saturated", "resolved", 2.0)], None),
            ("never saturated", &[], vec![fired(2.0)], None),
        ] {
            let saturations: Vec<_> = saturations.iter().map(|&(from_s, to_s)| Saturation { from_s, to_s }).collect();
            let found = detection(&saturations, &alerts, 20.0);
            assert_eq!(found.map(|seen| (seen.saturated_s, seen.decided_after_s)), expected, "{name}");
        }
    }
}

//! Which alert told of which saturation: pure. All times are seconds from the storm's release, within the judged window.

use crate::result::{AlertSeen, Detection, Saturation};

/// The longest time to detect, in seconds.
pub(crate) const MAX_DETECTION_S: f64 = 3.0;
/// An alert may be so much earlier than the saturation that it tells of, in seconds: the guard and the drill read the core at
/// different moments. One that is earlier still tells of it only where its episode is still open when the core is saturated.
pub(crate) const MAX_AHEAD_S: f64 = 1.0;

/// Rules that tell of a storm: not those whose names look alike, such as `cpu-stolen`.
const TELLING: [&str; 2] = [model::alert::rule::CPU_SATURATED, model::alert::rule::VACUUM_STARVES_HOST];

/// The alerts that count: they fired within the window and tell of the storm.
fn counting(alerts: &[AlertSeen], window_s: f64) -> impl Iterator<Item = &AlertSeen> {
    alerts
        .iter()
        .filter(|alert| alert.state == "firing" && TELLING.contains(&alert.rule.as_str()))
        .filter(move |alert| (0.0..=window_s).contains(&alert.decided_s))
}

/// The first alert that counts.
pub(crate) fn first(alerts: &[AlertSeen], window_s: f64) -> Option<&AlertSeen> {
    counting(alerts, window_s).min_by(|a, b| a.decided_s.total_cmp(&b.decided_s))
}

/// The first saturation that an alert covers, with that alert. One that was over before it had to be detected may pass without an
/// alert; a longer one may not: then the next alert counts, however late, unless an open episode had told of it before.
pub(crate) fn detection(saturations: &[Saturation], alerts: &[AlertSeen], window_s: f64) -> Option<Detection> {
    saturations.iter().find_map(|saturation| {
        let short = saturation.to_s - saturation.from_s < MAX_DETECTION_S;
        let until = if short { saturation.to_s } else { window_s };
        let own = counting(alerts, window_s)
            .filter(|alert| (saturation.from_s - MAX_AHEAD_S..=until).contains(&alert.decided_s))
            .min_by(|a, b| a.decided_s.total_cmp(&b.decided_s));
        let in_time = own.filter(|alert| alert.decided_s - saturation.from_s <= MAX_DETECTION_S);
        let told = || told_before(saturation.from_s, alerts, window_s);
        let (alert, told_before) = match in_time {
            Some(alert) => (alert, false),
            None => told().map(|alert| (alert, true)).or(own.map(|alert| (alert, false)))?,
        };
        Some(Detection {
            rule: alert.rule.clone(),
            summary: alert.summary.clone(),
            saturated_s: saturation.from_s,
            decided_after_s: alert.decided_s - saturation.from_s,
            delivered_after_s: alert.arrived_s - saturation.from_s,
            told_before,
        })
    })
}

/// The alert that began the oldest episode that was open at that moment and that somebody had been told of by then: a rule does not
/// fire again for what it already told.
fn told_before(at_s: f64, alerts: &[AlertSeen], window_s: f64) -> Option<&AlertSeen> {
    let over = |episode: &AlertSeen| {
        alerts.iter().any(|alert| {
            alert.state == "resolved"
                && alert.key == episode.key
                && (episode.decided_s..=at_s).contains(&alert.decided_s)
        })
    };
    counting(alerts, window_s)
        .filter(|alert| alert.decided_s < at_s - MAX_AHEAD_S && alert.arrived_s <= at_s && !over(alert))
        .min_by(|a, b| a.decided_s.total_cmp(&b.decided_s))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(rule: &str, state: &str, decided_s: f64) -> AlertSeen {
        AlertSeen {
            key: format!("{rule}/1"),
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
        let over = |at| alert("vacuum-starves-host", "resolved", at);
        for (name, saturations, alerts, expected) in [
            ("in time", &[(1.0, 9.0)][..], vec![fired(2.5)], Some((1.0, 1.5))),
            ("late", &[(1.0, 9.0)], vec![fired(7.0)], Some((1.0, 6.0))),
            ("later than the saturation lasted", &[(1.0, 5.0)], vec![fired(8.0)], Some((1.0, 7.0))),
            ("a moment ahead", &[(1.5, 9.0)], vec![fired(1.0)], Some((1.5, -0.5))),
            ("far ahead, and again in time", &[(9.0, 15.0)], vec![fired(2.0), fired(10.0)], Some((9.0, 1.0))),
            ("far ahead and over by then", &[(9.0, 15.0)], vec![fired(2.0), over(5.0)], None),
            (
                "over by then, and again late",
                &[(9.0, 15.0)],
                vec![fired(2.0), over(5.0), fired(13.0)],
                Some((9.0, 4.0)),
            ),
            ("before the storm", &[(0.5, 9.0)], vec![fired(-0.3)], None),
            ("after the window", &[(1.0, 19.0)], vec![fired(20.1)], None),
            ("a short one is let go", &[(1.0, 2.2), (8.0, 12.0)], vec![fired(9.0)], Some((8.0, 1.0))),
            ("a long one is not", &[(1.0, 6.0), (8.0, 12.0)], vec![fired(9.0)], Some((1.0, 8.0))),
            ("a short one that was told", &[(1.0, 2.2), (8.0, 12.0)], vec![fired(2.0)], Some((1.0, 1.0))),
            ("the first alert counts", &[(1.0, 9.0)], vec![fired(3.0), fired(2.0)], Some((1.0, 1.0))),
            ("about something else", &[(1.0, 9.0)], vec![alert("server-down", "firing", 2.0)], None),
            ("another rule of a like name", &[(1.0, 9.0)], vec![alert("cpu-stolen", "firing", 2.0)], None),
            ("a resolve", &[(1.0, 9.0)], vec![alert("cpu-saturated", "resolved", 2.0)], None),
            ("never saturated", &[], vec![fired(2.0)], None),
        ] {
            let saturations: Vec<_> = saturations.iter().map(|&(from_s, to_s)| Saturation { from_s, to_s }).collect();
            let found = detection(&saturations, &alerts, 20.0);
            assert_eq!(found.map(|seen| (seen.saturated_s, seen.decided_after_s)), expected, "{name}");
        }
    }

    #[test]
    fn an_open_episode_had_told_of_it_before() {
        let fired = |at| alert("vacuum-starves-host", "firing", at);
        let over = |at| alert("vacuum-starves-host", "resolved", at);
        let other = |alert: AlertSeen| AlertSeen { key: "vacuum-starves-host/2".into(), ..alert };
        let late = |alert: AlertSeen| AlertSeen { arrived_s: alert.decided_s + 9.0, ..alert };
        for (name, saturations, alerts, expected) in [
            ("open still", &[(9.0, 15.0)][..], vec![fired(2.0)], Some((9.0, -7.0, true))),
            ("over afterwards", &[(9.0, 15.0)], vec![fired(2.0), over(9.5)], Some((9.0, -7.0, true))),
            ("over by then", &[(9.0, 15.0)], vec![fired(2.0), over(8.9)], None),
            (
                "one of two over",
                &[(9.0, 15.0)],
                vec![fired(2.0), other(fired(4.0)), over(6.0)],
                Some((9.0, -5.0, true)),
            ),
            ("told twice", &[(9.0, 15.0)], vec![fired(2.0), fired(2.0)], Some((9.0, -7.0, true))),
            ("again late", &[(9.0, 15.0)], vec![fired(2.0), other(fired(13.0))], Some((9.0, -7.0, true))),
            ("again in time", &[(9.0, 15.0)], vec![fired(2.0), other(fired(11.0))], Some((9.0, 2.0, false))),
            ("decided, but nobody knew", &[(9.0, 15.0)], vec![late(fired(2.0))], None),
            ("before the storm", &[(9.0, 15.0)], vec![fired(-0.5)], None),
            ("about something else", &[(9.0, 15.0)], vec![alert("server-down", "firing", 2.0)], None),
            ("the first saturation has its own", &[(1.0, 4.5), (9.0, 15.0)], vec![fired(2.0)], Some((1.0, 1.0, false))),
        ] {
            let saturations: Vec<_> = saturations.iter().map(|&(from_s, to_s)| Saturation { from_s, to_s }).collect();
            let found = detection(&saturations, &alerts, 20.0);
            let found = found.map(|seen| (seen.saturated_s, seen.decided_after_s, seen.told_before));
            assert_eq!(found, expected, "{name}");
        }
    }
}

//! Silences, acknowledgements and escalation, through a real worker, over restarts of the guard.

use alerting::{Ack, Book, Silence};

use super::*;

fn silence(until: jiff::Timestamp) -> Silence {
    let matches = [("rule".to_owned(), vec!["vacuum-starves-host".to_owned()])].into();
    Silence { id: "abc".into(), matches, since: now().wall, until, by: "eva".into(), why: "deploy".into() }
}

fn later() -> jiff::Timestamp {
    now().wall + Duration::from_secs(3600)
}

async fn silenced(started: &mut Started) -> String {
    loop {
        if let EventKind::AlertSilenced { key, silence, by, .. } = outcome(&mut started.outcomes).await {
            assert_eq!((silence.as_str(), by.as_str()), ("abc", "eva"));
            return key.0;
        }
    }
}

#[tokio::test]
async fn what_is_silenced_is_told_to_nobody_until_the_silence_is_taken_back() {
    let server = answering(ResponseTemplate::new(204)).await;
    let place = Place::new();
    let book = Book::new(&place.outbox());
    book.change(now().wall, |hush| hush.silences.push(silence(later()))).unwrap();
    let mut started = start(&place.outbox(), vec![route("ops", &server.uri())], place.worker());
    // One ends in the silence, one outlives it.
    started.delivery.submit(alert("short", AlertState::Firing));
    started.delivery.submit(alert("short", AlertState::Resolved));
    started.delivery.submit(alert("long", AlertState::Firing));
    assert_eq!([silenced(&mut started).await, silenced(&mut started).await], ["short", "long"]);
    // So it is for the next guard, too.
    started.delivery.shutdown().await;
    let mut started = start(&place.outbox(), vec![route("ops", &server.uri())], place.worker());
    assert_eq!(started.open.iter().map(|alert| alert.key.0.as_str()).collect::<Vec<_>>(), ["long"]);
    assert_eq!(posts(&server).await.len(), 0);
    book.change(now().wall, |hush| hush.silences.clear()).unwrap();
    assert_eq!(delivered(&mut started.outcomes).await.0, "long");
    // Who heard of its begin hears of its end, whatever is silenced by then.
    book.change(now().wall, |hush| hush.silences.push(silence(later()))).unwrap();
    started.delivery.submit(alert("long", AlertState::Resolved));
    assert_eq!(delivered(&mut started.outcomes).await.0, "long");
    started.delivery.shutdown().await;
    assert_eq!(keys(&posts(&server).await), ["long/firing", "long/resolved"]);
}

#[tokio::test]
async fn what_nobody_acknowledges_is_escalated_once_also_by_the_next_guard() {
    let team = answering(ResponseTemplate::new(204)).await;
    let boss = answering(ResponseTemplate::new(204)).await;
    let place = Place::new();
    let routes = || {
        let escalate_after = Some(Duration::from_secs(1));
        vec![route("team", &team.uri()), Route { escalate_after, ..route("boss", &boss.uri()) }]
    };
    let mut started = start(&place.outbox(), routes(), place.worker());
    started.delivery.submit(alert("seen", AlertState::Firing));
    started.delivery.submit(alert("unseen", AlertState::Firing));
    let ack = Ack { key: AlertKey("seen".into()), at: now().wall, by: "eva".into() };
    Book::new(&place.outbox()).change(now().wall, |hush| hush.acks.push(ack)).unwrap();
    let (mut told, mut acknowledged) = (Vec::new(), Vec::new());
    while told.len() < 3 || acknowledged.is_empty() {
        match outcome(&mut started.outcomes).await {
            EventKind::AlertDelivered { key, route, .. } => told.push((route, key.0)),
            EventKind::AlertAcknowledged { key, by } => acknowledged.push((key.0, by)),
            other => panic!("{other:?}"),
        }
    }
    told.sort();
    let pair = |route: &str, key: &str| (route.to_owned(), key.to_owned());
    // Whether the acknowledgement of "seen" is read before its second is over is not ours to say: only "unseen" is sure to be escalated.
    assert!(told.contains(&pair("boss", "unseen")), "{told:?}");
    assert_eq!(acknowledged, [pair("seen", "eva")]);
    started.delivery.shutdown().await;

    let mut started = start(&place.outbox(), routes(), place.worker());
    started.delivery.submit(alert("unseen", AlertState::Resolved));
    let mut ends = [delivered(&mut started.outcomes).await.1, delivered(&mut started.outcomes).await.1];
    ends.sort();
    assert_eq!(ends, ["boss", "team"]);
    started.delivery.shutdown().await;
    let of_unseen = keys(&posts(&boss).await).into_iter().filter(|key| key.starts_with("unseen/"));
    assert_eq!(of_unseen.collect::<Vec<_>>(), ["unseen/firing", "unseen/resolved"], "once");
}

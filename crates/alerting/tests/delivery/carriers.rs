//! Each carrier against a receiver.

use alerting::{Command, Template, try_routes};
use serde_json::Value;

use super::*;

fn to(name: &str, carrier: Carrier) -> Route {
    Route {
        name: name.into(),
        min_severity: Severity::Warning,
        matches: BTreeMap::new(),
        escalate_after: None,
        members: false,
        carrier,
    }
}

fn hook(url: String) -> Webhook {
    Webhook { url: Secret::new(url), bearer: None, headers: BTreeMap::new(), template: None }
}

/// A thousand at once, to a chat that takes one message in a while: each is named, in a bounded number of messages.
#[tokio::test]
async fn many_alerts_in_a_moment_become_few_messages_that_name_them() {
    const ALERTS: usize = 300;
    let server = MockServer::start().await;
    let slow = ResponseTemplate::new(204)
        .insert_header("x-ratelimit-remaining", "0")
        .insert_header("x-ratelimit-reset-after", "0.1");
    Mock::given(method("POST")).respond_with(slow).mount(&server).await;
    let place = Place::new();
    let routes = vec![to("team", Carrier::Discord(hook(format!("{}{SECRET_PATH}", server.uri()))))];
    let mut started = start(&place.outbox(), routes, place.worker());
    for n in 0..ALERTS {
        let mut alert = alert(&format!("k{n}"), AlertState::Firing);
        alert.summary = format!("n{n}.");
        started.delivery.submit(alert);
    }
    let mut seen = Vec::new();
    for _ in 0..ALERTS {
        let (key, ..) = delivered(&mut started.outcomes).await;
        seen.push(key);
    }
    assert_eq!(seen, (0..ALERTS).map(|n| format!("k{n}")).collect::<Vec<_>>(), "in their order");
    started.delivery.shutdown().await;
    let posts = posts(&server).await;
    assert!(posts.len() < ALERTS / 4, "{} messages", posts.len());
    let said: String = posts.iter().map(|post| String::from_utf8(post.body.clone()).unwrap()).collect();
    for n in 0..ALERTS {
        assert!(said.contains(&format!("CRITICAL: n{n}.")), "n{n} is named");
    }
}

/// A receiver that knows nothing of our JSON gets its own.
#[tokio::test]
async fn a_template_gives_a_webhook_its_shape() {
    let server = MockServer::start().await;
    Mock::given(method("POST")).respond_with(ResponseTemplate::new(200)).mount(&server).await;
    let place = Place::new();
    let text = r#"{"topic": "db", "title": {{ summary }}, "priority": {{ 5 if severity == "critical" else 3 }}, "click": {{ labels.nosuch }}}"#;
    let mut shaped = hook(format!("{}{SECRET_PATH}", server.uri()));
    shaped.template = Some(Template::new(text.to_owned(), None).unwrap());
    let mut plain = hook(format!("{}{SECRET_PATH}", server.uri()));
    let words = Template::new("{{ summary }}".to_owned(), Some("text/plain; charset=utf-8".to_owned()));
    plain.template = Some(words.unwrap());
    let routes = vec![to("shaped", Carrier::Webhook(shaped)), to("plain", Carrier::Webhook(plain))];
    let mut started = start(&place.outbox(), routes, place.worker());
    let mut alert = alert("k", AlertState::Firing);
    alert.summary = "table \"a\"\nis {{ full }}".into();
    started.delivery.submit(alert.clone());
    for _ in 0..2 {
        delivered(&mut started.outcomes).await;
    }
    started.delivery.shutdown().await;
    let mut bodies = BTreeMap::new();
    for post in posts(&server).await {
        let kind = post.headers.get("content-type").unwrap().to_str().unwrap().to_owned();
        assert_eq!(post.headers.get("idempotency-key").unwrap(), "k/firing");
        bodies.insert(kind, String::from_utf8(post.body).unwrap());
    }
    let shaped: Value = serde_json::from_str(&bodies["application/json"]).unwrap();
    assert_eq!(shaped, serde_json::json!({ "topic": "db", "title": alert.summary, "priority": 5, "click": null }));
    assert_eq!(bodies["text/plain; charset=utf-8"], alert.summary);
}

/// Those who only use the services get each word in plain words, and no alert; the team's route gets alerts, and no word.
#[tokio::test]
async fn members_hear_words_and_the_team_hears_alerts() {
    let server = MockServer::start().await;
    Mock::given(method("POST")).respond_with(ResponseTemplate::new(204)).mount(&server).await;
    let place = Place::new();
    let team = to("team", Carrier::Webhook(hook(format!("{}{SECRET_PATH}/team", server.uri()))));
    let chat = Carrier::Slack(hook(format!("{}{SECRET_PATH}/members", server.uri())));
    let members = Route { members: true, ..to("members", chat) };
    let mut started = start(&place.outbox(), vec![team, members], place.worker());
    let word = |n: u64, state, summary: &str| {
        let mut word = alert("members-word/main/1", state);
        word.rule = model::alert::rule::MEMBERS_WORD.into();
        word.severity = Severity::Info;
        word.decided.boot_us += n;
        word.summary = summary.into();
        word.details = vec!["Working: e-mail.".into()];
        word
    };
    started.delivery.submit(alert("k", AlertState::Firing));
    let mut went = vec![delivered(&mut started.outcomes).await];
    let (firing, resolved) = (AlertState::Firing, AlertState::Resolved);
    let said = ["Not working: the gate", "Not working: all", "Working again: all"];
    for (n, (state, summary)) in [firing, firing, resolved].into_iter().zip(said).enumerate() {
        started.delivery.submit(word(n as u64, state, summary));
        went.push(delivered(&mut started.outcomes).await);
    }
    started.delivery.shutdown().await;
    let posts = posts(&server).await;
    let to = |end: &str| posts.iter().filter(|post| post.url.path().ends_with(end)).collect::<Vec<_>>();
    assert_eq!((to("/team").len(), to("/members").len()), (1, 3), "{went:?}");
    let keys: std::collections::BTreeSet<_> = to("/members")
        .iter()
        .map(|post| post.headers["idempotency-key"].clone())
        .map(|key| key.to_str().unwrap().to_owned())
        .collect();
    assert_eq!(keys.len(), 3, "each word is news: {keys:?}");
    for (post, summary) in to("/members").iter().zip(said) {
        let body: Value = serde_json::from_slice(&post.body).unwrap();
        assert_eq!(body["text"], summary);
        assert_eq!(body["blocks"][1]["text"]["text"], "Working: e-mail.", "no key, no severity, no rule");
    }
}

/// One that the receiver can't digest takes none of the others with it.
#[tokio::test]
async fn what_a_receiver_refuses_goes_by_itself() {
    let server = MockServer::start().await;
    let refuse = |request: &Request| {
        let bad = String::from_utf8_lossy(&request.body).contains("indigestible");
        ResponseTemplate::new(if bad { 400 } else { 200 })
    };
    Mock::given(method("POST")).respond_with(refuse).mount(&server).await;
    let place = Place::new();
    let routes = vec![to("team", Carrier::Slack(hook(format!("{}{SECRET_PATH}", server.uri()))))];
    let mut started = start(&place.outbox(), routes, place.worker());
    for key in ["a", "b", "c"] {
        let mut alert = alert(key, AlertState::Firing);
        if key == "b" {
            alert.summary = "indigestible".into();
        }
        started.delivery.submit(alert);
    }
    let (mut taken, mut given_up) = (Vec::new(), Vec::new());
    while taken.len() + given_up.len() < 3 {
        match outcome(&mut started.outcomes).await {
            EventKind::AlertDelivered { key, .. } => taken.push(key.0),
            EventKind::AlertFailed { key, gave_up: true, .. } => given_up.push(key.0),
            _ => {}
        }
    }
    taken.sort();
    assert_eq!((taken.concat(), given_up.concat()), ("ac".to_owned(), "b".to_owned()));
    started.delivery.shutdown().await;
}

#[tokio::test]
async fn a_command_gets_the_alert_and_its_failure_is_tried_again() {
    let place = Place::new();
    let heard = place.0.path().join("heard");
    // Fails the first time.
    let script = format!(
        "read line; test -e {0} || {{ : > {0}; exit 3; }}; echo \"$OXPECKER_ALERT_KEY $line\" >> {0}",
        heard.display()
    );
    let argv = ["/bin/sh", "-c", &script].map(str::to_owned).to_vec();
    let routes = vec![to("pager", Carrier::Command(Command { argv }))];
    let mut started = start(&place.outbox(), routes, place.worker());
    started.delivery.submit(alert("k1", AlertState::Firing));
    let first = outcome(&mut started.outcomes).await;
    assert!(
        matches!(&first, EventKind::AlertFailed { error, gave_up: false, .. } if error.contains("exit status: 3")),
        "{first:?}"
    );
    let (key, _, attempt, _) = delivered(&mut started.outcomes).await;
    assert_eq!((key.as_str(), attempt), ("k1", 2));
    started.delivery.shutdown().await;
    let text = fs::read_to_string(heard).unwrap();
    let (key, json) = text.split_once(' ').unwrap();
    assert_eq!(key, "k1/firing");
    assert_eq!(serde_json::from_str::<Value>(json).unwrap()["summary"], "summary of k1");
}

#[tokio::test]
async fn labels_choose_the_route() {
    let server = answering(ResponseTemplate::new(200)).await;
    let place = Place::new();
    let mut other = route("other", &server.uri());
    other.matches = BTreeMap::from([("cluster".to_owned(), vec!["elsewhere".to_owned()])]);
    let mut started = start(&place.outbox(), vec![other, route("ops", &server.uri())], place.worker());
    started.delivery.submit(alert("k1", AlertState::Firing));
    assert_eq!(delivered(&mut started.outcomes).await.1, "ops");
    started.delivery.shutdown().await;
    assert_eq!(posts(&server).await.len(), 1);
}

#[tokio::test]
async fn a_trial_says_of_each_route_whether_it_arrived() {
    let server = answering(ResponseTemplate::new(200)).await;
    let gone = answering(ResponseTemplate::new(404)).await;
    let routes = [route("good", &server.uri()), route("gone", &gone.uri())];
    let trials = try_routes(&routes, &alert("trial", AlertState::Firing)).await;
    assert_eq!((trials[0].route.as_str(), &trials[0].error), ("good", &None));
    assert!(trials[1].error.as_ref().unwrap().contains("404"), "{trials:?}");
    assert_no_secret(&format!("{trials:?}"));
}

//! What each HTTP service wants to be told, and how often: pure.
//!
//! Sources: Discord's developer documentation ("Execute Webhook", "Rate Limits"), Slack's ("Sending messages using incoming
//! webhooks", "Block Kit", "Rate limits"), Alertmanager's API v2 (`POST /api/v2/alerts`).

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use model::{Alert, AlertState, Severity};
use serde_json::{Value, json};

use super::words::{self, fit};
use crate::protocol::WebhookBody;

/// Discord: characters of an embed's title.
const DISCORD_TITLE: usize = 256;
/// Discord: characters of an embed's description; the limit is 4096, of all texts together 6000. Escaping may double a text.
const DISCORD_BODY: usize = 2_000;
/// Slack: characters of a header block.
const SLACK_TITLE: usize = 150;
/// Slack: characters of a section's text.
const SLACK_BODY: usize = 3_000;
/// Slack: an incoming webhook takes one message a second.
const SLACK_PAUSE: Duration = Duration::from_secs(1);
/// Alertmanager: characters of a label's or an annotation's value. It has no limit of its own but for the whole request.
const VALUE_CHARS: usize = 4_000;

/// How often Alertmanager is told again that an alert still holds.
pub(crate) const REMIND_INTERVAL: Duration = Duration::from_secs(60);

/// For how long Alertmanager takes a firing alert for firing without being told again: four reminders may get lost.
pub(super) const HOLDS_FOR: Duration = Duration::from_secs(5 * 60);

/// Whose JSON is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Our own schema.
    Own,
    Discord,
    Slack,
    Alertmanager,
}

impl Dialect {
    /// How many alerts one request may carry.
    pub(super) fn together(self) -> usize {
        if self == Self::Own { 1 } else { words::MAX_TOGETHER }
    }

    /// The pause that the service wants between two messages, whatever its answer says.
    pub(super) fn pause(self) -> Duration {
        if self == Self::Slack { SLACK_PAUSE } else { Duration::ZERO }
    }

    /// The request's body. `now` counts for Alertmanager only.
    pub(super) fn body(self, alerts: &[&Alert], now: Timestamp) -> Value {
        match self {
            // Maps with text keys always have a JSON form.
            Self::Own => alerts.first().map_or(Value::Null, |alert| json!(WebhookBody::from(*alert))),
            Self::Discord => discord(alerts),
            Self::Slack => slack(alerts),
            Self::Alertmanager => alerts.iter().map(|alert| alertmanager(alert, now)).collect(),
        }
    }
}

fn discord(alerts: &[&Alert]) -> Value {
    let message = words::message(alerts, DISCORD_TITLE / 2, DISCORD_BODY);
    let open = alerts.iter().filter(|alert| alert.state == AlertState::Firing).map(|alert| alert.severity).max();
    let colour = match open {
        Some(Severity::Critical) => 0xd0_3030,
        Some(Severity::Warning) => 0xe0_a020,
        Some(Severity::Info) => 0x40_80c0,
        None => 0x30_a050,
    };
    json!({
        "embeds": [{ "title": escaped(&message.title), "description": escaped(&message.body), "color": colour }],
        // A table may be called @everyone.
        "allowed_mentions": { "parse": [] },
    })
}

/// Names of tables are full of what Discord takes for markup.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '\\' | '*' | '_' | '~' | '`' | '|' | '>' | '<' | '#' | '[' | ']' | '@') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

fn slack(alerts: &[&Alert]) -> Value {
    let message = words::message(alerts, SLACK_TITLE, SLACK_BODY);
    // The text beside the blocks is what notifications show; it is the only part in which markup counts.
    let text = message.title.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    json!({
        "text": text,
        "blocks": [
            { "type": "header", "text": { "type": "plain_text", "text": message.title, "emoji": false } },
            { "type": "section", "text": { "type": "plain_text", "text": message.body, "emoji": false } },
        ],
    })
}

fn alertmanager(alert: &Alert, now: Timestamp) -> Value {
    // The labels are the alert's identity: the same when it fires, when it is told again and when it ends.
    let mut labels: BTreeMap<String, String> =
        alert.labels.iter().map(|(name, value)| (label_name(name), fit(value, VALUE_CHARS))).collect();
    labels.insert("alertname".into(), alert.rule.0.clone());
    labels.insert("severity".into(), alert.severity.to_string());
    labels.insert("source".into(), "oxpecker".into());
    labels.retain(|_, value| !value.is_empty());
    let ends = match alert.state {
        AlertState::Resolved => alert.decided.wall,
        AlertState::Firing => now.saturating_add(HOLDS_FOR).unwrap_or(Timestamp::MAX),
    };
    json!({
        "labels": labels,
        "annotations": {
            "summary": fit(&alert.summary, VALUE_CHARS),
            "description": fit(&alert.details.join("\n"), VALUE_CHARS),
            "next_steps": fit(&alert.next_steps.join("\n"), VALUE_CHARS),
            "key": alert.key,
        },
        "startsAt": alert.since.wall,
        // After a clock that was set back the end must not come before the begin: the whole request would be refused.
        "endsAt": ends.max(alert.since.wall),
    })
}

/// Names of labels: letters, digits and `_`, no digit first.
fn label_name(name: &str) -> String {
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) || name.is_empty() { format!("_{name}") } else { name }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::alert;

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn nobody_is_called_by_a_tables_name() {
        let mut alert = alert("k", AlertState::Firing);
        alert.summary = "vacuum of public.*_users_ <@1> @everyone".into();
        let body = Dialect::Discord.body(&[&alert], now());
        assert_eq!(body["embeds"][0]["title"], "CRITICAL: vacuum of public.\\*\\_users\\_ \\<\\@1\\> \\@everyone");
        assert_eq!(body["allowed_mentions"], json!({ "parse": [] }));
        assert_eq!(body["embeds"][0]["color"], 0xd0_3030);
        let body = Dialect::Slack.body(&[&alert], now());
        assert_eq!(body["text"], "CRITICAL: vacuum of public.*_users_ &lt;@1&gt; @everyone");
        assert_eq!(body["blocks"][0]["text"]["type"], "plain_text");
    }

    #[test]
    fn alertmanager_knows_an_alert_by_its_labels() {
        let (mut firing, mut resolved) = (alert("k", AlertState::Firing), alert("k", AlertState::Resolved));
        for alert in [&mut firing, &mut resolved] {
            alert.labels.insert("app-name".into(), "x".into());
            alert.labels.insert("empty".into(), String::new());
        }
        resolved.decided.wall = now();
        let body = Dialect::Alertmanager.body(&[&firing, &resolved], now());
        let expected = json!({
            "alertname": "cpu-saturated", "severity": "critical", "source": "oxpecker", "cluster": "main", "app_name": "x",
        });
        assert_eq!(body[0]["labels"], expected);
        assert_eq!(body[1]["labels"], expected);
        assert_eq!(body[0]["startsAt"], body[1]["startsAt"]);
        assert_eq!(body[0]["endsAt"], "2026-01-01T00:05:00Z");
        assert_eq!(body[1]["endsAt"], "2026-01-01T00:00:00Z");
    }

    proptest! {
        #[test]
        fn what_is_sent_keeps_the_services_limits(summary in ".{0,400}", detail in r"[\\*_a-z ]{0,9000}", count in 1_usize..=50) {
            let mut alert = alert("key", AlertState::Firing);
            alert.summary = summary;
            alert.details = vec![detail];
            let alerts = vec![&alert; count];
            let discord = Dialect::Discord.body(&alerts, now());
            let embed = |name: &str| discord["embeds"][0][name].as_str().unwrap().chars().count();
            prop_assert!(embed("title") <= 256 && embed("description") <= 4096);
            let slack = Dialect::Slack.body(&alerts, now());
            let block = |at: usize| slack["blocks"][at]["text"]["text"].as_str().unwrap().chars().count();
            prop_assert!(block(0) <= 150 && block(1) <= 3000);
        }
    }
}

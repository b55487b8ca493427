//! `oxpecker alert silence|unsilence|ack`: what people say of alerts. Written to a file that the guard reads every few seconds.

use alerting::{
    Ack, Matches, Silence,
    hush::{Book, LONGEST_SILENCE, MAX_SILENCES},
    outbox,
};
use jiff::Timestamp;
use model::Alert;

use crate::{
    cli::{AckArgs, Global, SilenceArgs},
    exit::{FINE, Failure, Outcome},
    output,
    work::moment,
};

/// Characters of a reason or a name that are kept.
const TEXT_MAX: usize = 200;

/// Silences alerts for a time.
pub fn silence(global: &Global, args: &SilenceArgs) -> Outcome {
    let matches = matches(args)?;
    if matches.is_empty() != args.all {
        let why = if args.all { "--all leaves nothing to match" } else { "it would silence every alert" };
        return Err(Failure::usage(anyhow::anyhow!("{why}"))
            .hint("name a rule or a label: `oxpecker alert silence postgres-down --for 1h --why \"deploy\"`; or say --all and nothing else"));
    }
    let length = args.length.0;
    if length.is_zero() || length > LONGEST_SILENCE {
        let days = LONGEST_SILENCE.as_secs() / 86_400;
        return Err(Failure::usage(anyhow::anyhow!("a silence lasts more than nothing and at most {days} days")).hint(
            "a rule that is not wanted is switched off in the configuration: [alert.rules.NAME] enabled = false",
        ));
    }
    let (_, dir) = super::outbox_dir(global)?;
    let now = Timestamp::now();
    let silence = Silence {
        id: id(now),
        matches,
        since: now,
        until: now.saturating_add(length)?,
        by: who(args.by.as_deref()),
        why: bounded(&args.why),
    };
    let full = Book::new(&dir).change(now, |hush| {
        let full = hush.silences.len() >= MAX_SILENCES;
        if !full {
            hush.silences.push(silence.clone());
        }
        full
    })?;
    if full {
        return Err(Failure::refused(anyhow::anyhow!("{MAX_SILENCES} silences are in force, which is the bound"))
            .hint("`oxpecker alert list` shows them; `oxpecker alert unsilence ID` ends one"));
    }
    output::result(global.output, "alert_silence", &serde_json::json!({ "silence": silence }), || {
        format!(
            "{} is silenced until {}; the log and the journal go on.\nTo take it back: oxpecker alert unsilence {}\n",
            labels(&silence.matches),
            moment(silence.until),
            silence.id
        )
    })?;
    Ok(FINE)
}

/// Ends a silence before its time: what still holds is told then.
pub fn unsilence(global: &Global, id: &str) -> Outcome {
    let (_, dir) = super::outbox_dir(global)?;
    let known = Book::new(&dir).change(Timestamp::now(), |hush| {
        let known: Vec<String> = hush.silences.iter().map(|silence| silence.id.clone()).collect();
        hush.silences.retain(|silence| silence.id != id);
        known
    })?;
    if !known.iter().any(|one| one == id) {
        let names =
            if known.is_empty() { "none is in force".to_owned() } else { format!("in force: {}", known.join(", ")) };
        return Err(Failure::usage(anyhow::anyhow!("no silence is called {id:?}")).hint(names));
    }
    output::result(global.output, "alert_unsilence", &serde_json::json!({ "id": id }), || {
        format!("The silence {id} is over: what still holds is told within some seconds.\n")
    })?;
    Ok(FINE)
}

/// Says that somebody has seen an alert and works on it.
pub fn ack(global: &Global, args: &AckArgs) -> Outcome {
    let (_, dir) = super::outbox_dir(global)?;
    let open = outbox::peek(&dir)?.open;
    let alert = chosen(&open, &args.alert)?;
    let now = Timestamp::now();
    let said = Ack { key: alert.key.clone(), at: now, by: who(args.by.as_deref()) };
    let before = Book::new(&dir).change(now, |hush| {
        let before = hush.ack(&said.key).cloned();
        if before.is_none() {
            hush.acks.push(said.clone());
        }
        before
    })?;
    let ack = before.as_ref().unwrap_or(&said);
    output::result(global.output, "alert_ack", &serde_json::json!({ "ack": ack, "new": before.is_none() }), || {
        if before.is_some() {
            return format!("{} has {} already, since {}.\n", ack.by, alert.rule, moment(ack.at));
        }
        format!("{} has it: {}\nIt is not escalated; its end will be told.\n", ack.by, alert.summary)
    })?;
    Ok(FINE)
}

/// The one open alert that is meant: by its key, the beginning of it, or its rule.
fn chosen<'a>(open: &'a [Alert], name: &str) -> Result<&'a Alert, Failure> {
    if let Some(exact) = open.iter().find(|alert| alert.key.0 == name) {
        return Ok(exact);
    }
    let meant: Vec<&Alert> = open.iter().filter(|alert| !name.is_empty() && alert.key.0.starts_with(name)).collect();
    match meant.as_slice() {
        [one] => Ok(one),
        [] => {
            let keys: Vec<&str> = open.iter().map(|alert| alert.key.0.as_str()).collect();
            let hint =
                if keys.is_empty() { "no alert is open".to_owned() } else { format!("open: {}", keys.join(", ")) };
            Err(Failure::usage(anyhow::anyhow!("no open alert begins with {name:?}")).hint(hint))
        }
        several => {
            let keys: Vec<&str> = several.iter().map(|alert| alert.key.0.as_str()).collect();
            Err(Failure::usage(anyhow::anyhow!("{name:?} may be {}", keys.join(" or "))).hint("name its whole key"))
        }
    }
}

fn matches(args: &SilenceArgs) -> Result<Matches, Failure> {
    let mut matches = Matches::new();
    if !args.rule.is_empty() {
        matches.insert("rule".to_owned(), args.rule.clone());
    }
    for label in &args.label {
        let (name, value) =
            label.split_once('=').filter(|(name, value)| !name.is_empty() && !value.is_empty()).ok_or_else(|| {
                Failure::usage(anyhow::anyhow!("{label:?} is no label")).hint("NAME=VALUE, such as cluster=main")
            })?;
        matches.entry(name.to_owned()).or_default().push(value.to_owned());
    }
    Ok(matches)
}

/// What a silence covers, for people.
pub(super) fn labels(matches: &Matches) -> String {
    if matches.is_empty() {
        return "every alert".to_owned();
    }
    let one = |(name, values): (&String, &Vec<String>)| format!("{name}={}", values.join("|"));
    matches.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Short, for people to type; two of the same millisecond are as good as impossible by hand, and then both end at once.
fn id(now: Timestamp) -> String {
    // Milliseconds of about a year, in hexadecimal.
    format!("{:x}", now.as_millisecond().rem_euclid(1 << 35))
}

fn who(by: Option<&str>) -> String {
    let user = || std::env::var("SUDO_USER").or_else(|_| std::env::var("USER")).ok();
    bounded(&by.map(str::to_owned).or_else(user).unwrap_or_else(|| "somebody".to_owned()))
}

fn bounded(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TEXT_MAX).collect()
}

#[cfg(test)]
mod tests {
    use model::{AlertKey, AlertState, Moment, RuleId};

    use super::*;

    fn alert(key: &str) -> Alert {
        let moment = Moment { wall: Timestamp::UNIX_EPOCH, boot_us: 1 };
        Alert {
            key: AlertKey(key.to_owned()),
            rule: RuleId::from("postgres-down"),
            severity: model::Severity::Critical,
            state: AlertState::Firing,
            since: moment,
            decided: moment,
            summary: String::new(),
            details: Vec::new(),
            next_steps: Vec::new(),
            labels: Matches::new().into_keys().map(|name| (name.clone(), name)).collect(),
        }
    }

    #[test]
    fn an_alert_is_meant_by_any_beginning_that_is_its_own() {
        let open = [alert("postgres-down/main/1"), alert("postgres-down/main/12"), alert("cpu-saturated/main/1")];
        for (name, expected) in [
            ("cpu", Ok("cpu-saturated/main/1")),
            ("postgres-down/main/1", Ok("postgres-down/main/1")),
            ("postgres-down/main/12", Ok("postgres-down/main/12")),
            ("postgres-down", Err("may be postgres-down/main/1 or postgres-down/main/12")),
            ("disk", Err("no open alert begins with")),
            ("", Err("no open alert begins with")),
        ] {
            match (chosen(&open, name), expected) {
                (Ok(alert), Ok(key)) => assert_eq!(alert.key.0, key),
                (Err(error), Err(says)) => assert!(error.error.to_string().contains(says), "{name}: {}", error.error),
                (got, _) => panic!("{name}: {got:?}"),
            }
        }
    }
}

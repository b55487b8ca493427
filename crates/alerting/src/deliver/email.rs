//! E-mail by SMTP: one message of plain text, with or without TLS, over a connection of its own.
//!
//! Sources: RFC 5321 (SMTP), RFC 5322 (the `Message-ID` that tells a repetition, `In-Reply-To` that ties an end to its begin), RFC 3834
//! (`Auto-Submitted`, so that no holiday reply comes back), RFC 8314 (port 465 is TLS from the first byte).

use std::{
    error::Error as _,
    fmt::Write as _,
    hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher},
    time::Duration,
};

use lettre::{
    AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor,
    message::{
        Mailbox,
        header::{ContentType, HeaderName, HeaderValue},
    },
    transport::smtp::{
        Error,
        authentication::Credentials,
        client::{Tls, TlsParameters},
    },
};
use model::{Alert, AlertState, alert::rule};

use super::{target::Failure, webhook::REFUSED_PAUSE, words};
use crate::{
    protocol::idempotency_key,
    route::{Email, Security},
};

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);
/// How long a whole message may take. A greeting may be held back on purpose, to put off senders of spam.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(25);
/// Characters of a subject: what a list of messages shows.
const SUBJECT_CHARS: usize = 150;
/// Characters of one alert's text.
const BODY_CHARS: usize = 10_000;

/// A mail server that is ready to be spoken to.
#[derive(Clone)]
pub(crate) struct EmailTarget {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    to: Vec<Mailbox>,
    password: Option<String>,
}

/// Whether mail can be sent as it is declared, as far as can be told without asking the server.
///
/// # Errors
/// What is wrong and what to do, for people.
pub fn check_email(email: &Email) -> Result<(), String> {
    EmailTarget::new(email).map(drop)
}

impl EmailTarget {
    /// # Errors
    /// Where the route can't work, without its secrets.
    pub(super) fn new(email: &Email) -> Result<Self, String> {
        let mailbox = |text: &str| {
            text.parse::<Mailbox>()
                .map_err(|error| format!("{text:?} is no address: {error}. Hint: such as \"Team <team@example.org>\""))
        };
        let (from, to) = (mailbox(&email.from)?, email.to.iter().map(|to| mailbox(to)).collect::<Result<Vec<_>, _>>()?);
        if to.is_empty() {
            return Err("it goes to nobody. Hint: to = [\"team@example.org\"]".to_owned());
        }
        if email.password.is_some() && email.security == Security::None {
            return Err(
                "a password would go over the network in clear. Hint: security = \"tls\" or \"starttls\"".to_owned()
            );
        }
        let parameters = || {
            TlsParameters::new(email.host.clone())
                .map_err(|error| format!("TLS to {} is not to be had: {}", email.host, chain(&error)))
        };
        let tls = match email.security {
            Security::Tls => Tls::Wrapper(parameters()?),
            Security::Starttls => Tls::Required(parameters()?),
            Security::None => Tls::None,
        };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&email.host)
            .port(email.port)
            .tls(tls)
            .timeout(Some(CONNECT_TIMEOUT));
        let password = email.password.as_ref().map(|password| password.reveal().to_owned());
        if let Some((user, password)) = email.user.clone().zip(password.clone()) {
            builder = builder.credentials(Credentials::new(user, password));
        }
        Ok(Self { transport: builder.build(), from, to, password })
    }

    /// Sends one message of these alerts.
    pub(super) async fn send(&self, alerts: &[&Alert]) -> Result<(), Failure> {
        let message = self.message(alerts).map_err(|error| Failure { error, permanent: true, retry_after: None })?;
        match tokio::time::timeout(MESSAGE_TIMEOUT, self.transport.send(message)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.failure(&error)),
            Err(_) => {
                let error = format!("the mail server did not take it within {} s", MESSAGE_TIMEOUT.as_secs());
                Err(Failure { error, permanent: false, retry_after: None })
            }
        }
    }

    fn message(&self, alerts: &[&Alert]) -> Result<Message, String> {
        let subject = words::message(alerts, SUBJECT_CHARS, BODY_CHARS).title;
        let mut text = String::new();
        for alert in alerts {
            let one = words::message(&[*alert], SUBJECT_CHARS * 2, BODY_CHARS);
            let _ = write!(text, "{}\n\n{}\n\n", one.title, one.body);
        }
        let mut builder = Message::builder().from(self.from.clone()).subject(one_line(&subject));
        for to in &self.to {
            builder = builder.to(to.clone());
        }
        builder = builder
            .raw_header(HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".to_owned()))
            .header(ContentType::TEXT_PLAIN);
        let domain = self.from.email.domain();
        // A repetition has the same name, and readers show it once.
        let keys: Vec<String> = alerts.iter().map(|alert| idempotency_key(alert)).collect();
        builder = builder.message_id(Some(id_of(&keys, domain)));
        if let [Alert { state: AlertState::Resolved, rule: of, .. }] = alerts
            && of.0 != rule::MEMBERS_WORD
        {
            let begin = Alert { state: AlertState::Firing, ..alerts[0].clone() };
            let begin = id_of(&[idempotency_key(&begin)], domain);
            builder = builder.in_reply_to(begin.clone()).references(begin);
        }
        builder.body(text).map_err(|error| format!("no message can be made of it: {error}"))
    }

    /// Nothing that a mail server says is for ever: a full mailbox, a rule against spam or a wrong password are mended by people, and an
    /// alert must not be lost to that.
    fn failure(&self, error: &Error) -> Failure {
        let hint = match error.status().map(u16::from) {
            Some(530 | 534 | 535 | 538) => ". Hint: it does not accept our user or password: see password_file",
            Some(550 | 551 | 553) => ". Hint: it does not take mail from or to these addresses: see from and to",
            _ => "",
        };
        let mut text = format!("{}{hint}", chain(error));
        if let Some(password) = &self.password {
            text = text.replace(password.as_str(), "[redacted]");
        }
        Failure { error: text, permanent: false, retry_after: error.is_permanent().then_some(REFUSED_PAUSE) }
    }
}

/// A `Message-ID`: the episode's key and which end of it this is, in the characters that RFC 5322 allows (`dot-atom`). Several alerts are named
/// by the first and a number made of all, so that another company is another message.
fn id_of(keys: &[String], domain: &str) -> String {
    let first = keys.first().map_or("", String::as_str);
    let mut id = String::from("<oxpecker.");
    for byte in first.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' {
            id.push(char::from(byte));
        } else {
            let _ = write!(id, "={byte:02x}");
        }
    }
    if keys.len() > 1 {
        let _ = write!(id, "+{:016x}", BuildHasherDefault::<DefaultHasher>::default().hash_one(keys));
    }
    id + "@" + domain + ">"
}

/// A name of a table may hold a line's end, and a header must not.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            let _ = write!(text, ": {said}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{route::Secret, testing::alert};

    fn email() -> Email {
        Email {
            host: "mail.example.org".into(),
            port: 587,
            security: Security::None,
            user: None,
            password: None,
            from: "Guard <guard@example.org>".into(),
            to: vec!["team@example.org".into()],
        }
    }

    fn text(alerts: &[&Alert]) -> String {
        String::from_utf8(EmailTarget::new(&email()).ok().unwrap().message(alerts).unwrap().formatted()).unwrap()
    }

    fn header<'a>(text: &'a str, name: &str) -> Option<&'a str> {
        text.lines().take_while(|line| !line.is_empty()).find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    #[test]
    fn a_repetition_has_the_same_name_and_an_end_answers_its_begin() {
        let (firing, resolved) = (alert("k1", AlertState::Firing), alert("k1", AlertState::Resolved));
        let (begin, again, end) = (text(&[&firing]), text(&[&firing]), text(&[&resolved]));
        let id = header(&begin, "Message-ID").unwrap();
        assert_eq!(header(&again, "Message-ID"), Some(id));
        assert_ne!(header(&end, "Message-ID"), Some(id));
        assert_eq!(header(&end, "In-Reply-To"), Some(id));
        assert_eq!(header(&begin, "Auto-Submitted"), Some("auto-generated"));
        assert_eq!(header(&begin, "Subject"), Some("CRITICAL: CPU of db1 saturated"));
        assert!(begin.contains("1. look"), "{begin}");
        assert_ne!(header(&text(&[&alert("k2", AlertState::Firing)]), "Message-ID"), Some(id));
    }

    #[test]
    fn nobody_writes_headers_through_a_tables_name() {
        let mut alert = alert("k", AlertState::Firing);
        alert.summary = "table a\r\nBcc: all@example.org\r\n\r\nbody".into();
        let text = text(&[&alert]);
        assert_eq!(header(&text, "Bcc"), None, "{text}");
        assert!(header(&text, "Subject").unwrap().starts_with("CRITICAL: table a"), "{text}");
    }

    #[test]
    fn what_cannot_work_is_refused_with_a_hint() {
        let password = Some(Secret::new("s3cr3t"));
        for (email, says) in [
            (Email { from: "nobody".into(), ..email() }, "is no address"),
            (Email { to: vec!["a@b@c".into()], ..email() }, "is no address"),
            (Email { to: vec![], ..email() }, "goes to nobody"),
            (Email { user: Some("u".into()), password, ..email() }, "in clear"),
        ] {
            let error = check_email(&email).unwrap_err();
            assert!(error.contains(says) && error.contains("Hint: ") && !error.contains("s3cr3t"), "{error}");
        }
    }
}

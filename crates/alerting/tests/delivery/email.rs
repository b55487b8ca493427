//! A real mail server (aiosmtpd, Debian's package) as the receiver.

use std::{
    io::{BufRead as _, BufReader, Lines},
    process::ChildStdout,
};

use alerting::{Email, Security};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::Value;

use super::*;

/// Debian's own Python: another one on the PATH does not see its packages.
const PYTHON: &str = "/usr/bin/python3";

/// A running mail server on a port of its own, with the authority that issued its certificate. Killed on drop.
struct MailServer {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
    port: u16,
    authority: PathBuf,
    _dir: tempfile::TempDir,
}

impl MailServer {
    /// `None` where there is none.
    fn start(security: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["localhost".into()]).unwrap().signed_by(&key, &issuer).unwrap();
        for (name, text) in
            [("authority", issuer.pem()), ("certificate", certificate.pem()), ("key", key.serialize_pem())]
        {
            fs::write(file(name), text).unwrap();
        }
        let child = Command::new(PYTHON)
            .args(["-c", include_str!("mail_server.py"), security])
            .args([file("certificate"), file("key")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut child) = child else {
            println!("skipped: there is no {PYTHON}");
            return None;
        };
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let Some(Ok(port)) = said.next() else {
            let _ = child.wait();
            println!("skipped: no mail server; hint: install the package python3-aiosmtpd");
            return None;
        };
        Some(Self { child, said, port: port.parse().unwrap(), authority: file("authority"), _dir: dir })
    }

    fn to(&self, security: Security, password: Option<&str>, to: &str) -> Vec<Route> {
        let email = Email {
            host: "localhost".into(),
            port: self.port,
            security,
            user: password.map(|_| "guard".to_owned()),
            password: password.map(Secret::new),
            from: "Guard <guard@example.org>".into(),
            to: vec![to.into()],
        };
        let carrier = Carrier::Email(email);
        vec![Route {
            name: "mail".into(),
            min_severity: Severity::Info,
            matches: BTreeMap::new(),
            escalate_after: None,
            members: false,
            carrier,
        }]
    }

    fn start_delivery(&self, place: &Place, routes: Vec<Route>) -> Started {
        let mut worker = place.worker();
        worker.env.push(("SSL_CERT_FILE".into(), self.authority.clone().into()));
        worker.env.push(("SSL_CERT_DIR".into(), "".into()));
        start(&place.outbox(), routes, worker)
    }

    /// The next message that it took.
    fn next(&mut self) -> Value {
        serde_json::from_str(&self.said.next().unwrap().unwrap()).unwrap()
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn failure(started: &mut Started) -> (String, bool) {
    loop {
        if let EventKind::AlertFailed { error, gave_up, .. } = outcome(&mut started.outcomes).await {
            return (error, gave_up);
        }
    }
}

#[tokio::test]
async fn mail_arrives_whichever_way_it_is_kept_from_listeners() {
    for (name, security, password) in [
        ("none", Security::None, None),
        ("starttls", Security::Starttls, Some(SECRET_TOKEN)),
        ("tls", Security::Tls, Some(SECRET_TOKEN)),
    ] {
        let Some(mut server) = MailServer::start(name) else { return };
        let place = Place::new();
        let routes = server.to(security, password, "Team <team@example.org>");
        let mut started = server.start_delivery(&place, routes);
        started.delivery.submit(alert("k1", AlertState::Firing));
        let (key, route, ..) = delivered(&mut started.outcomes).await;
        assert_eq!((key.as_str(), route.as_str()), ("k1", "mail"), "{name}");
        started.delivery.submit(alert("k1", AlertState::Resolved));
        delivered(&mut started.outcomes).await;
        let (begin, end) = (server.next(), server.next());
        assert_eq!(begin["from"], "guard@example.org");
        assert_eq!(begin["to"][0], "team@example.org");
        assert_eq!((&begin["tls"], &begin["user"]), (&(name != "none").into(), &password.map(|_| "guard").into()));
        assert_eq!(begin["headers"]["subject"], "CRITICAL: summary of k1");
        assert!(begin["text"].as_str().unwrap().contains("1. look"), "{begin}");
        assert_eq!(end["headers"]["subject"], "resolved: summary of k1");
        assert_eq!(end["headers"]["in-reply-to"], begin["headers"]["message-id"]);
        started.delivery.shutdown().await;
    }
}

#[tokio::test]
async fn what_a_mail_server_refuses_is_tried_again_and_the_reason_told() {
    let Some(mut server) = MailServer::start("none") else { return };
    let place = Place::new();
    let routes = server.to(Security::None, None, "later@example.org");
    let mut started = server.start_delivery(&place, routes);
    started.delivery.submit(alert("k1", AlertState::Firing));
    let (error, gave_up) = failure(&mut started).await;
    assert!(error.contains("come back later") && !gave_up, "{error}");
    assert_eq!(delivered(&mut started.outcomes).await.2, 2, "the second attempt");
    assert_eq!(server.next()["headers"]["subject"], "CRITICAL: summary of k1");
    started.delivery.shutdown().await;

    for (security, kind, password, to, says) in [
        (Security::None, "none", None, "never@example.org", "no such user. Hint: it does not take mail"),
        (Security::Tls, "tls", Some("wr0ng-s3cr3t"), "team@example.org", "our user or password"),
        // A server that offers no STARTTLS gets nothing in clear.
        (Security::Starttls, "none", None, "team@example.org", ""),
        // A stranger's certificate: nothing is told to it.
        (Security::Starttls, "starttls", Some(SECRET_TOKEN), "team@example.org", "certificate"),
    ] {
        let server = MailServer::start(kind).unwrap();
        let routes = server.to(security, password, to);
        let place = Place::new();
        // The authority of another server knows nothing of this one.
        let stranger = MailServer::start("none").unwrap();
        let trusted = if says == "certificate" { &stranger } else { &server };
        let mut started = trusted.start_delivery(&place, routes);
        started.delivery.submit(alert("k1", AlertState::Firing));
        let (error, gave_up) = failure(&mut started).await;
        assert!(error.to_lowercase().contains(says) || error.contains(says), "{kind}: {error}");
        assert!(!gave_up && !error.contains("s3cr3t"), "{kind}: {error}");
        drop(started);
    }
}

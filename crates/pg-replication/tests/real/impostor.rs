//! What is no PostgreSQL, or not one that is known, is refused and never waited for without end.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use pg_replication::{Connection, Error, Host, SslMode, Target};

use crate::{builder, socket};

/// Somebody who does this with whoever comes first.
fn impostor(act: impl FnOnce(TcpStream) + Send + 'static) -> Target {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || act(listener.accept().unwrap().0));
    let mut target = Target::new(Host::Tcp("127.0.0.1".to_owned(), port), "me");
    target.ssl_mode = SslMode::Disable;
    target.password = Some("secret".to_owned());
    target.connect_timeout = Duration::from_secs(1);
    target
}

fn says(bytes: &'static [u8]) -> impl FnOnce(TcpStream) + Send + 'static {
    move |mut stream| {
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(bytes);
        let _ = stream.read(&mut [0; 1024]);
    }
}

#[test]
fn garbage_is_refused() {
    for bytes in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"R\xFF\xFF\xFF\xFF\0\0\0\0",
        b"R\0\0\0\x03",
        b"R\0\0\0\x08\0\0\0\x63",
        b"R\0\0\0\x05\0",
        b"D\0\0\0\x04",
    ] {
        let error = Connection::open(&impostor(says(bytes))).err().unwrap();
        assert!(matches!(error, Error::Protocol { .. } | Error::Authentication { .. }), "{bytes:?}: {error:?}");
    }
}

#[test]
fn a_silent_server_is_given_up() {
    let silent = impostor(|stream| {
        let mut stream = stream;
        while stream.read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
    });
    let start = Instant::now();
    let error = Connection::open(&silent).err().unwrap();
    assert!(error.is_passing() && start.elapsed() < Duration::from_secs(30), "{error:?}");
}

#[test]
fn a_password_in_clear_is_not_sent_without_tls() {
    let (sent, seen) = std::sync::mpsc::channel();
    let target = impostor(move |mut stream| {
        let mut all = vec![0; 1024];
        let _ = stream.read(&mut all);
        // AuthenticationCleartextPassword.
        let _ = stream.write_all(b"R\0\0\0\x08\0\0\0\x03");
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        sent.send(rest).unwrap();
    });
    let error = Connection::open(&target).err().unwrap();
    assert!(matches!(error, Error::Authentication { .. }), "{error:?}");
    assert_eq!(seen.recv().unwrap(), b"");
}

#[test]
fn who_answers_for_tls_and_sends_more_is_not_trusted() {
    // Bytes behind the one of the answer would be read as if they had come encrypted (CVE-2021-23222).
    let mut target = impostor(says(b"SR\0\0\0\x08\0\0\0\0"));
    target.ssl_mode = SslMode::Require;
    let error = Connection::open(&target).err().unwrap();
    assert!(matches!(error, Error::Tls { .. }), "{error:?}");
    let mut target = impostor(says(b"N"));
    target.ssl_mode = SslMode::Require;
    let error = Connection::open(&target).err().unwrap();
    assert!(matches!(&error, Error::Tls { why, .. } if why.contains("not offer")), "{error:?}");
}

#[test]
fn another_version_is_refused() {
    let Some(builder) = builder(12) else { return };
    let cluster = builder.start().unwrap();
    let error = Connection::open(&socket(&cluster)).err().unwrap();
    assert!(matches!(&error, Error::Version { version, .. } if version.starts_with("12.")), "{error:?}");
}

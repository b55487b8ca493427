//! Asking over the network, when a person asked for that: connections, handshakes and `GET /`; nothing is logged in to, nothing is sent but that.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs as _},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme, StreamOwned,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use crate::{
    certificate::last_day,
    facts::{Address, Answer, Asked, Probed, Question},
    words::shown,
};

/// Questions under way at a time.
const AT_ONCE: usize = 16;
/// How long a connection, and each read and write on it, may take.
const STEP_MAX: Duration = Duration::from_secs(5);
/// How long all questions may take. Names are looked up by the system, which keeps to no time.
const ALL_MAX: Duration = Duration::from_secs(90);
/// Bytes of an answer's head.
const HEAD_MAX: usize = 16 << 10;
/// PostgreSQL's request for encryption (manual, "Message Formats", SSLRequest): any PostgreSQL answers it with one byte.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// Where names lead, other than the system says: host and port to an address.
pub type Elsewhere = HashMap<(String, u16), SocketAddr>;

/// Asks all questions, some at a time. Ends after 90 seconds at most.
pub fn ask(questions: Vec<Question>, elsewhere: &Elsewhere) -> Vec<Probed> {
    let (sender, receiver) = mpsc::channel();
    let queue = Arc::new(Mutex::new((0..questions.len()).rev().collect::<Vec<_>>()));
    let shared: Arc<[Question]> = questions.into();
    let asker = Arc::new(Asker { elsewhere: elsewhere.clone(), roots: roots() });
    for _ in 0..AT_ONCE.min(shared.len()) {
        let (sender, queue, shared, asker) =
            (sender.clone(), Arc::clone(&queue), Arc::clone(&shared), Arc::clone(&asker));
        // One that hangs in the system's look-up is left behind: it holds nothing.
        thread::spawn(move || {
            while let Some(index) = queue.lock().ok().and_then(|mut queue| queue.pop()) {
                if sender.send((index, asker.ask(&shared[index]))).is_err() {
                    return;
                }
            }
        });
    }
    drop(sender);
    let until = Instant::now() + ALL_MAX;
    let mut answers: Vec<Option<Asked<Answer>>> = vec![None; shared.len()];
    while let Ok((index, answer)) = receiver.recv_timeout(until.saturating_duration_since(Instant::now())) {
        answers[index] = Some(answer);
    }
    let late = || Err(format!("no answer while all were asked, {} s", ALL_MAX.as_secs()));
    shared.iter().cloned().zip(answers.into_iter().map(|answer| answer.unwrap_or_else(late))).collect()
}

fn roots() -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    Arc::new(roots)
}

struct Asker {
    elsewhere: Elsewhere,
    roots: Arc<RootCertStore>,
}

impl Asker {
    fn ask(&self, question: &Question) -> Asked<Answer> {
        match question {
            Question::Page { host, .. } => self.page(host),
            Question::Address(address) => self.address(address),
        }
    }

    fn page(&self, host: &str) -> Asked<Answer> {
        let encrypted = match self.connect(host, 443) {
            Ok(stream) => self.encrypted(host, stream),
            Err(why) => Err(why),
        };
        match encrypted {
            Ok((mut answer, mut stream)) => {
                // What the certificate said stands, whatever comes after it.
                answer.failed = get(&mut stream, host, &mut answer).err().map(|error| format!("port 443: {error}"));
                Ok(answer)
            }
            Err(why) => {
                let mut answer = Answer { plain: true, ..Answer::default() };
                let mut stream = self.connect(host, 80).map_err(|_| why.clone())?;
                get(&mut stream, host, &mut answer).map_err(|_| why)?;
                Ok(answer)
            }
        }
    }

    fn address(&self, address: &Address) -> Asked<Answer> {
        let mut stream = self.connect(&address.host, address.port)?;
        match address.scheme.as_str() {
            "https" => Ok(self.encrypted(&address.host, stream)?.0),
            "postgres" | "postgresql" => {
                let mut byte = [0; 1];
                stream
                    .write_all(&SSL_REQUEST)
                    .and_then(|()| stream.read_exact(&mut byte))
                    .map_err(|error| format!("something listens, and is no PostgreSQL: {error}"))?;
                match byte[0] {
                    b'S' | b'N' | b'E' => Ok(Answer::default()),
                    _ => Err("something listens, and is no PostgreSQL".to_owned()),
                }
            }
            _ => Ok(Answer::default()),
        }
    }

    fn connect(&self, host: &str, port: u16) -> Asked<TcpStream> {
        let addresses: Vec<SocketAddr> = match self.elsewhere.get(&(host.to_owned(), port)) {
            Some(address) => vec![*address],
            None => (host, port)
                .to_socket_addrs()
                .map_err(|error| format!("the name {} leads nowhere: {error}", shown(host)))?
                .collect(),
        };
        let mut why = format!("the name {} has no address", shown(host));
        // Two: one of each family.
        for address in addresses.iter().take(2) {
            match TcpStream::connect_timeout(address, STEP_MAX) {
                Ok(stream) => {
                    let timed =
                        stream.set_read_timeout(Some(STEP_MAX)).and_then(|()| stream.set_write_timeout(Some(STEP_MAX)));
                    timed.map_err(|error| error.to_string())?;
                    return Ok(stream);
                }
                Err(error) => why = format!("{address}: {error}"),
            }
        }
        Err(why)
    }

    /// The handshake goes on whatever the certificate is: what it says is what was asked for.
    fn encrypted(&self, host: &str, stream: TcpStream) -> Asked<(Answer, StreamOwned<ClientConnection, TcpStream>)> {
        let failed = |error: &dyn std::fmt::Display| format!("no TLS with {}: {error}", shown(host));
        let name = ServerName::try_from(host.to_owned()).map_err(|error| failed(&error))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        // A machine without any root believes nobody; that says nothing about the server.
        let strict = if self.roots.is_empty() {
            None
        } else {
            let built =
                WebPkiServerVerifier::builder_with_provider(Arc::clone(&self.roots), Arc::clone(&provider)).build();
            Some(built.map_err(|error| failed(&error))?)
        };
        let looker = Arc::new(Looker { strict, provider: Arc::clone(&provider), seen: Mutex::new(Seen::default()) });
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(&error))?;
        let config = config
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&looker) as Arc<dyn ServerCertVerifier>)
            .with_no_client_auth();
        let connection = ClientConnection::new(Arc::new(config), name).map_err(|error| failed(&error))?;
        let mut stream = StreamOwned::new(connection, stream);
        let until = Instant::now() + STEP_MAX * 2;
        while stream.conn.is_handshaking() {
            if Instant::now() > until {
                return Err(failed(&"it takes too long"));
            }
            stream.conn.complete_io(&mut stream.sock).map_err(|error| failed(&error))?;
        }
        let seen = looker.seen.lock().map(|seen| seen.clone()).unwrap_or_default();
        Ok((Answer { expires: seen.expires, untrusted: seen.untrusted, ..Answer::default() }, stream))
    }
}

/// `GET /`, and the head of what comes back.
fn get(stream: &mut (impl Read + Write), host: &str, answer: &mut Answer) -> io::Result<()> {
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: oxpecker-audit\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    // In one piece: some answer, and close, after the first.
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let until = Instant::now() + STEP_MAX * 2;
    let mut head = Vec::new();
    let mut buffer = [0; 2_048];
    while !head.windows(4).any(|four| four == b"\r\n\r\n") && head.len() < HEAD_MAX {
        if Instant::now() > until {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "its answer takes too long"));
        }
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => head.extend_from_slice(&buffer[..count]),
            // Many close without the word of parting.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && !head.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    let text = String::from_utf8_lossy(&head);
    let mut lines = text.split("\r\n");
    let status =
        lines.next().filter(|line| line.starts_with("HTTP/1.")).and_then(|line| line.split(' ').nth(1)?.parse().ok());
    answer.status = Some(status.ok_or_else(|| io::Error::other("it answers, and not in HTTP"))?);
    let field = |line: &str| {
        line.split_once(':')
            .filter(|(name, _)| name.eq_ignore_ascii_case("location"))
            .map(|(_, value)| shown(value.trim()))
    };
    answer.location = lines.take_while(|line| !line.is_empty()).find_map(field);
    Ok(())
}

#[derive(Clone, Debug, Default)]
struct Seen {
    expires: Option<jiff::civil::Date>,
    untrusted: Option<String>,
}

/// Takes every certificate and remembers what a browser would say of it. Signatures of the handshake are checked as ever.
#[derive(Debug)]
struct Looker {
    strict: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<rustls::crypto::CryptoProvider>,
    seen: Mutex<Seen>,
}

impl ServerCertVerifier for Looker {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let judged =
            self.strict.as_ref().map(|strict| strict.verify_server_cert(certificate, between, name, ocsp, now));
        let untrusted = judged.and_then(Result::err).map(|error| shown(&error.to_string()));
        if let Ok(mut seen) = self.seen.lock() {
            *seen = Seen { expires: last_day(certificate), untrusted };
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

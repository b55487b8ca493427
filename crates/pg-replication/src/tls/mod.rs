//! TLS as `sslmode` wants it.

mod end_point;
mod verify;

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    client::WebPkiServerVerifier,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};

pub(crate) use self::end_point::end_point_hash;
use self::verify::{AnyCertificate, AnyName};
use crate::{Error, Host, SslMode, Target, socket::Socket};

/// Stands for the system's roots in `sslrootcert`, as it does for libpq.
const SYSTEM: &str = "system";

/// Asks the server for TLS and begins it, as far as the target and the kind of host want it.
pub(crate) fn begin(socket: Socket, target: &Target, host: &Host) -> Result<Socket, Error> {
    let (mut stream, name) = match (socket, host) {
        (Socket::Tcp(stream), Host::Tcp(name, _)) if target.ssl_mode != SslMode::Disable => (stream, name),
        (other, _) => return Ok(other),
    };
    let fail = |why: String, hint| Error::Tls { host: host.to_string(), why, hint };
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    // One byte is read and no more: what comes behind it before the handshake could be anybody's.
    let mut answer = [0];
    let asked = stream.write_all(&request).and_then(|()| stream.read_exact(&mut answer));
    asked.map_err(|error| fail(format!("it did not answer the request ({error})"), "is that a PostgreSQL server?"))?;
    match answer {
        [b'S'] => {}
        [b'N'] if target.ssl_mode == SslMode::Prefer => return Ok(Socket::Tcp(stream)),
        [b'N'] => {
            let why = "the server does not offer it".to_owned();
            return Err(fail(why, "set ssl = on there, with a certificate"));
        }
        _ => return Err(fail("the answer to the request makes no sense".to_owned(), "is that a PostgreSQL server?")),
    }
    let config = config(target)?;
    let name = ServerName::try_from(name.clone())
        .map_err(|error| fail(error.to_string(), "name the host as its certificate does"))?;
    let connection = ClientConnection::new(Arc::new(config), name)
        .map_err(|error| fail(error.to_string(), "see the settings for TLS of both sides"))?;
    let mut stream = StreamOwned::new(connection, stream);
    while stream.conn.is_handshaking() {
        stream
            .conn
            .complete_io(&mut stream.sock)
            .map_err(|error| fail(error.to_string(), hint_for(&error.to_string())))?;
    }
    Ok(Socket::Tls(Box::new(stream)))
}

fn hint_for(why: &str) -> &'static str {
    if why.contains("UnknownIssuer") {
        "give the root certificate of the server's authority as sslrootcert"
    } else if why.contains("NotValidForName") || why.contains("not valid for name") {
        "connect by a name that the certificate has, or have one made with this name"
    } else if why.contains("expired") || why.contains("Expired") {
        "the server needs a new certificate"
    } else {
        "see the server's log, and the settings for TLS of both sides"
    }
}

fn config(target: &Target) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| file_error(Path::new("TLS"), &error, "this is a bug of oxpecker's build"))?;
    // With roots at hand `require` checks the chain: libpq does so for old times' sake, and it is the safer reading.
    let mode = match (target.ssl_mode, &target.ssl_root_cert) {
        (SslMode::Require, Some(_)) => SslMode::VerifyCa,
        (mode, _) => mode,
    };
    let builder = match mode {
        SslMode::Disable | SslMode::Prefer | SslMode::Require => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate::new(provider)))
        }
        SslMode::VerifyCa => {
            let verifier = web_pki(target, &provider)?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyName::new(verifier)))
        }
        SslMode::VerifyFull => builder.with_webpki_verifier(web_pki(target, &provider)?),
    };
    match (&target.ssl_cert, &target.ssl_key) {
        (Some(certificates), Some(key)) => {
            let chain = read_certificates(certificates)?;
            let hint = "it must hold an unencrypted key in PEM";
            let private = PrivateKeyDer::from_pem_file(key).map_err(|error| file_error(key, &error, hint))?;
            let hint = "certificate and key must belong together";
            builder.with_client_auth_cert(chain, private).map_err(|error| file_error(key, &error, hint))
        }
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(one), None) | (None, Some(one)) => {
            Err(file_error(one, &"its other half is not given", "give both sslcert and sslkey"))
        }
    }
}

fn web_pki(target: &Target, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, Error> {
    let roots = Arc::new(roots(target.ssl_root_cert.as_deref())?);
    let builder = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider));
    builder.build().map_err(|error| {
        let path = target.ssl_root_cert.clone().unwrap_or_else(|| PathBuf::from(SYSTEM));
        file_error(&path, &error, "it must hold at least one certificate of an authority")
    })
}

fn roots(path: Option<&Path>) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    match path {
        Some(path) if path != Path::new(SYSTEM) => {
            for certificate in read_certificates(path)? {
                let hint = "it must hold certificates of authorities in PEM";
                roots.add(certificate).map_err(|error| file_error(path, &error, hint))?;
            }
        }
        _ => {
            // Some of a system's roots are always odd; what matters is that there are any.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    Ok(roots)
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let hint = "it must hold certificates in PEM and be readable";
    let certificates = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(file_error(path, &"there is no certificate in it", hint)),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(file_error(path, &error, hint)),
    }
}

fn file_error(path: &Path, why: &dyn ToString, hint: &'static str) -> Error {
    Error::File { path: path.to_owned(), why: why.to_string(), hint }
}

/// The server's certificate of a TLS connection.
pub(crate) fn server_certificate(
    stream: &StreamOwned<ClientConnection, TcpStream>,
) -> Option<&CertificateDer<'static>> {
    stream.conn.peer_certificates()?.first()
}

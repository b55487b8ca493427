//! The handshake of TLS, as `sslmode` wants it.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
};

use bytes::BytesMut;
use pg_connect::{client_config, hint_for};
use postgres_protocol::message::frontend;
use rustls::{
    ClientConnection, StreamOwned,
    pki_types::{CertificateDer, ServerName},
};

use crate::{Error, Host, SslMode, Target, socket::Socket};

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
    let config = client_config(target)?;
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

/// The server's certificate of a TLS connection.
pub(crate) fn server_certificate(
    stream: &StreamOwned<ClientConnection, TcpStream>,
) -> Option<&CertificateDer<'static>> {
    stream.conn.peer_certificates()?.first()
}

//! Sessions of SQL: tokio-postgres, with TLS where the target wants it.

use std::{
    error::Error as _,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::{
    Client, Config, Error, Socket,
    config::{ChannelBinding as Binding, SslMode as Mode},
    tls::{self, MakeTlsConnect, TlsConnect},
};
use tokio_rustls::TlsConnector;

use crate::{
    ChannelBinding, FileError, Host, ParseTargetError, SslMode, Target, client_config, end_point_hash, hint_for,
    password,
};

/// What drives a session; it ends with its client.
pub type Connection = tokio_postgres::Connection<Socket, TlsStream>;

/// Why sessions can't be prepared.
#[derive(Debug, thiserror::Error)]
pub enum SqlTargetError {
    /// The text is no connection string.
    #[error(transparent)]
    Parse(#[from] ParseTargetError),
    /// The password file can't be used.
    #[error(transparent)]
    File(#[from] FileError),
}

/// What sessions of SQL are opened with.
#[derive(Clone)]
pub struct Sql {
    /// All but TLS. May be changed, but for its hosts and what concerns TLS.
    pub config: Config,
    target: Arc<Target>,
}

impl std::fmt::Debug for Sql {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.target.fmt(f)
    }
}

impl Sql {
    /// From a connection string. The password file is read now, files of certificates with each connection.
    ///
    /// # Errors
    /// The text is no connection string, or the password file that it names can't be used.
    pub fn parse(text: &str) -> Result<Self, SqlTargetError> {
        Ok(Self::new(text.parse()?)?)
    }

    /// From a target.
    ///
    /// # Errors
    /// The password file that it names can't be used.
    pub fn new(target: Target) -> Result<Self, FileError> {
        let mut config = Config::new();
        for host in &target.hosts {
            match host {
                Host::Tcp(name, port) => config.host(name).port(*port),
                Host::Unix(directory, port) => config.host_path(directory).port(*port),
            };
        }
        config.user(&target.user).application_name(&target.application_name).connect_timeout(target.connect_timeout);
        if let Some(dbname) = &target.dbname {
            config.dbname(dbname);
        }
        if let Some(options) = &target.options {
            config.options(options);
        }
        config.ssl_mode(match target.ssl_mode {
            _ if target.is_local() => Mode::Disable,
            SslMode::Disable => Mode::Disable,
            SslMode::Prefer => Mode::Prefer,
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => Mode::Require,
        });
        config.channel_binding(match target.channel_binding {
            ChannelBinding::Disable => Binding::Disable,
            ChannelBinding::Prefer => Binding::Prefer,
            ChannelBinding::Require => Binding::Require,
        });
        if let Some(password) = first_password(&target)? {
            config.password(password);
        }
        Ok(Self { config, target: Arc::new(target) })
    }

    /// Where it leads.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The same in another database of the cluster.
    #[must_use]
    pub fn in_database(&self, name: &str) -> Self {
        let mut other = self.clone();
        other.config.dbname(name);
        other
    }

    /// Opens a session. The connection has to be driven by a task; the caller bounds the time.
    ///
    /// # Errors
    /// No host lets us in. [`explained`] says why in words.
    pub async fn connect(&self) -> Result<(Client, Connection), Error> {
        self.config.connect(Tls(Arc::clone(&self.target))).await
    }
}

/// That of the first host that has one: a session tries its hosts with one password.
fn first_password(target: &Target) -> Result<Option<String>, FileError> {
    let database = target.dbname.as_deref().unwrap_or(&target.user);
    for host in &target.hosts {
        match password(target, host, database) {
            Ok(None) => {}
            Ok(found) => return Ok(found),
            // Nobody named it, and a session may well need no password.
            Err(error) if target.passfile.is_none() => tracing::warn!("the password file is passed over: {error}"),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// The error with its causes, which tokio-postgres leaves out of its own text ("db error"), and with what to do about TLS.
#[must_use]
pub fn explained(error: &Error) -> String {
    if let Some(db) = error.as_db_error() {
        return format!("{} (SQLSTATE {})", db.message(), db.code().code());
    }
    let mut text = error.to_string();
    let mut is_tls = text.contains("TLS");
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        is_tls |= error.is::<rustls::Error>() || words.contains("TLS");
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    if is_tls && !text.contains("; hint: ") {
        text = format!("{text}; hint: {}", hint_for(&text));
    }
    text
}

/// Makes handshakes as the target wants them.
#[derive(Clone)]
struct Tls(Arc<Target>);

/// A handshake to come.
struct Handshake {
    target: Arc<Target>,
    host: String,
}

impl MakeTlsConnect<Socket> for Tls {
    type Stream = TlsStream;
    type TlsConnect = Handshake;
    type Error = io::Error;

    fn make_tls_connect(&mut self, host: &str) -> Result<Handshake, io::Error> {
        Ok(Handshake { target: Arc::clone(&self.0), host: host.to_owned() })
    }
}

impl TlsConnect<Socket> for Handshake {
    type Stream = TlsStream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TlsStream>> + Send>>;

    fn connect(self, stream: Socket) -> Self::Future {
        Box::pin(async move {
            let config = client_config(&self.target).map_err(io::Error::other)?;
            let name = ServerName::try_from(self.host).map_err(io::Error::other)?;
            TlsConnector::from(Arc::new(config)).connect(name, stream).await.map(TlsStream)
        })
    }
}

/// An encrypted connection.
#[derive(Debug)]
pub struct TlsStream(tokio_rustls::client::TlsStream<Socket>);

impl tls::TlsStream for TlsStream {
    fn channel_binding(&self) -> tls::ChannelBinding {
        let certificate = self.0.get_ref().1.peer_certificates().and_then(<[_]>::first);
        certificate
            .and_then(|certificate| end_point_hash(certificate))
            .map_or_else(tls::ChannelBinding::none, tls::ChannelBinding::tls_server_end_point)
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

//! Sockets: unix, TCP, TLS.

use std::{
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use rustix::net::sockopt;

use crate::Host;

/// A TCP connection that is idle for this long is asked whether the other side lives. Firewalls forget idle ones after minutes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// How often it is asked again.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// After how many questions without an answer the connection counts as dead.
const KEEPALIVE_COUNT: u32 = 6;
/// How long what was sent may stay without the other side's word that it came: without a bound the kernel tries for a quarter of an hour, and
/// no keepalive is sent meanwhile.
const UNHEARD_MAX: Duration = Duration::from_secs(60);
/// How long a living server may be silent: a checkpoint that is spread comes first, where no fast one was asked for.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(3600);

/// What bytes go over.
#[derive(Debug)]
pub(crate) enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<rustls::StreamOwned<rustls::ClientConnection, TcpStream>>),
}

impl Socket {
    /// Connects within the deadline; of a name's addresses the first that answers.
    pub(crate) fn connect(host: &Host, deadline: Instant) -> io::Result<Self> {
        match host {
            Host::Unix(directory, port) => {
                UnixStream::connect(directory.join(format!(".s.PGSQL.{port}"))).map(Self::Unix)
            }
            Host::Tcp(name, port) => {
                let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
                for address in (name.as_str(), *port).to_socket_addrs()? {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"));
                    }
                    match TcpStream::connect_timeout(&address, left) {
                        Ok(stream) => {
                            stream.set_nodelay(true)?;
                            keep_alive(&stream)?;
                            return Ok(Self::Tcp(stream));
                        }
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
        }
    }

    /// How long a read or write may take from now on.
    pub(crate) fn set_patience(&self, patience: Duration) -> io::Result<()> {
        // Zero would mean "for ever" to the standard library, as an error.
        let patience = Some(patience.max(Duration::from_millis(1)));
        match self {
            Self::Unix(stream) => stream.set_read_timeout(patience).and_then(|()| stream.set_write_timeout(patience)),
            Self::Tcp(stream) => stream.set_read_timeout(patience).and_then(|()| stream.set_write_timeout(patience)),
            Self::Tls(tls) => tls.sock.set_read_timeout(patience).and_then(|()| tls.sock.set_write_timeout(patience)),
        }
    }

    /// Whether something of TLS waits to be sent: only then it makes sense to wait for the other side to take it.
    pub(crate) fn wants_write(&self) -> bool {
        matches!(self, Self::Tls(stream) if stream.conn.wants_write())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream) => stream.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
            Self::Tls(stream) => stream.sock.as_fd(),
        }
    }
}

fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_COUNT)?;
    sockopt::set_tcp_user_timeout(stream, u32::try_from(UNHEARD_MAX.as_millis()).unwrap_or(u32::MAX))?;
    Ok(())
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buffer),
            Self::Tcp(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(bytes),
            Self::Tcp(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.flush(),
            Self::Tcp(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

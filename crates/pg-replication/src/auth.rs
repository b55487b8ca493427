//! Logging in: SCRAM-SHA-256, bound to the TLS connection where that is offered, and what servers of old days want.

use bytes::BytesMut;
use postgres_protocol::{
    authentication::{md5_hash, sasl},
    message::frontend,
};

use crate::{
    ChannelBinding, Error, Host, Target,
    socket::Socket,
    tls,
    wire::{Wire, take_text},
};

const DOING: &str = "logging in";
/// What stands for the database in the lines of password files.
const DATABASE: &str = "replication";
const SCRAM: &str = "SCRAM-SHA-256";
const SCRAM_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// Codes of authentication messages.
const OK: u32 = 0;
const CLEARTEXT: u32 = 3;
const MD5: u32 = 5;
const SASL: u32 = 10;
const SASL_CONTINUE: u32 = 11;
const SASL_FINAL: u32 = 12;

/// Answers the server until it says that we are in.
pub(crate) fn log_in(wire: &mut Wire, target: &Target, host: &Host) -> Result<(), Error> {
    let login = Login { target, host };
    // Bound to the connection, which is a proof that there is nobody in between.
    let mut bound = false;
    loop {
        let (code, body) = read(wire)?;
        match code {
            OK if target.channel_binding == ChannelBinding::Require && !bound => {
                let hint =
                    "the server must offer SCRAM-SHA-256-PLUS over TLS, or channel_binding must not be `require`";
                return Err(login.fail("the server let us in without channel binding", hint));
            }
            OK => return Ok(()),
            CLEARTEXT => {
                if wire.socket.look(|socket| matches!(socket, Socket::Tcp(_))) {
                    let hint = "use sslmode=verify-full, or have scram-sha-256 in pg_hba.conf";
                    return Err(
                        login.fail("the server wants the password in clear over a connection without TLS", hint)
                    );
                }
                login.send_password(wire, login.password()?.as_bytes())?;
            }
            MD5 => {
                let salt = body.first_chunk::<4>().ok_or_else(|| wire.protocol(DOING, "there is no salt"))?;
                let hash = md5_hash(target.user.as_bytes(), login.password()?.as_bytes(), *salt);
                login.send_password(wire, hash.as_bytes())?;
            }
            SASL => bound = login.scram(wire, &body)?,
            other => {
                let why = format!("the server wants method {other} of logging in, which is not supported");
                let hint = "have scram-sha-256 (or peer, or cert) in pg_hba.conf for this role";
                return Err(login.fail(why, hint));
            }
        }
    }
}

/// The next authentication message: its code and what follows it.
fn read(wire: &mut Wire) -> Result<(u32, Vec<u8>), Error> {
    let message = wire.read(DOING)?;
    match (message.tag, wire.bytes(&message).split_first_chunk::<4>()) {
        (b'R', Some((code, rest))) => Ok((u32::from_be_bytes(*code), rest.to_vec())),
        _ => Err(wire.unexpected(DOING, &message)),
    }
}

struct Login<'a> {
    target: &'a Target,
    host: &'a Host,
}

impl Login<'_> {
    fn fail(&self, why: impl Into<String>, hint: &'static str) -> Error {
        let (host, user) = (self.host.to_string(), self.target.user.clone());
        Error::Authentication { host, user, why: why.into(), hint }
    }

    fn password(&self) -> Result<String, Error> {
        pg_connect::password(self.target, self.host, DATABASE)?.ok_or_else(|| {
            self.fail(
                "the server wants a password and there is none",
                "name a password file (passfile) with a line for this host, database `replication` and role",
            )
        })
    }

    fn send_password(&self, wire: &mut Wire, password: &[u8]) -> Result<(), Error> {
        let mut out = BytesMut::new();
        let hint = "a password can't hold a zero byte";
        frontend::password_message(password, &mut out).map_err(|error| self.fail(error.to_string(), hint))?;
        wire.send(&out, DOING)
    }

    /// The SCRAM exchange (RFC 5802); tells whether it was bound to the TLS connection.
    fn scram(&self, wire: &mut Wire, offered: &[u8]) -> Result<bool, Error> {
        let mut rest = offered;
        let mut offered = Vec::new();
        while let Some(name) = take_text(&mut rest).filter(|name| !name.is_empty()) {
            offered.push(name);
        }
        let offers = |name: &str| offered.iter().any(|offered| offered == name);
        if !offers(SCRAM) && !offers(SCRAM_PLUS) {
            let why = format!("the server offers only {}", offered.join(", "));
            return Err(self.fail(why, "have scram-sha-256 in pg_hba.conf for this role"));
        }
        let binding = wire.socket.look(|socket| match (socket, self.target.channel_binding) {
            (Socket::Tls(tls), ChannelBinding::Prefer | ChannelBinding::Require) => {
                tls::server_certificate(tls).and_then(|certificate| pg_connect::end_point_hash(certificate))
            }
            _ => None,
        });
        let (mechanism, binding, bound) = match binding {
            Some(hash) if offers(SCRAM_PLUS) => (SCRAM_PLUS, sasl::ChannelBinding::tls_server_end_point(hash), true),
            // We could and the server says that it can't: who cuts the offer out in between is found out by this.
            Some(_) => (SCRAM, sasl::ChannelBinding::unrequested(), false),
            None => (SCRAM, sasl::ChannelBinding::unsupported(), false),
        };
        if !bound && self.target.channel_binding == ChannelBinding::Require {
            let hint = "use TLS with a certificate that is signed with RSA or ECDSA, or don't require channel binding";
            return Err(self.fail("channel binding is required and not possible here", hint));
        }
        let mut scram = sasl::ScramSha256::new(self.password()?.as_bytes(), binding);
        let wrong = |error: std::io::Error| {
            let hint = "the password may be wrong, or somebody else answers in the server's place";
            self.fail(error.to_string(), hint)
        };
        let mut out = BytesMut::new();
        frontend::sasl_initial_response(mechanism, scram.message(), &mut out).map_err(wrong)?;
        wire.send(&out, DOING)?;
        let (SASL_CONTINUE, body) = read(wire)? else { return Err(wire.protocol(DOING, "SCRAM was not continued")) };
        scram.update(&body).map_err(wrong)?;
        let mut out = BytesMut::new();
        frontend::sasl_response(scram.message(), &mut out).map_err(wrong)?;
        wire.send(&out, DOING)?;
        let (SASL_FINAL, body) = read(wire)? else { return Err(wire.protocol(DOING, "SCRAM was not finished")) };
        // The server proves that it knows the password too.
        scram.finish(&body).map_err(wrong)?;
        Ok(bound)
    }
}

//! Messages on the wire: a tag, a length, a body.

use std::{
    collections::BTreeMap,
    fmt, io,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;

use crate::{Error, ServerError, shared::SharedSocket, socket::Socket};

/// The longest message that is taken, in bytes. Servers send backups in messages of some ten KiB.
pub const MESSAGE_MAX: usize = 16 << 20;
/// How much is read at once, in bytes.
const READ_BYTES: usize = 256 << 10;
/// Tag and length.
const HEADER: usize = 5;
/// The most parameters of a server that are kept. A server reports about fifteen.
const PARAMETERS_MAX: usize = 64;

/// A message: its tag, and where in the buffer its body is until the next is read.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) tag: u8,
    pub(crate) body: Range<usize>,
}

/// The connection as messages.
pub(crate) struct Wire {
    pub(crate) socket: Arc<SharedSocket>,
    /// How long a read or write may take, unless it is told otherwise.
    pub(crate) patience: Duration,
    /// For messages to people.
    pub(crate) host: String,
    /// What the server reports of its settings.
    pub(crate) parameters: BTreeMap<String, String>,
    buffer: Vec<u8>,
    /// What of the buffer is filled and not yet used.
    filled: Range<usize>,
}

impl fmt::Debug for Wire {
    /// Without the buffer, which holds other people's data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("host", &self.host).finish_non_exhaustive()
    }
}

impl Wire {
    pub(crate) fn new(socket: Socket, host: String, patience: Duration) -> io::Result<Self> {
        let socket = Arc::new(SharedSocket::new(socket)?);
        let (parameters, buffer) = (BTreeMap::new(), vec![0; READ_BYTES]);
        Ok(Self { socket, patience, host, parameters, buffer, filled: 0..0 })
    }

    pub(crate) fn send(&mut self, bytes: &BytesMut, doing: &'static str) -> Result<(), Error> {
        let sent = self.socket.write_all(bytes, Instant::now() + self.patience);
        sent.map_err(|source| self.io(doing, source))
    }

    /// The next message that is neither a notice nor a setting. An error message becomes an error.
    pub(crate) fn read(&mut self, doing: &'static str) -> Result<Message, Error> {
        match self.read_until(doing, Instant::now() + self.patience)? {
            Some(message) => Ok(message),
            None => Err(self.silent(doing)),
        }
    }

    /// As [`Wire::read`]; `None` when none was there by the deadline. What came of one until then is kept.
    pub(crate) fn read_until(&mut self, doing: &'static str, deadline: Instant) -> Result<Option<Message>, Error> {
        loop {
            let Some(message) = self.read_any(doing, deadline)? else { return Ok(None) };
            match message.tag {
                // Notices, and notifications that nobody asked for.
                b'N' | b'A' => {}
                b'S' => self.note_parameter(&message),
                b'E' => {
                    let error = Box::new(parse_error(self.bytes(&message)));
                    return Err(Error::Server { host: self.host.clone(), doing, error });
                }
                _ => return Ok(Some(message)),
            }
        }
    }

    pub(crate) fn silent(&self, doing: &'static str) -> Error {
        self.io(doing, io::Error::new(io::ErrorKind::TimedOut, "the server was silent for too long"))
    }

    pub(crate) fn bytes(&self, message: &Message) -> &[u8] {
        self.slice(&message.body)
    }

    pub(crate) fn slice(&self, range: &Range<usize>) -> &[u8] {
        self.buffer.get(range.clone()).unwrap_or_default()
    }

    pub(crate) fn protocol(&self, doing: &'static str, why: impl Into<String>) -> Error {
        Error::Protocol { host: self.host.clone(), doing, why: why.into() }
    }

    pub(crate) fn unexpected(&self, doing: &'static str, message: &Message) -> Error {
        self.protocol(doing, format!("a message {:?} came", char::from(message.tag)))
    }

    pub(crate) fn io(&self, doing: &'static str, source: io::Error) -> Error {
        Error::Io { host: self.host.clone(), doing, source }
    }

    fn read_any(&mut self, doing: &'static str, deadline: Instant) -> Result<Option<Message>, Error> {
        if !self.fill(HEADER, doing, deadline)? {
            return Ok(None);
        }
        let start = self.filled.start;
        let header = &self.buffer[start..start + HEADER];
        let tag = header[0];
        let len = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
        // The length counts itself, not the tag.
        let total = usize::try_from(len).ok().and_then(|len| len.checked_add(1));
        let total = match total {
            Some(total) if (HEADER..=MESSAGE_MAX).contains(&total) => total,
            _ => return Err(self.protocol(doing, format!("a message of {len} bytes came"))),
        };
        if !self.fill(total, doing, deadline)? {
            return Ok(None);
        }
        let start = self.filled.start;
        self.filled.start += total;
        Ok(Some(Message { tag, body: start + HEADER..start + total }))
    }

    /// Reads until `wanted` bytes are there; false when they were not by the deadline.
    fn fill(&mut self, wanted: usize, doing: &'static str, deadline: Instant) -> Result<bool, Error> {
        while self.filled.len() < wanted {
            if self.buffer.len() - self.filled.start < wanted || self.filled.is_empty() {
                self.buffer.copy_within(self.filled.clone(), 0);
                self.filled = 0..self.filled.len();
            }
            if self.buffer.len() < wanted {
                self.buffer.resize(wanted, 0);
            }
            match self.socket.read(&mut self.buffer[self.filled.end..], deadline) {
                Ok(0) => {
                    let source = io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed it");
                    return Err(self.io(doing, source));
                }
                Ok(count) => self.filled.end += count,
                Err(error) if error.kind() == io::ErrorKind::TimedOut => return Ok(false),
                Err(error) => return Err(self.io(doing, error)),
            }
        }
        Ok(true)
    }

    fn note_parameter(&mut self, message: &Message) {
        let mut rest = self.bytes(message);
        if let (Some(name), Some(value)) = (take_text(&mut rest), take_text(&mut rest))
            && (self.parameters.len() < PARAMETERS_MAX || self.parameters.contains_key(&name))
        {
            self.parameters.insert(name, value);
        }
    }
}

/// A text that ends in a zero byte.
pub(crate) fn take_text(bytes: &mut &[u8]) -> Option<String> {
    let at = bytes.iter().position(|byte| *byte == 0)?;
    let text = String::from_utf8_lossy(&bytes[..at]).into_owned();
    *bytes = &bytes[at + 1..];
    Some(text)
}

/// The fields of an error or notice: each a letter and a text.
fn parse_error(mut body: &[u8]) -> ServerError {
    let mut error = ServerError::default();
    while let Some((field, rest)) = body.split_first() {
        body = rest;
        let Some(text) = take_text(&mut body) else { break };
        match field {
            // The severity that is not translated, or else the other.
            b'V' => error.severity = text,
            b'S' if error.severity.is_empty() => error.severity = text,
            b'C' => error.code = text,
            b'M' => error.message = text,
            b'D' => error.detail = Some(text),
            b'H' => error.hint = Some(text),
            b'R' => error.routine = text,
            _ => {}
        }
    }
    error
}

/// A row's columns as bytes.
pub(crate) type RawRow = Vec<Option<Vec<u8>>>;

/// The columns of a data row; `None` when it is malformed.
pub(crate) fn parse_raw_row(body: &[u8]) -> Option<RawRow> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let count = usize::from(u16::from_be_bytes(*count));
    let mut columns = Vec::new();
    for _ in 0..count {
        let (len, after) = rest.split_first_chunk::<4>()?;
        let len = i32::from_be_bytes(*len);
        rest = after;
        if len == -1 {
            columns.push(None);
            continue;
        }
        let (value, after) = rest.split_at_checked(usize::try_from(len).ok()?)?;
        columns.push(Some(value.to_vec()));
        rest = after;
    }
    rest.is_empty().then_some(columns)
}

/// As [`parse_raw_row`], as text.
pub(crate) fn parse_row(body: &[u8]) -> Option<Vec<Option<String>>> {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap_or_else(|bad| lossy(bad.as_bytes()));
    Some(parse_raw_row(body)?.into_iter().map(|column| column.map(text)).collect())
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rows_and_errors() {
        let row = [&2u16.to_be_bytes()[..], &3i32.to_be_bytes(), b"abc", &(-1i32).to_be_bytes()].concat();
        assert_eq!(parse_row(&row), Some(vec![Some("abc".to_owned()), None]));
        assert_eq!(parse_row(&row[..8]), None);
        let error = parse_error(b"SFEHLER\0VERROR\0C28P01\0Mno\0Hdo\0\0");
        assert_eq!(
            (error.severity.as_str(), error.code.as_str(), error.hint.as_deref()),
            ("ERROR", "28P01", Some("do"))
        );
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (parse_row(&bytes), parse_error(&bytes));
        }
    }
}

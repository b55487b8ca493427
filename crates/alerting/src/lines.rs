//! Lines with a bound, for both ends of the pipe.

use std::io;

use serde::Serialize;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _};

use crate::protocol::MAX_LINE_BYTES;

/// Reads the next line without its end into `line`; false at the end of the stream. A last line without an end is no line: whoever
/// wrote it died on the way.
///
/// # Errors
/// Where reading fails or the line is longer than [`MAX_LINE_BYTES`].
pub(crate) async fn read_line<R: AsyncBufRead + Unpin>(reader: &mut R, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    loop {
        let available = reader.fill_buf().await?;
        if available.is_empty() {
            return Ok(false);
        }
        let end = available.iter().position(|&byte| byte == b'\n');
        let part = &available[..end.unwrap_or(available.len())];
        if line.len() + part.len() > MAX_LINE_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is too long"));
        }
        line.extend_from_slice(part);
        let used = part.len() + usize::from(end.is_some());
        reader.consume(used);
        if end.is_some() {
            return Ok(true);
        }
    }
}

/// A message as its line.
pub(crate) fn to_line<T: Serialize>(message: &T) -> Vec<u8> {
    // Maps with text keys, numbers and texts only: these always have a JSON form. A line that is empty all the same is skipped
    // by the other end.
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_whole_and_bounded() {
        let mut reader = tokio::io::BufReader::with_capacity(3, &b"first\n\nthird\nhalf"[..]);
        let mut line = Vec::new();
        let mut seen = Vec::new();
        while read_line(&mut reader, &mut line).await.unwrap() {
            seen.push(String::from_utf8(line.clone()).unwrap());
        }
        assert_eq!(seen, ["first", "", "third"]);

        let long = vec![b'x'; MAX_LINE_BYTES + 1];
        let error = read_line(&mut &long[..], &mut line).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}

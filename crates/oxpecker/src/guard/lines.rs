//! What guard and workers say to each other: one JSON document a line.

use std::io;

use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _};

/// The longest line, either way, in bytes: a configuration with many services fits.
const MAX_LINE_BYTES: usize = 1 << 20;

/// A message as its line.
pub fn to_line<T: Serialize>(message: &T) -> Vec<u8> {
    // Texts, numbers and maps with text keys always have a JSON form; an empty line would be skipped by the other end.
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}

/// The next message; `None` at the end of the stream. What is not of this protocol is passed over: a line may be cut by a crash.
///
/// # Errors
/// Where reading fails or a line is longer than [`MAX_LINE_BYTES`].
pub async fn read<T: DeserializeOwned, R: AsyncBufRead + Unpin>(reader: &mut R) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    loop {
        line.clear();
        (&mut *reader).take(MAX_LINE_BYTES as u64).read_until(b'\n', &mut line).await?;
        match (line.last(), serde_json::from_slice(&line)) {
            (None, _) => return Ok(None),
            (Some(b'\n'), Ok(message)) => return Ok(Some(message)),
            (Some(b'\n'), Err(error)) => {
                tracing::debug!(bytes = line.len(), %error, "a line that is not of our protocol");
            }
            (Some(_), _) if line.len() >= MAX_LINE_BYTES => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is too long"));
            }
            // Whoever wrote it died on the way.
            (Some(_), _) => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_whole_and_bounded() {
        let mut lines = to_line(&1);
        lines.extend(b"no json\n\n");
        lines.extend(to_line(&2));
        lines.extend(b"{\"say\":\"end");
        let mut reader = &lines[..];
        let mut heard = Vec::new();
        while let Some(message) = read::<u32, _>(&mut reader).await.unwrap() {
            heard.push(message);
        }
        assert_eq!(heard, [1, 2]);
        let long = vec![b'x'; MAX_LINE_BYTES + 1];
        assert!(read::<u32, _>(&mut &long[..]).await.is_err());
    }
}

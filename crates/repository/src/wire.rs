//! Little-endian numbers and counted bytes: how everything of ours is laid out. Reading never panics and never trusts a count.

/// The bytes end before the thing does, or hold what the format forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BadBytes(pub(crate) &'static str);

/// A cursor over bytes from outside.
#[derive(Clone, Debug)]
pub(crate) struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn rest(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], BadBytes> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(BadBytes("it ends too early"))?;
        self.0 = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], BadBytes> {
        let (head, rest) = self.0.split_first_chunk().ok_or(BadBytes("it ends too early"))?;
        self.0 = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, BadBytes> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, BadBytes> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, BadBytes> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, BadBytes> {
        self.array().map(u64::from_le_bytes)
    }

    /// A count of things that take at least `each` bytes: a larger one than the rest can hold is refused before anything is
    /// allocated for it.
    pub(crate) fn count(&mut self, each: usize) -> Result<usize, BadBytes> {
        let count = usize::try_from(self.u32()?).map_err(|_| BadBytes("a count is too large"))?;
        if count.saturating_mul(each) > self.rest() {
            return Err(BadBytes("a count is larger than what follows"));
        }
        Ok(count)
    }

    pub(crate) fn magic(&mut self, magic: &[u8], what: &'static str) -> Result<(), BadBytes> {
        if self.take(magic.len())? == magic { Ok(()) } else { Err(BadBytes(what)) }
    }

    pub(crate) fn end(&self) -> Result<(), BadBytes> {
        if self.0.is_empty() { Ok(()) } else { Err(BadBytes("something follows its end")) }
    }
}

/// Appends numbers and counted bytes.
pub(crate) trait Put {
    fn put(&mut self, bytes: &[u8]);

    fn put_u8(&mut self, n: u8) {
        self.put(&[n]);
    }

    fn put_u16(&mut self, n: u16) {
        self.put(&n.to_le_bytes());
    }

    fn put_u32(&mut self, n: u32) {
        self.put(&n.to_le_bytes());
    }

    fn put_u64(&mut self, n: u64) {
        self.put(&n.to_le_bytes());
    }
}

impl Put for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// A length or count as the format holds it.
///
/// Everything that is counted here is bounded by named constants far below four thousand million.
pub(crate) fn len_u32(len: usize) -> u32 {
    u32::try_from(len).expect("lengths and counts are bounded far below 2^32")
}

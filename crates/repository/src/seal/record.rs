//! What the log needs of the sealing half.

use super::SealError;

/// Seals and opens the log's records. A record is bound to its repository, to being a record, and to its number: a record of
/// another repository or at another place does not open.
pub trait RecordSeal: Send + Sync {
    /// Seals `plain` as record `n`, under the newest key. Two calls give different bytes: whoever retries a write keeps the
    /// bytes of the first call.
    ///
    /// # Errors
    /// Only where the system gives no random numbers.
    fn seal_record(&self, n: u64, plain: &[u8]) -> Result<Vec<u8>, SealError>;

    /// Opens record `n`.
    ///
    /// # Errors
    /// The bytes are not what was sealed as record `n` of this repository, or were sealed with a newer key than the opened one.
    fn open_record(&self, n: u64, sealed: &[u8]) -> Result<Vec<u8>, SealError>;
}

//! Whether something listens.

use std::time::Duration;

use super::{Outcome, ProbeError, net};

/// A connection, which is closed at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcp {
    host: String,
    port: u16,
}

impl Tcp {
    /// At `host:port`, such as `127.0.0.1:6379` or `[::1]:6379`.
    ///
    /// # Errors
    /// That is no address.
    pub fn new(address: &str) -> Result<Self, ProbeError> {
        let (host, port) = net::split(address)
            .ok_or_else(|| ProbeError::new(address, "it is no address", "write host:port, such as 127.0.0.1:6379"))?;
        Ok(Self { host: host.to_owned(), port })
    }

    pub(super) async fn ask(&self, within: Duration) -> Outcome {
        net::connect(&self.host, self.port, within).await.map(drop)
    }
}

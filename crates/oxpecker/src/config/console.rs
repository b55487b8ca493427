//! `[console]`: the page in the browser.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use console::Access;
use serde::{Deserialize, Serialize};

/// Where it listens when nobody says so: on this host only.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7432);
/// The largest file that a token is read from, in bytes.
const FILE_MAX: u64 = 4096;

/// `[console]`: `oxpecker console`, which shows what is wrong, why, and what is being done.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Console {
    /// Where it listens. Any address but this host's own demands a `token_file` or a `trusted_header`.
    pub listen: SocketAddr,
    /// A file that holds the token which whoever reads has to show: as a bearer's, or as the password that a browser asks for.
    pub token_file: Option<PathBuf>,
    /// A header that your reverse proxy sets once it knows who reads, and takes away from whoever sends it themselves. Let nobody but the proxy
    /// reach `listen` then.
    pub trusted_header: Option<String>,
    /// Names by which it is asked for, beside this host's own: what asks by another name is refused.
    pub hosts: Vec<String>,
}

impl Default for Console {
    fn default() -> Self {
        Self { listen: LISTEN, token_file: None, trusted_header: None, hosts: Vec::new() }
    }
}

impl Console {
    /// Who may read, with the token read.
    ///
    /// # Errors
    /// In words, without the secret, where it would let anybody in or can't work.
    pub fn access(&self) -> Result<Access, String> {
        let token = self.token_file.as_deref().map(token).transpose()?;
        self.with(token.as_deref())
    }

    /// What is wrong with it, as far as the guard can tell: the token may be none of its user's business.
    ///
    /// # Errors
    /// As [`Console::access`].
    pub fn check(&self) -> Result<(), String> {
        let any = "0".repeat(console::access::TOKEN_MIN);
        self.with(self.token_file.is_some().then_some(&*any)).map(drop)
    }

    fn with(&self, token: Option<&str>) -> Result<Access, String> {
        Access::new(self.listen, token, self.trusted_header.as_deref(), &self.hosts).map_err(|e| e.to_string())
    }
}

fn token(path: &Path) -> Result<String, String> {
    let unreadable = |error: std::io::Error| format!("can't read the token in {}: {error}", path.display());
    if fs::metadata(path).map_err(unreadable)?.len() > FILE_MAX {
        return Err(format!("{} is too large for a token. Hint: between 16 and 512 bytes", path.display()));
    }
    fs::read_to_string(path).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_closed_unless_somebody_declares_who_may_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            format!("token_file = {:?}", path.display().to_string())
        };
        let good = file("good", "s3cr3t-s3cr3t-s3cr3t\n");
        let short = file("short", "s3cr3t\n");
        for (text, says) in [
            (String::new(), None),
            (format!("listen = \"0.0.0.0:7432\"\n{good}"), None),
            ("listen = \"0.0.0.0:7432\"\ntrusted_header = \"X-Forwarded-User\"".to_owned(), None),
            ("listen = \"0.0.0.0:7432\"".to_owned(), Some("nobody has to show who they are")),
            (format!("listen = \"0.0.0.0:7432\"\n{short}"), Some("the token has 6 bytes")),
            ("token_file = \"/no/such\"".to_owned(), Some("/no/such")),
            ("trusted_header = \"a b\"".to_owned(), Some("no name of a header")),
        ] {
            let declared: Console = toml::from_str(&text).unwrap();
            let error = declared.access().err();
            assert_eq!(error.is_some(), says.is_some(), "{text}: {error:?}");
            let error = error.unwrap_or_default();
            assert!(error.contains(says.unwrap_or_default()) && !error.contains("s3cr3t"), "{text}: {error}");
        }
    }
}

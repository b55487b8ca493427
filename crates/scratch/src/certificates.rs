//! Certificates for a server with TLS, made for a test.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::{ScratchCluster, ScratchError};

/// An authority (`ours.crt`), certificates that it signed for a server called `localhost` and for a client called `certified`, each `.crt`
/// and `.key`, and another authority (`other.crt`), which signed nothing.
#[derive(Debug)]
pub struct Certificates {
    dir: tempfile::TempDir,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A certificate can't be made.
    #[error("can't make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// A file can't be written.
    #[error("can't write a certificate: {0}; hint: is there room for temporary files?")]
    Write(#[from] io::Error),
    /// The server does not do as told.
    #[error(transparent)]
    Server(#[from] ScratchError),
}

/// Whether a server has TLS now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TurnedOn {
    /// It has.
    Yes,
    /// It is not built for it, and runs as before.
    No {
        /// The end of its log.
        log: String,
    },
}

impl Certificates {
    /// Makes them all, in a directory of their own.
    ///
    /// # Errors
    /// Where they can't be made or written.
    pub fn make() -> Result<Self, CertificateError> {
        let dir = tempfile::tempdir()?;
        let this = Self { dir };
        let ours = this.authority("ours")?;
        this.authority("other")?;
        this.signed("server", "localhost", &ours)?;
        this.signed("client", "certified", &ours)?;
        Ok(this)
    }

    fn authority(&self, name: &str) -> Result<Issuer<'static, KeyPair>, CertificateError> {
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::new(Vec::<String>::new())?;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, name);
        let certificate = parameters.self_signed(&key)?;
        fs::write(self.path(&format!("{name}.crt")), certificate.pem())?;
        Ok(Issuer::new(parameters, key))
    }

    fn signed(&self, name: &str, common_name: &str, by: &Issuer<'_, KeyPair>) -> Result<(), CertificateError> {
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::new(vec![common_name.to_owned()])?;
        parameters.distinguished_name.push(DnType::CommonName, common_name);
        let certificate = parameters.signed_by(&key, by)?;
        fs::write(self.path(&format!("{name}.crt")), certificate.pem())?;
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem())?;
        Ok(())
    }

    /// Where they are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where one of them is.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Gives the server its files, which it wants to own, and starts it again with TLS.
    ///
    /// # Errors
    /// The files can't be given to it, or it does not come up again even as it was.
    pub fn turn_on_tls(&self, cluster: &mut ScratchCluster) -> Result<TurnedOn, CertificateError> {
        for (name, mode) in [("server.crt", 0o644), ("server.key", 0o600), ("ours.crt", 0o644)] {
            let to = cluster.data_dir().join(name);
            fs::copy(self.path(name), &to)?;
            fs::set_permissions(&to, fs::Permissions::from_mode(mode))?;
            cluster.give(&to)?;
        }
        let settings = cluster.data_dir().join("postgresql.auto.conf");
        let before = fs::read_to_string(&settings)?;
        let tls = "ssl = on\nssl_cert_file = 'server.crt'\nssl_key_file = 'server.key'\nssl_ca_file = 'ours.crt'\n";
        fs::write(&settings, format!("{before}{tls}"))?;
        cluster.stop_fast()?;
        if cluster.start_again().is_ok() {
            return Ok(TurnedOn::Yes);
        }
        let log = cluster.log_tail();
        fs::write(&settings, before)?;
        cluster.start_again()?;
        Ok(TurnedOn::No { log })
    }
}

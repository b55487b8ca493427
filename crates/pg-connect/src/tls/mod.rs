//! TLS as `sslmode` wants it.

mod end_point;
mod verify;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    client::WebPkiServerVerifier,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

pub use self::end_point::end_point_hash;
use self::verify::{AnyCertificate, AnyName};
use crate::{FileError, SslMode, Target};

/// Stands for the system's roots in `sslrootcert`, as it does for libpq.
const SYSTEM: &str = "system";

/// What to do about a handshake that failed, by its error's text.
#[must_use]
pub fn hint_for(why: &str) -> &'static str {
    if why.contains("UnknownIssuer") {
        "give the root certificate of the server's authority as sslrootcert"
    } else if why.contains("NotValidForName") || why.contains("not valid for name") {
        "connect by a name that the certificate has, or have one made with this name"
    } else if why.contains("expired") || why.contains("Expired") {
        "the server needs a new certificate"
    } else {
        "see the server's log, and the settings for TLS of both sides"
    }
}

/// What rustls is to do for this target. Reads the files that the target names, so that a renewed certificate counts with the next connection.
///
/// # Errors
/// One of the files can't be used.
pub fn client_config(target: &Target) -> Result<ClientConfig, FileError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| FileError::new(Path::new("TLS"), error, "this is a bug of oxpecker's build"))?;
    // With roots at hand `require` checks the chain: libpq does so for old times' sake, and it is the safer reading.
    let mode = match (target.ssl_mode, &target.ssl_root_cert) {
        (SslMode::Require, Some(_)) => SslMode::VerifyCa,
        (mode, _) => mode,
    };
    let builder = match mode {
        SslMode::Disable | SslMode::Prefer | SslMode::Require => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate::new(provider)))
        }
        SslMode::VerifyCa => {
            let verifier = web_pki(target, &provider)?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyName::new(verifier)))
        }
        SslMode::VerifyFull => builder.with_webpki_verifier(web_pki(target, &provider)?),
    };
    match (&target.ssl_cert, &target.ssl_key) {
        (Some(certificates), Some(key)) => {
            let chain = read_certificates(certificates)?;
            let hint = "it must hold an unencrypted key in PEM";
            let private = PrivateKeyDer::from_pem_file(key).map_err(|error| FileError::new(key, error, hint))?;
            let hint = "certificate and key must belong together";
            builder.with_client_auth_cert(chain, private).map_err(|error| FileError::new(key, error, hint))
        }
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(one), None) | (None, Some(one)) => {
            Err(FileError::new(one, "its other half is not given", "give both sslcert and sslkey"))
        }
    }
}

fn web_pki(target: &Target, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, FileError> {
    let roots = Arc::new(roots(target.ssl_root_cert.as_deref())?);
    let builder = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider));
    builder.build().map_err(|error| {
        let path = target.ssl_root_cert.clone().unwrap_or_else(|| PathBuf::from(SYSTEM));
        FileError::new(&path, error, "it must hold at least one certificate of an authority")
    })
}

fn roots(path: Option<&Path>) -> Result<RootCertStore, FileError> {
    let mut roots = RootCertStore::empty();
    match path {
        Some(path) if path != Path::new(SYSTEM) => {
            for certificate in read_certificates(path)? {
                let hint = "it must hold certificates of authorities in PEM";
                roots.add(certificate).map_err(|error| FileError::new(path, error, hint))?;
            }
        }
        _ => {
            // Some of a system's roots are always odd; what matters is that there are any.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    Ok(roots)
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let hint = "it must hold certificates in PEM and be readable";
    let certificates = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(FileError::new(path, "there is no certificate in it", hint)),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(FileError::new(path, error, hint)),
    }
}

//! The channel binding `tls-server-end-point` (RFC 5929): a hash of the server's certificate, made as the certificate's own signature was.

use sha2::{Digest, Sha256, Sha384, Sha512};

/// DER tags.
const SEQUENCE: u8 = 0x30;
const OID: u8 = 0x06;

/// Object identifiers of signatures, encoded, with the hash that each uses. What uses MD5 or SHA-1 is bound with SHA-256.
const RSA: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01];
const ECDSA_SHA2: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03];

/// The hash of the server's certificate (DER) that SCRAM is bound to.
///
/// `None` where the certificate can't be read or its signature has no hash of its own (Ed25519, RSA-PSS), for which the RFC defines none.
#[must_use]
pub fn end_point_hash(certificate: &[u8]) -> Option<Vec<u8>> {
    let (SEQUENCE, inner, _) = take(certificate)? else { return None };
    let (SEQUENCE, _, rest) = take(inner)? else { return None };
    let (SEQUENCE, algorithm, _) = take(rest)? else { return None };
    let (OID, oid, _) = take(algorithm)? else { return None };
    let rsa = oid.strip_prefix(RSA);
    let ecdsa = oid.strip_prefix(ECDSA_SHA2);
    match (rsa, ecdsa) {
        // md5, sha1, sha256 with RSA; ecdsa with sha256.
        (Some([4 | 5 | 11]), _) | (_, Some([2])) => Some(Sha256::digest(certificate).to_vec()),
        (Some([12]), _) | (_, Some([3])) => Some(Sha384::digest(certificate).to_vec()),
        (Some([13]), _) | (_, Some([4])) => Some(Sha512::digest(certificate).to_vec()),
        _ => None,
    }
}

/// The first element: its tag and contents, and what follows it.
fn take(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (len, rest) = if *first < 0x80 {
        (usize::from(*first), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(*first & 0x7F))?;
        if bytes.is_empty() || bytes.len() > 4 {
            return None;
        }
        (bytes.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)), rest)
    };
    let (contents, rest) = rest.split_at_checked(len)?;
    Some((*tag, contents, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_hash_is_that_of_the_signature() {
        for (algorithm, len) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, Some(32)),
            (&rcgen::PKCS_ECDSA_P384_SHA384, Some(48)),
            (&rcgen::PKCS_ED25519, None),
        ] {
            let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
            let parameters = rcgen::CertificateParams::new(vec!["db".to_owned()]).unwrap();
            let certificate = parameters.self_signed(&key).unwrap();
            assert_eq!(end_point_hash(certificate.der()).map(|hash| hash.len()), len, "{algorithm:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = end_point_hash(&bytes);
        }
    }
}

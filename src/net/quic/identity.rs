//! The key of a node, and the fingerprint by which others know it.
//!
//! What is kept is the private key alone (PKCS#8 in PEM); the self-signed certificate that TLS asks for is made anew
//! at each start. Nobody looks at what else stands in it: not at names, not at dates.

use std::fmt;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::ParsedCertificate;
use sha2::{Digest, Sha256};

use crate::config::Fingerprint;

/// The only name in certificates, which nobody checks; TLS wants one.
pub(super) const SERVER_NAME: &str = "blocktorrent";

/// What OpenSSL puts before private keys that are not in plain PKCS#8: SEC1, PKCS#1, encrypted.
const OTHER_FORMS: [&str; 3] = [
    "-----BEGIN EC PRIVATE KEY-----",
    "-----BEGIN RSA PRIVATE KEY-----",
    "-----BEGIN ENCRYPTED PRIVATE KEY-----",
];

/// A key that can't be used; its display is one line.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The text is a key in an older form (SEC1, PKCS#1), or encrypted.
    #[error(
        "it holds a private key that is not in plain PKCS#8; convert it: `openssl pkcs8 -topk8 -nocrypt -in OLD -out NEW`"
    )]
    OtherForm,
    /// The text is no private key that TLS signs with.
    #[error("it holds no private key in PEM (PKCS#8, P-256 or Ed25519)")]
    NoKey(#[source] rcgen::Error),
    /// The system made no key or no certificate.
    #[error("no key could be made: {0}")]
    NotMade(#[source] rcgen::Error),
}

/// A private key with its certificate. Clones are the same one.
pub struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
    fingerprint: Fingerprint,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self {
            certificate: self.certificate.clone(),
            key: self.key.clone_key(),
            fingerprint: self.fingerprint,
        }
    }
}

impl fmt::Debug for Identity {
    /// Without the key: it has no place in a log.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Identity({})", self.fingerprint)
    }
}

impl Identity {
    /// A new key in PEM, to be kept: ECDSA on P-256, which every implementation of TLS 1.3 must have.
    ///
    /// # Errors
    ///
    /// The system has no randomness.
    pub fn new_pem() -> Result<String, IdentityError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256);
        Ok(key.map_err(IdentityError::NotMade)?.serialize_pem())
    }

    /// The key in `pem`, with a certificate made for it.
    ///
    /// # Errors
    ///
    /// One line that says what is wrong with it.
    pub fn from_pem(pem: &str) -> Result<Self, IdentityError> {
        if OTHER_FORMS.iter().any(|label| pem.contains(label)) {
            return Err(IdentityError::OtherForm);
        }
        let key = KeyPair::from_pem(pem).map_err(IdentityError::NoKey)?;
        let parameters =
            CertificateParams::new([SERVER_NAME.to_owned()]).map_err(IdentityError::NotMade)?;
        let certificate = parameters
            .self_signed(&key)
            .map_err(IdentityError::NotMade)?;
        let certificate = certificate.der().clone();
        let fingerprint = fingerprint(&certificate).expect("it was made a moment ago");
        Ok(Self {
            certificate,
            key: PrivatePkcs8KeyDer::from(key.serialize_der()),
            fingerprint,
        })
    }

    /// What others pin.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    pub(super) fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.clone()]
    }

    pub(super) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.clone_key())
    }
}

/// The fingerprint of the key in a certificate; the parser is the one that checks signatures by the same key.
pub(super) fn fingerprint(certificate: &CertificateDer<'_>) -> Result<Fingerprint, rustls::Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    let key = parsed.subject_public_key_info();
    Ok(Fingerprint(Sha256::digest(key.as_ref()).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_keeps_its_fingerprint_and_differs_from_others() {
        let pem = Identity::new_pem().unwrap();
        let (one, again) = (Identity::from_pem(&pem), Identity::from_pem(&pem));
        assert_eq!(one.unwrap().fingerprint(), again.unwrap().fingerprint());
        let other = Identity::from_pem(&Identity::new_pem().unwrap()).unwrap();
        assert_ne!(
            Identity::from_pem(&pem).unwrap().fingerprint(),
            other.fingerprint()
        );
        assert!(!format!("{other:?}").contains("PRIVATE"));
    }

    #[test]
    fn the_fingerprint_is_that_of_the_public_key() {
        // Made and measured by OpenSSL: `openssl genpkey -algorithm ed25519`, and
        // `openssl pkey -pubout -outform DER | sha256sum`.
        let pem = "-----BEGIN PRIVATE KEY-----\n\
            MC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n\
            -----END PRIVATE KEY-----\n";
        let identity = Identity::from_pem(pem).unwrap();
        assert_eq!(
            identity.fingerprint().to_string(),
            "a050837d85070582ccf7394b0988847cc312cb88259b894899f6f239cf1791a5"
        );
    }

    #[test]
    fn a_key_in_another_form_is_refused_with_the_command_that_converts_it() {
        // Made by OpenSSL: `openssl ecparam -name prime256v1 -genkey`; with its parameters before it.
        let sec1 = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n\
            -----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n";
        let encrypted = sec1.replace("EC PRIVATE", "ENCRYPTED PRIVATE");
        for text in [sec1, &encrypted] {
            let refused = Identity::from_pem(text).unwrap_err().to_string();
            assert!(
                refused.contains("`openssl pkcs8 -topk8 -nocrypt -in OLD -out NEW`"),
                "{refused}"
            );
        }
    }

    #[test]
    fn what_is_no_key_is_refused_in_a_line() {
        let public = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
        for text in ["", "no key", public] {
            let refused = Identity::from_pem(text).unwrap_err().to_string();
            assert!(refused.contains("no private key in PEM"), "{refused}");
        }
    }
}

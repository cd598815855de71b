//! The TLS verifiers: exactly the pinned keys, and a handshake that their holder has signed.
//!
//! Certificates are self-signed and short of meaning: only the key in them counts. Trust comes from the
//! fingerprint; that the peer holds the private key comes from the signature over the handshake, which is
//! checked by `rustls` with the key of the same certificate. Neither is worth anything without the other.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureScheme,
};

use super::ALPN;
use super::identity::{Identity, fingerprint};
use crate::config::Fingerprint;

/// The key that a dialled peer has shown instead of the pinned one.
pub(super) type OtherKey = Arc<Mutex<Option<Fingerprint>>>;

/// TLS for a dial: TLS 1.3, our certificate, and the one key that is accepted; what other key was shown.
pub(super) fn client(
    identity: &Identity,
    pinned: Fingerprint,
) -> Result<(ClientConfig, OtherKey), Error> {
    let provider = provider();
    let other = OtherKey::default();
    let verifier = PinnedServer {
        pinned,
        other: Arc::clone(&other),
        algorithms: provider.signature_verification_algorithms,
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(identity.chain(), identity.key())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A name would tell onlookers something, and the peer nothing.
    config.enable_sni = false;
    // Every connection shows its key anew.
    config.resumption = rustls::client::Resumption::disabled();
    Ok((config, other))
}

/// TLS for those who dial us: TLS 1.3, a certificate demanded, and the keys that are accepted. Those refused are
/// added to `refused`.
pub(super) fn server(
    identity: &Identity,
    allowed: &[Fingerprint],
    refused: Arc<RefusedKeys>,
) -> Result<ServerConfig, Error> {
    let provider = provider();
    let verifier = PinnedClients {
        allowed: allowed.iter().copied().collect(),
        refused,
        algorithms: provider.signature_verification_algorithms,
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(identity.chain(), identity.key())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Between two lines about refused keys: anybody may knock, and none may fill the log.
const TELL_INTERVAL: Duration = Duration::from_secs(60);

/// The keys that were refused because they are not pinned.
#[derive(Debug, Default)]
pub(super) struct RefusedKeys(Mutex<Refused>);

#[derive(Debug, Default)]
struct Refused {
    count: u64,
    last: Option<Fingerprint>,
    told: Option<Instant>,
}

impl RefusedKeys {
    /// How many there were, and the last of them.
    pub(super) fn seen(&self) -> (u64, Option<Fingerprint>) {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (state.count, state.last)
    }

    fn note(&self, key: Fingerprint) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (state.count, state.last) = (state.count + 1, Some(key));
        if state.told.is_none_or(|at| at.elapsed() >= TELL_INTERVAL) {
            state.told = Some(Instant::now());
            let count = state.count;
            tracing::warn!(
                %key, count,
                "refused a private link, for its key is not allowed; if you know it, restart with it among --quic-allow"
            );
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// What both sides refuse a key with.
fn unpinned() -> Error {
    Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
}

/// TLS 1.2 is not offered.
fn no_tls12() -> Error {
    Error::General("TLS 1.2 is not spoken".to_owned())
}

/// Accepts one key: that of the peer that was meant.
#[derive(Debug)]
struct PinnedServer {
    pinned: Fingerprint,
    other: OtherKey,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for PinnedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = fingerprint(end_entity)?;
        if shown == self.pinned {
            return Ok(ServerCertVerified::assertion());
        }
        *self.other.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
        Err(unpinned())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Accepts the keys that are allowed, and demands one.
#[derive(Debug)]
struct PinnedClients {
    allowed: BTreeSet<Fingerprint>,
    refused: Arc<RefusedKeys>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for PinnedClients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let shown = fingerprint(end_entity)?;
        if self.allowed.contains(&shown) {
            return Ok(ClientCertVerified::assertion());
        }
        self.refused.note(shown);
        Err(unpinned())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

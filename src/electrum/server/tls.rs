//! Certificates: given ones, read anew when their files change; or one made here, once, and kept.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

use super::Certificate;

/// Names of the files of a self-made certificate.
const KEPT: [&str; 2] = ["electrum-cert.pem", "electrum-key.pem"];

/// Why a certificate is no good.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read or written.
    #[error("{0}: {1}")]
    File(PathBuf, #[source] io::Error),
    /// It is not PEM, or has not in it what it should.
    #[error("{0}: {1}")]
    Pem(PathBuf, #[source] rustls::pki_types::pem::Error),
    /// It holds no certificate.
    #[error("{0} holds no certificate")]
    Empty(PathBuf),
    /// The key is none that can be used, or not the certificate's.
    #[error("{0}: {1}")]
    Key(PathBuf, #[source] rustls::Error),
    /// TLS can't be set up.
    #[error(transparent)]
    Setup(#[from] rustls::Error),
    /// None could be made.
    #[error("no certificate could be made: {0}")]
    NotMade(#[from] rcgen::Error),
}

/// The certificate in use, replaced as a whole.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Some(current.clone())
    }
}

/// TLS with the certificate that is current.
#[derive(Clone)]
pub struct Tls {
    /// Shakes hands.
    pub acceptor: TlsAcceptor,
    current: Arc<Current>,
    chain: PathBuf,
    key: PathBuf,
    stamp: Option<Stamp>,
}

/// When the two files were last written, and how long they are.
type Stamp = [(SystemTime, u64); 2];

impl Tls {
    /// Reads the certificate, or makes one.
    ///
    /// # Errors
    /// If it can't be read or made, or its key is not its key.
    pub fn new(certificate: &Certificate) -> Result<Self, TlsError> {
        let (chain, key) = match certificate {
            Certificate::Given { chain, key } => (chain.clone(), key.clone()),
            Certificate::Kept(folder) => kept(folder)?,
        };
        let stamp = stamp(&chain, &key);
        let current = Arc::new(Current(RwLock::new(Arc::new(load(&chain, &key)?))));
        let provider = Arc::new(ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(current.clone());
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            current,
            chain,
            key,
            stamp,
        })
    }

    /// Looks at the files again and again. One that is no good leaves the one before in use.
    pub async fn keep_fresh(mut self, interval: Duration) {
        let mut ticks = tokio::time::interval(interval);
        loop {
            ticks.tick().await;
            let stamp = stamp(&self.chain, &self.key);
            if stamp.is_none() || stamp == self.stamp {
                continue;
            }
            self.stamp = stamp;
            match load(&self.chain, &self.key) {
                Ok(fresh) => {
                    let mut current = self
                        .current
                        .0
                        .write()
                        .unwrap_or_else(PoisonError::into_inner);
                    *current = Arc::new(fresh);
                    tracing::info!(file = %self.chain.display(), "certificate read anew");
                }
                Err(error) => {
                    tracing::warn!(%error, "the new certificate is no good, the old one stays");
                }
            }
        }
    }
}

fn stamp(chain: &Path, key: &Path) -> Option<Stamp> {
    let of = |path: &Path| {
        let about = fs::metadata(path).ok()?;
        Some((about.modified().ok()?, about.len()))
    };
    Some([of(chain)?, of(key)?])
}

fn load(chain: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    let read = |path: &Path| fs::read(path).map_err(|error| TlsError::File(path.to_owned(), error));
    let pem = |path: &Path| {
        let path = path.to_owned();
        move |error| TlsError::Pem(path, error)
    };
    let certificates = CertificateDer::pem_slice_iter(&read(chain)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(pem(chain))?;
    if certificates.is_empty() {
        return Err(TlsError::Empty(chain.to_owned()));
    }
    let secret = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(pem(key))?;
    // This also compares the key with the certificate.
    CertifiedKey::from_der(certificates, secret, &ring::default_provider())
        .map_err(|error| TlsError::Key(key.to_owned(), error))
}

/// The files of the certificate kept in a folder, made if they are not there.
fn kept(folder: &Path) -> Result<(PathBuf, PathBuf), TlsError> {
    let [chain, key] = KEPT.map(|name| folder.join(name));
    if !chain.exists() || !key.exists() {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
        write(&key, &made.signing_key.serialize_pem())?;
        write(&chain, &made.cert.pem())?;
    }
    Ok((chain, key))
}

/// Writes a file that only its owner may read.
fn write(path: &Path, text: &str) -> Result<(), TlsError> {
    use std::io::Write as _;
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    options
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| TlsError::File(path.to_owned(), error))
}

//! A client, as far as one server needs it to look at another: what that one says of itself, and which chain it serves.
//!
//! Its certificate proves nothing, for most are self-made: what is verified is that a name leads where it should, and the chain.
//! Whoever calls bounds the time of all of it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::transport::Stream;

/// Bytes of one answer. Reason: a list of a hundred servers takes some 10 kB, features less.
const MAX_LINE: u64 = 100_000;

/// Lines before an answer that are something else. Reason: a block or two may come meanwhile.
const MAX_NOTICES: usize = 16;

/// Why a server can't be looked at.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// It is not there, or ends the connection.
    #[error(transparent)]
    Connection(#[from] io::Error),
    /// It answers with something else, too much, or an error.
    #[error("no answer to {0}")]
    NoAnswer(&'static str),
}

/// A connection to another server.
pub struct Talk {
    stream: BufReader<Box<dyn Stream>>,
    next: u64,
}

impl Talk {
    /// Connects, and agrees on a version; `name` is what we call ourselves.
    ///
    /// # Errors
    ///
    /// If it is not there, or speaks something else.
    pub async fn open(
        address: SocketAddr,
        has_tls: bool,
        host: &str,
        name: &str,
    ) -> Result<Self, LookError> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match has_tls {
            false => Box::new(stream),
            true => {
                let host = ServerName::try_from(host.to_owned())
                    .unwrap_or_else(|_| ServerName::from(address.ip()));
                Box::new(connector()?.connect(host, stream).await?)
            }
        };
        let mut talk = Self {
            stream: BufReader::new(stream),
            next: 0,
        };
        talk.ask("server.version", json!([name, ["1.4", "1.7"]]))
            .await?;
        Ok(talk)
    }

    /// What it says of itself.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub async fn features(&mut self) -> Result<Value, LookError> {
        self.ask("server.features", json!([])).await
    }

    /// Whom it tells of.
    ///
    /// # Errors
    ///
    /// If it does not answer.
    pub async fn peers(&mut self) -> Result<Value, LookError> {
        self.ask("server.peers.subscribe", json!([])).await
    }

    /// The height of its tip.
    ///
    /// # Errors
    ///
    /// If it tells none.
    pub async fn height(&mut self) -> Result<u32, LookError> {
        let method = "blockchain.headers.subscribe";
        let tip = self.ask(method, json!([])).await?;
        let height = tip.get("height").and_then(Value::as_u64);
        let height = height.and_then(|height| u32::try_from(height).ok());
        height.ok_or(LookError::NoAnswer(method))
    }

    /// One of its headers.
    ///
    /// # Errors
    ///
    /// If it tells none.
    pub async fn header(&mut self, height: u32) -> Result<[u8; 80], LookError> {
        let method = "blockchain.block.header";
        let header = self.ask(method, json!([height])).await?;
        let header = header
            .as_str()
            .and_then(|text| hex::decode_to_array(text).ok());
        header.ok_or(LookError::NoAnswer(method))
    }

    /// Names us to it. Whether it will look is its own affair.
    ///
    /// # Errors
    ///
    /// If it does not answer.
    pub async fn add_us(&mut self, features: &Value) -> Result<(), LookError> {
        self.ask("server.add_peer", json!([features]))
            .await
            .map(drop)
    }

    async fn ask(&mut self, method: &'static str, params: Value) -> Result<Value, LookError> {
        let id = self.next;
        self.next += 1;
        let call = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let stream = self.stream.get_mut();
        stream.write_all(format!("{call}\n").as_bytes()).await?;
        stream.flush().await?;
        for _ in 0..=MAX_NOTICES {
            let mut line = Vec::new();
            let mut bounded = (&mut self.stream).take(MAX_LINE);
            bounded.read_until(b'\n', &mut line).await?;
            let Ok(mut answer) = serde_json::from_slice::<Value>(&line) else {
                break;
            };
            if answer.get("id").and_then(Value::as_u64) == Some(id) {
                let result = answer.get_mut("result").map(Value::take);
                return result.ok_or(LookError::NoAnswer(method));
            }
        }
        Err(LookError::NoAnswer(method))
    }
}

fn connector() -> io::Result<TlsConnector> {
    let provider = Arc::new(ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Takes every certificate.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

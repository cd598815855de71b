//! Connections to one server: opened with the credentials that hold at that moment, kept for the next call.

use std::io::Read as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::Credentials;
use crate::chain::bitcoind::error::{RpcError, one_line};

/// How long a connection may take to open: on loopback it takes none, through a tunnel some round trips.
const CONNECT_TIME: Duration = Duration::from_secs(3);
/// How long a connection without a call is kept: well below bitcoind's 30 s (`-rpcservertimeout`).
const IDLE_TIME: Duration = Duration::from_secs(15);
/// Connections kept. Reason: as many as there can be calls at once.
const MAX_KEPT: usize = super::MAX_PROMPT + super::MAX_BULK + super::MAX_WAITS;
/// Bytes of a cookie file. Reason: bitcoind writes 75; a larger file is another one.
const MAX_COOKIE_BYTES: u64 = 1_024;
/// Headers of an answer. Reason: bitcoind sends four or five.
const MAX_HEADERS: usize = 32;

/// An open connection and the login that its calls carry.
#[derive(Debug)]
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    login: HeaderValue,
    idle_since: Instant,
}

impl Connection {
    pub(super) fn login(&self) -> &HeaderValue {
        &self.login
    }
}

/// Why a call on a connection failed.
pub(super) enum Failure {
    /// The connection closed before the answer began; what the system says.
    Closed(String),
    /// Anything else.
    Call(RpcError),
}

impl Failure {
    pub(super) fn into_error(self, address: &str) -> RpcError {
        match self {
            Self::Call(error) => error,
            Self::Closed(problem) => unreachable(address, &problem),
        }
    }
}

/// The connections to one server.
#[derive(Debug)]
pub(super) struct Connections {
    address: String,
    host: HeaderValue,
    credentials: Credentials,
    kept: Mutex<Vec<Connection>>,
}

impl Connections {
    pub(super) fn new(address: String, credentials: Credentials) -> Self {
        // An address that is no header value can't be connected to either.
        let host = HeaderValue::from_str(&address)
            .unwrap_or_else(|_| HeaderValue::from_static("bitcoind"));
        Self {
            address,
            host,
            credentials,
            kept: Mutex::default(),
        }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// A connection that was kept and may still be open, the most recent one.
    pub(super) fn kept(&self) -> Option<Connection> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        kept.retain(|connection| {
            !connection.sender.is_closed() && now.duration_since(connection.idle_since) < IDLE_TIME
        });
        kept.pop()
    }

    fn keep(&self, connection: Connection) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < MAX_KEPT {
            kept.push(connection);
        }
    }

    /// Opens a connection, then reads the cookie: a server that is there has written it.
    pub(super) async fn open(&self) -> Result<Connection, RpcError> {
        let fail =
            |problem: &dyn std::fmt::Display| unreachable(&self.address, &problem.to_string());
        let stream = tokio::time::timeout(CONNECT_TIME, TcpStream::connect(&self.address))
            .await
            .map_err(|_| fail(&"no connection within 3 s"))?
            .map_err(|error| fail(&error))?;
        // A call is one message, written at once.
        stream.set_nodelay(true).map_err(|error| fail(&error))?;
        let (sender, connection) = http1::Builder::new()
            .max_headers(MAX_HEADERS)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| fail(&error))?;
        // Ends with the sender; what goes wrong is told to the call that waits.
        tokio::spawn(connection);
        Ok(Connection {
            sender,
            login: self.login()?,
            idle_since: Instant::now(),
        })
    }

    /// Posts `body`, and keeps the connection for the next call if it can be used again.
    pub(super) async fn post(
        &self,
        mut connection: Connection,
        body: Bytes,
        most_bytes: usize,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let request = Request::post("/")
            .header(HOST, &self.host)
            .header(AUTHORIZATION, &connection.login)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .expect("path and headers are valid");
        let sender = &mut connection.sender;
        let closed = |error: hyper::Error| Failure::Closed(in_words(&error));
        sender.ready().await.map_err(closed)?;
        let response = match sender.send_request(request).await {
            Ok(response) => response,
            Err(error) if error.is_parse() => {
                return Err(Failure::Call(RpcError::Garbage(in_words(&error))));
            }
            Err(error) => return Err(closed(error)),
        };
        let status = response.status();
        let body = collect(response, most_bytes)
            .await
            .map_err(|error| match error {
                Collect::TooLarge => Failure::Call(RpcError::TooLarge(most_bytes)),
                Collect::Broken(error) if error.is_parse() => {
                    Failure::Call(RpcError::Garbage(in_words(&error)))
                }
                Collect::Broken(error) => {
                    Failure::Call(unreachable(&self.address, &in_words(&error)))
                }
            })?;
        connection.idle_since = Instant::now();
        self.keep(connection);
        Ok((status, body))
    }

    /// The login that holds now.
    fn login(&self) -> Result<HeaderValue, RpcError> {
        let credential = match &self.credentials {
            Credentials::Login(login) => format!("{}:{}", login.user, login.password),
            Credentials::Cookie(path) => read_cookie(path).map_err(|error| RpcError::NoCookie {
                path: path.display().to_string(),
                problem: error.to_string(),
            })?,
        };
        let mut value =
            HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(credential)))
                .expect("base64 is a header value");
        value.set_sensitive(true);
        Ok(value)
    }

    pub(super) fn credentials_in_words(&self) -> String {
        match &self.credentials {
            Credentials::Login(login) => format!("the password of user {:?}", login.user),
            Credentials::Cookie(path) => format!("the cookie in {}", path.display()),
        }
    }
}

enum Collect {
    TooLarge,
    Broken(hyper::Error),
}

/// The body in one piece, if it has at most `most` bytes.
async fn collect(response: Response<Incoming>, most: usize) -> Result<Bytes, Collect> {
    use hyper::body::Body as _;
    let mut body = response.into_body();
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > most {
        return Err(Collect::TooLarge);
    }
    let mut bytes = BytesMut::with_capacity(announced);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(Collect::Broken)?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if data.len() > most - bytes.len() {
            return Err(Collect::TooLarge);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

/// User and password as the file has them.
fn read_cookie(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(MAX_COOKIE_BYTES)
        .read_to_string(&mut text)?;
    Ok(text.trim().to_owned())
}

fn unreachable(address: &str, problem: &str) -> RpcError {
    RpcError::Unreachable {
        address: address.to_owned(),
        problem: one_line(problem),
    }
}

/// The error and what caused it: hyper keeps the system's words apart.
fn in_words(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => one_line(&format!("{error}: {source}")),
        None => one_line(&error.to_string()),
    }
}

//! The HTTP side: who is let in, how much is read, and which status goes back.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{ALLOW, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::Context;
use super::auth::{Access, Credentials};
use super::error::{Code, RpcError};
use super::listener::{BoundedListener, Caller, Room};
use super::request::{self, Request as Call, Unreadable, Version};
use crate::node::quiet::Quiet;

/// Bytes of a request's body: the largest block in hex, 8,000,000 digits, and what is around it.
pub const MAX_BODY_BYTES: usize = 8_000_000 + (64 << 10);
/// Requests worked on at once, so that their bodies hold at most 16 x 8 MB.
pub const MAX_CALLS: usize = 16;
/// Calls in one batch. A caller with more makes several.
pub const MAX_BATCH: usize = 1_000;
/// Bytes of results in the answer to one batch, beyond which further calls of it are refused: a few
/// blocks as objects.
pub const MAX_BATCH_RESULT_BYTES: usize = 64 << 20;
/// How long a body may take to arrive, on loopback.
const BODY_TIME: Duration = Duration::from_secs(30);
/// How long a wrong credential waits for its refusal, against guessing. Bitcoin Core's figure.
const WRONG_ACCESS_TIME: Duration = Duration::from_millis(250);

#[derive(Debug)]
struct Server {
    context: Context,
    credentials: Credentials,
    room: Semaphore,
    /// Tells of wrong credentials.
    wrong_access: Quiet,
}

/// Serves calls on `listener` until the node stops, and then finishes those that run.
///
/// # Errors
///
/// What the system answers about the listener.
pub async fn serve(
    listener: TcpListener,
    context: Context,
    credentials: Credentials,
) -> io::Result<()> {
    let stop = context.stop.clone();
    let server = Arc::new(Server {
        context,
        credentials,
        room: Semaphore::new(MAX_CALLS),
        wrong_access: Quiet::default(),
    });
    let room = Arc::new(Room::default());
    let listener = BoundedListener::new(listener, Arc::clone(&room));
    let router = Router::new().fallback(handle).with_state(server);
    axum::serve(
        listener,
        router.into_make_service_with_connect_info::<Caller>(),
    )
    .with_graceful_shutdown(async move {
        stop.stopped().await;
        room.let_strangers_go();
    })
    .await
}

async fn handle(
    State(server): State<Arc<Server>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    request: Request,
) -> Response {
    if request.uri().path() != "/" {
        return (StatusCode::NOT_FOUND, "JSON-RPC is served at / alone\n").into_response();
    }
    if request.method() != Method::POST {
        let text = "JSONRPC server handles only POST requests\n";
        return (StatusCode::METHOD_NOT_ALLOWED, [(ALLOW, "POST")], text).into_response();
    }
    match server.credentials.check(request.headers()) {
        Access::Granted => {}
        Access::Absent => return unauthorized(),
        Access::Wrong => {
            if let Some(more) = server.wrong_access.turn() {
                tracing::warn!("a call over RPC had a wrong user or password{more}");
            }
            tokio::time::sleep(WRONG_ACCESS_TIME).await;
            return unauthorized();
        }
    }
    let _works = caller.works();
    let Ok(_permit) = server.room.try_acquire() else {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            "Work queue depth exceeded\n",
        )
            .into_response();
    };
    match read_body(request.into_body()).await {
        Ok(body) => answer(&server.context, &body).await,
        Err(refusal) => refusal,
    }
}

fn unauthorized() -> Response {
    let challenge = [(WWW_AUTHENTICATE, "Basic realm=\"jsonrpc\"")];
    (StatusCode::UNAUTHORIZED, challenge).into_response()
}

async fn read_body(body: Body) -> Result<bytes::Bytes, Response> {
    let too_large = || {
        let text = format!("The request is larger than {MAX_BODY_BYTES} bytes\n");
        (StatusCode::PAYLOAD_TOO_LARGE, text).into_response()
    };
    if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_TIME, to_bytes(body, MAX_BODY_BYTES)).await {
        Ok(Ok(body)) => Ok(body),
        // Whoever broke off does not read this; whoever sent too much does.
        Ok(Err(_)) => Err(too_large()),
        Err(_) => Err(StatusCode::REQUEST_TIMEOUT.into_response()),
    }
}

async fn answer(context: &Context, body: &[u8]) -> Response {
    let parsed: Value = match serde_json::from_slice(body) {
        Ok(parsed) => parsed,
        Err(error) => {
            let outcome = Err(RpcError::new(
                Code::ParseError,
                format!("Parse error: {error}"),
            ));
            let status = request::status(Version::Legacy, &outcome);
            return json(
                status,
                &request::respond(Version::Legacy, Value::Null, &outcome),
            );
        }
    };
    match parsed {
        Value::Array(calls) => answer_batch(context, calls).await,
        single => {
            let (version, id, outcome) = call(context, single).await;
            match id {
                Some(id) => json(
                    request::status(version, &outcome),
                    &request::respond(version, id, &outcome),
                ),
                None => StatusCode::NO_CONTENT.into_response(),
            }
        }
    }
}

async fn answer_batch(context: &Context, calls: Vec<Value>) -> Response {
    if calls.len() > MAX_BATCH {
        let message = format!(
            "The batch has {} calls; send at most {MAX_BATCH}",
            calls.len()
        );
        let outcome = Err(RpcError::new(Code::InvalidRequest, message));
        let response = request::respond(Version::Legacy, Value::Null, &outcome);
        return json(StatusCode::BAD_REQUEST, &response);
    }
    // An empty batch names no version, and the older form expects a list.
    let is_empty = calls.is_empty();
    let mut responses: Vec<String> = Vec::new();
    let mut size = 0;
    for value in calls {
        let (version, id, mut outcome) = call(context, value).await;
        let Some(id) = id else { continue };
        if size > MAX_BATCH_RESULT_BYTES {
            let message = "The results of this batch are too large; send fewer calls at once";
            outcome = Err(RpcError::new(Code::Misc, message));
        }
        let response = request::respond(version, id, &outcome).to_string();
        size += response.len();
        responses.push(response);
    }
    if responses.is_empty() && !is_empty {
        return StatusCode::NO_CONTENT.into_response();
    }
    json_text(StatusCode::OK, format!("[{}]\n", responses.join(",")))
}

/// Works on one call. Without an id it was a notification, to which nothing is answered.
async fn call(
    context: &Context,
    value: Value,
) -> (Version, Option<Value>, Result<Value, RpcError>) {
    match Call::read(value) {
        Err(Unreadable { version, id, error }) => (version, id, Err(error)),
        Ok(call) => {
            let outcome = context.call(&call.method, call.parameters).await;
            (call.version, call.id, outcome)
        }
    }
}

fn json(status: StatusCode, value: &Value) -> Response {
    json_text(status, format!("{value}\n"))
}

fn json_text(status: StatusCode, text: String) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], text).into_response()
}

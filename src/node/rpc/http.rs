//! The HTTP side: who is let in, how much is read, and which status goes back.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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
/// Values in one request, those of all its calls together: a batch of the largest size with sixty in each call. As
/// values they take some fifty bytes each, whatever they took in the request.
pub const MAX_VALUES: usize = 64 * MAX_BATCH;
/// Batches worked on at once, so that there is room for single calls beside them.
const MAX_BATCHES: usize = MAX_CALLS / 2;
/// Bytes of results of all batches that are worked on: two of the largest. Beyond it their further calls are refused.
const MAX_HELD_BYTES: usize = 2 * MAX_BATCH_RESULT_BYTES;
/// Blocks turned into objects at once: one takes some hundred megabytes at most. Further ones wait.
const MAX_BULKY: usize = 2;
/// How long a body may take to arrive, on loopback.
const BODY_TIME: Duration = Duration::from_secs(30);
/// How long a wrong credential waits for its refusal, against guessing. Bitcoin Core's figure.
const WRONG_ACCESS_TIME: Duration = Duration::from_millis(250);

#[derive(Debug)]
struct Server {
    context: Context,
    credentials: Credentials,
    room: Semaphore,
    batches: Semaphore,
    bulky: Semaphore,
    /// Bytes of results that batches hold.
    held: AtomicUsize,
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
        batches: Semaphore::new(MAX_BATCHES),
        bulky: Semaphore::new(MAX_BULKY),
        held: AtomicUsize::new(0),
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
        return busy();
    };
    match read_body(request.into_body()).await {
        Ok(body) => answer(&server, &body).await,
        Err(refusal) => refusal,
    }
}

fn busy() -> Response {
    let text = "Work queue depth exceeded\n";
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
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

async fn answer(server: &Server, body: &[u8]) -> Response {
    if request::count_values(body) > MAX_VALUES {
        return unreadable(&format!(
            "more than {MAX_VALUES} values; send fewer at once"
        ));
    }
    let parsed: Value = match serde_json::from_slice(body) {
        Ok(parsed) => parsed,
        Err(error) => return unreadable(&error.to_string()),
    };
    match parsed {
        Value::Array(calls) => answer_batch(server, calls).await,
        single => {
            let (version, id, outcome) = call(server, single).await;
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

fn unreadable(why: &str) -> Response {
    let outcome = Err(RpcError::new(
        Code::ParseError,
        format!("Parse error: {why}"),
    ));
    let status = request::status(Version::Legacy, &outcome);
    let response = request::respond(Version::Legacy, Value::Null, &outcome);
    json(status, &response)
}

/// What one batch holds of the results of all.
struct Share<'a> {
    held: &'a AtomicUsize,
    own: usize,
}

impl Share<'_> {
    /// Whether there is room for another result.
    fn has_room(&self) -> bool {
        self.own <= MAX_BATCH_RESULT_BYTES && self.held.load(Ordering::Relaxed) <= MAX_HELD_BYTES
    }

    fn hold(&mut self, bytes: usize) {
        self.own += bytes;
        self.held.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.held.fetch_sub(self.own, Ordering::Relaxed);
    }
}

async fn answer_batch(server: &Server, calls: Vec<Value>) -> Response {
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
    let Ok(_place) = server.batches.try_acquire() else {
        return busy();
    };
    let mut share = Share {
        held: &server.held,
        own: 0,
    };
    let mut responses: Vec<String> = Vec::new();
    for value in calls {
        // Before the call, which need not be made for nothing.
        let (version, id, outcome) = match share.has_room() {
            true => call(server, value).await,
            false => refuse_for_size(value),
        };
        let Some(id) = id else { continue };
        let response = request::respond(version, id, &outcome).to_string();
        share.hold(response.len());
        responses.push(response);
    }
    if responses.is_empty() && !is_empty {
        return StatusCode::NO_CONTENT.into_response();
    }
    json_text(StatusCode::OK, format!("[{}]\n", responses.join(",")))
}

/// Works on one call. Without an id it was a notification, to which nothing is answered.
async fn call(server: &Server, value: Value) -> (Version, Option<Value>, Result<Value, RpcError>) {
    match Call::read(value) {
        Err(Unreadable { version, id, error }) => (version, id, Err(error)),
        Ok(call) => {
            let _turn = match call.method.as_str() {
                "getblock" => server.bulky.acquire().await.ok(),
                _ => None,
            };
            let outcome = server.context.call(&call.method, call.parameters).await;
            (call.version, call.id, outcome)
        }
    }
}

/// What a call is answered with when there is no room for its result.
fn refuse_for_size(value: Value) -> (Version, Option<Value>, Result<Value, RpcError>) {
    match Call::read(value) {
        Err(Unreadable { version, id, error }) => (version, id, Err(error)),
        Ok(call) => {
            let message = "The results of this batch are too large; send fewer calls at once";
            let refusal = RpcError::new(Code::Misc, message);
            (call.version, call.id, Err(refusal))
        }
    }
}

fn json(status: StatusCode, value: &Value) -> Response {
    json_text(status, format!("{value}\n"))
}

fn json_text(status: StatusCode, text: String) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_results_of_all_batches_are_bounded_together() {
        let held = AtomicUsize::new(0);
        let share = || Share {
            held: &held,
            own: 0,
        };
        let mut first = share();
        first.hold(MAX_BATCH_RESULT_BYTES);
        assert!(first.has_room());
        first.hold(1);
        assert!(!first.has_room());
        let (mut second, third) = (share(), share());
        assert!(third.has_room());
        second.hold(MAX_BATCH_RESULT_BYTES);
        assert!(!third.has_room());
        drop(first);
        assert!(third.has_room() && second.has_room());
    }
}

//! JSON-RPC 1.0 and 2.0 as Electrum clients speak it: one message in, calls out; results in, text out.
//!
//! A message is looked through before anything is built of it: how deep it nests and how many values it has is bounded, so that
//! a line of a given length can't become a tree of many times its size. What this is not: it knows no method.

use serde_json::{Map, Value};

/// Bytes of one message unless configured otherwise. Reason: it is ElectrumX's `MAX_RECV`; the largest transaction that nodes
/// relay is 400 kB, twice that as hexadecimal digits.
pub const MAX_MESSAGE_BYTES: usize = 1_000_000;

/// Arrays and objects within each other. Reason: a batch of calls with a list of objects of objects, the features of a server,
/// are five; the rest is for methods to come.
pub const MAX_DEPTH: usize = 16;

/// Calls in one batch. Reason: wallets cut theirs at 100 (Sparrow, BlueWallet); a batch is held until its last answer is
/// there, and this keeps that small.
pub const MAX_BATCH: usize = 1_000;

/// Values in one message, of any kind. Reason: a whole batch of calls with sixteen members and parameters each; as a tree
/// they take some megabytes at most.
pub const MAX_VALUES: usize = 16_000;

/// What a message may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a message.
    pub message_bytes: usize,
    /// Arrays and objects within each other.
    pub depth: usize,
    /// Calls in a batch.
    pub batch: usize,
    /// Values of any kind.
    pub values: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: MAX_MESSAGE_BYTES,
            depth: MAX_DEPTH,
            batch: MAX_BATCH,
            values: MAX_VALUES,
        }
    }
}

/// Codes of errors: those of JSON-RPC, and ElectrumX's.
pub mod code {
    /// Not JSON.
    pub const PARSE: i64 = -32_700;
    /// JSON, but no call.
    pub const INVALID_REQUEST: i64 = -32_600;
    /// No such method in this version.
    pub const NO_METHOD: i64 = -32_601;
    /// Too many parameters, too few, or unknown names.
    pub const INVALID_PARAMS: i64 = -32_602;
    /// Our fault.
    pub const INTERNAL: i64 = -32_603;
    /// What was asked is not sound, or the network's rules refuse it.
    pub const BAD_REQUEST: i64 = 1;
    /// The node could not tell.
    pub const NODE: i64 = 2;
    /// A history that is too long to be told (protocol 1.7).
    pub const HISTORY_TOO_LARGE: i64 = 10_001;
    /// Not now.
    pub const UNAVAILABLE: i64 = -100;
    /// This client has had too much.
    pub const EXCESSIVE: i64 = -101;
    /// Too much is waiting.
    pub const BUSY: i64 = -102;
}

/// Why there is no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({code})")]
pub struct Failure {
    /// One of [`code`].
    pub code: i64,
    /// For the one who asked.
    pub message: String,
}

impl Failure {
    /// A failure with this code.
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// Which JSON-RPC a call was in; its answer is in the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// 1.0: without the member `jsonrpc`.
    One,
    /// 2.0.
    #[default]
    Two,
}

/// Parameters by place or by name.
#[derive(Clone, Debug, PartialEq)]
pub enum Params {
    /// By place.
    Listed(Vec<Value>),
    /// By name.
    Named(Map<String, Value>),
}

/// One call.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Which JSON-RPC.
    pub dialect: Dialect,
    /// What the answer is to be called, of whatever kind; `None` for a notification, which has no answer.
    pub id: Option<Value>,
    /// What is called.
    pub method: String,
    /// With what.
    pub params: Params,
}

/// One member of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// A call or a notification.
    Call(Call),
    /// An answer to a call that nobody made: ignored.
    Answer,
    /// No call: what is to be answered, and to which id.
    Wrong(Dialect, Value, Failure),
}

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// A call.
    Single(Item),
    /// Some, to be answered together.
    Batch(Vec<Item>),
}

/// Reads one message.
///
/// # Errors
/// Where nothing can be told of its calls: it is to be answered with the id `null`.
pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Message, Failure> {
    if bytes.len() > limits.message_bytes {
        let message = format!("message of more than {} bytes", limits.message_bytes);
        return Err(Failure::new(code::INVALID_REQUEST, message));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Failure::new(code::PARSE, "messages must be encoded in UTF-8"))?;
    look_through(text.as_bytes(), limits)?;
    let value =
        serde_json::from_str(text).map_err(|_| Failure::new(code::PARSE, "invalid JSON"))?;
    match value {
        Value::Array(items) if items.is_empty() => {
            Err(Failure::new(code::INVALID_REQUEST, "batch is empty"))
        }
        Value::Array(items) if items.len() > limits.batch => {
            let message = format!("batch of more than {} calls", limits.batch);
            Err(Failure::new(code::INVALID_REQUEST, message))
        }
        Value::Array(items) => Ok(Message::Batch(items.into_iter().map(item).collect())),
        value => Ok(Message::Single(item(value))),
    }
}

/// Counts nesting and values without building any.
fn look_through(bytes: &[u8], limits: &Limits) -> Result<(), Failure> {
    let (mut depth, mut values) = (0_usize, 1_usize);
    let (mut in_string, mut escaped) = (false, false);
    for byte in bytes {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (true, _) => {}
            (_, b'[' | b'{') => {
                depth += 1;
                values += 1;
            }
            (_, b']' | b'}') => depth = depth.saturating_sub(1),
            (_, b',' | b':') => values += 1,
            _ => {}
        }
        if depth > limits.depth {
            let message = format!("nested more than {} deep", limits.depth);
            return Err(Failure::new(code::INVALID_REQUEST, message));
        }
        if values > limits.values {
            let message = format!("message of more than {} values", limits.values);
            return Err(Failure::new(code::INVALID_REQUEST, message));
        }
    }
    Ok(())
}

/// What one member of a message is.
fn item(value: Value) -> Item {
    let Value::Object(mut members) = value else {
        let failure = Failure::new(code::INVALID_REQUEST, "request must be an object");
        return Item::Wrong(Dialect::Two, Value::Null, failure);
    };
    let (dialect, known) = match members.get("jsonrpc") {
        None => (Dialect::One, true),
        Some(version) => (Dialect::Two, version == "2.0"),
    };
    let id = members.remove("id");
    let wrong = |id: Option<Value>, message: &str| {
        let failure = Failure::new(code::INVALID_REQUEST, message);
        Item::Wrong(dialect, id.unwrap_or_default(), failure)
    };
    if !known {
        return wrong(id, "jsonrpc must be \"2.0\"");
    }
    let method = match members.remove("method") {
        Some(Value::String(method)) => method,
        Some(_) => return wrong(id, "method must be a string"),
        None if members.contains_key("result") || members.contains_key("error") => {
            return Item::Answer;
        }
        None => return wrong(id, "method is missing"),
    };
    let params = match members.remove("params") {
        None | Some(Value::Null) => Params::Listed(Vec::new()),
        Some(Value::Array(params)) => Params::Listed(params),
        Some(Value::Object(params)) => Params::Named(params),
        Some(_) => return wrong(id, "params must be an array or an object"),
    };
    // JSON-RPC 1.0, 1.3: "For notifications, [id] must be Null"; 2.0, 4.1: "A Notification is a Request object without an "id" member."
    let id = match (dialect, id) {
        (Dialect::One, Some(Value::Null)) => None,
        (_, id) => id,
    };
    Item::Call(Call {
        dialect,
        id,
        method,
        params,
    })
}

/// Writes the answer to a call. A result is JSON text already.
pub fn answer(dialect: Dialect, id: &Value, result: Result<&[u8], &Failure>) -> Vec<u8> {
    let mut text = Vec::with_capacity(64 + result.map_or(96, <[u8]>::len));
    text.extend_from_slice(match dialect {
        Dialect::One => b"{",
        Dialect::Two => b"{\"jsonrpc\":\"2.0\",",
    });
    match result {
        Ok(result) => {
            text.extend_from_slice(b"\"result\":");
            text.extend_from_slice(result);
            if dialect == Dialect::One {
                text.extend_from_slice(b",\"error\":null");
            }
        }
        Err(failure) => {
            if dialect == Dialect::One {
                text.extend_from_slice(b"\"result\":null,");
            }
            text.extend_from_slice(b"\"error\":");
            let error = serde_json::json!({"code": failure.code, "message": failure.message});
            text.extend_from_slice(error.to_string().as_bytes());
        }
    }
    text.extend_from_slice(b",\"id\":");
    text.extend_from_slice(id.to_string().as_bytes());
    text.push(b'}');
    text
}

/// Writes a notification; the parameters are JSON text already, without their brackets.
pub fn notification(method: &str, params: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(48 + method.len() + params.len());
    text.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"method\":\"");
    text.extend_from_slice(method.as_bytes());
    text.extend_from_slice(b"\",\"params\":[");
    text.extend_from_slice(params);
    text.extend_from_slice(b"]}");
    text
}

/// Writes answers as one batch.
pub fn batch(answers: &[Vec<u8>]) -> Vec<u8> {
    let mut text = Vec::with_capacity(2 + answers.iter().map(|one| one.len() + 1).sum::<usize>());
    text.push(b'[');
    for (index, answer) in answers.iter().enumerate() {
        if index > 0 {
            text.push(b',');
        }
        text.extend_from_slice(answer);
    }
    text.push(b']');
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Result<Message, Failure> {
        parse(text.as_bytes(), &Limits::default())
    }

    fn call(text: &str) -> Call {
        match read(text) {
            Ok(Message::Single(Item::Call(call))) => call,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn refused(text: &str) -> i64 {
        match read(text) {
            Ok(Message::Single(Item::Wrong(_, _, failure))) | Err(failure) => failure.code,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn both_dialects_and_every_kind_of_id() {
        for id in [
            json!(7),
            json!("x"),
            json!(1.5),
            json!(true),
            json!([1]),
            json!({"a": 1}),
        ] {
            let two = json!({"jsonrpc": "2.0", "id": id, "method": "m", "params": [1]}).to_string();
            let one = json!({"id": id, "method": "m"}).to_string();
            let (two, one) = (call(&two), call(&one));
            assert_eq!((two.dialect, one.dialect), (Dialect::Two, Dialect::One));
            assert_eq!(two.params, Params::Listed(vec![json!(1)]));
            assert_eq!(one.params, Params::Listed(vec![]));
            for call in [two, one] {
                assert_eq!(call.id.as_ref(), Some(&id));
                let text = answer(call.dialect, &id, Ok(b"[2]"));
                let read: Value = serde_json::from_slice(&text).unwrap();
                assert_eq!((&read["id"], &read["result"]), (&id, &json!([2])));
                assert_eq!(read.get("jsonrpc").is_some(), call.dialect == Dialect::Two);
                let text = answer(call.dialect, &id, Err(&Failure::new(1, "no \"such\"")));
                let read: Value = serde_json::from_slice(&text).unwrap();
                assert_eq!(read["error"], json!({"code": 1, "message": "no \"such\""}));
            }
        }
        assert_eq!(call(r#"{"jsonrpc":"2.0","method":"m"}"#).id, None);
        assert_eq!(call(r#"{"id":null,"method":"m"}"#).id, None);
        assert_eq!(
            call(r#"{"jsonrpc":"2.0","id":null,"method":"m"}"#).id,
            Some(Value::Null)
        );
        let named = call(r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":2}}"#);
        assert!(matches!(named.params, Params::Named(params) if params["a"] == 2));
    }

    #[test]
    fn what_is_wrong_has_its_code() {
        for text in [
            "",
            "{",
            "nonsense",
            "[1,]",
            "{\"a\":1e999}",
            "\"\\x\"",
            "{} {}",
        ] {
            assert_eq!(refused(text), code::PARSE, "{text}");
        }
        assert_eq!(
            parse(b"\xff", &Limits::default()).unwrap_err().code,
            code::PARSE
        );
        for text in [
            "1",
            "[]",
            "null",
            "{}",
            r#"{"jsonrpc":"3.0","id":1,"method":"m"}"#,
            r#"{"jsonrpc":2,"id":1,"method":"m"}"#,
            r#"{"id":1,"method":5}"#,
            r#"{"id":1,"method":"m","params":5}"#,
        ] {
            assert_eq!(refused(text), code::INVALID_REQUEST, "{text}");
        }
        assert_eq!(
            read(r#"{"id":1,"result":5}"#),
            Ok(Message::Single(Item::Answer))
        );
    }

    #[test]
    fn bounds_hold_before_anything_is_built() {
        let deep = "[".repeat(500_000);
        assert_eq!(refused(&deep), code::INVALID_REQUEST);
        let deep = format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
        assert!(read(&deep).is_ok());
        let wide = format!("[{}1]", "1,".repeat(400_000));
        assert_eq!(refused(&wide), code::INVALID_REQUEST);
        assert_eq!(
            refused(&" ".repeat(MAX_MESSAGE_BYTES + 1)),
            code::INVALID_REQUEST
        );
        let calls = |count: usize| format!("[{}1]", "1,".repeat(count - 1));
        assert!(
            matches!(read(&calls(MAX_BATCH)), Ok(Message::Batch(items)) if items.len() == MAX_BATCH)
        );
        assert_eq!(refused(&calls(MAX_BATCH + 1)), code::INVALID_REQUEST);
        // Brackets within a string nest nothing.
        let text = json!({"id": 1, "method": "[".repeat(500), "params": ["\"[[[\\"]}).to_string();
        assert_eq!(call(&text).method.len(), 500);
    }

    #[test]
    fn batches_and_notifications_are_json() {
        let text = batch(&[b"1".to_vec(), b"{}".to_vec()]);
        assert_eq!(
            serde_json::from_slice::<Value>(&text).unwrap(),
            json!([1, {}])
        );
        let text = notification("a.b", b"1,\"x\"");
        let read: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(
            read,
            json!({"jsonrpc": "2.0", "method": "a.b", "params": [1, "x"]})
        );
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes, &Limits::default());
        }

        #[test]
        fn nothing_like_json_panics(text in r#"[\[\]{},:"\\0-9a-z .-]{0,80}"#) {
            let _ = read(&text);
        }
    }
}

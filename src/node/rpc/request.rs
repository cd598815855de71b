//! The envelope of calls: JSON-RPC 2.0, and the older form that Bitcoin Core's callers use, alone or
//! in batches.

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::error::{Code, RpcError};

/// Which envelope a request came in; the response goes back in the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `"jsonrpc": "2.0"`: a response has `result` or `error`, and HTTP always says 200.
    Two,
    /// Anything else: a response has both, one of them null, and HTTP tells of errors too.
    Legacy,
}

/// One call.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Its envelope.
    pub version: Version,
    /// Given back in the response; `None` marks a notification, which has none.
    pub id: Option<Value>,
    /// The method.
    pub method: String,
    /// What it is given.
    pub parameters: Parameters,
}

/// Parameters by place or by name.
#[derive(Clone, Debug, PartialEq)]
pub enum Parameters {
    /// In the method's order.
    Placed(Vec<Value>),
    /// By the names that `help` shows.
    Named(Map<String, Value>),
}

/// A request that could not be read, with what its response needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Unreadable {
    /// The envelope, as far as it could be told.
    pub version: Version,
    /// The id, as far as it could be told.
    pub id: Option<Value>,
    /// What is wrong.
    pub error: RpcError,
}

impl Request {
    /// Reads one call.
    ///
    /// # Errors
    ///
    /// What is wrong with it, ready to be answered.
    pub fn read(value: Value) -> Result<Self, Unreadable> {
        let refuse = |version, id, code, message: &str| Unreadable {
            version,
            id,
            error: RpcError::new(code, message),
        };
        let Value::Object(mut members) = value else {
            return Err(refuse(
                Version::Legacy,
                Some(Value::Null),
                Code::InvalidRequest,
                "Invalid Request object",
            ));
        };
        let version = match members.get("jsonrpc") {
            Some(Value::String(version)) if version == "2.0" => Version::Two,
            _ => Version::Legacy,
        };
        // Only the newer form knows notifications; the older one answers with a null id.
        let id = match (members.remove("id"), version) {
            (None, Version::Legacy) => Some(Value::Null),
            (id, _) => id,
        };
        if matches!(
            id,
            Some(Value::Array(_) | Value::Object(_) | Value::Bool(_))
        ) {
            let message = "Invalid id: give a string, a number or null";
            return Err(refuse(
                version,
                Some(Value::Null),
                Code::InvalidRequest,
                message,
            ));
        }
        let method = match members.remove("method") {
            Some(Value::String(method)) => method,
            Some(_) => {
                let message = "Method must be a string";
                return Err(refuse(version, id, Code::InvalidRequest, message));
            }
            None => return Err(refuse(version, id, Code::InvalidRequest, "Missing method")),
        };
        let parameters = match members.remove("params") {
            None | Some(Value::Null) => Parameters::Placed(Vec::new()),
            Some(Value::Array(values)) => Parameters::Placed(values),
            Some(Value::Object(values)) => Parameters::Named(values),
            Some(_) => {
                let message = "Params must be an array or object";
                return Err(refuse(version, id, Code::InvalidRequest, message));
            }
        };
        Ok(Self {
            version,
            id,
            method,
            parameters,
        })
    }
}

/// How many values a text of JSON has at least, by its commas and brackets outside of strings: before it is parsed, for
/// what takes a byte or two there takes fifty as a value.
pub fn count_values(text: &[u8]) -> usize {
    let (mut count, mut in_string, mut is_escaped) = (0, false, false);
    for byte in text {
        match (in_string, byte) {
            (true, _) if is_escaped => is_escaped = false,
            (true, b'\\') => is_escaped = true,
            (true, b'"') => in_string = false,
            (true, _) => {}
            (false, b'"') => in_string = true,
            (false, b',' | b'[' | b'{') => count += 1,
            (false, _) => {}
        }
    }
    count
}

/// The response to a call of envelope `version` and id `id`.
pub fn respond(version: Version, id: Value, outcome: &Result<Value, RpcError>) -> Value {
    match (version, outcome) {
        (Version::Two, Ok(result)) => json!({ "jsonrpc": "2.0", "result": result, "id": id }),
        (Version::Two, Err(error)) => {
            json!({ "jsonrpc": "2.0", "error": error.to_json(), "id": id })
        }
        (Version::Legacy, Ok(result)) => json!({ "result": result, "error": null, "id": id }),
        (Version::Legacy, Err(error)) => {
            json!({ "result": null, "error": error.to_json(), "id": id })
        }
    }
}

/// The HTTP status of a single response, by Bitcoin Core's habit.
pub fn status(version: Version, outcome: &Result<Value, RpcError>) -> StatusCode {
    match (version, outcome) {
        (Version::Two, _) | (_, Ok(_)) => StatusCode::OK,
        (Version::Legacy, Err(error)) => match error.code {
            Code::InvalidRequest => StatusCode::BAD_REQUEST,
            Code::MethodNotFound => StatusCode::NOT_FOUND,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_envelopes_are_read() {
        let new = Request::read(json!({"jsonrpc": "2.0", "id": 1, "method": "m", "params": [1]}));
        let new = new.unwrap();
        assert_eq!((new.version, new.id), (Version::Two, Some(json!(1))));
        assert_eq!(new.parameters, Parameters::Placed(vec![json!(1)]));
        let old = Request::read(json!({"method": "m", "params": {"a": 1}})).unwrap();
        assert_eq!((old.version, old.id), (Version::Legacy, Some(Value::Null)));
        assert!(matches!(old.parameters, Parameters::Named(_)));
        let notification = Request::read(json!({"jsonrpc": "2.0", "method": "m"})).unwrap();
        assert_eq!(notification.id, None);
    }

    #[test]
    fn what_is_no_call_is_refused_in_its_own_envelope() {
        let refused = |value: Value| {
            let unreadable = Request::read(value).unwrap_err();
            (unreadable.version, unreadable.id, unreadable.error.message)
        };
        assert_eq!(refused(json!(7)).2, "Invalid Request object");
        assert_eq!(
            refused(json!({"id": 1})),
            (Version::Legacy, Some(json!(1)), "Missing method".to_owned())
        );
        assert_eq!(
            refused(json!({"method": 1, "jsonrpc": "2.0", "id": "x"})),
            (
                Version::Two,
                Some(json!("x")),
                "Method must be a string".to_owned()
            )
        );
        assert_eq!(
            refused(json!({"method": "a", "params": "b"})).2,
            "Params must be an array or object"
        );
        assert!(refused(json!({"method": "a", "id": {}})).2.contains("id"));
    }

    #[test]
    fn values_are_counted_before_they_are_parsed() {
        assert_eq!(count_values(b""), 0);
        assert_eq!(count_values(b"[1,2,3]"), 3);
        assert_eq!(count_values(br#"[{"a":"x,[{\",,","b":[1]},2]"#), 5);
        assert_eq!(count_values(br#""unfinished, \"#), 0);
    }

    #[test]
    fn http_tells_of_errors_in_the_old_envelope_only() {
        let failed = |code| Err(RpcError::new(code, ""));
        assert_eq!(status(Version::Two, &failed(Code::Misc)), 200);
        assert_eq!(status(Version::Legacy, &Ok(Value::Null)), 200);
        assert_eq!(status(Version::Legacy, &failed(Code::InvalidRequest)), 400);
        assert_eq!(status(Version::Legacy, &failed(Code::MethodNotFound)), 404);
        assert_eq!(status(Version::Legacy, &failed(Code::Misc)), 500);
    }
}

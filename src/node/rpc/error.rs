//! What a call can be refused with, in Bitcoin Core's numbers.

use serde_json::{Value, json};

use crate::node::engine::EngineGone;

/// Bitcoin Core's error codes, those that occur here (`rpc/protocol.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The request is no request.
    InvalidRequest = -32600,
    /// There is no such method.
    MethodNotFound = -32601,
    /// The parameters are neither list nor object.
    InvalidParams = -32602,
    /// Something is wrong with the node itself.
    InternalError = -32603,
    /// The body is no JSON.
    ParseError = -32700,
    /// Whatever has no code of its own; also the wrong number of parameters.
    Misc = -1,
    /// A parameter has the wrong type.
    Type = -3,
    /// What is named does not exist.
    InvalidAddressOrKey = -5,
    /// A parameter makes no sense.
    InvalidParameter = -8,
    /// Bytes that do not decode.
    Deserialization = -22,
    /// The peer is kept already.
    NodeAlreadyAdded = -23,
    /// The peer is not kept.
    NodeNotAdded = -24,
    /// A block or header that breaks a rule.
    Verify = -25,
    /// There is no such session.
    NodeNotConnected = -29,
    /// No more peers can be kept.
    NodeCapacityReached = -34,
}

/// A refused call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcError {
    /// Its number.
    pub code: Code,
    /// What is wrong, and what to do.
    pub message: String,
}

impl RpcError {
    /// A refusal.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// As the member `error` of a response.
    pub fn to_json(&self) -> Value {
        json!({ "code": self.code as i32, "message": self.message })
    }
}

impl From<EngineGone> for RpcError {
    fn from(gone: EngineGone) -> Self {
        Self::new(Code::InternalError, gone.to_string())
    }
}

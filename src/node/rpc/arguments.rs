//! The parameters of one call, taken by place and type, with Bitcoin Core's words for what is wrong.

use serde_json::Value;

use super::error::{Code, RpcError};
use super::methods::Method;
use super::request::Parameters;
use crate::node::engine::Hash;

/// The parameters of one call in the method's order; what is absent or null is `Null`.
#[derive(Clone, Debug)]
pub struct Arguments {
    method: &'static Method,
    values: Vec<Value>,
}

impl Arguments {
    /// Puts `parameters` into the order of `method` and checks their number and names.
    ///
    /// # Errors
    ///
    /// A name that the method does not know, too many values, or a required one that is absent.
    pub fn new(method: &'static Method, parameters: Parameters) -> Result<Self, RpcError> {
        let values = match parameters {
            Parameters::Placed(values) if values.len() > method.parameters.len() => {
                return Err(RpcError::new(Code::Misc, method.usage()));
            }
            Parameters::Placed(values) => values,
            Parameters::Named(mut named) => {
                let values = method
                    .parameters
                    .iter()
                    .map(|parameter| named.remove(parameter.name).unwrap_or_default())
                    .collect();
                if let Some((name, _)) = named.into_iter().next() {
                    let message = format!("Unknown named parameter {name}");
                    return Err(RpcError::new(Code::InvalidParameter, message));
                }
                values
            }
        };
        let absent = |place: usize| values.get(place).is_none_or(Value::is_null);
        let mut required = method.parameters.iter().enumerate();
        if required.any(|(place, parameter)| parameter.required && absent(place)) {
            return Err(RpcError::new(Code::Misc, method.usage()));
        }
        Ok(Self { method, values })
    }

    /// The value at `place`, unless it is absent.
    pub fn value(&self, place: usize) -> Option<&Value> {
        self.values.get(place).filter(|value| !value.is_null())
    }

    /// The text at `place`, if any.
    ///
    /// # Errors
    ///
    /// Something else is there.
    pub fn optional_text(&self, place: usize) -> Result<Option<&str>, RpcError> {
        match self.value(place) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong_type(place, other, "string")),
        }
    }

    /// The text at `place`, which is required.
    ///
    /// # Errors
    ///
    /// Something else is there.
    pub fn text(&self, place: usize) -> Result<&str, RpcError> {
        let text = self.optional_text(place)?;
        text.ok_or_else(|| RpcError::new(Code::Misc, self.method.usage()))
    }

    /// The whole number at `place`, if any. As in Bitcoin Core's `verbosity`, a boolean counts as 0 or 1.
    ///
    /// # Errors
    ///
    /// Something else is there.
    pub fn number_or_bool(&self, place: usize) -> Result<Option<i64>, RpcError> {
        match self.value(place) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(i64::from(*flag))),
            Some(Value::Number(number)) => number.as_i64().map(Some).ok_or_else(|| {
                RpcError::new(
                    Code::Type,
                    format!("{} is no whole number of 64 bits", self.name(place)),
                )
            }),
            Some(other) => Err(self.wrong_type(place, other, "number")),
        }
    }

    /// The truth value at `place`, if any.
    ///
    /// # Errors
    ///
    /// Something else is there.
    pub fn flag(&self, place: usize) -> Result<Option<bool>, RpcError> {
        match self.value(place) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(self.wrong_type(place, other, "bool")),
        }
    }

    /// The block hash at `place`, which is required, in internal byte order.
    ///
    /// # Errors
    ///
    /// It is not 64 hex digits.
    pub fn hash(&self, place: usize) -> Result<Hash, RpcError> {
        let (name, text) = (self.name(place), self.text(place)?);
        let refuse = |message| Err(RpcError::new(Code::InvalidParameter, message));
        if text.chars().count() != 64 {
            let (length, shown) = (text.chars().count(), shorten(text));
            return refuse(format!(
                "{name} must be of length 64 (not {length}, for '{shown}')"
            ));
        }
        match hex::decode_to_array::<32>(text) {
            Ok(mut hash) => {
                hash.reverse();
                Ok(hash)
            }
            Err(_) => refuse(format!("{name} must be hexadecimal string (not '{text}')")),
        }
    }

    fn name(&self, place: usize) -> &'static str {
        self.method
            .parameters
            .get(place)
            .map_or("", |parameter| parameter.name)
    }

    fn wrong_type(&self, place: usize, value: &Value, expected: &str) -> RpcError {
        let (number, name) = (place + 1, self.name(place));
        let found = match value {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        RpcError::new(
            Code::Type,
            format!(
                "Position {number} ({name}): JSON value of type {found} is not of expected type {expected}"
            ),
        )
    }
}

/// The start of a text, for a message.
pub fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}

//! Parameters: names, kinds and ranges, checked before anything is asked.

use bytes::Bytes;
use serde_json::Value;

use super::super::jsonrpc::{Failure, Params, code};
use super::super::query::{FeeMode, MAX_PACKAGE};
use super::super::script_hash::ScriptHash;
use crate::merkle::Hash;

/// One parameter of a method.
#[derive(Clone, Copy, Debug)]
pub struct Param {
    /// Its name in the protocol's text, which is what it is called when given by name.
    pub name: &'static str,
    /// Whether it must be given.
    pub required: bool,
}

/// A parameter that must be given.
pub const fn required(name: &'static str) -> Param {
    Param {
        name,
        required: true,
    }
}

/// A parameter with a default.
pub const fn optional(name: &'static str) -> Param {
    Param {
        name,
        required: false,
    }
}

/// Parameters in the order of the protocol's text; what was not given is `null`.
#[derive(Debug)]
pub struct Bound {
    params: &'static [Param],
    values: Vec<Value>,
}

/// Puts parameters in their places. `lenient` lets further ones pass unseen ("Extraneous unknown args MUST be tolerated").
///
/// # Errors
/// [`code::INVALID_PARAMS`]: too many, too few, or a name that the method does not have.
pub fn bind(params: &'static [Param], given: Params, lenient: bool) -> Result<Bound, Failure> {
    let refuse = |message: String| Failure::new(code::INVALID_PARAMS, message);
    let mut values = match given {
        Params::Listed(values) if values.len() > params.len() && !lenient => {
            let message = format!("at most {} arguments, not {}", params.len(), values.len());
            return Err(refuse(message));
        }
        Params::Listed(values) => values.into_iter().map(Some).collect(),
        Params::Named(mut named) => {
            let values: Vec<_> = params
                .iter()
                .map(|param| named.remove(param.name))
                .collect();
            // Which one is named does not depend on order: serde_json keeps names sorted.
            if let Some(name) = named.keys().next().filter(|_| !lenient) {
                let name: String = name.chars().take(40).collect();
                return Err(refuse(format!("no argument is called {name:?}")));
            }
            values
        }
    };
    values.resize(params.len(), None);
    if let Some((param, _)) = params
        .iter()
        .zip(&values)
        .find(|(param, value)| param.required && value.is_none())
    {
        return Err(refuse(format!("argument {:?} is missing", param.name)));
    }
    let values = values.into_iter().map(Option::unwrap_or_default).collect();
    Ok(Bound { params, values })
}

impl Bound {
    /// The value of a parameter, as it came.
    pub fn take(&mut self, index: usize) -> Value {
        self.values
            .get_mut(index)
            .map(Value::take)
            .unwrap_or_default()
    }

    fn value(&self, index: usize) -> &Value {
        self.values.get(index).unwrap_or(&Value::Null)
    }

    /// What is wrong with a parameter, by its name.
    fn wrong(&self, index: usize, wanted: &str) -> Failure {
        let name = self.params.get(index).map_or("", |param| param.name);
        Failure::new(code::BAD_REQUEST, format!("{name} should be {wanted}"))
    }

    /// A whole number of at least 0 that fits 32 bits. As with ElectrumX it may also come as text, or with a fraction of 0.
    pub fn number(&self, index: usize) -> Result<u32, Failure> {
        let value = self.value(index);
        let whole = match value {
            Value::Number(number) => number.as_u64().or_else(|| {
                let float = number.as_f64()?;
                let fits = float.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&float);
                fits.then_some(float as u64)
            }),
            Value::String(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                text.parse().ok()
            }
            _ => None,
        };
        whole
            .and_then(|number| u32::try_from(number).ok())
            .ok_or_else(|| self.wrong(index, "a non-negative integer"))
    }

    /// A whole number of at least 0, by default 0, where a number may be larger than whatever there is: beyond 32 bits it stands for the largest.
    pub fn number_or_more(&self, index: usize) -> Result<u32, Failure> {
        match self.value(index).as_u64() {
            Some(number) => Ok(u32::try_from(number).unwrap_or(u32::MAX)),
            None => self.number_or_zero(index),
        }
    }

    /// As [`Bound::number`], with 0 as the default.
    pub fn number_or_zero(&self, index: usize) -> Result<u32, Failure> {
        match self.value(index) {
            Value::Null => Ok(0),
            _ => self.number(index),
        }
    }

    /// A boolean, by default false; 0 and 1 are taken for one.
    pub fn boolean(&self, index: usize) -> Result<bool, Failure> {
        match self.value(index) {
            Value::Null => Ok(false),
            Value::Bool(value) => Ok(*value),
            Value::Number(number) if number.as_u64() == Some(0) => Ok(false),
            Value::Number(number) if number.as_u64() == Some(1) => Ok(true),
            _ => Err(self.wrong(index, "a boolean")),
        }
    }

    /// A text, by default empty.
    pub fn text(&self, index: usize) -> Result<&str, Failure> {
        match self.value(index) {
            Value::Null => Ok(""),
            Value::String(text) => Ok(text),
            _ => Err(self.wrong(index, "a string")),
        }
    }

    /// Hexadecimal digits, of an odd number too; how many there are.
    pub fn digits(&self, index: usize) -> Result<usize, Failure> {
        let text = self.text(index)?;
        match text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            true => Ok(text.len()),
            false => Err(self.wrong(index, "hexadecimal digits")),
        }
    }

    /// A transaction's id, in internal byte order.
    pub fn txid(&self, index: usize) -> Result<Hash, Failure> {
        let text = self.value(index).as_str().unwrap_or_default();
        let mut hash: Hash = hex::decode_to_array(text)
            .map_err(|_| self.wrong(index, "a transaction hash of 64 hexadecimal digits"))?;
        hash.reverse();
        Ok(hash)
    }

    /// A script hash.
    pub fn script_hash(&self, index: usize) -> Result<ScriptHash, Failure> {
        let text = self.value(index).as_str().unwrap_or_default();
        text.parse()
            .map_err(|_| self.wrong(index, "a script hash of 64 hexadecimal digits"))
    }

    /// A script; its hash.
    pub fn script(&self, index: usize) -> Result<ScriptHash, Failure> {
        self.bytes(index).map(|script| ScriptHash::of(&script))
    }

    /// Bytes as hexadecimal digits.
    pub fn bytes(&self, index: usize) -> Result<Bytes, Failure> {
        self.hex(index, self.value(index))
    }

    fn hex(&self, index: usize, value: &Value) -> Result<Bytes, Failure> {
        let text = value
            .as_str()
            .ok_or_else(|| self.wrong(index, "hexadecimal digits"))?;
        hex::decode_to_vec(text)
            .map(Bytes::from)
            .map_err(|_| self.wrong(index, "hexadecimal digits"))
    }

    /// Transactions: at least one and at most [`MAX_PACKAGE`].
    pub fn transactions(&self, index: usize) -> Result<Vec<Bytes>, Failure> {
        match self.value(index) {
            Value::Array(values) if (1..=MAX_PACKAGE).contains(&values.len()) => {
                values.iter().map(|value| self.hex(index, value)).collect()
            }
            Value::Array(_) => Err(self.wrong(index, "an array of 1 to 25 transactions")),
            _ => Err(self.wrong(index, "an array of transactions")),
        }
    }

    /// How an estimate is to be made, by default as the node likes.
    pub fn mode(&self, index: usize) -> Result<Option<FeeMode>, Failure> {
        match self.value(index) {
            Value::Null => Ok(None),
            Value::String(text) if text.eq_ignore_ascii_case("CONSERVATIVE") => {
                Ok(Some(FeeMode::Conservative))
            }
            Value::String(text) if text.eq_ignore_ascii_case("ECONOMICAL") => {
                Ok(Some(FeeMode::Economical))
            }
            _ => Err(self.wrong(index, "CONSERVATIVE or ECONOMICAL")),
        }
    }
}

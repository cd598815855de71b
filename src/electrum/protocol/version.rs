//! Versions of the protocol, and how one is agreed on.

use std::fmt;
use std::str::FromStr;

use serde_json::Value;

/// A version: major, minor, revision. Compares as versions do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version([u16; 3]);

impl Version {
    /// The oldest that is spoken here.
    pub const MIN: Self = Self([1, 4, 0]);
    /// Unsubscribing came.
    pub const V1_4_2: Self = Self([1, 4, 2]);
    /// Packages came, headers became a list, and the version has to be agreed on first.
    pub const V1_6: Self = Self([1, 6, 0]);
    /// Scripts instead of their hashes; outpoints.
    pub const V1_7: Self = Self([1, 7, 0]);
    /// The newest that is spoken here.
    pub const MAX: Self = Self::V1_7;
}

/// Not numbers with dots between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a version")]
pub struct NoVersion;

impl FromStr for Version {
    type Err = NoVersion;

    /// "dotted number strings with at least one dot"; a version without any is taken for its major number alone.
    fn from_str(text: &str) -> Result<Self, NoVersion> {
        let mut numbers = [0; 3];
        for (index, part) in text.split('.').enumerate() {
            let number = numbers.get_mut(index).ok_or(NoVersion)?;
            if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(NoVersion);
            }
            *number = part.parse().map_err(|_| NoVersion)?;
        }
        Ok(Self(numbers))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, revision] = self.0;
        match revision {
            0 => write!(formatter, "{major}.{minor}"),
            _ => write!(formatter, "{major}.{minor}.{revision}"),
        }
    }
}

/// Agrees on a version with a client that names one, or `[least, greatest]`; `null` stands for 1.4, the parameter's default.
/// `None` if there is none in common, or what it named is not sound.
///
/// "version = min(client.protocol_max, server.protocol_max)", unless that "is below the value
/// max(client.protocol_min, server.protocol_min)".
pub fn agree(named: &Value) -> Option<Version> {
    let version = |value: &Value| value.as_str()?.parse::<Version>().ok();
    let (least, greatest) = match named {
        Value::Null => (Version::MIN, Version::MIN),
        Value::String(_) => (version(named)?, version(named)?),
        Value::Array(range) => match range.as_slice() {
            [least, greatest] => (version(least)?, version(greatest)?),
            _ => return None,
        },
        _ => return None,
    };
    let agreed = greatest.min(Version::MAX);
    (agreed >= least.max(Version::MIN)).then_some(agreed)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_clients_say() {
        let agreed = |named: Value| agree(&named).map(|version| version.to_string());
        for (named, expected) in [
            (json!(null), Some("1.4")),
            (json!("1.4"), Some("1.4")),
            (json!("1.4.2"), Some("1.4.2")),
            (json!("1.7"), Some("1.7")),
            (json!(["1.4", "1.6"]), Some("1.6")),
            (json!(["1.3", "1.4.2"]), Some("1.4.2")),
            (json!(["1.4", "9.9"]), Some("1.7")),
            (json!(["0", "2"]), Some("1.7")),
            (json!("1.3"), None),
            (json!("1.8"), None),
            (json!(["1.8", "2.0"]), None),
            (json!(["1.6", "1.4"]), None),
            (json!(["1.4"]), None),
            (json!([1.4, 1.6]), None),
            (json!(1.4), None),
            (json!(""), None),
            (json!("1."), None),
            (json!("1.4.2.1"), None),
            (json!("1.+4"), None),
            (json!("99999999.4"), None),
            (json!({}), None),
        ] {
            assert_eq!(agreed(named.clone()).as_deref(), expected, "{named}");
        }
    }
}

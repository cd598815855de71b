//! What the Electrum protocol names the scripts of outputs by.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

/// Bytes of a script hash that the index keeps. Of the 1.3 billion scripts on the chain in 2026 some may share 8 bytes
/// by chance, and anyone can make two that do with some 2^32 hashes; so what the index finds is compared with the script itself
/// before it is told.
pub const PREFIX_BYTES: usize = 8;

/// The opcode that makes an output unspendable.
const OP_RETURN: u8 = 0x6a;

/// SHA-256 of an output's script. Written with its bytes reversed, as hashes are in Bitcoin
/// (Electrum protocol, "Script Hashes").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScriptHash([u8; 32]);

/// What was given is not 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a script hash has 64 hexadecimal digits")]
pub struct NoScriptHash;

impl ScriptHash {
    /// That of a script.
    pub fn of(script: &[u8]) -> Self {
        Self(Sha256::digest(script).into())
    }

    /// The bytes that stand for it in the index.
    pub fn prefix(&self) -> [u8; PREFIX_BYTES] {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        [a, b, c, d, e, f, g, h]
    }

    /// The hash as SHA-256 gives it.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ScriptHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .rev()
            .try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl FromStr for ScriptHash {
    type Err = NoScriptHash;

    fn from_str(text: &str) -> Result<Self, NoScriptHash> {
        let mut bytes: [u8; 32] = hex::decode_to_array(text).map_err(|_| NoScriptHash)?;
        bytes.reverse();
        Ok(Self(bytes))
    }
}

/// Whether an output with this script has a history. One that begins with OP_RETURN, bare or behind OP_FALSE, can't be
/// spent and pays nobody; no server keeps it.
pub fn has_history(script: &[u8]) -> bool {
    !matches!(script, [OP_RETURN, ..] | [0, OP_RETURN, ..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protocols_own_example() {
        // Electrum protocol, "Script Hashes": P2PKH of 1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa.
        let script =
            hex::decode_to_vec("76a91462e907b15cbf27d5425399ebf6f0fb50ebb88f1888ac").unwrap();
        let hash = ScriptHash::of(&script);
        let text = "8b01df4e368ea28f8dc0423bcf7a4923e3a12d307c875e47a0cfbf90b5c39161";
        assert_eq!(hash.to_string(), text);
        assert_eq!(text.parse(), Ok(hash));
        assert_eq!(text.to_uppercase().parse(), Ok(hash));
        assert_eq!(hash.prefix(), hash.as_bytes()[..8]);
        for wrong in [
            "",
            "8b",
            &text[1..],
            &format!("{text}0"),
            &text.replace('8', "g"),
        ] {
            assert_eq!(wrong.parse::<ScriptHash>(), Err(NoScriptHash), "{wrong}");
        }
    }

    #[test]
    fn what_pays_nobody_has_no_history() {
        assert!(has_history(&[]));
        assert!(has_history(&[0]));
        assert!(has_history(&[0x51]));
        assert!(has_history(&[0x51, OP_RETURN]));
        assert!(!has_history(&[OP_RETURN]));
        assert!(!has_history(&[OP_RETURN, 1, 2]));
        assert!(!has_history(&[0, OP_RETURN, 1]));
    }
}

//! A serialized transaction and its two ids.
//!
//! The bytes are scanned once, without building anything from them, and hashed once for each id that they have:
//! a transaction without witness has one id only. What this is not: a judge of consensus rules; a transaction
//! that no node would accept parses here if its encoding is sound.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::Hash32;
use super::scan::Layout;

/// Why bytes are not a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum TransactionError {
    /// The bytes end before the transaction does, or a count says more than they can hold.
    #[error("transaction ends early")]
    Truncated,
    /// Bytes follow the transaction.
    #[error("bytes after the transaction")]
    Trailing,
    /// A CompactSize is longer than its value needs.
    #[error("size not in its shortest form")]
    NonMinimalSize,
    /// There is no input.
    #[error("transaction without inputs")]
    NoInputs,
    /// The byte after the BIP144 marker is neither 0 nor 1.
    #[error("unknown serialization flag")]
    UnknownFlag,
    /// In the form with witness, and yet every witness is empty.
    #[error("witness form without a witness")]
    SuperfluousWitness,
    /// Longer than [`MAX_TRANSACTION_BYTES`].
    #[error("transaction too large")]
    TooLarge,
}

impl TransactionError {
    /// A short name for counters and logs.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Truncated => "tx-truncated",
            Self::Trailing => "tx-trailing",
            Self::NonMinimalSize => "tx-non-minimal-size",
            Self::NoInputs => "tx-no-inputs",
            Self::UnknownFlag => "tx-unknown-flag",
            Self::SuperfluousWitness => "tx-superfluous-witness",
            Self::TooLarge => "tx-too-large",
        }
    }
}

/// Largest serialized transaction, in bytes.
///
/// Reason: lengths are kept as 32-bit numbers, and no network's block may reach this; the networks' own limits
/// (4,000,000 bytes on all of today's) are set by `chain::params` and are checked by whoever holds those.
pub const MAX_TRANSACTION_BYTES: usize = 1 << 30;

/// One transaction as it is serialized in a block (BIP144), with its ids. Cheap to clone.
///
/// Two are equal if their bytes are.
#[derive(Clone)]
pub struct Transaction {
    bytes: Bytes,
    txid: Hash32,
    wtxid: Hash32,
    stripped_len: u32,
    coinbase: bool,
}

impl Transaction {
    /// Scans `bytes`, all of which must be one transaction, and computes its ids.
    ///
    /// Accepts what `bitcoin::consensus::deserialize` accepts, but refuses a transaction without inputs
    /// (which that accepts in the form with witness). Keeps `bytes` and whatever larger buffer they were
    /// cut from; [`Transaction::detached`] lets go of that.
    pub fn parse(bytes: Bytes) -> Result<Self, TransactionError> {
        let layout = Layout::scan(&bytes)?;
        if layout.whole.len() != bytes.len() {
            return Err(TransactionError::Trailing);
        }
        let parts = Parts::of(&layout)?;
        Ok(parts.with(bytes))
    }

    /// Scans the transaction at the front of `bytes` and cuts it off.
    ///
    /// On a refusal `bytes` are as they were.
    pub fn parse_front(bytes: &mut Bytes) -> Result<Self, TransactionError> {
        let layout = Layout::scan(bytes)?;
        let parts = Parts::of(&layout)?;
        let length = layout.whole.len();
        Ok(parts.with(bytes.split_to(length)))
    }

    /// The serialization, with witness if there is one.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Length of the serialization in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Never: a transaction has at least 60 bytes.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Double SHA-256 of the serialization without witness, internal byte order.
    pub fn txid(&self) -> Hash32 {
        self.txid
    }

    /// Double SHA-256 of the whole serialization, internal byte order; the txid if there is no witness.
    ///
    /// Also for a coinbase, whose leaf in the witness tree is zero (BIP141) and not this.
    pub fn wtxid(&self) -> Hash32 {
        self.wtxid
    }

    /// Whether it is in the form with witness.
    pub fn has_witness(&self) -> bool {
        self.stripped_len() != self.bytes.len()
    }

    /// Length in bytes of the serialization without witness.
    pub fn stripped_len(&self) -> usize {
        self.stripped_len as usize
    }

    /// Whether its only input spends the null outpoint.
    pub fn is_coinbase(&self) -> bool {
        self.coinbase
    }

    /// The same transaction in a buffer of its own, so that no larger one is kept alive.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self {
            bytes: Bytes::copy_from_slice(&self.bytes),
            ..self.clone()
        }
    }

    /// The same transaction in those bytes; `None` if they are others than its own.
    #[must_use]
    pub fn kept_in(&self, bytes: Bytes) -> Option<Self> {
        (bytes == self.bytes).then(|| Self {
            bytes,
            ..self.clone()
        })
    }

    pub(super) fn layout(&self) -> Result<Layout<'_>, TransactionError> {
        Layout::scan(&self.bytes)
    }
}

impl PartialEq for Transaction {
    fn eq(&self, other: &Self) -> bool {
        self.wtxid == other.wtxid
    }
}

impl Eq for Transaction {}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Transaction(")?;
        for byte in self.txid.iter().rev() {
            write!(formatter, "{byte:02x}")?;
        }
        write!(formatter, ", {} bytes)", self.bytes.len())
    }
}

/// What is known of a transaction besides its bytes.
struct Parts {
    txid: Hash32,
    wtxid: Hash32,
    stripped_len: u32,
    coinbase: bool,
}

impl Parts {
    fn of(layout: &Layout<'_>) -> Result<Self, TransactionError> {
        if layout.whole.len() > MAX_TRANSACTION_BYTES {
            return Err(TransactionError::TooLarge);
        }
        let wtxid = double_sha256(&[layout.whole]);
        let (txid, stripped) = match layout.witness {
            None => (wtxid, layout.whole.len()),
            Some(witness) => {
                let parts = [
                    layout.version,
                    layout.inputs,
                    layout.outputs,
                    layout.lock_time,
                ];
                // Marker and flag are two bytes.
                let stripped = layout.whole.len().saturating_sub(witness.len() + 2);
                (double_sha256(&parts), stripped)
            }
        };
        Ok(Self {
            txid,
            wtxid,
            stripped_len: u32::try_from(stripped).map_err(|_| TransactionError::TooLarge)?,
            coinbase: layout.is_coinbase(),
        })
    }

    fn with(self, bytes: Bytes) -> Transaction {
        Transaction {
            bytes,
            txid: self.txid,
            wtxid: self.wtxid,
            stripped_len: self.stripped_len,
            coinbase: self.coinbase,
        }
    }
}

/// SHA-256 of SHA-256 of the parts, one after the other.
pub(super) fn double_sha256(parts: &[&[u8]]) -> Hash32 {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    Sha256::digest(hasher.finalize()).into()
}

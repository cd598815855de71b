//! What a coinbase commits to: the root of the witness tree (BIP141) and the height of its block (BIP34).

use super::Hash32;
use super::scan::Scanner;
use super::transaction::{Transaction, TransactionError};

/// How the script of an output with the witness commitment starts (BIP141): OP_RETURN, a push of 36 bytes, and
/// the header `aa21a9ed`. The 32 bytes that follow are the commitment.
const COMMITMENT_PREFIX: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];

/// The witness commitment of a coinbase, and the value that is hashed together with the witness root.
///
/// It holds if the double SHA-256 of the witness root followed by `reserved` equals `commitment`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WitnessCommitment {
    /// The 32 bytes after the prefix, in the last output that has one.
    pub commitment: Hash32,
    /// The only item of the coinbase's witness.
    pub reserved: Hash32,
}

/// Why a coinbase's commitment cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum CommitmentError {
    /// The transaction is not a coinbase.
    #[error("not a coinbase")]
    NotCoinbase,
    /// An output commits, but the coinbase has no witness at all.
    ///
    /// So look blocks that were stripped of their witnesses, and valid blocks from before segwit was active
    /// on their network (`chain::params` knows the height): only those may be taken as blocks without a
    /// commitment.
    #[error("witness commitment without a reserved value")]
    NoReservedValue,
    /// An output commits, and the coinbase's witness is something else than one item of 32 bytes.
    #[error("reserved value is not one item of 32 bytes")]
    BadReservedValue,
    /// No output commits, and yet the coinbase has a witness.
    #[error("witness without a commitment")]
    UnexpectedWitness,
}

/// The witness commitment of a coinbase; `None` if there is none, and then no transaction of the block may have
/// a witness (BIP141, commitment structure).
pub fn witness_commitment(
    coinbase: &Transaction,
) -> Result<Option<WitnessCommitment>, CommitmentError> {
    if !coinbase.is_coinbase() {
        return Err(CommitmentError::NotCoinbase);
    }
    let layout = coinbase
        .layout()
        .map_err(|_| CommitmentError::NotCoinbase)?;
    // Later outputs win: the highest index counts.
    let commitment = layout
        .outputs()
        .filter_map(|output| {
            let value = output.script.strip_prefix(&COMMITMENT_PREFIX)?;
            value.first_chunk::<32>().copied()
        })
        .last();
    match (commitment, layout.witness) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(CommitmentError::UnexpectedWitness),
        (Some(_), None) => Err(CommitmentError::NoReservedValue),
        (Some(commitment), Some(witness)) => {
            let reserved = only_item(witness).map_err(|_| CommitmentError::BadReservedValue)?;
            let reserved = reserved
                .try_into()
                .map_err(|_| CommitmentError::BadReservedValue)?;
            Ok(Some(WitnessCommitment {
                commitment,
                reserved,
            }))
        }
    }
}

/// The height that a coinbase states (BIP34): the number pushed first in its input's script, as Bitcoin Core
/// writes it (shortest form, 0 to 16 by their own opcodes).
///
/// `None` if there is none of that form, or it is negative. Blocks of version 1 state no height, but what their
/// miners put there may look like one.
pub fn height(coinbase: &Transaction) -> Option<u32> {
    if !coinbase.is_coinbase() {
        return None;
    }
    let layout = coinbase.layout().ok()?;
    let script = layout.first_input_script().ok()?;
    let (&opcode, rest) = script.split_first()?;
    match opcode {
        0 => Some(0),
        0x51..=0x60 => Some(u32::from(opcode) - 0x50),
        1..=4 => script_number(rest.get(..usize::from(opcode))?),
        _ => None,
    }
}

/// A number above 16 as scripts write it: little-endian, sign in the highest bit, no byte that is not needed.
fn script_number(bytes: &[u8]) -> Option<u32> {
    let (&last, lower) = bytes.split_last()?;
    let needed = last != 0 || lower.last().is_some_and(|below| below & 0x80 != 0);
    if last & 0x80 != 0 || !needed {
        return None;
    }
    let value = bytes
        .iter()
        .rev()
        .fold(0u32, |value, &byte| value << 8 | u32::from(byte));
    (value > 16).then_some(value)
}

/// The item of a witness that consists of one stack with one item.
fn only_item(witness: &[u8]) -> Result<&[u8], TransactionError> {
    let mut scanner = Scanner::new(witness);
    if scanner.compact_size()? != 1 {
        return Err(TransactionError::Trailing);
    }
    let item = scanner.var_bytes()?;
    if !scanner.rest().is_empty() {
        return Err(TransactionError::Trailing);
    }
    Ok(item)
}

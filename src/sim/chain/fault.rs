//! Blocks that break one rule of Bitcoin's, and no other.

use bitcoin::block::Header;
use bitcoin::{Amount, Block, ScriptBuf, Transaction, Witness};

use super::{commitment_of, mine};

/// The rule that a block breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// The coinbase commits to other witnesses than there are.
    Commitment,
    /// A transaction has a witness that the coinbase's commitment does not cover: it was altered on the way.
    AlteredWitness,
    /// The last transactions are there twice: the merkle root, and so the hash, stay those of the good block
    /// (CVE-2012-2459).
    Repetition,
    /// Two transactions spend the same coin.
    DoubleSpend,
    /// The coinbase takes more than subsidy and fees.
    Subsidy,
    /// A transaction gives out more than it takes in.
    Overspend,
    /// A signature, or what takes its place, is not good; commitment and roots are.
    Signature,
    /// The coinbase tells another height.
    Height,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Commitment,
        Self::AlteredWitness,
        Self::Repetition,
        Self::DoubleSpend,
        Self::Subsidy,
        Self::Overspend,
        Self::Signature,
        Self::Height,
    ];

    /// Whether the transactions are not those that header and coinbase commit to: then a relay sees it as well.
    /// Everything else is for a node that validates.
    pub fn is_structural(self) -> bool {
        matches!(
            self,
            Self::Commitment | Self::AlteredWitness | Self::Repetition
        )
    }

    /// Breaks a good block upon `parent`.
    ///
    /// # Panics
    ///
    /// If it has too few transactions for that.
    pub(super) fn break_block(self, mut block: Block, parent: Header) -> Block {
        let time = block.header.time;
        let body = &mut block.txdata;
        match self {
            Self::Commitment => {
                let commitment = commitment_mut(body);
                let mut bytes = commitment.to_bytes();
                bytes[37] ^= 1;
                *commitment = ScriptBuf::from_bytes(bytes);
                return mine(parent, block.txdata, time);
            }
            Self::AlteredWitness => {
                alter(witness_mut(body));
                return block;
            }
            Self::Repetition => {
                repeat_the_end(body);
                return block;
            }
            Self::DoubleSpend => {
                let mut again = body.last().expect("it has transactions").clone();
                again.output.truncate(1);
                again.output[0].value -= Amount::ONE_SAT;
                body.push(again);
            }
            Self::Subsidy => body[0].output[0].value += Amount::ONE_SAT,
            Self::Overspend => {
                body.last_mut().expect("it has transactions").output[0].value +=
                    Amount::from_int_btc(1);
            }
            Self::Signature => alter(witness_mut(body)),
            Self::Height => {
                body[0].input[0].script_sig = ScriptBuf::from_bytes(vec![2, 0x11, 0x27])
            }
        }
        *commitment_mut(body) = commitment_of(body);
        mine(parent, block.txdata, time)
    }
}

/// The script of the coinbase's commitment, its last output.
fn commitment_mut(body: &mut [Transaction]) -> &mut ScriptBuf {
    let output = body[0].output.last_mut();
    &mut output.expect("a coinbase has outputs").script_pubkey
}

/// The first witness of a transaction other than the coinbase.
fn witness_mut(body: &mut [Transaction]) -> &mut Witness {
    let inputs = body.iter_mut().skip(1).flat_map(|it| it.input.iter_mut());
    let mut witnesses = inputs.map(|input| &mut input.witness);
    let found = witnesses.find(|witness| !witness.is_empty());
    found.expect("it has transactions with witnesses")
}

fn alter(witness: &mut Witness) {
    let mut items = witness.to_vec();
    items[0][9] ^= 1;
    *witness = Witness::from_slice(&items);
}

/// Repeats the last node of the lowest level of the tree that has an odd number of them.
fn repeat_the_end(body: &mut Vec<Transaction>) {
    assert!(!body.len().is_power_of_two(), "no level is odd");
    let width = 1 << body.len().trailing_zeros();
    let again = body[body.len() - width..].to_vec();
    body.extend(again);
}

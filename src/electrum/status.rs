//! The status of a script: one hash over all of its history, by which a client knows whether anything is new.
//!
//! It is SHA-256 over `txid:height:` for each transaction, those in blocks first, in the order of the chain, then those
//! in the mempool (Electrum protocol, "Status"). Hashing all of it for each new block would cost a script's whole history
//! again and again; so the state of the hash after the last confirmed transaction is kept, and a new block extends it. (Libbitcoin
//! does the same.) What is in the mempool is hashed on top of a copy.

use sha2::{Digest as _, Sha256};

use crate::merkle::Hash;

/// Bytes of the longest text of one transaction: 64 digits of txid, a height of at most 11, two colons.
const MAX_TEXT: usize = 64 + 11 + 2;

/// A transaction in the mempool as the status has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unconfirmed {
    /// All that it spends is confirmed: height 0.
    OnConfirmed,
    /// It spends an output that is in the mempool itself: height -1.
    OnUnconfirmed,
}

impl Unconfirmed {
    /// The height by which the protocol says so.
    pub fn height(self) -> i32 {
        match self {
            Self::OnConfirmed => 0,
            Self::OnUnconfirmed => -1,
        }
    }
}

/// The hash over the confirmed history of a script, as far as it goes, ready to be extended.
#[derive(Clone, Debug, Default)]
pub struct Confirmed {
    hasher: Sha256,
    count: u64,
}

impl Confirmed {
    /// Adds the next transaction in the order of the chain. The id is in internal byte order.
    pub fn extend(&mut self, txid: &Hash, height: u32) {
        push(&mut self.hasher, txid, &height.to_string());
        self.count += 1;
    }

    /// How many transactions it covers.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The status, with those in the mempool on top in whatever order: the protocol's is made here, first those on
    /// confirmed outputs, and by txid as it is written. `None` if there is no transaction at all.
    pub fn status(&self, mempool: &mut [(Hash, Unconfirmed)]) -> Option<[u8; 32]> {
        if self.count == 0 && mempool.is_empty() {
            return None;
        }
        sort_mempool(mempool);
        let mut hasher = self.hasher.clone();
        for (txid, unconfirmed) in mempool.iter() {
            push(&mut hasher, txid, &unconfirmed.height().to_string());
        }
        Some(hasher.finalize().into())
    }
}

/// Puts a script's transactions of the mempool in the order that protocol 1.6 demands: by height, 0 before -1, then by
/// txid as it is written.
pub fn sort_mempool(mempool: &mut [(Hash, Unconfirmed)]) {
    mempool.sort_unstable_by(|(one, one_on), (other, other_on)| {
        let by_height = other_on.height().cmp(&one_on.height());
        by_height.then_with(|| one.iter().rev().cmp(other.iter().rev()))
    });
}

fn push(hasher: &mut Sha256, txid: &Hash, height: &str) {
    let mut text = arrayvec::ArrayString::<MAX_TEXT>::new();
    for byte in txid.iter().rev() {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
        }
    }
    for part in [":", height, ":"] {
        text.push_str(part);
    }
    hasher.update(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;

    /// The protocol's sentences, as they stand.
    fn plain(confirmed: &[(Hash, u32)], mempool: &[(Hash, Unconfirmed)]) -> Option<[u8; 32]> {
        let hex = |hash: &Hash| {
            hash.iter().rev().fold(String::new(), |mut text, byte| {
                write!(text, "{byte:02x}").unwrap();
                text
            })
        };
        let mut pending: Vec<(i32, String)> = mempool
            .iter()
            .map(|(txid, on)| (-on.height(), hex(txid)))
            .collect();
        pending.sort();
        let mut text = String::new();
        for (txid, height) in confirmed {
            write!(text, "{}:{height}:", hex(txid)).unwrap();
        }
        for (negated, txid) in pending {
            write!(text, "{txid}:{}:", -negated).unwrap();
        }
        (!text.is_empty()).then(|| Sha256::digest(text).into())
    }

    fn unconfirmed() -> impl Strategy<Value = Unconfirmed> {
        prop_oneof![
            Just(Unconfirmed::OnConfirmed),
            Just(Unconfirmed::OnUnconfirmed)
        ]
    }

    proptest! {
        #[test]
        fn equals_the_plain_one_and_extends(
            confirmed in prop::collection::vec((any::<Hash>(), any::<u32>()), 0..20),
            mempool in prop::collection::vec((any::<Hash>(), unconfirmed()), 0..6),
            cut in 0..20usize,
        ) {
            let mut state = Confirmed::default();
            let cut = cut.min(confirmed.len());
            for (txid, height) in &confirmed[..cut] {
                state.extend(txid, *height);
            }
            // Looked at in between, it goes on as it was.
            prop_assert_eq!(state.status(&mut mempool.clone()), plain(&confirmed[..cut], &mempool));
            for (txid, height) in &confirmed[cut..] {
                state.extend(txid, *height);
            }
            prop_assert_eq!(state.count(), confirmed.len() as u64);
            prop_assert_eq!(state.status(&mut mempool.clone()), plain(&confirmed, &mempool));
        }
    }

    #[test]
    fn nothing_has_no_status() {
        assert_eq!(Confirmed::default().status(&mut []), None);
    }
}

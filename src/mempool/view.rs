//! A transaction where it lies: its parts as slices of the bytes around it, for whoever reads many and keeps none.

use super::Hash32;
use super::scan::{Layout, MIN_TRANSACTION_BYTES, Scanner};
use super::transaction::{TransactionError, double_sha256};

/// One serialized transaction within somebody else's bytes. Nothing is copied, and nothing hashed before it is asked for.
#[derive(Clone, Copy, Debug)]
pub struct TransactionView<'a>(Layout<'a>);

/// What an input spends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutPoint {
    /// The transaction that has the output, in internal byte order.
    pub txid: Hash32,
    /// Its number there.
    pub index: u32,
}

/// An output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output<'a> {
    /// In satoshis.
    pub value: u64,
    /// What it asks of its spender.
    pub script: &'a [u8],
}

impl<'a> TransactionView<'a> {
    /// Cuts the transaction at the front of `bytes` off.
    pub fn parse_front(bytes: &mut &'a [u8]) -> Result<Self, TransactionError> {
        let layout = Layout::scan(bytes)?;
        *bytes = bytes.get(layout.whole.len()..).unwrap_or_default();
        Ok(Self(layout))
    }

    /// All of `bytes` as one transaction.
    pub fn parse(mut bytes: &'a [u8]) -> Result<Self, TransactionError> {
        let view = Self::parse_front(&mut bytes)?;
        if bytes.is_empty() {
            Ok(view)
        } else {
            Err(TransactionError::Trailing)
        }
    }

    /// As serialized (BIP144).
    pub fn bytes(&self) -> &'a [u8] {
        self.0.whole
    }

    /// Its id, which is hashed now; internal byte order.
    pub fn txid(&self) -> Hash32 {
        if self.0.witness.is_none() {
            return double_sha256(&[self.0.whole]);
        }
        let Layout {
            version,
            inputs,
            outputs,
            lock_time,
            ..
        } = self.0;
        double_sha256(&[version, inputs, outputs, lock_time])
    }

    /// Whether it is a coinbase.
    pub fn is_coinbase(&self) -> bool {
        self.0.is_coinbase()
    }

    /// Its weight (BIP141), in weight units.
    pub fn weight(&self) -> u64 {
        // Marker and flag are two bytes.
        let witness = self.0.witness.map_or(0, |witness| witness.len() + 2);
        let whole = self.0.whole.len();
        (whole * 4 - witness * 3) as u64
    }

    /// What its inputs spend, in order; a coinbase's one names no output that exists.
    pub fn spends(&self) -> impl Iterator<Item = OutPoint> + use<'a> {
        self.0.spends()
    }

    /// Its outputs, in order.
    pub fn outputs(&self) -> impl Iterator<Item = Output<'a>> + use<'a> {
        self.0.outputs()
    }
}

/// Cuts the count of transactions off, which stands behind a block's header; refused if they cannot be there.
pub fn transaction_count(bytes: &mut &[u8]) -> Result<u32, TransactionError> {
    let mut scanner = Scanner::new(bytes);
    let count = scanner.count(MIN_TRANSACTION_BYTES)?;
    *bytes = scanner.rest();
    u32::try_from(count).map_err(|_| TransactionError::Truncated)
}

#[cfg(test)]
mod tests {
    use bitcoin::consensus::{deserialize, serialize};
    use bitcoin::hashes::Hash as _;

    use super::*;

    #[test]
    fn says_what_rust_bitcoin_says_of_every_transaction_of_a_block() {
        let block = bitcoin_test_data::blocks::mainnet_702861();
        let expected: bitcoin::Block = deserialize(block).unwrap();
        let mut rest = &block[80..];
        let count = transaction_count(&mut rest).unwrap();
        assert_eq!(count as usize, expected.txdata.len());
        for expected in &expected.txdata {
            let view = TransactionView::parse_front(&mut rest).unwrap();
            assert_eq!(view.bytes(), serialize(expected));
            assert_eq!(view.txid(), expected.compute_txid().to_byte_array());
            assert_eq!(view.is_coinbase(), expected.is_coinbase());
            assert_eq!(view.weight(), expected.weight().to_wu());
            let spends: Vec<_> = view.spends().map(|one| (one.txid, one.index)).collect();
            let inputs = expected.input.iter().map(|input| input.previous_output);
            let inputs: Vec<_> = inputs
                .map(|one| (one.txid.to_byte_array(), one.vout))
                .collect();
            assert_eq!(spends, inputs);
            let outputs: Vec<_> = view.outputs().map(|one| (one.value, one.script)).collect();
            let expected = expected.output.iter();
            let expected: Vec<_> = expected
                .map(|one| (one.value.to_sat(), one.script_pubkey.as_bytes()))
                .collect();
            assert_eq!(outputs, expected);
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn what_is_cut_or_longer_is_refused() {
        let one = super::super::tests::numbered(1);
        let mut longer = one.bytes().to_vec();
        longer.push(0);
        assert_eq!(
            TransactionView::parse(&longer).err(),
            Some(TransactionError::Trailing)
        );
        for cut in 0..one.len() {
            let cut = &one.bytes()[..cut];
            assert_eq!(
                TransactionView::parse(cut).err(),
                Some(TransactionError::Truncated)
            );
        }
        assert_eq!(
            transaction_count(&mut [0xff; 20].as_slice()),
            Err(TransactionError::Truncated)
        );
    }
}

//! A strict walk over the serialization of a transaction (BIP144): where its parts lie, or why it is refused.
//!
//! Nothing is copied or allocated, and no length is believed before the bytes it speaks of were seen to be there.

use super::transaction::TransactionError;
use super::view::{OutPoint, Output};

/// Bytes of the smallest transaction: version, one empty input, no output, lock time.
pub(super) const MIN_TRANSACTION_BYTES: usize = 4 + 1 + 41 + 1 + 4;
/// Bytes of the smallest input: outpoint 36, empty script 1, sequence 4.
const MIN_INPUT_BYTES: usize = 41;
/// Bytes of the smallest output: amount 8, empty script 1.
const MIN_OUTPUT_BYTES: usize = 9;

/// Reads from the front of a slice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scanner<'a> {
    rest: &'a [u8],
}

impl<'a> Scanner<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `count` bytes.
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], TransactionError> {
        let (head, tail) = self
            .rest
            .split_at_checked(count)
            .ok_or(TransactionError::Truncated)?;
        self.rest = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], TransactionError> {
        let (head, tail) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(TransactionError::Truncated)?;
        self.rest = tail;
        Ok(*head)
    }

    /// A CompactSize in its shortest form.
    pub(super) fn compact_size(&mut self) -> Result<u64, TransactionError> {
        let [first] = self.array::<1>()?;
        let (value, least) = match first {
            0xfd => (u64::from(u16::from_le_bytes(self.array()?)), 0xfd),
            0xfe => (u64::from(u32::from_le_bytes(self.array()?)), 0x1_0000),
            0xff => (u64::from_le_bytes(self.array()?), 0x1_0000_0000),
            small => return Ok(u64::from(small)),
        };
        if value < least {
            return Err(TransactionError::NonMinimalSize);
        }
        Ok(value)
    }

    /// How many items follow, each of at least `item_bytes` bytes: refused if they cannot be there.
    pub(super) fn count(&mut self, item_bytes: usize) -> Result<usize, TransactionError> {
        let count = self.compact_size()?;
        let fits = self.rest.len() / item_bytes;
        match usize::try_from(count) {
            Ok(count) if count <= fits => Ok(count),
            _ => Err(TransactionError::Truncated),
        }
    }

    /// Bytes preceded by their length.
    pub(super) fn var_bytes(&mut self) -> Result<&'a [u8], TransactionError> {
        let length = self.count(1)?;
        self.take(length)
    }
}

/// The parts of one transaction, as slices of its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout<'a> {
    /// Everything, nothing after it.
    pub(super) whole: &'a [u8],
    pub(super) version: &'a [u8],
    /// The inputs with their count.
    pub(super) inputs: &'a [u8],
    /// The outputs with their count.
    pub(super) outputs: &'a [u8],
    /// The witness stacks, one for each input; `None` in the form without witness.
    pub(super) witness: Option<&'a [u8]>,
    pub(super) lock_time: &'a [u8],
}

impl<'a> Layout<'a> {
    /// Finds the parts of the transaction at the front of `bytes`, whatever follows it.
    pub(super) fn scan(bytes: &'a [u8]) -> Result<Self, TransactionError> {
        let mut scanner = Scanner::new(bytes);
        let version = scanner.take(4)?;
        let with_witness = match scanner.rest {
            [0, flag, ..] => {
                if *flag == 0 {
                    return Err(TransactionError::NoInputs);
                }
                if *flag != 1 {
                    return Err(TransactionError::UnknownFlag);
                }
                scanner.take(2)?;
                true
            }
            _ => false,
        };
        let start = scanner;
        let inputs = scanner.count(MIN_INPUT_BYTES)?;
        if inputs == 0 {
            return Err(TransactionError::NoInputs);
        }
        for _ in 0..inputs {
            scanner.input_script()?;
        }
        let inputs_bytes = consumed(start, scanner);
        let start = scanner;
        let outputs = scanner.count(MIN_OUTPUT_BYTES)?;
        for _ in 0..outputs {
            scanner.output()?;
        }
        let outputs_bytes = consumed(start, scanner);
        let witness = if with_witness {
            let start = scanner;
            let mut items = 0u64;
            for _ in 0..inputs {
                items = items.saturating_add(scanner.witness_stack()?);
            }
            if items == 0 {
                return Err(TransactionError::SuperfluousWitness);
            }
            Some(consumed(start, scanner))
        } else {
            None
        };
        let lock_time = scanner.take(4)?;
        Ok(Self {
            whole: consumed(Scanner::new(bytes), scanner),
            version,
            inputs: inputs_bytes,
            outputs: outputs_bytes,
            witness,
            lock_time,
        })
    }

    /// Whether this is a coinbase: one input, which spends the null outpoint.
    pub(super) fn is_coinbase(&self) -> bool {
        match self.inputs {
            [1, rest @ ..] => rest
                .split_first_chunk::<36>()
                .is_some_and(|(outpoint, _)| is_null(outpoint)),
            _ => false,
        }
    }

    /// The script of the first input.
    pub(super) fn first_input_script(&self) -> Result<&'a [u8], TransactionError> {
        let mut scanner = Scanner::new(self.inputs);
        scanner.compact_size()?;
        scanner.input_script()
    }

    /// The outputs, in order.
    pub(super) fn outputs(&self) -> impl Iterator<Item = Output<'a>> + use<'a> {
        let mut scanner = Scanner::new(self.outputs);
        let count = scanner.compact_size().unwrap_or(0);
        (0..count).map_while(move |_| scanner.output().ok())
    }

    /// What the inputs spend, in order.
    pub(super) fn spends(&self) -> impl Iterator<Item = OutPoint> + use<'a> {
        let mut scanner = Scanner::new(self.inputs);
        let count = scanner.compact_size().unwrap_or(0);
        (0..count).map_while(move |_| scanner.spent().ok())
    }
}

impl<'a> Scanner<'a> {
    fn input_script(&mut self) -> Result<&'a [u8], TransactionError> {
        self.take(36)?;
        let script = self.var_bytes()?;
        self.take(4)?;
        Ok(script)
    }

    fn spent(&mut self) -> Result<OutPoint, TransactionError> {
        let txid = self.array()?;
        let index = u32::from_le_bytes(self.array()?);
        self.var_bytes()?;
        self.take(4)?;
        Ok(OutPoint { txid, index })
    }

    fn output(&mut self) -> Result<Output<'a>, TransactionError> {
        let value = u64::from_le_bytes(self.array()?);
        let script = self.var_bytes()?;
        Ok(Output { value, script })
    }

    fn witness_stack(&mut self) -> Result<u64, TransactionError> {
        let items = self.count(1)?;
        for _ in 0..items {
            self.var_bytes()?;
        }
        Ok(items as u64)
    }
}

fn is_null(outpoint: &[u8; 36]) -> bool {
    let (txid, output) = outpoint.split_at(32);
    txid.iter().all(|&byte| byte == 0) && output == [0xff; 4]
}

/// What was read between two positions of one scanner.
fn consumed<'a>(before: Scanner<'a>, after: Scanner<'a>) -> &'a [u8] {
    let length = before.rest.len().saturating_sub(after.rest.len());
    before.rest.get(..length).unwrap_or_default()
}

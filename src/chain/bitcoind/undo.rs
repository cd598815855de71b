//! A block's undo data, as Bitcoin Core keeps it in its `rev` files: the outputs that the block's transactions spent.
//!
//! They are written so as to be small (`CTxInUndo` and `ScriptCompression` of Bitcoin Core's `undo.h` and `compressor.cpp`):
//! an amount without its trailing zeros, and the usual scripts as the hash or key in them. Here only the scripts are read.

use bitcoin::secp256k1::PublicKey;

/// Bytes of the largest script that may be spent. Reason: Bitcoin Core's `MAX_SCRIPT_SIZE`; longer ones are never kept, and
/// where such a length stands an unspendable script is meant.
const MAX_SCRIPT_BYTES: usize = 10_000;

/// Bytes of what a script of six kinds is made from.
const KINDS: [usize; 6] = [20, 20, 32, 32, 32, 32];

/// Why bytes are not undo data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UndoError {
    /// They end before what was announced.
    #[error("undo data ends early")]
    Truncated,
    /// Something follows.
    #[error("bytes after the undo data")]
    Trailing,
    /// A number that does not fit 64 bits.
    #[error("a number in the undo data is too large")]
    TooLarge,
    /// A key that is no point of the curve.
    #[error("a public key in the undo data is none")]
    NoKey,
}

/// How many transactions spend something: all of a block's but its coinbase.
pub fn transactions(undo: &[u8]) -> Result<u64, UndoError> {
    Reader(undo).compact_size()
}

/// Calls `spent` with the script of each output that was spent, in the order of the inputs, and with the place of the transaction
/// in the block that spent it; the coinbase, which has place 0, spends none.
pub fn read(undo: &[u8], mut spent: impl FnMut(usize, &[u8])) -> Result<(), UndoError> {
    let mut reader = Reader(undo);
    let mut buffer = Vec::with_capacity(67);
    let transactions = reader.compact_size()?;
    for place in 1..=transactions {
        let place = usize::try_from(place).map_err(|_| UndoError::TooLarge)?;
        for _ in 0..reader.compact_size()? {
            let code = reader.number()?;
            // Twice the height, and one more for a coinbase's output. A version stood here once; zero does now.
            if code > 1 {
                reader.number()?;
            }
            reader.number()?;
            spent(place, reader.script(&mut buffer)?);
        }
    }
    if reader.0.is_empty() {
        Ok(())
    } else {
        Err(UndoError::Trailing)
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], UndoError> {
        let (head, tail) = self.0.split_at_checked(count).ok_or(UndoError::Truncated)?;
        self.0 = tail;
        Ok(head)
    }

    fn byte(&mut self) -> Result<u8, UndoError> {
        let (first, rest) = self.0.split_first().ok_or(UndoError::Truncated)?;
        self.0 = rest;
        Ok(*first)
    }

    fn little_endian(&mut self, bytes: usize) -> Result<u64, UndoError> {
        let bytes = self.take(bytes)?.iter().rev();
        Ok(bytes.fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn compact_size(&mut self) -> Result<u64, UndoError> {
        match self.byte()? {
            0xfd => self.little_endian(2),
            0xfe => self.little_endian(4),
            0xff => self.little_endian(8),
            small => Ok(small.into()),
        }
    }

    /// A number in groups of seven bits, the highest first, in which each but the last has one added (`ReadVarInt` of
    /// Bitcoin Core's `serialize.h`).
    fn number(&mut self) -> Result<u64, UndoError> {
        let mut value = 0u64;
        loop {
            let byte = self.byte()?;
            if value > u64::MAX >> 7 {
                return Err(UndoError::TooLarge);
            }
            value = value << 7 | u64::from(byte & 0x7f);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
            value = value.checked_add(1).ok_or(UndoError::TooLarge)?;
        }
    }

    fn script<'b>(&mut self, buffer: &'b mut Vec<u8>) -> Result<&'b [u8], UndoError>
    where
        'a: 'b,
    {
        let size = usize::try_from(self.number()?).map_err(|_| UndoError::TooLarge)?;
        let Some(bytes) = KINDS.get(size) else {
            let script = self.take(size - KINDS.len())?;
            return Ok(if script.len() > MAX_SCRIPT_BYTES {
                // As Bitcoin Core reads it: an output that nobody can spend.
                &[0x6a]
            } else {
                script
            });
        };
        let hash = self.take(*bytes)?;
        buffer.clear();
        match size {
            0 => {
                buffer.extend([0x76, 0xa9, 20]);
                buffer.extend(hash);
                buffer.extend([0x88, 0xac]);
            }
            1 => {
                buffer.extend([0xa9, 20]);
                buffer.extend(hash);
                buffer.push(0x87);
            }
            2 | 3 => {
                buffer.extend([33, size as u8]);
                buffer.extend(hash);
                buffer.push(0xac);
            }
            odd_or_even => {
                let mut key = [0; 33];
                let (parity, x) = key.split_at_mut(1);
                parity.fill(odd_or_even as u8 - 2);
                x.copy_from_slice(hash);
                let key = PublicKey::from_slice(&key).map_err(|_| UndoError::NoKey)?;
                buffer.push(65);
                buffer.extend(key.serialize_uncompressed());
                buffer.push(0xac);
            }
        }
        Ok(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(undo: &[u8]) -> Result<Vec<(usize, Vec<u8>)>, UndoError> {
        let mut all = Vec::new();
        read(undo, |place, script| all.push((place, script.to_vec())))?;
        Ok(all)
    }

    /// Undo data of one transaction that spent one output of height 1, with this compressed script.
    fn one(script: &[u8]) -> Vec<u8> {
        [[1, 1, 2, 0, 0].as_slice(), script].concat()
    }

    #[test]
    fn each_kind_of_script_is_restored() {
        // The generator of the curve.
        let x =
            hex::decode_to_vec("79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")
                .unwrap();
        let y =
            hex::decode_to_vec("483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8")
                .unwrap();
        let whole = [&[65, 4], x.as_slice(), &y, &[0xac]].concat();
        let of = |kind: u8, bytes: &[u8]| [&[kind], bytes].concat();
        for (compressed, script) in [
            (
                of(0, &[7; 20]),
                [&[0x76, 0xa9, 20], [7; 20].as_slice(), &[0x88, 0xac]].concat(),
            ),
            (
                of(1, &[7; 20]),
                [&[0xa9, 20], [7; 20].as_slice(), &[0x87]].concat(),
            ),
            (of(2, &x), [&[33, 2], x.as_slice(), &[0xac]].concat()),
            (of(3, &x), [&[33, 3], x.as_slice(), &[0xac]].concat()),
            (of(4, &x), whole),
            (of(6, &[]), vec![]),
            (of(8, &[1, 2]), vec![1, 2]),
        ] {
            assert_eq!(read_all(&one(&compressed)), Ok(vec![(1, script)]));
        }
        assert_eq!(read_all(&one(&of(5, &[0xff; 32]))), Err(UndoError::NoKey));
    }

    #[test]
    fn several_inputs_and_transactions_keep_their_places() {
        // Two transactions: the first spent an output of the genesis block's height, without a version behind it, and one of a
        // coinbase at height 2; the second one of height 300 (600 = 0x83 0x58).
        let undo = [
            2, 2, 0, 9, 7, 1, 5, 0, 0x80, 0x00, 8, 2, 3, 1, 0x83, 0x58, 0, 1, 6,
        ];
        let expected = vec![(1, vec![1]), (1, vec![2, 3]), (2, vec![])];
        assert_eq!(read_all(&undo), Ok(expected));
        assert_eq!(transactions(&undo), Ok(2));
        for cut in 0..undo.len() {
            assert_eq!(read_all(&undo[..cut]), Err(UndoError::Truncated), "{cut}");
        }
        let longer = [undo.as_slice(), &[0]].concat();
        assert_eq!(read_all(&longer), Err(UndoError::Trailing));
        let endless = one(&[0xff; 12]);
        assert_eq!(read_all(&endless), Err(UndoError::TooLarge));
    }
}

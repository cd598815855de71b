//! The code: Reed-Solomon over GF(2^16) in the basis of Lin, Al-Naffouri and Han, of high rate.
//!
//! With `m` cells of parity, a power of two, cell `i` of them is the sum over the blocks `j` of `m` data cells of
//! `P_j(w(i))`, where `P_j` is the polynomial of degree less than `m` that has the value of data cell `j m + t` at
//! `w(m (j + 1) + t)`. The specification says what `w` is and how bytes are elements of the field (PAR-2, PAR-3); the
//! tests have it as plain arithmetic. Everything else is the library's.
//!
//! Among the codes that were measured (`benches/parity.rs`) this one encodes a block of 1 MB in 0.3 ms and decodes it
//! in 1.6 ms; it needs exactly as many cells as are lacking, and nothing in it is known to be patented. RaptorQ, whose
//! cells never run out, takes five times as long and rarely one or two cells more.

use reed_solomon_simd::engine::DefaultEngine;
use reed_solomon_simd::rate::{HighRateDecoder, HighRateEncoder, RateDecoder, RateEncoder};

use crate::wire::MAX_PARITY_CELLS;

/// The most data cells of a code: with as many of parity they are all that GF(2^16) has room for.
const MAX_DATA_CELLS: u32 = 32_768;

/// The largest cell, in bytes: two would not fit the default datagram beside their headers.
const MAX_CELL: u32 = 1_024;

/// The least cells of parity that a code has: enough to repeat a few datagrams of a tiny string.
const LEAST_PARITY: u32 = 16;

/// How a string is cut, and how many cells of parity there are to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Code {
    /// Bytes of a cell, even.
    pub cell: u32,
    /// Data cells; the last may be filled up with zeros.
    pub data: u32,
    /// Cells of parity, a power of two.
    pub parity: u32,
}

impl Code {
    /// The code over a first flight of so many bytes. Cells of 64 bytes: a datagram that is lost takes few of them in
    /// vain, whatever it carried. `None` if the string is empty or longer than 8 MiB.
    pub fn of_flight(bytes: u32) -> Option<Self> {
        let code = Self::cut(bytes, 64, 8_192)?;
        Some(code.with_parity(code.data.next_power_of_two()))
    }

    /// The code over the transactions of a block, of so many bytes together. Cells of 192 bytes: a transaction that is
    /// lacking alone takes its own bytes and one cell more. `None` if there are none or more than 32 MiB.
    pub fn of_transactions(bytes: u32) -> Option<Self> {
        let code = Self::cut(bytes, 192, MAX_DATA_CELLS)?;
        Some(code.with_parity(code.data.div_ceil(4).next_power_of_two()))
    }

    /// The code over the lengths of so many transactions, four bytes each, that goes with `parity` cells of another.
    pub fn of_lengths(count: u32, parity: u32) -> Option<Self> {
        let mut group = 1;
        while count.div_ceil(group) > MAX_DATA_CELLS {
            group *= 2;
        }
        let code = Self {
            cell: 4 * group,
            data: count.div_ceil(group),
            parity,
        };
        (count > 0).then_some(code)
    }

    fn cut(bytes: u32, least: u32, most: u32) -> Option<Self> {
        // The field's words lie in blocks of 64 bytes.
        let cell = bytes.div_ceil(most).next_multiple_of(64).max(least);
        let fits = bytes > 0 && cell <= MAX_CELL;
        fits.then_some(Self {
            cell,
            data: bytes.div_ceil(cell),
            parity: 0,
        })
    }

    fn with_parity(self, parity: u32) -> Self {
        let parity = parity.clamp(LEAST_PARITY, MAX_PARITY_CELLS);
        Self { parity, ..self }
    }

    /// Bytes of a string that fills all its cells.
    pub fn padded_len(&self) -> usize {
        self.data as usize * self.cell as usize
    }

    /// All cells of parity, one after the other. What the string lacks at its end counts as zeros.
    pub fn encode(&self, string: &[u8]) -> Option<Vec<u8>> {
        let cell = self.cell as usize;
        let (data, parity) = (self.data as usize, self.parity as usize);
        let engine = DefaultEngine::new();
        let mut encoder = HighRateEncoder::new(data, parity, cell, engine, None).ok()?;
        let mut added = 0;
        for piece in string.chunks(cell).take(data) {
            added += 1;
            if piece.len() == cell {
                encoder.add_original_shard(piece).ok()?;
            } else {
                let mut last = piece.to_vec();
                last.resize(cell, 0);
                encoder.add_original_shard(&last).ok()?;
            }
        }
        let zeros = vec![0; cell];
        for _ in added..data {
            encoder.add_original_shard(&zeros).ok()?;
        }
        let encoded = encoder.encode().ok()?;
        let mut cells = Vec::with_capacity(parity * cell);
        encoded
            .recovery_iter()
            .for_each(|piece| cells.extend_from_slice(piece));
        Some(cells)
    }

    /// Fills in those cells of a string that `missing` names, ascending, from cells of parity. `string` is
    /// [`Self::padded_len`] long. False, and nothing done, if there are too few, or of another size.
    pub fn decode<'a>(
        &self,
        string: &mut [u8],
        missing: &[u32],
        parity: impl Iterator<Item = (u32, &'a [u8])>,
    ) -> bool {
        if missing.is_empty() {
            return true;
        }
        self.restore(string, missing, parity).is_some()
    }

    fn restore<'a>(
        &self,
        string: &mut [u8],
        missing: &[u32],
        parity: impl Iterator<Item = (u32, &'a [u8])>,
    ) -> Option<()> {
        let cell = self.cell as usize;
        let (data, recovery) = (self.data as usize, self.parity as usize);
        let engine = DefaultEngine::new();
        let mut decoder = HighRateDecoder::new(data, recovery, cell, engine, None).ok()?;
        let mut given = 0;
        for (number, piece) in parity.take(missing.len()) {
            decoder.add_recovery_shard(number as usize, piece).ok()?;
            given += 1;
        }
        if given < missing.len() {
            return None;
        }
        let mut gaps = missing.iter().peekable();
        for (number, piece) in string.chunks_exact(cell).take(data).enumerate() {
            if gaps.next_if(|gap| **gap as usize == number).is_none() {
                decoder.add_original_shard(number, piece).ok()?;
            }
        }
        let restored = decoder.decode().ok()?;
        for (number, piece) in restored.restored_original_iter() {
            let start = number * cell;
            string.get_mut(start..start + cell)?.copy_from_slice(piece);
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    /// The field and the code as the specification has them, in plain arithmetic.
    mod plain {
        /// x^16 + x^5 + x^3 + x^2 + 1.
        const POLYNOMIAL: u32 = 0x1_002d;

        const BASIS: [u16; 16] = [
            0x0001, 0xacca, 0x3c0e, 0x163e, 0xc582, 0xed2e, 0x914c, 0x4012, 0x6c98, 0x10d8, 0x6a72,
            0xb900, 0xfdb8, 0xfb34, 0xff38, 0x991e,
        ];

        pub fn element(coordinates: u16) -> u16 {
            let bits = (0..16).filter(|bit| coordinates >> bit & 1 == 1);
            bits.fold(0, |sum, bit| sum ^ BASIS[bit])
        }

        pub fn multiply(left: u16, right: u16) -> u16 {
            let mut product = 0u32;
            for bit in 0..16 {
                if right >> bit & 1 == 1 {
                    product ^= u32::from(left) << bit;
                }
            }
            for bit in (16..32).rev() {
                if product >> bit & 1 == 1 {
                    product ^= POLYNOMIAL << (bit - 16);
                }
            }
            product as u16
        }

        fn inverse(value: u16) -> u16 {
            // value^(2^16 - 2)
            (1..16)
                .fold((1, value), |(product, power), _| {
                    let power = multiply(power, power);
                    (multiply(product, power), power)
                })
                .0
        }

        /// Elements of the field that a cell stands for, in coordinates.
        pub fn words(cell: &[u8]) -> Vec<u16> {
            let pair = |block: &[u8], at: usize| {
                u16::from_le_bytes([block[at], block[block.len() / 2 + at]])
            };
            cell.chunks(64)
                .flat_map(|block| (0..block.len() / 2).map(move |at| pair(block, at)))
                .collect()
        }

        /// Cell `i` of parity over these data cells, as words.
        pub fn parity(data: &[Vec<u8>], m: usize, i: usize) -> Vec<u16> {
            let coordinates = |value: u16| (0..=u16::MAX).find(|at| element(*at) == value).unwrap();
            let width = words(&data[0]).len();
            let mut sum = vec![0u16; width];
            for (j, block) in data.chunks(m).enumerate() {
                let point = |t: usize| element((m * (j + 1) + t) as u16);
                let at = element(i as u16);
                for (t, cell) in block.iter().enumerate() {
                    // The value at `at` of the polynomial that is 1 at point t and 0 at the others.
                    let others = (0..m).filter(|other| *other != t);
                    let weight = others.fold(1, |weight, other| {
                        let above = at ^ point(other);
                        let below = point(t) ^ point(other);
                        multiply(weight, multiply(above, inverse(below)))
                    });
                    for (to, word) in sum.iter_mut().zip(words(cell)) {
                        *to ^= multiply(weight, element(word));
                    }
                }
            }
            sum.into_iter().map(coordinates).collect()
        }
    }

    fn bytes(seed: u64, count: usize) -> Vec<u8> {
        let mut random = StdRng::seed_from_u64(seed);
        (0..count).map(|_| random.random()).collect()
    }

    #[test]
    fn parity_is_what_the_specification_says() {
        for (cell, data, parity) in [(4, 3, 2), (8, 9, 4), (64, 5, 4), (66, 4, 8), (128, 7, 2)] {
            let code = Code { cell, data, parity };
            let string = bytes(7, code.padded_len());
            let cells: Vec<Vec<u8>> = string.chunks(cell as usize).map(<[u8]>::to_vec).collect();
            let encoded = code.encode(&string).unwrap();
            for (number, piece) in encoded.chunks(cell as usize).enumerate() {
                let wanted = plain::parity(&cells, parity as usize, number);
                assert_eq!(plain::words(piece), wanted, "{code:?} cell {number}");
            }
        }
    }

    /// `bip/vectors/parity.json`. What is not there yet is filled in with `WRITE_VECTORS=1`.
    #[test]
    fn vectors_hold() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/bip/vectors/parity.json");
        let mut file: serde_json::Value =
            serde_json::from_str(include_str!("../../../bip/vectors/parity.json")).unwrap();
        let hex =
            |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
        let fill = option_env!("WRITE_VECTORS").is_some();
        for vector in file["codes"].as_array_mut().unwrap() {
            let number = |name: &str| vector[name].as_u64().unwrap();
            let string: Vec<u8> = (0..number("bytes"))
                .map(|at| (at * number("step") % 251) as u8)
                .collect();
            let code = match vector["kind"].as_str().unwrap() {
                "flight" => Code::of_flight(string.len() as u32),
                "transactions" => Code::of_transactions(string.len() as u32),
                _ => Code::of_lengths(string.len() as u32 / 4, 16),
            };
            let code = code.unwrap();
            let (cell, parity) = (code.cell as usize, code.encode(&string).unwrap());
            let picked: Vec<String> = parity.chunks(cell).take(3).map(hex).collect();
            if fill {
                vector["cell"] = code.cell.into();
                vector["data"] = code.data.into();
                vector["parity"] = code.parity.into();
                vector["first_cells"] = picked.clone().into();
            }
            assert_eq!(vector["cell"], code.cell);
            assert_eq!(vector["data"], code.data);
            assert_eq!(vector["parity"], code.parity);
            assert_eq!(vector["first_cells"], serde_json::Value::from(picked));
        }
        if fill {
            let text = serde_json::to_string_pretty(&file).unwrap() + "\n";
            std::fs::write(path, text).unwrap();
        }
    }

    #[test]
    fn a_string_decides_its_code() {
        let code = |cell, data, parity| Some(Code { cell, data, parity });
        assert_eq!(Code::of_flight(0), None);
        assert_eq!(Code::of_flight(1), code(64, 1, 16));
        assert_eq!(Code::of_flight(17_000), code(64, 266, 512));
        assert_eq!(Code::of_flight(8_192 * 64 + 1), code(128, 4_097, 8_192));
        assert_eq!(Code::of_flight(8 << 20), code(1_024, 8_192, 8_192));
        assert_eq!(Code::of_flight((8 << 20) + 1), None);
        assert_eq!(Code::of_transactions(1), code(192, 1, 16));
        assert_eq!(Code::of_transactions(1_060_000), code(192, 5_521, 2_048));
        assert_eq!(Code::of_transactions(8 << 20), code(256, 32_768, 8_192));
        assert_eq!(Code::of_transactions(32 << 20), code(1_024, 32_768, 8_192));
        assert_eq!(Code::of_transactions((32 << 20) + 1), None);
        assert_eq!(Code::of_transactions(u32::MAX), None);
        assert_eq!(Code::of_lengths(2_499, 4_096), code(4, 2_499, 4_096));
        assert_eq!(Code::of_lengths(75_000, 64), code(16, 18_750, 64));
        assert_eq!(Code::of_lengths(0, 64), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_cells_come_back_from_as_many_of_parity(
            seed: u64,
            length in 1u32..40_000,
            share in 0.0f64..1.0,
            shift in 0u32..1_000,
        ) {
            let code = Code::of_transactions(length).unwrap();
            let string = bytes(seed, length as usize);
            let parity = code.encode(&string).unwrap();
            let mut random = StdRng::seed_from_u64(seed ^ 1);
            let mut missing: Vec<u32> =
                (0..code.data).filter(|_| random.random_bool(share)).collect();
            missing.truncate(code.parity as usize);
            let mut whole = string;
            whole.resize(code.padded_len(), 0);
            let mut holed = whole.clone();
            let size = code.cell as usize;
            for cell in &missing {
                holed[*cell as usize * size..][..size].fill(0xaa);
            }
            let cells: Vec<(u32, &[u8])> = (0..).zip(parity.chunks(size)).collect();
            let turned = cells.iter().cycle().skip((shift % code.parity) as usize).copied();
            let given = turned.take(code.parity as usize);
            prop_assert!(code.decode(&mut holed, &missing, given));
            prop_assert_eq!(&holed, &whole);
            if !missing.is_empty() {
                let few = cells.iter().copied().take(missing.len() - 1);
                prop_assert!(!code.decode(&mut holed, &missing, few));
            }
        }
    }

    #[test]
    fn cells_of_another_size_or_number_are_refused() {
        let code = Code::of_transactions(1_000).unwrap();
        let mut string = bytes(1, code.padded_len());
        let (short, whole) = ([0; 128], [0; 192]);
        assert!(!code.decode(&mut string, &[0], std::iter::once((0, &short[..]))));
        assert!(!code.decode(&mut string, &[0], std::iter::once((16, &whole[..]))));
        let twice = [(3, &whole[..]), (3, &whole[..])];
        assert!(!code.decode(&mut string, &[0, 1], twice.into_iter()));
    }
}

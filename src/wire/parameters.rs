//! SET_PARAMS: what a node tells about itself, as ascending pairs of key and value.
//!
//! ```text
//! CompactSize n <= 32 | n x (u8 key, CompactSize value)        keys strictly ascending
//! ```
//!
//! | key | meaning | values |
//! | --- | --- | --- |
//! | 1 | most that it wants to receive, kbit/s | 0 (no limit) to 2^32 - 1 |
//! | 2 | most that it will send, kbit/s | 0 (no limit) to 2^32 - 1 |
//! | 3 | preference, from bandwidth (0) to latency (255) | 0 to 255 |
//! | 4 | role it claims (a hint, unproven) | 0 to 255 |
//! | 5 | largest datagram it takes, bytes | 1,200 to 65,507 |
//! | 6 | push level it wants | 0 to 3 |
//! | 7 | jobs it holds open for this peer | 0 to 65,535 |
//! | 8 | push budget: datagrams it takes unasked, per job | 0 to 65,535 |
//! | 9 | TCP port where it takes control connections; 0: none | 0 to 65,535 |
//! | 10 | TCP port where it speaks Bitcoin's P2P protocol; 0: none | 0 to 65,535 |
//!
//! Keys that are not known are passed over, whatever their value.

use super::codec::{NoRoom, Reader, Writer, compact_size_len};
use super::error::WireError;
use super::structures::Body;
use super::{DEFAULT_MAX_DATAGRAM, MAX_DATAGRAM, MAX_PARAMETERS};
use arrayvec::ArrayVec;
use std::fmt;

/// One pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// What it is about.
    pub key: u8,
    /// In the unit of the key.
    pub value: u64,
}

/// A SET_PARAMS body: the pairs, borrowed from the wire or from whoever writes them.
#[derive(Clone, Copy)]
pub struct ParameterList<'a> {
    repr: Repr<'a>,
}

#[derive(Clone, Copy)]
enum Repr<'a> {
    Pairs(&'a [Parameter]),
    Wire { count: u32, bytes: &'a [u8] },
}

impl<'a> ParameterList<'a> {
    /// No parameters.
    pub const EMPTY: Self = Self {
        repr: Repr::Pairs(&[]),
    };

    /// These pairs; their keys ascend, as those of [`Parameters::pairs`] do.
    pub const fn new(pairs: &'a [Parameter]) -> Self {
        Self {
            repr: Repr::Pairs(pairs),
        }
    }

    /// How many pairs there are.
    pub const fn len(&self) -> u32 {
        match self.repr {
            Repr::Pairs(pairs) => pairs.len() as u32,
            Repr::Wire { count, .. } => count,
        }
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pairs in order, unknown ones too.
    pub fn iter(&self) -> impl Iterator<Item = Parameter> + Clone + use<'a> {
        let (pairs, bytes): (&'a [Parameter], &'a [u8]) = match self.repr {
            Repr::Pairs(pairs) => (pairs, &[]),
            Repr::Wire { bytes, .. } => (&[], bytes),
        };
        let mut reader = Reader::new(bytes);
        let on_wire = std::iter::from_fn(move || decode_pair(&mut reader).ok());
        pairs.iter().copied().chain(on_wire)
    }
}

fn decode_pair(reader: &mut Reader<'_>) -> Result<Parameter, WireError> {
    Ok(Parameter {
        key: reader.u8()?,
        value: reader.compact_size()?,
    })
}

impl<'a> Body<'a> for ParameterList<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let count = reader.count(MAX_PARAMETERS)?;
        let before = *reader;
        let mut last = None;
        for _ in 0..count {
            let pair = decode_pair(reader)?;
            if last.is_some_and(|last| pair.key <= last) {
                return Err(WireError::ParameterOrder);
            }
            Parameters::default().set(pair)?;
            last = Some(pair.key);
        }
        Ok(Self {
            repr: Repr::Wire {
                count,
                bytes: reader.read_since(&before),
            },
        })
    }

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), NoRoom> {
        writer.compact_size(u64::from(self.len()))?;
        match self.repr {
            Repr::Pairs(pairs) => pairs.iter().try_for_each(|pair| {
                writer.u8(pair.key)?;
                writer.compact_size(pair.value)
            }),
            Repr::Wire { bytes, .. } => writer.bytes(bytes),
        }
    }

    fn encoded_len(&self) -> usize {
        compact_size_len(u64::from(self.len()))
            + match self.repr {
                Repr::Pairs(pairs) => pairs
                    .iter()
                    .map(|pair| 1 + compact_size_len(pair.value))
                    .sum(),
                Repr::Wire { bytes, .. } => bytes.len(),
            }
    }
}

impl PartialEq for ParameterList<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Eq for ParameterList<'_> {}

impl fmt::Debug for ParameterList<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_map()
            .entries(self.iter().map(|pair| (pair.key, pair.value)))
            .finish()
    }
}

/// The parameters that version 1 defines; `None` where nothing was said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    /// Key 1: the most that the node wants to receive, kbit/s; 0 is no limit.
    pub max_down_kbit_s: Option<u32>,
    /// Key 2: the most that it will send, kbit/s; 0 is no limit.
    pub max_up_kbit_s: Option<u32>,
    /// Key 3: from bandwidth (0) to latency (255).
    pub preference: Option<u8>,
    /// Key 4: the role it claims.
    pub role: Option<u8>,
    /// Key 5: the largest datagram it takes, bytes (1,200 to 65,507).
    pub max_datagram: Option<u16>,
    /// Key 6: how much it wants unasked, 0 (nothing) to 3.
    pub push_level: Option<u8>,
    /// Key 7: how many jobs it holds open for this peer.
    pub max_jobs: Option<u16>,
    /// Key 8: how many datagrams it takes unasked, per job.
    pub push_budget_datagrams: Option<u16>,
    /// Key 9: TCP port where it takes control connections; 0: it takes none.
    pub control_port: Option<u16>,
    /// Key 10: TCP port where it speaks Bitcoin's P2P protocol; 0: it does not.
    pub bitcoin_port: Option<u16>,
}

impl Parameters {
    /// Bytes that the node takes unasked of a job, beyond hashes and short ids.
    pub fn push_budget_bytes(&self) -> u64 {
        let datagrams = self.push_budget_datagrams.unwrap_or(0);
        u64::from(datagrams) * u64::from(DEFAULT_MAX_DATAGRAM)
    }

    /// What a list says, over what is known already: keys that it leaves out keep their value.
    pub fn update(&mut self, list: &ParameterList<'_>) {
        for pair in list.iter() {
            // Values were checked in decoding; one that our own caller got wrong changes nothing.
            let _ = self.set(pair);
        }
    }

    /// What a list says.
    pub fn from_list(list: &ParameterList<'_>) -> Self {
        let mut parameters = Self::default();
        parameters.update(list);
        parameters
    }

    /// The pairs, for [`ParameterList::new`].
    pub fn pairs(&self) -> ArrayVec<Parameter, 10> {
        let values = [
            self.max_down_kbit_s.map(u64::from),
            self.max_up_kbit_s.map(u64::from),
            self.preference.map(u64::from),
            self.role.map(u64::from),
            self.max_datagram.map(u64::from),
            self.push_level.map(u64::from),
            self.max_jobs.map(u64::from),
            self.push_budget_datagrams.map(u64::from),
            self.control_port.map(u64::from),
            self.bitcoin_port.map(u64::from),
        ];
        (1..)
            .zip(values)
            .filter_map(|(key, value)| Some(Parameter { key, value: value? }))
            .collect()
    }

    fn set(&mut self, pair: Parameter) -> Result<(), WireError> {
        let value = pair.value;
        match pair.key {
            1 => self.max_down_kbit_s = Some(narrow(value)?),
            2 => self.max_up_kbit_s = Some(narrow(value)?),
            3 => self.preference = Some(narrow(value)?),
            4 => self.role = Some(narrow(value)?),
            5 => self.max_datagram = Some(within(value, DEFAULT_MAX_DATAGRAM, MAX_DATAGRAM)?),
            6 => self.push_level = Some(within(value, 0, 3)? as u8),
            7 => self.max_jobs = Some(narrow(value)?),
            8 => self.push_budget_datagrams = Some(narrow(value)?),
            9 => self.control_port = Some(narrow(value)?),
            10 => self.bitcoin_port = Some(narrow(value)?),
            _ => {}
        }
        Ok(())
    }
}

fn narrow<T: TryFrom<u64>>(value: u64) -> Result<T, WireError> {
    T::try_from(value).map_err(|_| WireError::ParameterValue)
}

fn within(value: u64, least: u16, most: u16) -> Result<u16, WireError> {
    let value = narrow(value)?;
    if (least..=most).contains(&value) {
        Ok(value)
    } else {
        Err(WireError::ParameterValue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8]) -> Result<Parameters, WireError> {
        ParameterList::decode(&mut Reader::new(bytes)).map(|list| Parameters::from_list(&list))
    }

    #[test]
    fn a_list_changes_only_what_it_names() {
        let mut known = decode(&[3, 1, 100, 3, 200, 6, 2]).expect("ascending");
        assert_eq!(
            (known.max_down_kbit_s, known.preference, known.push_level),
            (Some(100), Some(200), Some(2))
        );
        known.update(&ParameterList::new(&[Parameter { key: 3, value: 5 }]));
        assert_eq!(
            (known.max_down_kbit_s, known.preference),
            (Some(100), Some(5))
        );
        assert_eq!(
            Parameters::from_list(&ParameterList::new(&known.pairs())),
            known
        );
    }

    #[test]
    fn keys_ascend_and_values_keep_to_their_range() {
        assert_eq!(decode(&[2, 3, 1, 3, 1]), Err(WireError::ParameterOrder));
        assert_eq!(decode(&[2, 3, 1, 1, 1]), Err(WireError::ParameterOrder));
        assert_eq!(decode(&[1, 6, 4]), Err(WireError::ParameterValue));
        assert_eq!(
            decode(&[1, 5, 0xfd, 0xaf, 0x04]),
            Err(WireError::ParameterValue)
        );
        assert!(decode(&[1, 5, 0xfd, 0xb0, 0x04]).is_ok());
        assert_eq!(
            decode(&[1, 3, 0xfd, 0x00, 0x01]),
            Err(WireError::ParameterValue)
        );
        assert_eq!(decode(&[33]), Err(WireError::TooManyEntries));
        let unknown = [1, 200, 0xff, 0, 0, 0, 0, 0, 0, 0, 1];
        assert_eq!(decode(&unknown), Ok(Parameters::default()));
    }
}

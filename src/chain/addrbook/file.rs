//! The book as bytes, to be kept on disk.
//!
//! ```text
//! "BTAB" | u8 version = 1 | u8 locality | u64 flag | 16 bytes key
//! | u32 n | n x (u8 table | u8 network | host | u16 port | u8 door | u64 services
//!               | u32 last seen | u32 last try | u32 last success | u32 next try | u32 refuted
//!               | u8 failures | u8 streak
//!               | u8 advert, then if 1: u16 version | u16 control port | u16 data port | u32 met
//!               | u8 m <= 8 | m x 8 bytes source)
//! | u16 k | k x (8 bytes source | u16 good | u16 bad | u32 since)
//! | first 8 bytes of the double SHA-256 of all before
//! ```
//!
//! Integers are little-endian; sources and standings are in the order of their bytes or places. A book has one
//! form; whatever is not that form is refused with a reason, and the caller starts anew. Places follow from the key,
//! so they are not written. The key stays the same, else whoever has filled some buckets would be dealt new ones.

use arrayvec::ArrayVec;
use bitcoin::hashes::{Hash as _, sha256d};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::address::{Address, Door, Group, Host, Locality, admit};
use super::entry::{Entry, Table};
use super::places::Key;
use super::standing::Standing;
use super::{Book, BookRules, MAX_ENTRIES, MAX_SOURCES, MAX_STANDINGS};
use crate::chain::p2p::Advert;

/// Most bytes of a file.
///
/// Reason: every address with all its sources, and all standings; about 5.6 MB, so that a wrong file is not read.
pub const MAX_FILE_BYTES: usize = 64 + MAX_ENTRIES * ENTRY_BYTES + MAX_STANDINGS * 16;
/// Most bytes of an entry.
const ENTRY_BYTES: usize = 80 + 11 + MAX_SOURCES * Group::LEN;
const MAGIC: [u8; 4] = *b"BTAB";
const VERSION: u8 = 1;
const CHECKSUM_LEN: usize = 8;

/// Why bytes are no book of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BookError {
    /// Longer than [`MAX_FILE_BYTES`].
    #[error("the address book has {0} bytes, more than there can be")]
    TooLong(usize),
    /// It ends too soon or too late, or the checksum is wrong.
    #[error("the address book is damaged: {0}")]
    Damaged(&'static str),
    /// Of another program, or a newer version of this one.
    #[error("not an address book of version {VERSION}")]
    OtherFormat,
    /// Its claims are about another service bit.
    #[error("the address book is about the service flag {0:#x}")]
    OtherFlag(u64),
    /// It was kept for tests, or not.
    #[error("the address book is of another kind of network")]
    OtherLocality,
    /// The entry of this number breaks a rule.
    #[error("the address book is damaged: entry {0}: {1}")]
    Entry(usize, &'static str),
}

impl Book {
    /// The book as bytes; what is only for the moment (answers given, tests pending, counters) is left out.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.entries.len() * 80);
        out.extend(MAGIC);
        out.push(VERSION);
        out.push(self.rules.locality as u8);
        out.extend(self.rules.flag.to_le_bytes());
        out.extend(self.key.0);
        out.extend((self.entries.len() as u32).to_le_bytes());
        for id in self.index.values() {
            if let Some(entry) = self.entries.get(*id) {
                encode_entry(entry, &mut out);
            }
        }
        out.extend((self.standings.0.len() as u16).to_le_bytes());
        for (source, standing) in &self.standings.0 {
            out.extend(source.0);
            out.extend(standing.good.to_le_bytes());
            out.extend(standing.bad.to_le_bytes());
            out.extend(standing.since.to_le_bytes());
        }
        let sum = checksum(&out);
        out.extend(sum);
        out
    }

    /// The book that these bytes are, if it was kept under the same rules. Addresses of networks that are no longer
    /// reached are left out.
    ///
    /// # Errors
    /// Whatever [`Book::encode`] would not have written.
    pub fn decode(bytes: &[u8], rules: BookRules, seed: [u8; 32]) -> Result<Self, BookError> {
        if bytes.len() > MAX_FILE_BYTES {
            return Err(BookError::TooLong(bytes.len()));
        }
        let Some((body, sum)) = bytes.split_last_chunk::<CHECKSUM_LEN>() else {
            return Err(BookError::OtherFormat);
        };
        let mut reader = Reader(body);
        if reader.array() != Some(MAGIC) || reader.u8() != Some(VERSION) {
            return Err(BookError::OtherFormat);
        }
        if checksum(body) != *sum {
            return Err(BookError::Damaged("its checksum is wrong"));
        }
        let short = BookError::Damaged("it ends too soon");
        if reader.u8().ok_or(short)? != rules.locality as u8 {
            return Err(BookError::OtherLocality);
        }
        let flag = reader.u64().ok_or(short)?;
        if flag != rules.flag {
            return Err(BookError::OtherFlag(flag));
        }
        let key = Key(reader.array().ok_or(short)?);
        let mut book = Self::with_key(rules, key, StdRng::from_seed(seed));
        let count = reader.u32().ok_or(short)? as usize;
        let mut before = None;
        for number in 0..count.min(MAX_ENTRIES) {
            let entry = decode_entry(&mut reader).ok_or(BookError::Entry(number, "malformed"))?;
            if before.is_some_and(|before| before >= entry.address) {
                return Err(BookError::Entry(number, "out of order"));
            }
            before = Some(entry.address);
            book.restore(entry)
                .map_err(|reason| BookError::Entry(number, reason))?;
        }
        book.restore_standings(&mut reader).ok_or(short)?;
        if !reader.0.is_empty() {
            return Err(BookError::Damaged("it ends too late"));
        }
        Ok(book)
    }

    fn restore(&mut self, entry: Entry) -> Result<(), &'static str> {
        let rules = self.rules;
        if !rules.reachable.contain(&entry.address.host) {
            return Ok(());
        }
        admit(&entry.address, rules.locality, rules.reachable).map_err(|_| "not to be dialled")?;
        let flagged = entry.services & rules.flag != 0;
        let fits = match entry.table {
            Table::New => !flagged,
            Table::Claimed => flagged,
            Table::Tried => entry.last_success != 0,
            Table::Proven => entry.is_proven(),
        };
        let sourced = entry.is_claim(rules.flag) || entry.sources.is_empty();
        if !fits || !(entry.table.is_hearsay() || sourced) {
            return Err("in the wrong table");
        }
        let port = entry.advert.map(|advert| advert.control_port);
        if port == Some(0) || port.is_some() && !flagged {
            return Err("a relay without a port or the flag");
        }
        let control = port.map(|port| entry.address.with_control_port(port));
        let stream = match entry.address.door {
            Door::Bitcoin => control,
            Door::Control if control.is_none_or(|control| control == entry.address) => {
                Some(entry.address)
            }
            Door::Control => return Err("another port than its own"),
        };
        if stream.is_some_and(|stream| self.id_of(&stream).is_some()) {
            return Err("its control stream is another's");
        }
        let (table, address, sources) = (entry.table, entry.address, entry.sources.clone());
        let own = [address.group()];
        let holds: &[Group] = if table.is_hearsay() { &sources } else { &own };
        if holds.is_empty() {
            return Err("without a place");
        }
        let id = self.entries.insert(entry);
        for source in holds {
            let place = self.key.place(table, &address, source);
            if self.at(table, place).is_some() {
                return Err("its place is taken");
            }
            self.place_mut(table).put(place, id);
        }
        self.index.insert(address, id);
        if let (Door::Bitcoin, Some(control)) = (address.door, control) {
            self.controls.insert(control, id);
        }
        Ok(())
    }

    fn restore_standings(&mut self, reader: &mut Reader<'_>) -> Option<()> {
        let count = usize::from(reader.u16()?);
        for _ in 0..count.min(MAX_STANDINGS) {
            let source = Group(reader.array()?);
            let standing = Standing {
                good: reader.u16()?,
                bad: reader.u16()?,
                since: reader.u32()?,
            };
            self.standings.0.insert(source, standing);
        }
        Some(())
    }
}

pub(super) fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_LEN] {
    let hash = sha256d::Hash::hash(bytes).to_byte_array();
    hash.first_chunk().copied().unwrap_or_default()
}

fn encode_entry(entry: &Entry, out: &mut Vec<u8>) {
    out.push(entry.table as u8);
    out.push(entry.address.host.network());
    out.extend(entry.address.host.as_bytes());
    out.extend(entry.address.port.to_le_bytes());
    out.push(entry.address.door as u8);
    out.extend(entry.services.to_le_bytes());
    for time in [
        entry.last_seen,
        entry.last_try,
        entry.last_success,
        entry.next_try,
        entry.refuted,
    ] {
        out.extend(time.to_le_bytes());
    }
    out.extend([
        entry.failures,
        entry.streak,
        u8::from(entry.advert.is_some()),
    ]);
    if let Some(advert) = entry.advert {
        for number in [advert.version, advert.control_port, advert.data_port] {
            out.extend(number.to_le_bytes());
        }
        out.extend(entry.met.to_le_bytes());
    }
    out.push(entry.sources.len() as u8);
    entry.sources.iter().for_each(|source| out.extend(source.0));
}

fn decode_entry(reader: &mut Reader<'_>) -> Option<Entry> {
    let table = reader.u8()?;
    let table = *Table::ALL.iter().find(|one| **one as u8 == table)?;
    let address = reader.address()?;
    let services = reader.u64()?;
    let mut entry = Entry::new(address, services, reader.u32()?, table);
    entry.last_try = reader.u32()?;
    entry.last_success = reader.u32()?;
    entry.next_try = reader.u32()?;
    entry.refuted = reader.u32()?;
    entry.failures = reader.u8()?;
    entry.streak = reader.u8()?;
    match reader.u8()? {
        0 => {}
        1 => {
            entry.advert = Some(Advert {
                version: reader.u16()?,
                control_port: reader.u16()?,
                data_port: reader.u16()?,
            });
            entry.met = reader.u32()?;
        }
        _ => return None,
    }
    let count = usize::from(reader.u8()?);
    if count > MAX_SOURCES {
        return None;
    }
    let mut sources = ArrayVec::new();
    for _ in 0..count {
        sources.push(Group(reader.array()?));
    }
    entry.sources = sources;
    Some(entry)
}

/// What is left of the bytes.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn address(&mut self) -> Option<Address> {
        let network = self.u8()?;
        let len = match network {
            1 => 4,
            2 | 6 => 16,
            4 | 5 => 32,
            _ => return None,
        };
        let (host, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(Address {
            host: Host::from_bip155(network, host)?,
            port: self.u16()?,
            door: match self.u8()? {
                0 => Door::Bitcoin,
                1 => Door::Control,
                _ => return None,
            },
        })
    }
}

const _: () = assert!(Locality::Public as u8 == 0 && Locality::Local as u8 == 1);

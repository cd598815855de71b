//! Integers, CompactSize and byte strings, read from a slice and written into one.
//!
//! CompactSize is that of Bitcoin's P2P protocol (not Bitcoin Core's other "VARINT"): one byte below 0xfd,
//! else 0xfd, 0xfe, 0xff and two, four, eight bytes little-endian. Only the shortest form is taken.

use super::error::WireError;
use thiserror::Error;

/// The buffer ends before what had to be written. Nothing useful stands in what was written of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no room left in the buffer")]
pub struct NoRoom;

/// Bytes that the CompactSize of `value` takes: 1, 3, 5 or 9.
pub const fn compact_size_len(value: u64) -> usize {
    match value {
        0..=0xfc => 1,
        0xfd..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

/// Reads fields off the front of a slice. It never looks past the end and never copies.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader at the first byte of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes not yet read.
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Whether everything has been read.
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `len` bytes.
    #[inline]
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (head, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    /// All bytes that are left.
    pub fn take_rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// The next `N` bytes as an array.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], WireError> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    /// One byte.
    #[inline]
    pub fn u8(&mut self) -> Result<u8, WireError> {
        let [byte] = self.array()?;
        Ok(*byte)
    }

    /// Two bytes, little-endian.
    #[inline]
    pub fn u16(&mut self) -> Result<u16, WireError> {
        Ok(u16::from_le_bytes(*self.array()?))
    }

    /// Four bytes, little-endian.
    #[inline]
    pub fn u32(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_le_bytes(*self.array()?))
    }

    /// Eight bytes, little-endian.
    #[inline]
    pub fn u64(&mut self) -> Result<u64, WireError> {
        Ok(u64::from_le_bytes(*self.array()?))
    }

    /// A CompactSize in its shortest form.
    #[inline]
    pub fn compact_size(&mut self) -> Result<u64, WireError> {
        let (value, least) = match self.u8()? {
            0xff => (self.u64()?, 0x1_0000_0000),
            0xfe => (u64::from(self.u32()?), 0x1_0000),
            0xfd => (u64::from(self.u16()?), 0xfd),
            byte => return Ok(u64::from(byte)),
        };
        if value < least {
            return Err(WireError::NonMinimalSize);
        }
        Ok(value)
    }

    /// A CompactSize whose field holds 32 bits.
    #[inline]
    pub fn compact_u32(&mut self) -> Result<u32, WireError> {
        u32::try_from(self.compact_size()?).map_err(|_| WireError::TooLarge)
    }

    /// A CompactSize that counts entries of a list, at most `max`.
    #[inline]
    pub fn count(&mut self, max: u32) -> Result<u32, WireError> {
        let count = self.compact_u32()?;
        if count > max {
            return Err(WireError::TooManyEntries);
        }
        Ok(count)
    }

    /// Refuses bytes after the last field.
    pub const fn finish(&self) -> Result<(), WireError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(WireError::TrailingBytes)
        }
    }

    /// What was read since `before`, a copy of this reader made earlier.
    pub fn read_since(&self, before: &Self) -> &'a [u8] {
        let len = before.rest.len().saturating_sub(self.rest.len());
        before.rest.get(..len).unwrap_or_default()
    }
}

/// Writes fields into a slice, and knows how much of it is left.
#[derive(Debug)]
pub struct Writer<'a> {
    buffer: &'a mut [u8],
    position: usize,
}

impl<'a> Writer<'a> {
    /// A writer at the first byte of `buffer`.
    pub const fn new(buffer: &'a mut [u8]) -> Self {
        Self {
            buffer,
            position: 0,
        }
    }

    /// Bytes written so far.
    pub const fn position(&self) -> usize {
        self.position
    }

    /// Bytes that can still be written.
    pub const fn remaining(&self) -> usize {
        self.buffer.len() - self.position
    }

    /// What has been written.
    pub fn written(&self) -> &[u8] {
        self.buffer.get(..self.position).unwrap_or_default()
    }

    /// Takes back everything written after `position`; does nothing if that lies ahead.
    pub fn rewind(&mut self, position: usize) {
        self.position = self.position.min(position);
    }

    /// The next `len` bytes of the buffer, to be filled by the caller.
    #[inline]
    pub fn reserve(&mut self, len: usize) -> Result<&mut [u8], NoRoom> {
        let end = self.position.checked_add(len).ok_or(NoRoom)?;
        let space = self.buffer.get_mut(self.position..end).ok_or(NoRoom)?;
        self.position = end;
        Ok(space)
    }

    /// All of the buffer that is left, without taking it; [`Writer::advance`] takes what was filled.
    pub(crate) fn unwritten(&mut self) -> &mut [u8] {
        self.buffer.get_mut(self.position..).unwrap_or_default()
    }

    /// Counts `len` bytes of [`Writer::unwritten`] as written, at most all of them.
    pub(crate) fn advance(&mut self, len: usize) {
        self.position = self.position.saturating_add(len).min(self.buffer.len());
    }

    /// `bytes` as they are.
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), NoRoom> {
        self.reserve(bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    /// `len` bytes of zero.
    pub fn zeros(&mut self, len: usize) -> Result<(), NoRoom> {
        self.reserve(len)?.fill(0);
        Ok(())
    }

    /// One byte.
    #[inline]
    pub fn u8(&mut self, value: u8) -> Result<(), NoRoom> {
        self.bytes(&[value])
    }

    /// Two bytes, little-endian.
    #[inline]
    pub fn u16(&mut self, value: u16) -> Result<(), NoRoom> {
        self.bytes(&value.to_le_bytes())
    }

    /// Four bytes, little-endian.
    #[inline]
    pub fn u32(&mut self, value: u32) -> Result<(), NoRoom> {
        self.bytes(&value.to_le_bytes())
    }

    /// Eight bytes, little-endian.
    #[inline]
    pub fn u64(&mut self, value: u64) -> Result<(), NoRoom> {
        self.bytes(&value.to_le_bytes())
    }

    /// A CompactSize in its shortest form.
    #[inline]
    pub fn compact_size(&mut self, value: u64) -> Result<(), NoRoom> {
        match value {
            0..=0xfc => self.u8(value as u8),
            0xfd..=0xffff => {
                self.u8(0xfd)?;
                self.u16(value as u16)
            }
            0x1_0000..=0xffff_ffff => {
                self.u8(0xfe)?;
                self.u32(value as u32)
            }
            _ => {
                self.u8(0xff)?;
                self.u64(value)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn compact_size_takes_its_shortest_form_only() {
        for (bytes, wanted) in [
            (&[0xfc][..], Ok(0xfc)),
            (&[0xfd, 0xfd, 0x00], Ok(0xfd)),
            (&[0xfd, 0xfc, 0x00], Err(WireError::NonMinimalSize)),
            (&[0xfd, 0xff, 0xff], Ok(0xffff)),
            (&[0xfe, 0xff, 0xff, 0, 0], Err(WireError::NonMinimalSize)),
            (&[0xfe, 0, 0, 1, 0], Ok(0x1_0000)),
            (
                &[0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0],
                Err(WireError::NonMinimalSize),
            ),
            (&[0xff, 0, 0, 0, 0, 1, 0, 0, 0], Ok(0x1_0000_0000)),
            (&[], Err(WireError::Truncated)),
            (&[0xfd, 0xfd], Err(WireError::Truncated)),
        ] {
            assert_eq!(Reader::new(bytes).compact_size(), wanted, "{bytes:02x?}");
        }
        assert_eq!(
            Reader::new(&[0xff, 0, 0, 0, 0, 1, 0, 0, 0]).compact_u32(),
            Err(WireError::TooLarge)
        );
    }

    #[test]
    fn a_full_buffer_refuses_and_keeps_its_position() {
        let mut buffer = [0; 3];
        let mut writer = Writer::new(&mut buffer);
        writer.u16(0x0201).expect("two of three bytes");
        assert_eq!(writer.u16(0), Err(NoRoom));
        assert_eq!((writer.position(), writer.remaining()), (2, 1));
        writer.u8(3).expect("one byte is left");
        assert_eq!(writer.written(), [1, 2, 3]);
        writer.rewind(1);
        writer.rewind(2);
        assert_eq!(writer.written(), [1]);
        assert_eq!(writer.reserve(usize::MAX), Err(NoRoom));
    }

    proptest! {
        #[test]
        fn compact_size_round_trips(value in any::<u64>(), shift in 0u32..64) {
            let value = value >> shift;
            let mut buffer = [0; 9];
            let mut writer = Writer::new(&mut buffer);
            writer.compact_size(value).expect("nine bytes hold any");
            prop_assert_eq!(writer.position(), compact_size_len(value));
            let mut reader = Reader::new(writer.written());
            prop_assert_eq!(reader.compact_size(), Ok(value));
            prop_assert_eq!(reader.finish(), Ok(()));
        }
    }
}

//! The end of a job: the last check, and the block as bytes.

use bytes::{BufMut, Bytes, BytesMut};

use super::job::Job;
use super::shelf::Shelf;
use crate::mempool::Transaction;
use crate::merkle::{Hash, hash};
use crate::time::Time;

impl Job {
    /// Whether every transaction is verified and the block can be put together.
    pub fn is_ready(&self) -> bool {
        !self.is_complete()
            && self.is_anchored()
            && self.verified_chunks as usize == self.chunks.len()
    }

    /// Checks the txid tree against the header and writes the block out. Its transactions lie in the block from then
    /// on, so that what they came in is let go.
    ///
    /// # Errors
    /// When all transactions are those of the witness tree and yet not those of the header: then the
    /// block itself is invalid, and whoever relayed it did no wrong.
    pub fn assemble(
        &mut self,
        now: Time,
        shelf: Option<&dyn Shelf>,
    ) -> Result<Bytes, &'static str> {
        let count = self.geometry.count();
        let mut txids: Vec<Hash> = Vec::with_capacity(count as usize);
        let mut size = self.header.len() + 5;
        for index in 0..count {
            let transaction = self.transaction(index).ok_or("transaction missing")?;
            txids.push(transaction.txid());
            size += transaction.len();
        }
        let root = hash::root(&txids);
        if root.mutated || root.hash != self.header[36..68] {
            return Err("bad-txnmrklroot");
        }
        let mut block = BytesMut::with_capacity(size);
        block.put_slice(&self.header);
        put_compact_size(&mut block, count);
        for index in 0..count {
            if let Some(transaction) = self.transaction(index) {
                block.put_slice(transaction.bytes());
            }
        }
        let known = shelf.and_then(|shelf| shelf.block(&self.hash));
        let block = match known.filter(|known| *known == block) {
            Some(known) => known,
            None => block.freeze(),
        };
        let mut end = block.len();
        for index in (0..count).rev() {
            let length = self.transaction(index).map_or(0, Transaction::len);
            let start = end.saturating_sub(length);
            self.keep_in(index, block.slice(start..end));
            end = start;
        }
        self.block_bytes = u32::try_from(block.len()).map_err(|_| "block too large")?;
        self.completed = Some(now);
        self.block = Some(block.clone());
        Ok(block)
    }
}

/// Bitcoin's CompactSize, in its shortest form.
fn put_compact_size(out: &mut BytesMut, value: u32) {
    match value {
        0..=0xfc => out.put_u8(value as u8),
        0xfd..=0xffff => {
            out.put_u8(0xfd);
            out.put_u16_le(value as u16);
        }
        _ => {
            out.put_u8(0xfe);
            out.put_u32_le(value);
        }
    }
}

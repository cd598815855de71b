//! A job's strings, coded: what parity of a first flight and of the transactions is sent, and what they must hash to.

use super::*;
use crate::relay::parity::Coded;
use crate::relay::parity::flight::Layout;
use crate::relay::schedule::first_row_level;
use crate::wire::ParityKind;

impl Job {
    /// Where the parts of a first flight lie in its string.
    pub fn flight_layout(&self, kind: ParityKind) -> Option<Layout> {
        Layout::new(
            self.geometry,
            first_row_level(&self.geometry),
            self.chunk_level(),
            kind,
        )
    }

    /// Parity of a string, made when it is first asked for. `None` while something of the string is not verified here, or
    /// when it has no code.
    pub fn coded(&mut self, kind: ParityKind) -> Option<&Coded> {
        let place = usize::from(kind.to_wire());
        if self.coded.get(place)?.is_none() {
            let coded = match kind {
                ParityKind::Transactions => self.code_transactions()?,
                ParityKind::Flight | ParityKind::Anchor => self.code_flight(kind)?,
            };
            *self.coded.get_mut(place)? = Some(coded);
        }
        self.coded.get(place)?.as_ref()
    }

    fn code_flight(&self, kind: ParityKind) -> Option<Coded> {
        let layout = self.flight_layout(kind)?;
        let key = ShortIdKey::new(&self.header, 0);
        let string = layout.string(
            self.branch(),
            |node| self.verified(node).copied(),
            |hash| key.short_id(hash),
            self.transaction(0)?.bytes(),
        )?;
        Coded::of_flight(&string)
    }

    fn code_transactions(&self) -> Option<Coded> {
        let block = self.block.as_ref()?;
        let lengths = || self.transactions().skip(1).map(|one| one.len() as u32);
        let body: u32 = lengths().sum();
        let start = block.len().checked_sub(body as usize)?;
        Coded::of_transactions(block.get(start..)?, &lengths().collect::<Vec<u32>>())
    }

    /// Whether the node of a chunk is verified.
    pub fn knows_chunk(&self, chunk: u32) -> bool {
        let node = self.geometry.node(self.chunk_level(), chunk);
        node.is_some_and(|node| self.verified(node).is_some())
    }

    /// Whether a chunk hashes to its verified node with these transactions in place of those that are missing.
    pub fn would_verify<'a>(
        &'a self,
        chunk: u32,
        found: impl Fn(u32) -> Option<&'a Transaction>,
    ) -> bool {
        let Some(node) = self.geometry.node(self.chunk_level(), chunk) else {
            return false;
        };
        let hash = |leaf: u32| {
            let place = self.geometry.leaf(leaf)?;
            if leaf == 0 && self.has_commitment() {
                return Some((place, [0; 32]));
            }
            let known = self.verified(place).copied();
            let wtxid = known.or_else(|| match self.leaf(leaf) {
                Leaf::Held(transaction, _) | Leaf::Verified(transaction) => {
                    Some(transaction.wtxid())
                }
                Leaf::Missing => Some(found(leaf)?.wtxid()),
            })?;
            // A hash that is known decides, whatever was found for it.
            let fits = found(leaf).is_none_or(|found| found.wtxid() == wtxid);
            fits.then_some((place, wtxid))
        };
        let leaves: Option<Vec<_>> = self.geometry.leaves(node).map(hash).collect();
        leaves
            .and_then(|leaves| fold(&self.geometry, node, leaves.into_iter()).ok())
            .is_some_and(|folded| self.verified(node) == Some(&folded))
    }
}

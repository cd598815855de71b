//! PARITY: cells over a first flight, and over the transactions.

use super::*;
use crate::relay::parity::ParityPush;
use crate::relay::parity::amount::spare_datagrams;
use crate::wire::{DEFAULT_MAX_DATAGRAM, Parity, ParityKind};

/// Most cells in one frame: the wire's own bound, which no datagram of ordinary size reaches.
const MAX_CELLS: u32 = 64;

/// Parity for transactions that are lost together, in percent of their bytes: those of one datagram begin and end within
/// cells, and so take one cell more than they fill.
const EDGES_PERCENT: u64 = 130;

impl Pen<'_, '_> {
    pub(super) fn write_flight_parity(&mut self) -> bool {
        let Some(mut push) = self.peer.flight_parity.take() else {
            return true;
        };
        let done = self.write_parity(&mut push);
        self.peer.flight_parity = (push.left > 0).then_some(push);
        done
    }

    /// Parity of the transactions; not before all that was asked for or pushed has gone.
    pub(super) fn write_body_parity(&mut self) -> bool {
        self.plan_tail();
        let Some(mut push) = self.peer.body_parity.take() else {
            return true;
        };
        let done = self.write_parity(&mut push);
        self.peer.body_parity = (push.left > 0).then_some(push);
        done
    }

    /// The last of a body that is pushed whole has gone: what may be lost of it, and is not yet known to be here or
    /// there, is made good by parity.
    fn plan_tail(&mut self) {
        if !self.peer.takes_all || !self.peer.ready.is_empty() || !self.job.is_complete() {
            return;
        }
        self.peer.takes_all = false;
        let under_way = self.target.in_flight / u64::from(DEFAULT_MAX_DATAGRAM);
        let spare = spare_datagrams(under_way as u32, self.target.loss);
        let bytes = u64::from(spare) * u64::from(DEFAULT_MAX_DATAGRAM) * EDGES_PERCENT / 100;
        let first = self.target.slot.wrapping_mul(0x9e37_79b9);
        let push = ParityPush::new(ParityKind::Transactions, first, bytes);
        self.peer.body_parity = (bytes > 0).then_some(push);
    }

    /// Writes as much parity as fits. False when the room was not enough.
    fn write_parity(&mut self, push: &mut ParityPush) -> bool {
        if self.peer.has_all() || !self.peer.is_aware() {
            push.left = 0;
            return true;
        }
        let (job, _) = name_of(self.id, self.peer);
        // While something of the string is not here, it waits.
        let Some(coded) = self.job.coded(push.kind) else {
            return true;
        };
        let total = coded.count();
        if push.planned == 0 {
            push.next %= total;
            let cells = push.left.div_ceil(coded.cell_len as u64);
            push.planned = u32::try_from(cells).unwrap_or(u32::MAX).min(total);
            push.left = u64::from(push.planned) * coded.cell_len as u64;
        }
        while push.left > 0 {
            let room = self
                .writer
                .remaining()
                .saturating_sub(Parity::frame_len(0, 0));
            let left = (push.left / coded.cell_len as u64).max(1) as usize;
            let count = (room / coded.cell_len).min(left) as u32;
            let count = count.min(MAX_CELLS).min(total - push.next);
            if count == 0 {
                // A cell that fits no datagram of this session is not sent at all.
                if self.target.fresh_room < Parity::frame_len(1, coded.cell_len) {
                    push.left = 0;
                    return true;
                }
                return false;
            }
            let message = Message::Parity(Parity {
                job,
                kind: push.kind,
                bytes: coded.bytes,
                planned: push.planned,
                first: push.next,
                count: count as u8,
                cells: coded.cells(push.next, count),
            });
            if message.write_frame(self.writer).is_err() {
                return false;
            }
            let bytes = u64::from(count) * coded.cell_len as u64;
            push.left = push.left.saturating_sub(bytes);
            push.next = (push.next + count) % total;
            self.items.push(Item::Parity);
        }
        true
    }
}

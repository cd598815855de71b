//! HASHES: laps, branches and short ids of what is verified here.

use super::*;

impl Pen<'_, '_> {
    pub(super) fn write_hash_answers(&mut self) -> bool {
        if self.peer.hashes_blocked {
            return true;
        }
        for _ in 0..self.peer.wanted_hashes.len() {
            let Some(mut want) = self.peer.wanted_hashes.pop_front() else {
                break;
            };
            match self.write_hashes(&mut want) {
                Written::All => {}
                // It stands until it can be served.
                Written::Unknown => self.peer.wanted_hashes.push_back(want),
                Written::NoRoom => {
                    self.peer.wanted_hashes.push_front(want);
                    return false;
                }
            }
        }
        self.peer.hashes_blocked = true;
        true
    }

    /// Writes as much of a want as fits, and shortens it by that.
    pub(super) fn write_hashes(&mut self, want: &mut HashWant) -> Written {
        if want.tree == Tree::Txid {
            return self.write_branch(want);
        }
        if want.short {
            return self.write_short_ids(want);
        }
        while !want.range.is_empty() {
            let Some(lap) = self.next_lap(want) else {
                return Written::All;
            };
            let Some(flat) = lap.flat() else {
                return Written::All;
            };
            let nodes: Option<Vec<Node>> = lap.nodes(&self.job.geometry).map(Iterator::collect);
            let hashes: Option<Vec<Hash>> = nodes
                .unwrap_or_default()
                .into_iter()
                .map(|node| self.job.verified(node).copied())
                .collect();
            let Some(mut hashes) = hashes else {
                return Written::Unknown;
            };
            if self.target.lie && want.around > 0 {
                alter_hash(&mut hashes);
            }
            let (job, _) = name_of(self.id, self.peer);
            match Hashes::write_full(self.writer, job, Tree::Witness, &lap, &hashes) {
                Ok(_) => {}
                Err(_) => return Written::NoRoom,
            }
            self.peer.served_bytes += 32 * hashes.len() as u64;
            let done = want.range.start..flat.start + flat.count;
            want.range.start = done.end;
            self.items.push(Item::Hashes(
                self.id,
                HashWant {
                    range: done,
                    ..want.clone()
                },
            ));
        }
        Written::All
    }

    /// The next lap of a want: as many of its nodes as a fresh datagram takes.
    pub(super) fn next_lap(&self, want: &HashWant) -> Option<Lap> {
        let geometry = self.job.geometry;
        let first = geometry.node(want.level, want.range.start)?;
        let ancestor = geometry.ancestor(first, want.around)?;
        let below = geometry.descendants(ancestor, want.level);
        let end = want.range.end.min(below.end);
        let mut step = LAP_STEP.max(1);
        loop {
            let stop = ((want.range.start / step + 1) * step).min(end);
            let lap = geometry.lap(ancestor, want.level, want.range.start..stop)?;
            if step == 1 || Hashes::frame_len_of(&lap, 32) <= self.target.fresh_room {
                return Some(lap);
            }
            step /= 2;
        }
    }

    pub(super) fn write_branch(&mut self, want: &HashWant) -> Written {
        let branch = self.job.branch();
        if branch.is_empty() {
            return Written::Unknown;
        }
        let run: Run = self.job.geometry.branch_of_first();
        let lap = Lap::of_root(run);
        let (job, _) = name_of(self.id, self.peer);
        match Hashes::write_full(self.writer, job, Tree::Txid, &lap, branch) {
            Ok(_) => {
                self.items.push(Item::Hashes(self.id, want.clone()));
                Written::All
            }
            Err(_) => Written::NoRoom,
        }
    }

    pub(super) fn write_short_ids(&mut self, want: &mut HashWant) -> Written {
        let geometry = self.job.geometry;
        while want.range.start < want.range.end {
            let chunk = self.job.chunk_of(want.range.start);
            let leaves = self.job.chunk_leaves(chunk);
            let Some(node) = geometry.node(self.job.chunk_level(), chunk) else {
                return Written::All;
            };
            let known = self
                .job
                .chunks
                .get(chunk as usize)
                .is_some_and(|chunk| chunk.hashes_known);
            if !known {
                return Written::Unknown;
            }
            let Some(lap) = geometry.lap(node, geometry.depth(), leaves.clone()) else {
                return Written::All;
            };
            let (job, nonce) = name_of(self.id, self.peer);
            let key = ShortIdKey::new(&self.job.header, nonce);
            let mut entries: Vec<ShortEntry> = leaves
                .clone()
                .filter_map(|leaf| self.job.verified(geometry.leaf(leaf)?))
                .map(|wtxid| ShortEntry::Short(key.short_id(wtxid)))
                .collect();
            if self.target.lie
                && let Some(ShortEntry::Short(id)) = entries.last_mut()
            {
                *id ^= 1;
            }
            let Some(sequence) = HashSequence::short(&entries, SHORT_ID_BYTES) else {
                return Written::All;
            };
            let Some(flat) = lap.flat() else {
                return Written::All;
            };
            let runs = [WireRun::new(flat, sequence)];
            let message = Message::Hashes(Hashes {
                job,
                tree: Tree::Witness,
                lap: WireLap::new(&lap, &runs),
            });
            if message.write_frame(self.writer).is_err() {
                return Written::NoRoom;
            }
            self.peer.served_bytes += 6 * entries.len() as u64;
            want.range.start = leaves.end;
            self.note_forwarded(geometry.depth(), &leaves);
            self.items.push(Item::Hashes(
                self.id,
                HashWant {
                    range: leaves,
                    ..want.clone()
                },
            ));
        }
        Written::All
    }
}

/// How writing hashes ended.
pub(super) enum Written {
    All,
    /// They are not verified here.
    Unknown,
    NoRoom,
}

/// Test option: a lie about hashes.
pub(super) fn alter_hash(hashes: &mut [Hash]) {
    if let Some(byte) = hashes.first_mut().and_then(|hash| hash.first_mut()) {
        *byte ^= 1;
    }
}

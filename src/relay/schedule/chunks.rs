//! Asking for what describes the chunks.

use super::*;

impl Asks {
    /// Takes the cache for cold once the chunks that are described show that it lacks most of them.
    pub(super) fn judge_cache(&mut self, job: &Job) {
        if self.cold {
            return;
        }
        let (mut described, mut missing) = (0, 0);
        for (index, chunk) in (0..).zip(&job.chunks) {
            if chunk.is_described() && !chunk.done {
                described += job.chunk_leaves(index).len();
                missing += chunk.missing as usize;
            } else if chunk.done {
                described += job.chunk_leaves(index).len();
            }
        }
        self.cold = described >= 64 && missing * 2 > described;
    }

    /// Asks for the description of chunks, and for inner rows of those that lack much.
    pub(super) fn review_chunks(&mut self, job: &Job, parent: &PeerView, now: Time) {
        let blind = self.blind_deadline(parent);
        let deadline = self.flight_deadline(parent);
        let expected = job.expected_transaction_bytes();
        for chunk in 0..job.chunks.len() as u32 {
            let Some(state) = job.chunks.get(chunk as usize) else {
                continue;
            };
            if state.done || state.hashes_known {
                continue;
            }
            let leaves = job.chunk_leaves(chunk);
            if state.missing == 0
                && let Some(node) = job.geometry.node(job.chunk_level(), chunk)
            {
                // All is held and does not fold: some of it is false, and was no candidate of the tree; or
                // the row above is still under way.
                if job.verified(node).is_some() || now >= deadline {
                    self.want_leaves_below(job, node);
                } else {
                    self.wake_at(deadline);
                }
                continue;
            }
            if self.rows_asked[chunk as usize] {
                if !state.is_described() && now < blind {
                    // What nobody is asked for is asked for then.
                    self.wake_at(blind);
                }
                continue;
            }
            if !state.is_described() && now < blind {
                if now < deadline {
                    self.wake_at(deadline);
                } else {
                    self.wake_at(blind);
                    self.ask_hashes(HashWant {
                        tree: Tree::Witness,
                        short: true,
                        around: job.chunk_level(),
                        level: job.geometry.depth(),
                        range: leaves,
                    });
                }
                continue;
            }
            if state.missing.saturating_mul(expected) < ROW_FROM_BYTES {
                continue;
            }
            self.rows_asked[chunk as usize] = true;
            let height = (0..=3)
                .rev()
                .find(|height| expected << height <= ROW_GRAIN_BYTES)
                .unwrap_or(0);
            let depth = job.geometry.depth();
            let level = depth.saturating_sub(height);
            if level <= job.chunk_level() {
                continue;
            }
            let first = leaves.start >> (depth - level);
            let last = (leaves.end - 1) >> (depth - level);
            self.ask_hashes(HashWant {
                tree: Tree::Witness,
                short: false,
                around: job.chunk_level(),
                level,
                range: first..last + 1,
            });
        }
    }
}

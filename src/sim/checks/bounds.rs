//! How much an engine may hold of each thing at most, in figures of this file's own: from the specification, the README
//! and the engine's documentation, not from its constants.

use crate::relay::{EngineConfig, Held};

/// What an engine holds more of than it may, and how much.
pub fn beyond(held: &Held, config: &EngineConfig) -> Vec<(&'static str, usize)> {
    let block = config.max_block_bytes as usize;
    let transactions = config.max_transactions as usize;
    let limits = [
        // Sixteen more while their last bytes are being taken.
        ("sessions", held.sessions, config.max_peers + 16),
        ("jobs under way", held.open_jobs, 8),
        // Six that are kept, and one that has just become whole.
        ("whole jobs", held.whole_jobs, 17),
        ("invalid blocks", held.invalid_blocks, 128),
        ("compact blocks", held.compact_blocks, 4),
        (
            "mempool bytes",
            held.mempool_bytes,
            config.max_mempool_bytes,
        ),
        ("control bytes", held.control_bytes, 512 * 1_024),
        ("late transactions", held.late, 140),
        ("frame bytes", held.frame_bytes, 65_536 + 6),
        ("answers", held.answers, 64),
        ("job numbers", held.job_numbers, 4 * 8 + 1),
        ("offers", held.offers, 2),
        ("datagrams logged", held.logged, 32_768),
        ("wants for hashes", held.hash_wants, 512),
        // A request for each chunk and its row, and as many of each kind beside them.
        ("waiting", held.waiting, 4 * (transactions / 128 + 400)),
        ("stretches", held.stretches, 1),
        ("requests for hashes", held.hash_asks, 400),
        ("bytes of parts", held.part_bytes, block),
        ("bytes without proof", held.unproven_bytes, block),
        // Half as much parity as there is of a block, and all of it over a first flight, in tiny blocks a little more.
        ("bytes of parity", held.parity_bytes, block + 16 * 1_024),
    ];
    limits
        .into_iter()
        .filter(|(_, count, most)| count > most)
        .map(|(what, count, _)| (what, count))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::node::NodeOptions;
    use super::*;

    #[test]
    fn each_bound_is_looked_at() {
        let config = NodeOptions::default().config;
        assert_eq!(beyond(&Held::default(), &config), []);
        let full = Held {
            sessions: config.max_peers + 16,
            open_jobs: 9,
            answers: 65,
            part_bytes: config.max_block_bytes as usize,
            ..Held::default()
        };
        assert_eq!(
            beyond(&full, &config),
            [("jobs under way", 9), ("answers", 65)]
        );
    }
}

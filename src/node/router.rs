//! The two threads behind the engine's: one tells what happened, one keeps blocks. Both may wait for
//! the outside; the engine waits for neither.

use std::io::Write;

use bytes::Bytes;
use tokio::sync::mpsc::Receiver;

use super::engine::Hash;
use super::events::Stamped;
use super::store::{BlockStore, Put};

/// Logs what happens, and writes it to stdout as lines of JSON if `to_stdout`, until the engine has ended.
pub fn tell(mut news: Receiver<Stamped>, to_stdout: bool) {
    let mut stdout = to_stdout.then(std::io::stdout);
    while let Some(stamped) = news.blocking_recv() {
        stamped.log();
        if let Some(out) = &mut stdout {
            let written = out
                .write_all(stamped.to_lines().as_bytes())
                .and_then(|()| out.flush());
            if written.is_err() {
                // Whoever watched has left.
                stdout = None;
            }
        }
    }
}

/// Keeps the blocks that come whole from peers, until the engine has ended.
pub fn keep(store: &BlockStore, mut blocks: Receiver<(Hash, Bytes)>) {
    while let Some((hash, block)) = blocks.blocking_recv() {
        let name = super::rpc::hash_text(&hash);
        match store.put(&hash, &block) {
            Ok(Put::Stored) => tracing::debug!(block = name, "kept on disk"),
            Ok(Put::Known) => {}
            Ok(Put::TooLarge) => {
                tracing::warn!(block = name, "larger than store-mb, not kept");
            }
            Err(error) => {
                tracing::error!(block = name, %error, "can't be kept; check the disk");
            }
        }
    }
}

//! Bitcoin Core's own consensus code as a judge of blocks, for tests of what this project relays.
//!
//! `kernel-judge NETWORK FOLDER` keeps its blocks in an empty folder and begins at the genesis of `main` or `regtest`. On
//! stdin it takes blocks: four
//! bytes of length, little-endian, then the serialized block. For each it writes one line of JSON:
//!
//! | member | what |
//! | --- | --- |
//! | `hash` | of the block; absent if it is none |
//! | `taken` | `new`, `known`, `rejected` or `undecodable`: whether it was kept. A block that is kept need not be valid |
//! | `checked` | every block that was fully checked because of it, in order: its `hash`, and `fault`, null if it is valid |
//! | `why` | what the code's log calls the faults, as `bad-cb-amount` |
//! | `tip`, `height` | of the chain that is valid and has the most work |
//!
//! It is a program of its own so that neither this project nor its tests need a C++ compiler, cmake and Boost.

use std::io::{Read as _, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use bitcoinkernel::prelude::*;
use bitcoinkernel::{
    Block, BlockValidationStateRef, ChainType, ChainstateManager, Context, ContextBuilder,
    KernelError, Log, LogCategory, LogLevel, Logger, ProcessBlockResult, ValidationMode,
};

/// Longest block there can be.
const MAX_BLOCK_BYTES: u32 = 4_000_000;
/// How the words begin by which Bitcoin Core names what is wrong with a block.
const WORDS: [&str; 6] = [
    "bad-",
    "block-script-",
    "mandatory-script-",
    "high-hash",
    "time-too-",
    "duplicate",
];

/// What was said while a block was processed.
#[derive(Default)]
struct Heard {
    checked: Vec<String>,
    why: Vec<String>,
}

type Shared = Arc<Mutex<Heard>>;

fn lock(shared: &Shared) -> std::sync::MutexGuard<'_, Heard> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Picks the names of faults out of the log.
struct Words(Shared);

impl Log for Words {
    fn log(&self, message: &str) {
        let is_part = |c: char| !(c.is_ascii_alphanumeric() || c == '-');
        let words = message
            .split(is_part)
            .map(|word| word.trim_end_matches('-'));
        let mut heard = lock(&self.0);
        for word in words.filter(|word| WORDS.iter().any(|start| word.starts_with(start))) {
            let quoted = format!("{word:?}");
            if !heard.why.contains(&quoted) {
                heard.why.push(quoted);
            }
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (network, folder) = match arguments.as_slice() {
        [network, folder] if network == "main" => (ChainType::Mainnet, folder),
        [network, folder] if network == "regtest" => (ChainType::Regtest, folder),
        _ => return Err("usage: kernel-judge main|regtest FOLDER".into()),
    };
    let heard = Shared::default();
    let logger = Logger::new(Words(Arc::clone(&heard)))?;
    logger.set_level_category(LogCategory::Validation, LogLevel::Debug);
    logger.enable_category(LogCategory::Validation);
    let context = context(network, Arc::clone(&heard))?;
    let blocks = format!("{folder}/blocks");
    let manager = ChainstateManager::builder(&context, folder, &blocks)?
        .block_tree_db_in_memory(true)
        .chainstate_db_in_memory(true)
        .build()?;
    // It connects genesis.
    manager.import_blocks()?;
    let mut input = std::io::stdin().lock();
    let mut output = std::io::stdout().lock();
    let mut length = [0; 4];
    while input.read_exact(&mut length).is_ok() {
        let length = u32::from_le_bytes(length);
        if length > MAX_BLOCK_BYTES {
            return Err("longer than any block".into());
        }
        let mut bytes = vec![0; length as usize];
        input.read_exact(&mut bytes)?;
        writeln!(output, "{}", judge(&manager, &heard, &bytes))?;
        output.flush()?;
    }
    Ok(())
}

fn context(network: ChainType, heard: Shared) -> Result<Context, KernelError> {
    ContextBuilder::new()
        .chain_type(network)
        .with_block_checked_validation(move |block: Block, state: BlockValidationStateRef<'_>| {
            let fault = match state.mode() {
                ValidationMode::Valid => "null".to_owned(),
                ValidationMode::Invalid => format!("\"{:?}\"", state.result()),
                ValidationMode::InternalError => "\"InternalError\"".to_owned(),
            };
            let hash = block.hash();
            let checked = format!("{{\"hash\":\"{hash}\",\"fault\":{fault}}}");
            lock(&heard).checked.push(checked);
        })
        .build()
}

/// The line about one block.
fn judge(manager: &ChainstateManager, heard: &Shared, bytes: &[u8]) -> String {
    std::mem::take(&mut *lock(heard));
    let (hash, taken) = match Block::new(bytes) {
        Ok(block) => {
            let taken = match manager.process_block(&block) {
                ProcessBlockResult::NewBlock => "new",
                ProcessBlockResult::Duplicate => "known",
                ProcessBlockResult::Rejected => "rejected",
            };
            (format!("\"hash\":\"{}\",", block.hash()), taken)
        }
        Err(_) => (String::new(), "undecodable"),
    };
    let Heard { checked, why } = std::mem::take(&mut *lock(heard));
    let chain = manager.active_chain();
    let tip = chain.tip();
    format!(
        "{{{hash}\"taken\":\"{taken}\",\"checked\":[{}],\"why\":[{}],\"tip\":\"{}\",\"height\":{}}}",
        checked.join(","),
        why.join(","),
        tip.block_hash(),
        tip.height(),
    )
}

//! Our node as a process, among programs that are not ours: Bitcoin Core's consensus code as a judge of what it relays,
//! another full node as a second bitcoind, and strangers who break every rule of the P2P protocol.
//!
//! - The judge is the program of `tests/kernel`: `cargo build --manifest-path tests/kernel/Cargo.toml`, and the
//!   variable `KERNEL_JUDGE_EXE` names it.
//! - The full node is bcoin 1.0.2: `npm ci --ignore-scripts` in a copy of `tests/bcoin`, which `BCOIN_DIR` names.
//!
//! `.ci/run` does both. Without them the tests that need them say so on standard error, loudly, and pass: nothing
//! was shown.

mod peers {
    mod bcoin;
    mod hostile;
    mod judge;
    mod kernel;
    mod lines;
    mod raw;
    mod relay;
    mod second;
}

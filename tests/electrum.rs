//! The Electrum server as wallets see it: our process beside a real bitcoind on regtest, asked by clients that others wrote.
//!
//! bitcoind is found as in `tests/bitcoind.rs`, Debian's `electrum` by `ELECTRUM_EXE` or on the path. What there is not is said
//! on standard error, loudly, and its tests pass: nothing was shown.

#[path = "bitcoind/log.rs"]
#[allow(dead_code)] // the other tests use the rest of it
mod log;

#[path = "bitcoind/harness.rs"]
#[allow(dead_code)] // the other tests use the rest of it
mod harness;

mod electrum {
    mod answers;
    mod bdk;
    mod clients;
    mod debian;
    mod door;
    mod payments;
    mod purse;
    mod restarts;
    mod server;
}

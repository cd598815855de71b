//! Against a real bitcoind, on regtest and loopback: what we believe of its behaviour is what it does.
//!
//! It is found by the environment variable `BITCOIND_EXE`, or as `bitcoind` on the path. Without one these tests
//! say so on standard error, loudly, and pass: nothing was shown.

mod bitcoind {
    pub mod client;
    mod faults;
    pub mod harness;
    mod invalid;
    pub mod log;
    pub mod miner;
    mod p2p;
    mod pairs;
    pub mod relay;
    mod restarts;
    mod several;
    mod wallets;
    mod ways;
}

//! The rules as data: who may import whom, what a pure file must not name, how long things may be.

/// Which files of a module are pure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purity {
    /// All of them.
    Pure,
    /// All but these submodules (`a`, or `a::b` for one deeper), which may also import `config` and `time`.
    PureExcept(&'static [&'static str]),
    /// None: the module exists to do I/O.
    Impure,
}

/// One row: a module, what it may import of the crate, and which of its files are pure.
pub struct Wall {
    pub module: &'static str,
    pub may_import: &'static [&'static str],
    pub purity: Purity,
}

pub const fn wall(
    module: &'static str,
    may_import: &'static [&'static str],
    purity: Purity,
) -> Wall {
    Wall {
        module,
        may_import,
        purity,
    }
}

/// The composition root may import everything.
pub const EVERYTHING: &[&str] = &["*"];

/// The table. A module without a row is a breach.
#[rustfmt::skip] // one row each
pub const WALLS: &[Wall] = &[
    wall("time", &[], Purity::Pure),
    wall("config", &[], Purity::Pure),
    wall("cli", &["config"], Purity::Impure),
    wall("merkle", &[], Purity::Pure),
    wall("wire", &["merkle"], Purity::Pure),
    wall("mempool", &[], Purity::Pure),
    wall("relay", &["merkle", "wire", "mempool", "time"], Purity::Pure),
    wall("sim", &["merkle", "wire", "mempool", "time", "relay"], Purity::Pure),
    wall("chain", &["time"], Purity::PureExcept(&["bitcoind::blockfiles", "bitcoind::find", "bitcoind::follow", "bitcoind::rpc", "bitcoind::zmq", "p2p::connection"])),
    wall("electrum", &["merkle", "mempool", "chain", "time"], Purity::PureExcept(&["store", "server"])),
    wall("pool", &["merkle", "chain"], Purity::PureExcept(&["store", "server"])),
    wall("net", &["wire", "time", "config"], Purity::Impure),
    wall("observe", &[], Purity::PureExcept(&["web"])),
    wall("fuzzing", &["merkle", "wire", "mempool", "time", "relay", "sim", "chain", "electrum"], Purity::Pure),
    wall("node", EVERYTHING, Purity::Impure),
    wall("study", &["sim", "cli"], Purity::Impure),
    wall("lab", &["sim", "study", "node", "net", "cli", "config", "time"], Purity::PureExcept(&["bitcoinds", "broom", "command", "elsewhere", "flow", "net", "nodes", "place", "report", "router", "run", "speed"])),
    wall("main", &["node", "sim", "study", "lab", "config", "cli"], Purity::Impure),
];

/// Paths that a pure file must not name, and what it does instead.
#[rustfmt::skip] // one row each
pub const IMPURE: &[(&[&str], &str)] = &[
    (&["std", "time", "Instant"], "take a `Time` as an argument"),
    (&["std", "time", "SystemTime"], "take a `Time` as an argument"),
    (&["std", "time", "UNIX_EPOCH"], "take a `Time` as an argument"),
    (&["std", "net", "TcpStream"], "sockets belong in `net`"),
    (&["std", "net", "TcpListener"], "sockets belong in `net`"),
    (&["std", "net", "UdpSocket"], "sockets belong in `net`"),
    (&["std", "net", "ToSocketAddrs"], "name lookup belongs in `node`"),
    (&["std", "fs"], "files belong in `node`"),
    (&["std", "io"], "take and give bytes"),
    (&["std", "env"], "the environment belongs in `main`"),
    (&["std", "process"], "processes belong in `node`"),
    (&["std", "thread"], "threads belong in `node`"),
    (&["std", "sync", "Mutex"], "own the state, or move it to `node`"),
    (&["std", "sync", "RwLock"], "own the state, or move it to `node`"),
    (&["std", "sync", "Condvar"], "own the state, or move it to `node`"),
    (&["std", "sync", "Barrier"], "own the state, or move it to `node`"),
    (&["std", "sync", "mpsc"], "queues belong in `node`"),
    (&["std", "sync", "atomic"], "own the state, or move it to `node`"),
    (&["std", "hash", "RandomState"], "take a seed as an argument"),
    (&["std", "collections", "hash_map", "RandomState"], "take a seed as an argument"),
    (&["std", "collections", "hash_map", "DefaultHasher"], "take a seed as an argument"),
    (&["tokio"], "asynchronous code belongs in `net` and `node`"),
    (&["axum"], "servers belong in `node`"),
    (&["ureq"], "clients belong in `node`"),
    (&["hyper"], "clients belong in `chain::bitcoind::rpc`"),
    (&["hyper_util"], "clients belong in `chain::bitcoind::rpc`"),
    (&["socket2"], "sockets belong in `net`"),
    (&["quinn_udp"], "sockets belong in `net`"),
    (&["crossterm"], "terminals belong in `node`"),
    (&["rand", "rng"], "take a seed as an argument"),
    (&["rand", "make_rng"], "take a seed as an argument"),
    (&["rand", "random"], "take a seed as an argument"),
    (&["rand", "random_iter"], "take a seed as an argument"),
    (&["rand", "random_range"], "take a seed as an argument"),
    (&["rand", "random_bool"], "take a seed as an argument"),
    (&["rand", "random_ratio"], "take a seed as an argument"),
    (&["rand", "fill"], "take a seed as an argument"),
    (&["rand", "rngs", "SysRng"], "take a seed as an argument"),
    (&["rand", "rngs", "ThreadRng"], "take a seed as an argument"),
    (&["getrandom"], "take a seed as an argument"),
];

/// Macros that a pure file must not call: they write to the process's streams.
pub const IMPURE_MACROS: &[&str] = &["print", "println", "eprint", "eprintln", "dbg"];

/// Methods that let the order of a hash map out.
#[rustfmt::skip] // one row for maps, one for sets
pub const ITERATING: &[&str] = &[
    "iter", "iter_mut", "keys", "values", "values_mut", "into_iter", "into_keys", "into_values", "drain", "extract_if",
    "union", "intersection", "difference", "symmetric_difference",
];

/// Constructors of hash maps that seed themselves from the system.
pub const SELF_SEEDED: &[&str] = &["new", "with_capacity", "from", "from_iter"];

/// Names that say nothing of what a module holds.
pub const EMPTY_NAMES: &[&str] = &["util", "utils", "helper", "helpers", "common", "misc"];

/// Modules that may use `anyhow`: where errors end at a person.
pub const ANYHOW: &[&str] = &["main", "node", "cli", "study", "lab"];

/// Lines of a file, its test code not counted.
pub const FILE_LINES: usize = 600;
/// Lines of a function, from its signature to its closing brace.
pub const FUNCTION_LINES: usize = 70;
/// Words of the doc comment of a `MAX_` constant: fewer cannot name a reason.
pub const REASON_WORDS: usize = 8;

pub const UNWRAP: &str =
    "`unwrap()` outside tests: return the error, or `expect` with the reason why it holds";

//! The folder of a node: its lock, its cookie, and the addresses it listens on.
//!
//! ```text
//! DATADIR[/NETWORK]/
//!   .lock       locked as long as a node runs here; the system lets go of it however the node ends
//!   .cookie     __cookie__:SECRET, new at each start, mode 0600, removed at a clean stop
//!   node.json   process id and addresses, removed at a clean stop
//!   peers.dat   the address book
//!   quic.key    the private key of private links, mode 0600, made at the first start that has any
//!   blocks/     see the block store
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use hex::DisplayHex;
use rand::TryRng;
use rand::rngs::SysRng;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::files::{Readers, advice, open_regular, refuse_irregular, write_atomically};
use crate::config::{ElectrumAddress, NetworkName};

/// The user name of the cookie, as Bitcoin Core calls it.
pub const COOKIE_USER: &str = "__cookie__";

const LOCK: &str = ".lock";
const COOKIE: &str = ".cookie";
const ADDRESSES: &str = "node.json";
/// The configuration file that is read when none is named.
pub const CONFIG_FILE: &str = "blocktorrent.toml";
/// A cookie or address file is shorter than this; more is not read.
const MAX_SMALL_FILE: u64 = 4_096;

/// Why a datadir can't be used. Each text is one line that says what to do.
#[derive(Debug, Error)]
pub enum DatadirError {
    /// There is no home directory to put the default into.
    #[error("HOME is not set; give the datadir by --datadir")]
    NoHome,
    /// Another node runs there.
    #[error(
        "the datadir {} is in use by another node; stop that one (`blocktorrent cli stop`) or give another --datadir",
        .0.display()
    )]
    InUse(PathBuf),
    /// The system refuses.
    #[error("can't {what} {}; {}, or give another --datadir", .path.display(), advice(.source))]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said; whoever shows the error adds it.
        source: io::Error,
    },
}

/// Where a running node can be reached.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Addresses {
    /// Process id.
    pub pid: u32,
    /// The network, by Bitcoin Core's name.
    pub network: String,
    /// TCP: control connections of peers.
    pub control: SocketAddr,
    /// UDP: data of peers.
    pub data: SocketAddr,
    /// TCP: JSON-RPC.
    pub rpc: SocketAddr,
    /// TCP: Bitcoin's P2P protocol, if it is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p2p: Option<SocketAddr>,
    /// UDP: private links, if they are accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quic: Option<SocketAddr>,
    /// TCP: Electrum wallets, if they are served.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub electrum: Vec<ElectrumAddress>,
}

/// The root of datadirs that is meant when none is configured: `~/.blocktorrent`.
///
/// # Errors
///
/// [`DatadirError::NoHome`].
pub fn default_root() -> Result<PathBuf, DatadirError> {
    std::env::home_dir()
        .filter(|home| !home.as_os_str().is_empty())
        .map(|home| home.join(".blocktorrent"))
        .ok_or(DatadirError::NoHome)
}

/// The folder of `network` below `root`.
pub fn network_folder(root: &Path, network: NetworkName) -> PathBuf {
    match network.folder() {
        None => root.to_owned(),
        Some(name) => root.join(name),
    }
}

/// A folder that this process alone runs a node in, until this is dropped.
#[derive(Debug)]
pub struct Datadir {
    folder: PathBuf,
    _lock: File,
    /// The small files written here, and what is in them.
    written: BTreeMap<&'static str, Vec<u8>>,
}

impl Datadir {
    /// Makes the folder if need be, and takes its lock.
    ///
    /// # Errors
    ///
    /// Another node holds the lock, or the system refuses.
    pub fn open(folder: &Path) -> Result<Self, DatadirError> {
        let fail = |what, path: &Path, source| DatadirError::Io {
            what,
            path: path.to_owned(),
            source,
        };
        fs::create_dir_all(folder).map_err(|error| fail("make the folder", folder, error))?;
        let path = folder.join(LOCK);
        refuse_irregular(&path).map_err(|error| fail("open the lock file", &path, error))?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| fail("open the lock file", &path, error))?;
        match lock.try_lock() {
            Ok(()) => {
                // What a killed node left would send callers to ports that are others' by now.
                for name in [COOKIE, ADDRESSES] {
                    let _ = fs::remove_file(folder.join(name));
                }
                Ok(Self {
                    folder: folder.to_owned(),
                    _lock: lock,
                    written: BTreeMap::new(),
                })
            }
            Err(TryLockError::WouldBlock) => Err(DatadirError::InUse(folder.to_owned())),
            Err(TryLockError::Error(error)) => Err(fail("lock", &path, error)),
        }
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes a new cookie and gives its secret.
    ///
    /// # Errors
    ///
    /// The system refuses the file or has no randomness.
    pub fn write_cookie(&mut self) -> Result<String, DatadirError> {
        let mut secret = [0; 32];
        SysRng
            .try_fill_bytes(&mut secret)
            .map_err(|error| DatadirError::Io {
                what: "draw randomness for",
                path: self.folder.join(COOKIE),
                source: io::Error::other(error.to_string()),
            })?;
        let secret = secret.to_lower_hex_string();
        let text = format!("{COOKIE_USER}:{secret}");
        self.write(COOKIE, text.into_bytes(), Readers::OwnerOnly)?;
        Ok(secret)
    }

    /// Writes where the node can be reached.
    ///
    /// # Errors
    ///
    /// The system refuses the file.
    pub fn write_addresses(&mut self, addresses: &Addresses) -> Result<(), DatadirError> {
        let mut text = serde_json::to_vec_pretty(addresses).expect("plain fields become JSON");
        text.push(b'\n');
        self.write(ADDRESSES, text, Readers::Usual)
    }

    fn write(
        &mut self,
        name: &'static str,
        bytes: Vec<u8>,
        readers: Readers,
    ) -> Result<(), DatadirError> {
        let path = self.folder.join(name);
        write_atomically(&path, &bytes, readers).map_err(|source| DatadirError::Io {
            what: "write",
            path,
            source,
        })?;
        self.written.insert(name, bytes);
        Ok(())
    }
}

impl Drop for Datadir {
    /// What would mislead a caller goes while the lock is still held. Files that are another node's stay: the
    /// folder may have been removed and made anew meanwhile, and with it the lock.
    fn drop(&mut self) {
        for (name, bytes) in &self.written {
            let path = self.folder.join(name);
            if read_small(&path).is_ok_and(|text| text.as_bytes() == bytes) {
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// The addresses of the node in `folder`, if one runs or was killed there.
pub fn read_addresses(folder: &Path) -> Option<Addresses> {
    serde_json::from_str(&read_small(&folder.join(ADDRESSES)).ok()?).ok()
}

/// User and secret of the cookie in `folder`.
///
/// # Errors
///
/// What the system answers, or that the file is no cookie.
pub fn read_cookie(folder: &Path) -> io::Result<(String, String)> {
    let text = read_small(&folder.join(COOKIE))?;
    text.trim_end()
        .split_once(':')
        .map(|(user, secret)| (user.to_owned(), secret.to_owned()))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no cookie"))
}

fn read_small(path: &Path) -> io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    open_regular(path)?
        .take(MAX_SMALL_FILE)
        .read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_node_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let folder = network_folder(root.path(), NetworkName::Signet);
        let first = Datadir::open(&folder).unwrap();
        let refused = Datadir::open(&folder).unwrap_err();
        assert!(matches!(refused, DatadirError::InUse(_)));
        let line = refused.to_string();
        assert!(line.contains("signet is in use by another node; stop that one"));
        assert!(!line.contains('\n'));
        drop(first);
        assert!(Datadir::open(&folder).is_ok());
    }

    #[cfg(unix)]
    #[test]
    fn a_lock_that_is_a_pipe_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let made = std::process::Command::new("mkfifo")
            .arg(root.path().join(LOCK))
            .status();
        assert!(made.unwrap().success());
        let refused = Datadir::open(root.path()).unwrap_err().to_string();
        assert!(!refused.contains("permissions"), "{refused}");
    }

    #[test]
    fn networks_have_folders_of_their_own() {
        let root = Path::new("/r");
        assert_eq!(network_folder(root, NetworkName::Main), Path::new("/r"));
        assert_eq!(
            network_folder(root, NetworkName::Test),
            Path::new("/r/testnet3")
        );
    }

    #[test]
    fn cookie_and_addresses_live_as_long_as_the_node() {
        let root = tempfile::tempdir().unwrap();
        let mut datadir = Datadir::open(root.path()).unwrap();
        let secret = datadir.write_cookie().unwrap();
        let again = datadir.write_cookie().unwrap();
        assert!(secret.len() == 64 && secret != again);
        assert_eq!(
            read_cookie(root.path()).unwrap(),
            (COOKIE_USER.to_owned(), again)
        );
        let addresses = Addresses {
            pid: 7,
            network: "main".into(),
            control: "127.0.0.1:1".parse().unwrap(),
            data: "127.0.0.1:2".parse().unwrap(),
            rpc: "[::1]:3".parse().unwrap(),
            p2p: Some("127.0.0.1:4".parse().unwrap()),
            quic: None,
            electrum: vec!["ssl://[::1]:5".parse().unwrap()],
        };
        datadir.write_addresses(&addresses).unwrap();
        assert_eq!(read_addresses(root.path()), Some(addresses));
        drop(datadir);
        assert_eq!(read_addresses(root.path()), None);
        assert!(read_cookie(root.path()).is_err());
    }

    #[test]
    fn what_a_killed_node_left_goes_and_what_another_wrote_stays() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("datadir");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(COOKIE), b"__cookie__:old").unwrap();
        let mut first = Datadir::open(&folder).unwrap();
        assert!(read_cookie(&folder).is_err());
        first.write_cookie().unwrap();
        // Someone removes the folder, and with it the lock; another node makes it anew.
        fs::remove_dir_all(&folder).unwrap();
        let mut second = Datadir::open(&folder).unwrap();
        let secret = second.write_cookie().unwrap();
        drop(first);
        assert_eq!(read_cookie(&folder).unwrap().1, secret);
    }

    #[test]
    fn a_folder_that_can_not_be_made_says_so() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs::write(&file, b"x").unwrap();
        let line = Datadir::open(&file.join("sub")).unwrap_err().to_string();
        assert!(line.starts_with("can't make the folder "), "{line}");
        assert!(line.contains("give another --datadir") && !line.contains('\n'));
    }

    #[test]
    fn junk_is_neither_cookie_nor_addresses() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join(ADDRESSES), b"{}").unwrap();
        fs::write(root.path().join(COOKIE), b"junk").unwrap();
        assert_eq!(read_addresses(root.path()), None);
        assert!(read_cookie(root.path()).is_err());
    }
}

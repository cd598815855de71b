//! From flags and the configuration file to what holds.

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::datadir::{CONFIG_FILE, default_root, network_folder};
use super::files::{advice, open_regular};
use crate::chain::Network;
use crate::cli::Defaults;
use crate::config::{Config, NetworkName, Options};

/// A configuration file has some hundred bytes; a larger one is another file.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// A checked configuration, and the folder of its network.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What holds.
    pub config: Config,
    /// The datadir, or the network's folder in it.
    pub folder: PathBuf,
}

impl Settings {
    /// The flags that name this node to `blocktorrent cli`, each after a space.
    pub fn flags(&self) -> String {
        let mut flags = String::new();
        if self.config.network != NetworkName::default() {
            flags += &format!(" --network {}", self.config.network);
        }
        if let Some(root) = &self.config.datadir {
            flags += &format!(" --datadir {}", root.display());
        }
        flags
    }

    /// Lays `flags` over the configuration file that they name, or that lies in the datadir.
    ///
    /// # Errors
    ///
    /// One line: an unreadable file, a key or a value that makes no sense.
    pub fn load(flags: Options) -> anyhow::Result<Self> {
        let file = read_file(&flags)?;
        let config = Config::resolve(flags.over(file))?;
        let root = match &config.datadir {
            Some(root) => with_home(root),
            None => default_root()?,
        };
        let folder = network_folder(&root, config.network);
        Ok(Self { config, folder })
    }
}

/// The options of the file: the one that is named, or the usual one if it is there.
fn read_file(flags: &Options) -> anyhow::Result<Options> {
    let (path, is_named) = match (&flags.config, &flags.datadir) {
        (Some(path), _) => (with_home(path), true),
        (None, Some(root)) => (with_home(root).join(CONFIG_FILE), false),
        (None, None) => (default_root()?.join(CONFIG_FILE), false),
    };
    let text = match read_text(&path) {
        Ok(text) => text,
        Err(error) if !is_named && error.kind() == io::ErrorKind::NotFound => {
            return Ok(Options::default());
        }
        Err(error) => {
            let advice = advice(&error);
            return Err(error).with_context(|| {
                format!(
                    "can't read the configuration file {}; {advice}",
                    path.display()
                )
            });
        }
    };
    Ok(Options::from_toml(&path.display().to_string(), &text)?)
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = open_regular(path)?
        .take(MAX_CONFIG_BYTES + 1)
        .read_to_string(&mut text)?;
    if read as u64 > MAX_CONFIG_BYTES {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(text)
}

/// The network whose parameters `name` stands for.
pub fn network(name: NetworkName) -> Network {
    match name {
        NetworkName::Main => Network::Main,
        NetworkName::Test => Network::Testnet3,
        NetworkName::Testnet4 => Network::Testnet4,
        NetworkName::Signet => Network::Signet,
        NetworkName::Regtest => Network::Regtest,
    }
}

/// What holds on a network where nothing is said.
pub fn defaults(name: NetworkName) -> Defaults {
    let network = network(name);
    let everywhere = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    Defaults {
        network: name,
        control: everywhere(network.control_port()),
        p2p: everywhere(network.p2p_port()),
        rpc: SocketAddr::from((Ipv4Addr::LOCALHOST, network.rpc_port())),
    }
}

/// `path` with `~` at its beginning replaced: a file has no shell to do it, and a shell leaves `--datadir=~/x`.
fn with_home(path: &Path) -> PathBuf {
    let home = || std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
    match path.strip_prefix("~") {
        Ok(rest) => home().map_or_else(|| path.to_owned(), |home| home.join(rest)),
        Err(_) => path.to_owned(),
    }
}

/// Refuses to run beside too little: a system that can't tell the time would refuse every header.
///
/// # Errors
///
/// One line.
pub fn check_clock(now_unix_s: u64, network: Network) -> anyhow::Result<()> {
    if now_unix_s < u64::from(network.genesis().time) {
        bail!("the system's clock is before Bitcoin's first block; set it");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(datadir: &Path, config: Option<PathBuf>) -> Result<Settings, String> {
        let flags = Options {
            datadir: Some(datadir.to_owned()),
            config,
            ..Options::default()
        };
        Settings::load(flags).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn the_usual_file_may_be_absent_and_a_named_one_not() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(load(root.path(), None).unwrap().folder, root.path());
        let absent = root.path().join("absent.toml");
        let line = load(root.path(), Some(absent)).unwrap_err();
        assert!(
            line.starts_with("can't read the configuration file ")
                && line.contains("check the path")
        );
        std::fs::write(root.path().join(CONFIG_FILE), "network = \"regtest\"").unwrap();
        let settings = load(root.path(), None).unwrap();
        assert_eq!(settings.folder, root.path().join("regtest"));
        std::fs::write(root.path().join(CONFIG_FILE), "network = \"x\"").unwrap();
        let line = load(root.path(), None).unwrap_err();
        assert!(
            line.contains("blocktorrent.toml, line 1: network: `x` is no network"),
            "{line}"
        );
        let line = load(root.path(), Some(root.path().to_owned())).unwrap_err();
        assert!(
            line.contains("can't read") && !line.contains('\n'),
            "{line}"
        );
    }

    #[test]
    fn a_tilde_stands_for_the_home_directory() {
        let home = std::env::home_dir().unwrap();
        assert_eq!(with_home(Path::new("~/x")), home.join("x"));
        for other in ["/a/~/b", "~user/x", "x"] {
            assert_eq!(with_home(Path::new(other)), Path::new(other));
        }
    }

    #[test]
    fn help_names_the_default_ports() {
        use clap::CommandFactory as _;
        let mut command = crate::cli::CommandLine::command();
        let node = command.find_subcommand_mut("node").unwrap();
        let help = node.render_long_help().to_string();
        for name in ["main", "test", "testnet4", "signet", "regtest"] {
            let Defaults {
                control, p2p, rpc, ..
            } = defaults(name.parse().unwrap());
            let row: Vec<String> = [control, p2p, rpc]
                .iter()
                .map(|address| address.port().to_string())
                .collect();
            let stands = |line: &str| {
                let mut words = line.split_whitespace();
                words.next() == Some(name) && words.eq(row.iter().map(String::as_str))
            };
            assert!(help.lines().any(stands), "{name} {row:?}");
        }
    }

    #[test]
    fn names_stand_for_networks() {
        for name in [
            NetworkName::Main,
            NetworkName::Test,
            NetworkName::Testnet4,
            NetworkName::Signet,
            NetworkName::Regtest,
        ] {
            assert_eq!(network(name).name(), name.as_str());
        }
        assert!(check_clock(0, Network::Main).is_err());
        assert!(check_clock(1_800_000_000, Network::Main).is_ok());
    }
}

//! The node's own key, and the socket of its private links.
//!
//! The key is in `quic.key`, in PEM and for the owner alone; it is made at the first start that has private links, and
//! stays: others have pinned it. Whoever removes the file gives the node a new name.

use std::fs::Permissions;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, anyhow};
use tokio::sync::mpsc;

use super::files::{Readers, advice, open_regular, write_atomically};
use crate::config::{Config, ConfigError, Fingerprint};
use crate::net::quic::{Identity, IdentityError};
use crate::net::{BoundQuic, ControlHub, PrivateDatagrams, PrivateHub, QuicOptions};

/// The file with the key, in the datadir.
pub const KEY_FILE: &str = "quic.key";
/// A private key in PEM has some hundred bytes, the longest RSA key some thousand; a larger file is no key.
const MAX_KEY_BYTES: u64 = 16_384;

/// The port of examples; no port is usual for private links.
const OTHER_PORT: u16 = 8_436;

/// A bound socket for private links, and the key to use there.
#[derive(Debug)]
pub struct BoundPrivate {
    socket: BoundQuic,
    identity: Identity,
}

/// What the private links of a node are reached through.
#[derive(Debug)]
pub struct Private {
    /// The links, if the node has any.
    pub hub: Option<PrivateHub>,
    /// Their datagrams; nothing ever comes if there are none.
    pub datagrams: mpsc::Receiver<PrivateDatagrams>,
}

/// Binds the socket for private links, if the configuration has any, and reads or makes the key in `folder`. `data` is
/// where the node's own UDP socket is bound.
///
/// # Errors
///
/// One line that says what to do.
pub fn bind(
    config: &Config,
    data: SocketAddr,
    folder: &Path,
) -> anyhow::Result<Option<BoundPrivate>> {
    if !config.private.is_on() {
        return Ok(None);
    }
    refuse_clash(config, data)?;
    let identity = read_or_make(&folder.join(KEY_FILE))?;
    let socket = BoundQuic::bind(config.private.listen)?;
    Ok(Some(BoundPrivate { socket, identity }))
}

/// Refuses `quic-listen` on the port of the node's other UDP socket: the system would only say that a port is in use.
fn refuse_clash(config: &Config, data: SocketAddr) -> anyhow::Result<()> {
    let Some(quic) = config.private.listen else {
        return Ok(());
    };
    let overlap =
        quic.ip() == data.ip() || [quic.ip(), data.ip()].iter().any(|ip| ip.is_unspecified());
    if quic.port() == 0 || quic.port() != data.port() || !overlap {
        return Ok(());
    }
    let of = match config.data_listen {
        Some(_) => "`data-listen`",
        None => "`control-listen`, which data takes too as long as `data-listen` is not set",
    };
    Err(anyhow!(
        "`quic-listen` {quic} clashes with {of}: {data}; both are UDP sockets of this node, so give one another port, as in quic-listen = \"{}\"",
        SocketAddr::new(quic.ip(), OTHER_PORT)
    ))
}

/// Where private links are accepted, if they are.
pub fn listens_at(config: &Config, bound: Option<&BoundPrivate>) -> Option<SocketAddr> {
    config.private.listen?;
    bound.map(|bound| bound.socket.local_addr())
}

/// Begins to use the socket; nobody is dialled yet.
///
/// # Errors
///
/// Those of the system.
pub fn open(
    hub: &ControlHub,
    config: &Config,
    bound: Option<BoundPrivate>,
) -> anyhow::Result<Private> {
    let Some(BoundPrivate { socket, identity }) = bound else {
        let (_, datagrams) = mpsc::channel(1);
        let hub = None;
        return Ok(Private { hub, datagrams });
    };
    let allowed = config.private.allowed.clone();
    let options = QuicOptions { identity, allowed };
    let (hub, datagrams) = hub
        .private(socket, options)
        .context("can't open the socket of private links")?;
    tracing::info!(key = %hub.fingerprint(), "private links are on");
    let without_slot = config.private.without_slot(config.max_peers);
    if without_slot > 0 {
        tracing::warn!(
            keys = config.private.allowed.len(),
            without_slot,
            "quic-allow and quic-peer name more peers than max-peers has slots: the last to come are refused; raise max-peers"
        );
    }
    let hub = Some(hub);
    Ok(Private { hub, datagrams })
}

/// Keeps a link to each private peer.
///
/// # Errors
///
/// One line.
pub fn connect(hub: Option<&PrivateHub>, config: &Config) -> Result<(), ConfigError> {
    let Some(hub) = hub else { return Ok(()) };
    for peer in &config.private.peers {
        hub.keep_connected(peer.clone())
            .map_err(|error| ConfigError::Senseless(format!("`quic-peer`: {error}")))?;
    }
    Ok(())
}

/// Makes the key of a node that is to run in `folder`, which is made too: for whoever starts several nodes that shall
/// know each other.
///
/// # Errors
///
/// One line.
pub fn make(folder: &Path) -> anyhow::Result<Fingerprint> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("can't make the folder {}", folder.display()))?;
    Ok(read_or_make(&folder.join(KEY_FILE))?.fingerprint())
}

/// The key in the file, which is made if it is not there.
fn read_or_make(path: &Path) -> anyhow::Result<Identity> {
    let refuse = |error: io::Error| {
        let advice = advice(&error);
        anyhow!(error).context(format!(
            "can't use the key of private links {}; {advice}",
            path.display()
        ))
    };
    let pem = match read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let pem = Identity::new_pem()?;
            write_atomically(path, pem.as_bytes(), Readers::OwnerOnly).map_err(refuse)?;
            tracing::warn!(path = %path.display(), "made a new key for private links; their peers have to pin it");
            pem
        }
        other => other.map_err(refuse)?,
    };
    Identity::from_pem(&pem).map_err(|error| match error {
        IdentityError::OtherForm => anyhow!(
            "can't use the key of private links {}: {error}, and put NEW (chmod 600) in its place",
            path.display()
        ),
        error => anyhow!(
            "can't use the key of private links {}: {error}; put the key back, or remove the file for a new one, which peers must pin anew",
            path.display()
        ),
    })
}

/// The text of the key file, if nobody else can read it.
fn read(path: &Path) -> io::Result<String> {
    let file = open_regular(path).map_err(|error| match error.kind() {
        // To take it for absent would put a new key in place of the link.
        io::ErrorKind::NotFound if path.is_symlink() => io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is a symbolic link to a file that is not there: mend it, or remove it for a new key",
        ),
        _ => error,
    })?;
    if is_open_to_others(&file.metadata()?.permissions()) {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "others can read it: chmod 600",
        ));
    }
    let mut text = String::new();
    file.take(MAX_KEY_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_KEY_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is larger than any key: keep the private key alone in it",
        ));
    }
    Ok(text)
}

#[cfg(unix)]
fn is_open_to_others(permissions: &Permissions) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    permissions.mode() & 0o077 != 0
}

#[cfg(not(unix))]
fn is_open_to_others(_permissions: &Permissions) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Options;

    #[test]
    fn the_key_is_made_once_and_is_its_owners() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(KEY_FILE);
        let made = read_or_make(&path).unwrap();
        let again = read_or_make(&path).unwrap();
        assert_eq!(made.fingerprint(), again.fingerprint());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
            let refused = format!("{:#}", read_or_make(&path).unwrap_err());
            assert!(refused.contains("chmod 600"), "{refused}");
        }
    }

    #[test]
    fn a_file_too_large_another_form_and_a_dangling_link_are_refused_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(KEY_FILE);
        // A whole key, and then more than is read: what was cut would be taken.
        let mut large = Identity::new_pem().unwrap();
        large.push_str(&"#".repeat(MAX_KEY_BYTES as usize));
        let sec1 = "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n";
        for (text, says) in [
            (large.as_str(), "larger than any key"),
            (sec1, "-nocrypt -in OLD -out NEW`, and put NEW"),
        ] {
            write_atomically(&path, text.as_bytes(), Readers::OwnerOnly).unwrap();
            let refused = format!("{:#}", read_or_make(&path).unwrap_err());
            assert!(refused.contains(says), "{refused}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        #[cfg(unix)]
        {
            std::fs::remove_file(&path).unwrap();
            std::os::unix::fs::symlink(folder.path().join("gone"), &path).unwrap();
            let refused = format!("{:#}", read_or_make(&path).unwrap_err());
            assert!(refused.contains("a symbolic link to a file"), "{refused}");
            assert!(path.is_symlink());
        }
    }

    #[test]
    fn two_sockets_of_the_node_on_one_port_are_named() {
        let config = |quic: &str, data: Option<&str>| {
            let options = Options {
                quic_listen: Some(quic.parse().unwrap()),
                data_listen: data.map(|data| data.parse().unwrap()),
                ..Options::default()
            };
            Config::resolve(options).unwrap()
        };
        let data = "127.0.0.1:8433";
        let at = data.parse().unwrap();
        let refused = |quic, given| {
            let refused = refuse_clash(&config(quic, given), at);
            refused.unwrap_err().to_string()
        };
        let line = refused("0.0.0.0:8433", Some(data));
        assert!(
            line.contains("`quic-listen` 0.0.0.0:8433 clashes with `data-listen`: 127.0.0.1:8433"),
            "{line}"
        );
        let line = refused(data, None);
        assert!(
            line.contains("with `control-listen`, which data takes too"),
            "{line}"
        );
        for fine in ["127.0.0.1:8436", "127.0.0.2:8433", "127.0.0.1:0"] {
            assert!(
                refuse_clash(&config(fine, Some(data)), at).is_ok(),
                "{fine}"
            );
        }
    }

    #[test]
    fn what_is_no_key_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(KEY_FILE);
        write_atomically(&path, b"nothing", Readers::OwnerOnly).unwrap();
        let refused = read_or_make(&path).unwrap_err().to_string();
        assert!(
            refused.contains("remove the file for a new one"),
            "{refused}"
        );
        assert_eq!(std::fs::read(&path).unwrap(), b"nothing");
    }
}

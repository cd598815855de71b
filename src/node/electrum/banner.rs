//! What wallets are greeted by: a file that is read anew when it changes, or what was said by RPC.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::electrum::protocol::info::{Info, MAX_BANNER_BYTES};

/// How often the file is looked at, as certificates are.
const INTERVAL: Duration = Duration::from_secs(5);

/// When the file was last written, and how long it is.
type Stamp = Option<(SystemTime, u64)>;

/// The banner as it was read.
#[derive(Debug)]
pub struct Banner {
    file: Option<PathBuf>,
    text: String,
    stamp: Stamp,
}

/// A banner that is told to clients, and can be changed.
#[derive(Clone, Debug)]
pub struct Greeting {
    file: Option<PathBuf>,
    info: watch::Sender<Arc<Info>>,
    watching: Option<AbortHandle>,
}

impl Banner {
    /// Reads it; without a file, wallets are told the name of the software.
    ///
    /// # Errors
    ///
    /// If the file can't be read, or is too long.
    pub fn open(file: Option<&Path>) -> anyhow::Result<Self> {
        Ok(Self {
            stamp: file.and_then(stamp),
            text: read(file)?,
            file: file.map(Path::to_owned),
        })
    }

    /// With its variables.
    pub fn text(&self) -> String {
        self.text.clone()
    }

    /// Looks at the file from now on.
    pub fn keep_fresh(self, info: watch::Sender<Arc<Info>>) -> Greeting {
        self.keep_fresh_every(INTERVAL, info)
    }

    fn keep_fresh_every(self, interval: Duration, info: watch::Sender<Arc<Info>>) -> Greeting {
        let watching = self.file.as_ref().map(|file| {
            let task = watch_file(file.clone(), self.stamp, info.clone(), interval);
            tokio::spawn(task).abort_handle()
        });
        Greeting {
            file: self.file,
            info,
            watching,
        }
    }
}

impl Greeting {
    /// Greets by another text until the file changes, or by what the file says now. Gives what clients see.
    ///
    /// # Errors
    ///
    /// If it is too long, or can't be read. The one before stays.
    pub fn set(&self, text: Option<&str>) -> anyhow::Result<String> {
        let text = match text {
            Some(text) => checked(text.to_owned(), "this banner")?,
            None => read(self.file.as_deref())?,
        };
        tell(&self.info, text);
        Ok(self.info.borrow().banner())
    }

    /// Looks at the file no more.
    pub fn end(&self) {
        if let Some(watching) = &self.watching {
            watching.abort();
        }
    }
}

async fn watch_file(
    file: PathBuf,
    mut seen: Stamp,
    info: watch::Sender<Arc<Info>>,
    interval: Duration,
) {
    let mut ticks = tokio::time::interval(interval);
    loop {
        ticks.tick().await;
        let now = stamp(&file);
        if now.is_none() || now == seen {
            continue;
        }
        seen = now;
        match read(Some(&file)) {
            Ok(text) => {
                tell(&info, text);
                tracing::info!(file = %file.display(), "banner read anew");
            }
            Err(error) => tracing::warn!("{error:#}; the banner before stays"),
        }
    }
}

fn tell(info: &watch::Sender<Arc<Info>>, banner: String) {
    info.send_modify(|info| Arc::make_mut(info).banner = banner);
}

fn stamp(file: &Path) -> Stamp {
    let about = fs::metadata(file).ok()?;
    Some((about.modified().ok()?, about.len()))
}

fn read(file: Option<&Path>) -> anyhow::Result<String> {
    let Some(file) = file else {
        return Ok(super::software());
    };
    let named = format!("`electrum-banner` {}", file.display());
    let mut text = String::new();
    let read = fs::File::open(file).and_then(|file| {
        file.take(MAX_BANNER_BYTES as u64 + 1)
            .read_to_string(&mut text)
    });
    // Cut within a character it is no text; longer than it may be it is in any case.
    if fs::metadata(file).is_ok_and(|about| about.len() > MAX_BANNER_BYTES as u64) {
        anyhow::bail!("{named} is longer than {MAX_BANNER_BYTES} bytes");
    }
    read.with_context(|| format!("can't read {named}"))?;
    checked(text, &named)
}

fn checked(text: String, named: &str) -> anyhow::Result<String> {
    let is_short = text.len() <= MAX_BANNER_BYTES;
    anyhow::ensure!(is_short, "{named} is longer than {MAX_BANNER_BYTES} bytes");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_changed_file_is_read_anew_and_what_is_no_good_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("banner");
        assert!(Banner::open(Some(&file)).is_err());
        fs::write(&file, "one").unwrap();
        let banner = Banner::open(Some(&file)).unwrap();
        assert_eq!(banner.text(), "one");
        let (info, mut told) = watch::channel(Arc::new(Info::default()));
        let greeting = banner.keep_fresh_every(Duration::from_millis(5), info);
        fs::write(&file, "other, from $SERVER_VERSION").unwrap();
        told.changed().await.unwrap();
        assert_eq!(told.borrow().banner, "other, from $SERVER_VERSION");

        assert_eq!(greeting.set(Some("by hand")).unwrap(), "by hand");
        assert_eq!(greeting.set(None).unwrap(), "other, from ");
        let long = "x".repeat(MAX_BANNER_BYTES + 1);
        assert!(greeting.set(Some(&long)).is_err());
        greeting.end();
        fs::write(&file, &long).unwrap();
        let refused = greeting.set(None).unwrap_err().to_string();
        assert!(refused.contains("longer than"), "{refused}");
        assert_eq!(told.borrow().banner, "other, from $SERVER_VERSION");
    }
}

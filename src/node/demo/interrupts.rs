//! The signals that end a demo, or a lab.

#[cfg(unix)]
use anyhow::Context as _;

/// What a shell adds to the number of a signal that ended a program.
const BY_SIGNAL: u8 = 128;

/// SIGINT, SIGTERM and SIGHUP (the terminal is gone). They are watched for before there is anything that one of them would
/// leave behind.
#[cfg(unix)]
#[derive(Debug)]
pub struct Interrupts([tokio::signal::unix::Signal; 3]);

#[cfg(unix)]
impl Interrupts {
    /// Begins to watch, on the runtime that is entered.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn watch() -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let watch = |kind| signal(kind).context("can't watch signals");
        Ok(Self([
            watch(SignalKind::interrupt())?,
            watch(SignalKind::terminate())?,
            watch(SignalKind::hangup())?,
        ]))
    }

    /// Returns when one has come, be it before this was called: the exit code after it, as shells have it.
    pub async fn first(&mut self) -> u8 {
        let Self([interrupt, terminate, hang_up]) = self;
        let number = tokio::select! {
            _ = interrupt.recv() => 2,
            _ = terminate.recv() => 15,
            _ = hang_up.recv() => 1,
        };
        BY_SIGNAL + number
    }
}

/// Ctrl-C.
#[cfg(not(unix))]
#[derive(Debug)]
pub struct Interrupts;

#[cfg(not(unix))]
impl Interrupts {
    /// Begins to watch.
    ///
    /// # Errors
    ///
    /// None.
    pub fn watch() -> anyhow::Result<Self> {
        Ok(Self)
    }

    /// Returns when it has come: the exit code after it.
    pub async fn first(&mut self) -> u8 {
        tokio::signal::ctrl_c().await.ok();
        BY_SIGNAL + 2
    }
}

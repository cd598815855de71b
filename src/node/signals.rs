//! What a node makes of the system's signals.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::oneshot;

use super::stop::Stop;

/// A second signal that comes sooner is the first one told twice: `timeout` and terminals signal the process and
/// its group.
const TOLD_TWICE: Duration = Duration::from_secs(1);

/// The first SIGINT or SIGTERM stops the node in order. One that comes `TOLD_TWICE` later or more is told by what
/// is returned: the node ends at once. SIGHUP does nothing.
///
/// # Errors
///
/// The system refuses to tell of signals.
pub fn watch(stop: &Stop) -> anyhow::Result<oneshot::Receiver<()>> {
    let (at_once, told) = oneshot::channel();
    let mut watch = Watch {
        stop: stop.clone(),
        first: None,
        at_once: Some(at_once),
    };
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let watched = |kind| signal(kind).context("can't watch signals");
        let mut interrupt = watched(SignalKind::interrupt())?;
        let mut terminate = watched(SignalKind::terminate())?;
        let mut hang_up = watched(SignalKind::hangup())?;
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => watch.heard("SIGINT"),
                    _ = terminate.recv() => watch.heard("SIGTERM"),
                    _ = hang_up.recv() => {
                        tracing::info!("SIGHUP is ignored: the log goes to stderr, no file is opened again");
                    }
                }
            }
        });
    }
    #[cfg(not(unix))]
    tokio::spawn(async move {
        while tokio::signal::ctrl_c().await.is_ok() {
            watch.heard("Ctrl-C");
        }
    });
    Ok(told)
}

struct Watch {
    stop: Stop,
    first: Option<Instant>,
    at_once: Option<oneshot::Sender<()>>,
}

impl Watch {
    fn heard(&mut self, signal: &str) {
        match self.first {
            None => {
                self.first = Some(Instant::now());
                self.stop.stop();
                tracing::info!(
                    "heard {signal}; a second one, a second later or more, ends the node at once"
                );
            }
            Some(first) if first.elapsed() >= TOLD_TWICE => {
                // Whoever listens may be done already.
                self.at_once.take().map(|at_once| at_once.send(()));
            }
            Some(_) => {}
        }
    }
}

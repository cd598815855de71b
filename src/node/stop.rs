//! One signal for everyone: the node stops.

use std::sync::Arc;

use tokio::sync::watch;

/// Clones share the signal. Once given, it stays.
#[derive(Clone, Debug)]
pub struct Stop(Arc<watch::Sender<bool>>);

impl Default for Stop {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Stop {
    /// Gives the signal. Whether it was given for the first time.
    pub fn stop(&self) -> bool {
        !self.0.send_replace(true)
    }

    /// Waits for the signal.
    pub async fn stopped(&self) {
        // The sender lives in `self`, so that waiting cannot fail.
        self.0.subscribe().wait_for(|stopped| *stopped).await.ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_signal_reaches_those_who_wait_and_those_who_come_later() {
        let stop = Stop::default();
        let waits = stop.clone();
        let waiting = tokio::spawn(async move { waits.stopped().await });
        assert!(stop.stop() && !stop.stop());
        waiting.await.unwrap();
        stop.stopped().await;
    }
}

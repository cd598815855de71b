//! The Electrum server as those see it who operate it.

use std::time::Duration;

use bitcoin::hashes::Hash as _;
use tokio::sync::{mpsc, oneshot, watch};

use super::SharedData;
use super::banner::Greeting;
use super::progress::{Building, SharedProgress};
use crate::chain::Network;
use crate::config::ElectrumAddress;
use crate::electrum::query::{Answer, Query, Refusal};
use crate::electrum::script_hash::ScriptHash;
use crate::electrum::server::{Admin, Asked};
use crate::electrum::store::Store;
use crate::merkle::Hash;
use crate::node::bitcoin::Best;

/// How long a question may take. Reason: as long as a wallet's.
const PATIENCE: Duration = Duration::from_secs(30);

/// What calls can ask of the server.
#[derive(Clone, Debug)]
pub struct ElectrumHandle {
    /// The network whose addresses are meant.
    pub network: Network,
    /// Where wallets are served.
    pub addresses: Vec<ElectrumAddress>,
    /// Its sessions.
    pub admin: Admin,
    pub(super) best: watch::Receiver<Option<Best>>,
    pub(super) store: Store,
    pub(super) data: SharedData,
    pub(super) progress: SharedProgress,
    pub(super) asked: mpsc::Sender<Asked>,
    pub(super) banner: Greeting,
}

/// How the index stands.
#[derive(Clone, Debug)]
pub struct State {
    /// In a word.
    pub word: &'static str,
    /// The last block in it.
    pub tip: Option<(u32, Hash)>,
    /// Its bytes on the disk.
    pub disk_bytes: u64,
    /// What takes long, if anything does.
    pub building: Option<Building>,
    /// Transactions of the mempool.
    pub unconfirmed: usize,
}

/// What was found of a script.
pub type Answered = (Answer, Answer);

impl ElectrumHandle {
    /// How the index stands.
    pub async fn state(&self) -> State {
        let store = self.store.clone();
        let disk_bytes = tokio::task::spawn_blocking(move || store.disk_bytes()).await;
        let tip = self.store.view().chain.tip();
        let best = self.best.borrow().clone();
        let data = self.data.get();
        let word = match (&best, data) {
            (None, _) => "no bitcoind answers",
            (Some(best), _) if best.blocks.is_none() => "no block files on this machine",
            (Some(best), Some(_)) => match tip {
                Some((_, hash)) if hash == best.hash.to_byte_array() => "at the tip",
                _ => "behind",
            },
            (Some(_), None) => "being built",
        };
        State {
            word,
            tip,
            disk_bytes: disk_bytes.unwrap_or(0),
            building: self.progress.current(),
            unconfirmed: data.map_or(0, |data| data.state().mempool.len()),
        }
    }

    /// Balance and history of a script, as a wallet would be told.
    ///
    /// # Errors
    ///
    /// As a wallet would be refused.
    pub async fn look_up(&self, script: ScriptHash) -> Result<Answered, Refusal> {
        let history = self.ask(Query::History(script)).await?;
        Ok((self.ask(Query::Balance(script)).await?, history))
    }

    /// Whether the index has been at the tip since the start.
    pub(super) fn is_built(&self) -> bool {
        self.data.get().is_some()
    }

    pub(super) async fn ask(&self, query: Query) -> Result<Answer, Refusal> {
        let gone = || Refusal::Unavailable("the index has stopped".to_owned());
        let asking = async {
            let (reply, told) = oneshot::channel();
            let sent = self.asked.send(Asked { query, reply }).await;
            sent.map_err(|_| gone())?;
            told.await.map_err(|_| gone())?.answer
        };
        let asked = tokio::time::timeout(PATIENCE, asking).await;
        asked.unwrap_or(Err(Refusal::Busy))
    }

    /// Greets wallets by another text, or by what the banner's file says now. Gives what they see.
    ///
    /// # Errors
    ///
    /// If it is too long, or can't be read.
    pub fn set_banner(&self, text: Option<&str>) -> anyhow::Result<String> {
        self.banner.set(text)
    }
}

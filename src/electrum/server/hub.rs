//! What all sessions share: who is there, who subscribed to what, what everyone costs, and what was counted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use serde_json::Value;
use tokio::sync::{Notify, mpsc, watch};

use super::super::cost::{Costs, Group, GroupView, Verdict};
use super::super::protocol::info::Info;
use super::super::query::{Change, Tip};
use super::super::session::{Notice, Session, World};
use super::super::subscriptions::{SessionId, Status, Subject, Subscriptions, Wanted};
use super::{Asked, Options, Transport};
use crate::time::Time;

/// Notices that wait for one session. Reason: those of one block to a large wallet; who does not even take that many
/// beside a full outbox is cut.
pub const MAX_NOTICES: usize = 4_096;

/// Counters, one for each thing that can happen to a client.
#[derive(Debug, Default)]
pub struct Counters {
    pub accepted: AtomicU64,
    pub refused_full: AtomicU64,
    pub refused_group: AtomicU64,
    pub refused_cost: AtomicU64,
    pub failed_tls: AtomicU64,
    pub failed_web_socket: AtomicU64,
    pub cut_slow: AtomicU64,
    pub cut_idle: AtomicU64,
    pub cut_cost: AtomicU64,
    pub cut_long: AtomicU64,
    pub cut_version: AtomicU64,
    pub calls: AtomicU64,
    pub notices: AtomicU64,
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
}

/// Adds to a counter.
pub fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// What was counted since the start, and how it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[allow(missing_docs, reason = "each is what its name says")]
pub struct Counts {
    pub sessions: u64,
    pub groups: u64,
    pub subscriptions: u64,
    pub accepted: u64,
    pub refused_full: u64,
    pub refused_group: u64,
    pub refused_cost: u64,
    pub failed_tls: u64,
    pub failed_web_socket: u64,
    pub cut_slow: u64,
    pub cut_idle: u64,
    pub cut_cost: u64,
    pub cut_long: u64,
    pub cut_version: u64,
    pub calls: u64,
    pub notices: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

/// A session, for those who operate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// By which it is disconnected and logged.
    pub id: SessionId,
    /// Where it comes from.
    pub address: SocketAddr,
    /// How.
    pub transport: Transport,
    /// What it calls itself.
    pub client: String,
    /// The version that was agreed on.
    pub version: Option<String>,
    /// When it came.
    pub since: Time,
    /// What it costs, in thousandths.
    pub cost_milli: u64,
    /// How many calls it made.
    pub calls: u64,
    /// What it subscribed to, headers apart.
    pub subscriptions: usize,
    /// Whether its calls are logged.
    pub logged: bool,
}

/// How others reach a session's task.
#[derive(Debug)]
pub struct Handle {
    pub id: SessionId,
    pub address: SocketAddr,
    pub transport: Transport,
    pub since: Time,
    /// Given when the session is to end.
    pub cut: Notify,
    pub logged: AtomicBool,
    pub calls: AtomicU64,
    /// The client's name and its version, once said.
    pub said: Mutex<(String, Option<String>)>,
}

#[derive(Debug)]
struct Entry {
    handle: Arc<Handle>,
    notices: mpsc::Sender<Notice>,
}

#[derive(Debug)]
struct State {
    next: u32,
    sessions: BTreeMap<SessionId, Entry>,
    of_group: BTreeMap<Group, u32>,
    subscriptions: Subscriptions,
    costs: Costs,
    tip: Option<Tip>,
    /// What is to be asked for again.
    again: BTreeSet<Wanted>,
}

/// What all sessions share.
#[derive(Debug)]
pub struct Hub {
    pub options: Options,
    pub counters: Counters,
    pub info: watch::Receiver<Arc<Info>>,
    pub data: mpsc::Sender<Asked>,
    pub peers: Option<mpsc::Sender<(IpAddr, Value)>>,
    /// Given when there is something to be asked for again.
    pub again: Notify,
    started: (Instant, Time),
    state: Mutex<State>,
    emptied: Notify,
    tip_known: watch::Sender<bool>,
}

/// Why a client was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

impl Hub {
    pub fn new(
        options: Options,
        info: watch::Receiver<Arc<Info>>,
        tip: Option<Tip>,
        data: mpsc::Sender<Asked>,
        peers: Option<mpsc::Sender<(IpAddr, Value)>>,
    ) -> Self {
        let unix = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let subscriptions =
            Subscriptions::new(options.max_subscriptions, options.max_subscriptions_total);
        let tip_known = watch::Sender::new(tip.is_some());
        let state = State {
            next: 0,
            sessions: BTreeMap::new(),
            of_group: BTreeMap::new(),
            subscriptions,
            costs: Costs::new(options.cost),
            tip,
            again: BTreeSet::new(),
        };
        Self {
            options,
            counters: Counters::default(),
            info,
            data,
            peers,
            again: Notify::new(),
            started: (Instant::now(), Time::ZERO + unix),
            state: Mutex::new(state),
            emptied: Notify::new(),
            tip_known,
        }
    }

    /// The time, by the monotonic clock.
    pub fn now(&self) -> Time {
        self.started.1 + self.started.0.elapsed()
    }

    /// No one panics while holding it; if someone did, the tables are still tables.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a client in, or refuses and counts it.
    pub fn admit(
        &self,
        address: SocketAddr,
        transport: Transport,
    ) -> Result<(Arc<Handle>, mpsc::Receiver<Notice>), Refused> {
        let now = self.now();
        let group = Group::of(address.ip());
        let mut state = self.state();
        let refuse = |counter| {
            count(counter, 1);
            Err(Refused)
        };
        if state.sessions.len() >= self.options.max_sessions {
            return refuse(&self.counters.refused_full);
        }
        let in_group = state.of_group.get(&group).copied().unwrap_or(0);
        if in_group >= self.options.max_per_group && !address.ip().to_canonical().is_loopback() {
            return refuse(&self.counters.refused_group);
        }
        let mut id = SessionId(state.next);
        while state.sessions.contains_key(&id) {
            id = SessionId(id.0.wrapping_add(1));
        }
        state.next = id.0.wrapping_add(1);
        state.costs.open(id, group, now);
        // To connect costs five units (ElectrumX's `SESSION_COST`).
        if state.costs.charge(id, 5_000, now) == Verdict::Cut {
            state.costs.close(id);
            return refuse(&self.counters.refused_cost);
        }
        *state.of_group.entry(group).or_insert(0) += 1;
        let handle = Arc::new(Handle {
            id,
            address,
            transport,
            since: now,
            cut: Notify::new(),
            logged: AtomicBool::new(false),
            calls: AtomicU64::new(0),
            said: Mutex::default(),
        });
        let (notices, receiver) = mpsc::channel(MAX_NOTICES);
        let entry = Entry {
            handle: handle.clone(),
            notices,
        };
        state.sessions.insert(id, entry);
        count(&self.counters.accepted, 1);
        Ok((handle, receiver))
    }

    /// A client is gone.
    pub fn leave(&self, handle: &Handle) {
        let mut state = self.state();
        state.sessions.remove(&handle.id);
        state.subscriptions.end(handle.id);
        state.costs.close(handle.id);
        let group = Group::of(handle.address.ip());
        if let Some(left) = state.of_group.get_mut(&group) {
            *left -= 1;
            if *left == 0 {
                state.of_group.remove(&group);
            }
        }
        if state.sessions.is_empty() {
            self.emptied.notify_waiters();
        }
    }

    /// Lets a session begin what waits.
    pub fn advance(&self, session: &mut Session) {
        let info = self.info.borrow().clone();
        let mut state = self.state();
        let State {
            subscriptions, tip, ..
        } = &mut *state;
        let mut world = World {
            info: &info,
            tip: tip.as_ref(),
            subscriptions,
        };
        session.advance(&mut world);
    }

    /// Adds to what a session costs.
    pub fn charge(&self, id: SessionId, milli: u64) -> Verdict {
        let now = self.now();
        self.state().costs.charge(id, milli, now)
    }

    /// A session was told the first status of something it subscribed to, or that there is none.
    pub fn answered(&self, id: SessionId, subject: Subject, status: Option<&Status>) {
        let mut state = self.state();
        let Some(status) = status else {
            state.subscriptions.unsubscribe(id, subject);
            return;
        };
        if let Some(wanted) = state.subscriptions.answered(id, subject, status) {
            state.again.insert(wanted);
            self.again.notify_one();
        }
    }

    /// What is to be asked for again.
    pub fn take_again(&self) -> BTreeSet<Wanted> {
        std::mem::take(&mut self.state().again)
    }

    /// Waits until there is a tip.
    pub async fn has_tip(&self) {
        let mut known = self.tip_known.subscribe();
        // The sender is ours: it can't be gone.
        known.wait_for(|is_known| *is_known).await.ok();
    }

    /// Tells everyone of a new tip, and what else is to be asked for.
    pub fn changed(&self, change: &Change) -> Vec<Wanted> {
        let mut state = self.state();
        if let Some(tip) = change.tip {
            state.tip = Some(tip);
            self.tip_known.send_replace(true);
            for entry in state.sessions.values() {
                self.notify(entry, Notice::Tip(tip));
            }
        }
        state.subscriptions.changed(change)
    }

    /// Tells those to whom a status is new; whether it is to be asked for again.
    pub fn learned(&self, subject: Subject, status: Option<Status>) -> bool {
        let mut state = self.state();
        let (notify, again) = state.subscriptions.learned(subject, status.as_ref());
        if let Some(status) = status {
            for entry in notify.iter().filter_map(|id| state.sessions.get(id)) {
                self.notify(entry, Notice::Changed(subject, status));
            }
        }
        again
    }

    fn notify(&self, entry: &Entry, notice: Notice) {
        count(&self.counters.notices, 1);
        if entry.notices.try_send(notice).is_err() {
            count(&self.counters.cut_slow, 1);
            entry.handle.cut.notify_one();
        }
    }

    /// Ends all sessions.
    pub fn cut_all(&self) {
        for entry in self.state().sessions.values() {
            entry.handle.cut.notify_one();
        }
    }

    /// Waits until nobody is left.
    pub async fn emptied(&self) {
        let emptied = self.emptied.notified();
        tokio::pin!(emptied);
        emptied.as_mut().enable();
        if !self.state().sessions.is_empty() {
            emptied.await;
        }
    }
}

/// The server as those see it who operate it.
#[derive(Clone, Debug)]
pub struct Admin(Arc<Hub>);

impl Admin {
    pub(super) fn new(hub: Arc<Hub>) -> Self {
        Self(hub)
    }

    /// `getinfo`, and for metrics.
    pub fn counts(&self) -> Counts {
        let counters = &self.0.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let state = self.0.state();
        Counts {
            sessions: state.sessions.len() as u64,
            groups: state.of_group.len() as u64,
            subscriptions: state.subscriptions.len() as u64,
            accepted: read(&counters.accepted),
            refused_full: read(&counters.refused_full),
            refused_group: read(&counters.refused_group),
            refused_cost: read(&counters.refused_cost),
            failed_tls: read(&counters.failed_tls),
            failed_web_socket: read(&counters.failed_web_socket),
            cut_slow: read(&counters.cut_slow),
            cut_idle: read(&counters.cut_idle),
            cut_cost: read(&counters.cut_cost),
            cut_long: read(&counters.cut_long),
            cut_version: read(&counters.cut_version),
            calls: read(&counters.calls),
            notices: read(&counters.notices),
            bytes_in: read(&counters.bytes_in),
            bytes_out: read(&counters.bytes_out),
        }
    }

    /// `sessions`.
    pub fn sessions(&self) -> Vec<SessionView> {
        let now = self.0.now();
        let state = self.0.state();
        let view = |entry: &Entry| {
            let handle = &entry.handle;
            let said = handle.said.lock().unwrap_or_else(PoisonError::into_inner);
            SessionView {
                id: handle.id,
                address: handle.address,
                transport: handle.transport,
                client: said.0.clone(),
                version: said.1.clone(),
                since: handle.since,
                cost_milli: state.costs.of_session(handle.id, now),
                calls: handle.calls.load(Ordering::Relaxed),
                subscriptions: state.subscriptions.count(handle.id),
                logged: handle.logged.load(Ordering::Relaxed),
            }
        };
        state.sessions.values().map(view).collect()
    }

    /// `groups`: networks with what they cost.
    pub fn groups(&self) -> Vec<GroupView> {
        let now = self.0.now();
        self.0.state().costs.groups(now).collect()
    }

    /// The time, as sessions have it.
    pub fn now(&self) -> Time {
        self.0.now()
    }

    /// What the server says of itself.
    pub fn info(&self) -> Arc<Info> {
        self.0.info.borrow().clone()
    }

    /// What the server was told to allow.
    pub fn options(&self) -> &Options {
        &self.0.options
    }

    /// `disconnect`; whether there is such a session.
    pub fn disconnect(&self, id: SessionId) -> bool {
        self.with(id, |handle| handle.cut.notify_one())
    }

    /// `log`: whether a session's messages are logged from now on, by their length alone; whether there is such a session.
    pub fn log(&self, id: SessionId, on: bool) -> bool {
        self.with(id, |handle| handle.logged.store(on, Ordering::Relaxed))
    }

    /// `banner`: as clients see it.
    pub fn banner(&self) -> String {
        self.0.info.borrow().banner()
    }

    fn with(&self, id: SessionId, act: impl FnOnce(&Handle)) -> bool {
        match self.0.state().sessions.get(&id) {
            Some(entry) => {
                act(&entry.handle);
                true
            }
            None => false,
        }
    }
}

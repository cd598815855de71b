//! One client's task: reads, drives its [`Session`], writes.
//!
//! Three parts run side by side in the one task: one reads messages and waits when none is wanted, one writes frames and is timed,
//! and between them the session. Nothing is begun for a client that does not take what is there for it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::super::cost::Verdict;
use super::super::query::Told;
use super::super::session::{Close, Notice, Output, RequestId, Session};
use super::feed;
use super::hub::{Handle, Hub, count};
use super::listen::Guest;
use super::transport::{Outbox, ReadEnd, Reader, Stream, WriteEnd, Writer};

/// Frames between the session and the writer. Reason: their bytes are what is bounded; this is only enough to keep the
/// writer busy.
const FRAMES: usize = 16;

/// How often the clock is looked at once a client has been silent for too long and is only waited for.
const CLOCK: Duration = Duration::from_millis(100);

/// How long answers are worked at for a client that sends no more. Reason: one that has only ended its own side, as `nc` does, takes
/// them within this time; one that is gone, which looks the same, is not to cost the others more.
const GONE_TIME: Duration = Duration::from_secs(5);

/// Serves a client until it is gone or cut.
pub async fn serve<S: Stream>(
    guest: Guest,
    reader: Reader<S>,
    writer: Writer<S>,
    notices: mpsc::Receiver<Notice>,
) {
    let hub = guest.hub.clone();
    let options = &hub.options;
    let outbox = Arc::new(Outbox::default());
    let (frames, to_write) = mpsc::channel(FRAMES);
    let (read, messages) = mpsc::channel(1);
    let logic = Logic {
        session: Session::new(guest.handle.id, options.session.clone(), hub.now()),
        hub: hub.clone(),
        handle: guest.handle.clone(),
        outbox: outbox.clone(),
        unsent: VecDeque::new(),
        asked: FuturesUnordered::new(),
        not_before: Instant::now(),
        gone_until: None,
        ended: false,
        gone: false,
    };
    let reading = async {
        reader
            .run(options.session.message.message_bytes, read)
            .await;
        std::future::pending::<()>().await;
    };
    let writing = writer.run(to_write, outbox, options.write_timeout);
    let serving = async {
        tokio::select! {
            () = logic.run(messages, notices, frames) => {}
            () = reading => {}
        }
    };
    tokio::pin!(writing);
    let written = tokio::select! {
        written = &mut writing => written,
        // What was to be sent goes out before the end, as long as it is taken.
        () = serving => writing.await,
    };
    if written == Err(WriteEnd::Slow) {
        count(&hub.counters.cut_slow, 1);
    }
}

type Answering = BoxFuture<'static, (RequestId, Told)>;

/// The session with what it needs.
struct Logic {
    session: Session,
    hub: Arc<Hub>,
    handle: Arc<Handle>,
    outbox: Arc<Outbox>,
    /// Frames for which the writer had no room yet; they count as bytes of the outbox.
    unsent: VecDeque<Vec<u8>>,
    asked: FuturesUnordered<Answering>,
    not_before: Instant,
    /// When it is given up, if it sends no more.
    gone_until: Option<Instant>,
    /// The session is at its end by our side.
    ended: bool,
    /// The client says nothing more.
    gone: bool,
}

impl Logic {
    async fn run(
        mut self,
        mut messages: mpsc::Receiver<Result<Vec<u8>, ReadEnd>>,
        mut notices: mpsc::Receiver<Notice>,
        frames: mpsc::Sender<Vec<u8>>,
    ) {
        let (hub, handle, outbox) = (self.hub.clone(), self.handle.clone(), self.outbox.clone());
        loop {
            self.settle();
            if self.unsent.is_empty() && (self.ended || (self.gone && self.asked.is_empty())) {
                return;
            }
            let room = outbox.bytes() < hub.options.outbox_bytes;
            let wants = room && !self.gone && !self.ended && self.session.wants_input();
            let now = Instant::now();
            if messages.is_closed() {
                let until = *self.gone_until.get_or_insert(now + GONE_TIME);
                if until <= now {
                    return;
                }
            }
            let wake = match wants && self.not_before > now {
                true => self.not_before,
                false => now + self.session.deadline().since(hub.now()).max(CLOCK),
            };
            // Whether it has gone is looked at while it is worked for.
            let wake = match self.asked.is_empty() {
                true => wake,
                false => wake.min(now + GONE_TIME / 5),
            };
            tokio::select! {
                () = handle.cut.notified() => return,
                permit = frames.reserve(), if !self.unsent.is_empty() => match (permit, self.unsent.pop_front()) {
                    (Ok(permit), Some(frame)) => permit.send(frame),
                    _ => return,
                },
                Some((request, told)) = self.asked.next(), if room && !self.asked.is_empty() => {
                    self.answered(request, &told);
                }
                notice = notices.recv(), if room && !self.ended => match notice {
                    Some(notice) => self.session.notify(&notice),
                    None => return,
                },
                message = messages.recv(), if wants && self.not_before <= now => self.received(message),
                () = outbox.drained.notified(), if !room => {}
                () = tokio::time::sleep_until(wake) => self.session.look_at_clock(hub.now()),
            }
        }
    }

    fn received(&mut self, message: Option<Result<Vec<u8>, ReadEnd>>) {
        match message {
            Some(Ok(message)) => {
                count(&self.hub.counters.bytes_in, message.len() as u64);
                self.session.receive(&message, self.hub.now());
                if self.handle.logged.load(Ordering::Relaxed) {
                    // Only how much: what is asked would tell whose coins are whose.
                    tracing::info!(session = self.handle.id.0, bytes = message.len(), "message");
                }
            }
            Some(Err(ReadEnd::TooLong)) => self.session.close(Close::TooLong),
            Some(Err(ReadEnd::Broken)) | None => self.gone = true,
        }
    }

    fn answered(&mut self, request: RequestId, told: &Told) {
        if let Some((subject, status)) = self.session.answered(request, told) {
            // The answer is in the outbox before anyone can send a notice of the same.
            self.hub.answered(self.handle.id, subject, status.as_ref());
        }
    }

    /// Lets the session begin what it may, takes what comes of it, and charges for it.
    fn settle(&mut self) {
        let calls = self.session.calls();
        if self.outbox.bytes() < self.hub.options.outbox_bytes {
            self.hub.advance(&mut self.session);
        }
        let begun = self.session.calls() - calls;
        if begun > 0 {
            count(&self.hub.counters.calls, begun);
            self.handle.calls.fetch_add(begun, Ordering::Relaxed);
            self.remember();
        }
        let cost = self.session.take_cost();
        if cost > 0 {
            match self.hub.charge(self.handle.id, cost) {
                Verdict::Fine => {}
                Verdict::Wait(wait) => self.not_before = Instant::now() + wait,
                Verdict::Cut => self.session.close(Close::Excessive),
            }
        }
        while let Some(output) = self.session.poll() {
            match output {
                Output::Ask(request, query) => {
                    let hub = self.hub.clone();
                    self.asked.push(Box::pin(
                        async move { (request, feed::ask(&hub, query).await) },
                    ));
                }
                Output::Send(frame) => {
                    count(&self.hub.counters.bytes_out, frame.len() as u64);
                    self.outbox.add(frame.len());
                    self.unsent.push_back(frame);
                }
                Output::AddPeer(features) => {
                    if let Some(peers) = &self.hub.peers {
                        // One too many at a time may come again.
                        peers.try_send((self.handle.address.ip(), features)).ok();
                    }
                }
                Output::Close(reason) => self.close(reason),
            }
        }
    }

    fn close(&mut self, reason: Close) {
        let counters = &self.hub.counters;
        let counter = match reason {
            Close::Version => &counters.cut_version,
            Close::Idle => &counters.cut_idle,
            Close::Excessive => &counters.cut_cost,
            Close::TooLong => &counters.cut_long,
        };
        count(counter, 1);
        self.ended = true;
    }

    /// What the client says of itself, for those who operate.
    fn remember(&self) {
        if let Some(version) = self.session.version() {
            let mut said = self
                .handle
                .said
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if said.1.is_none() {
                *said = (self.session.client().to_owned(), Some(version.to_string()));
            }
        }
    }
}

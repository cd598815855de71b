//! One client: its messages in; questions to the data and frames to send out.
//!
//! Whoever drives it gives it messages ([`Session::receive`]), lets it begin what is waiting ([`Session::advance`]), brings what came
//! of its questions ([`Session::answered`]) and what it subscribed to ([`Session::notify`]), and takes from it until nothing is
//! left ([`Session::poll`]).
//!
//! A call is in exactly one state: waiting, asked, or answered. A single call is answered as soon as it can be, so that a long
//! history does not hold up the ping behind it; the calls of a batch are answered together, in their order. What waits is bounded, for
//! no message is to be given while [`Session::wants_input`] says no.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde_json::Value;

use super::cost::Costs;
use super::jsonrpc::{self, Call, Dialect, Failure, Item, Message, code};
use super::protocol::info::Info;
use super::protocol::{Action, Shape, Version, agree, price_of_answer, read, write};
use super::query::{Answer, Query, Refusal, Tip, Told};
use super::subscriptions::{SessionId, Status, Subject, Subscriptions, Wanted};
use crate::time::Time;

/// Bytes of one answer, a batch's whole, unless configured otherwise. Reason: the largest transaction that a block can hold is 4 MB,
/// 8 MB as hexadecimal digits; ElectrumX's `MAX_SEND` is 8.1 MB.
pub const MAX_RESPONSE_BYTES: usize = 8_100_000;

/// Questions of one session that the data has at a time. Reason: ElectrumX's `INITIAL_CONCURRENT`; with it nobody
/// fills the queue to the data alone.
pub const MAX_CONCURRENT: usize = 10;

/// Characters of a client's name that are kept. Reason: it is only for logs and lists; ElectrumX keeps as many.
pub const MAX_CLIENT_NAME: usize = 100;

/// Digits of an answer to `server.ping` at most. Reason: they are to hide how long other messages are, and those of wallets are
/// shorter; each is some bytes of ours for one of theirs.
const MAX_PONG: usize = 65_536;

/// What a session may do.
#[derive(Clone, Debug)]
pub struct Limits {
    /// What a message may be.
    pub message: jsonrpc::Limits,
    /// Bytes of an answer.
    pub response_bytes: usize,
    /// Questions at a time.
    pub concurrent: usize,
    /// How long it may say nothing.
    pub idle: Duration,
    /// Whether other servers may name themselves.
    pub peers: bool,
    /// Whether frames are padded from 1.7 on, so that their lengths tell less to who sees only encrypted bytes.
    pub pad: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message: jsonrpc::Limits::default(),
            response_bytes: MAX_RESPONSE_BYTES,
            concurrent: MAX_CONCURRENT,
            // "The server may disconnect clients that have sent no requests for roughly 10 minutes."
            idle: Duration::from_secs(600),
            peers: false,
            pad: true,
        }
    }
}

/// What a session sees of the rest.
#[derive(Debug)]
pub struct World<'a> {
    /// What the server says of itself.
    pub info: &'a Info,
    /// The tip, once there is one.
    pub tip: Option<&'a Tip>,
    /// Who wants to be told of what.
    pub subscriptions: &'a mut Subscriptions,
}

/// Names a question until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Why a session ends by our side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// No version in common, or not agreed on first.
    Version,
    /// It said nothing for too long.
    Idle,
    /// It cost too much.
    Excessive,
    /// A message of too many bytes.
    TooLong,
}

/// What comes out.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// A question to the data.
    Ask(RequestId, Query),
    /// A frame to send, without a line's end.
    Send(Vec<u8>),
    /// Another server names itself.
    AddPeer(Value),
    /// The end, after what was to be sent before.
    Close(Close),
}

/// What a session is told unasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// There is a new tip.
    Tip(Tip),
    /// Something that it subscribed to has another status.
    Changed(Subject, Status),
}

/// Where an answer belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Single,
    Batch(u64, usize),
}

/// A call that awaits its turn, or its answer.
#[derive(Debug)]
struct Pending {
    slot: Slot,
    dialect: Dialect,
    id: Value,
}

#[derive(Debug)]
struct Waiting {
    pending: Pending,
    call: Result<Call, Failure>,
}

#[derive(Debug)]
struct Asked {
    pending: Pending,
    shape: Shape,
    subject: Option<Subject>,
}

/// Answers that go out together.
#[derive(Debug)]
struct Batch {
    answers: Vec<Vec<u8>>,
    left: usize,
    bytes: usize,
}

/// One client.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    limits: Limits,
    version: Version,
    agreed: bool,
    /// Whether it called anything before it agreed on a version.
    spoke: bool,
    client: String,
    headers: bool,
    waiting: VecDeque<Waiting>,
    asked: BTreeMap<RequestId, Asked>,
    batches: BTreeMap<u64, Batch>,
    next: u64,
    outputs: VecDeque<Output>,
    cost_milli: u64,
    calls: u64,
    heard: Time,
    closed: bool,
}

impl Session {
    /// A client that has just come.
    pub fn new(id: SessionId, limits: Limits, now: Time) -> Self {
        Self {
            id,
            limits,
            version: Version::MIN,
            agreed: false,
            spoke: false,
            client: String::new(),
            headers: false,
            waiting: VecDeque::new(),
            asked: BTreeMap::new(),
            batches: BTreeMap::new(),
            next: 0,
            outputs: VecDeque::new(),
            cost_milli: 0,
            calls: 0,
            heard: now,
            closed: false,
        }
    }

    /// What it calls itself; empty if it has not said.
    pub fn client(&self) -> &str {
        &self.client
    }

    /// The version that was agreed on.
    pub fn version(&self) -> Option<Version> {
        self.agreed.then_some(self.version)
    }

    /// How many calls it has made.
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// What it has cost since this was last asked, in thousandths.
    pub fn take_cost(&mut self) -> u64 {
        std::mem::take(&mut self.cost_milli)
    }

    /// Whether it may be given a message: not as long as calls wait for others.
    pub fn wants_input(&self) -> bool {
        !self.closed && self.waiting.is_empty() && self.asked.len() < self.limits.concurrent
    }

    /// When it will have been silent for too long.
    pub fn deadline(&self) -> Time {
        self.heard + self.limits.idle
    }

    /// Ends it if it has been silent for too long.
    pub fn look_at_clock(&mut self, now: Time) {
        if now >= self.deadline() && self.asked.is_empty() {
            self.close(Close::Idle);
        }
    }

    /// Ends it.
    pub fn close(&mut self, reason: Close) {
        if self.closed {
            return;
        }
        let failure = match reason {
            Close::Excessive => Some(Failure::new(code::EXCESSIVE, "excessive resource usage")),
            Close::TooLong => Some(Failure::new(
                code::INVALID_REQUEST,
                format!(
                    "message of more than {} bytes",
                    self.limits.message.message_bytes
                ),
            )),
            Close::Version | Close::Idle => None,
        };
        if let Some(failure) = failure {
            let text = jsonrpc::answer(Dialect::Two, &Value::Null, Err(&failure));
            self.outputs.push_back(Output::Send(text));
        }
        self.outputs.push_back(Output::Close(reason));
        self.closed = true;
        self.waiting.clear();
        self.batches.clear();
    }

    /// Takes a message.
    pub fn receive(&mut self, message: &[u8], now: Time) {
        self.heard = self.heard.max(now);
        if self.closed {
            return;
        }
        self.cost_milli += Costs::of_bytes(message.len());
        match jsonrpc::parse(message, &self.limits.message) {
            Err(failure) => self.wait(
                Slot::Single,
                Item::Wrong(Dialect::Two, Value::Null, failure),
            ),
            Ok(Message::Single(item)) => self.wait(Slot::Single, item),
            Ok(Message::Batch(items)) => {
                let has_answer = |item: &&Item| match item {
                    Item::Call(call) => call.id.is_some(),
                    Item::Wrong(..) => true,
                    Item::Answer => false,
                };
                let left = items.iter().filter(has_answer).count();
                let name = self.next;
                self.next += 1;
                if left > 0 {
                    let batch = Batch {
                        answers: vec![Vec::new(); left],
                        left,
                        bytes: 0,
                    };
                    self.batches.insert(name, batch);
                }
                let mut index = 0;
                for item in items {
                    let answered = has_answer(&&item);
                    self.wait(Slot::Batch(name, index), item);
                    index += usize::from(answered);
                }
            }
        }
    }

    fn wait(&mut self, slot: Slot, item: Item) {
        let (dialect, id, call) = match item {
            Item::Answer => return,
            Item::Wrong(dialect, id, failure) => (dialect, id, Err(failure)),
            Item::Call(mut call) => match call.id.take() {
                Some(id) => (call.dialect, id, Ok(call)),
                // Of what clients may say without an answer there is only `server.ping`, which asks for nothing.
                None => {
                    self.cost_milli += 100;
                    return;
                }
            },
        };
        let pending = Pending { slot, dialect, id };
        self.waiting.push_back(Waiting { pending, call });
    }

    /// Begins calls that wait, as many as may be asked at a time.
    pub fn advance(&mut self, world: &mut World<'_>) {
        while self.asked.len() < self.limits.concurrent {
            let Some(Waiting { pending, call }) = self.waiting.pop_front() else {
                return;
            };
            self.calls += 1;
            let begun = call.and_then(|mut call| read(&mut call, self.version));
            match begun {
                Err(failure) => {
                    // Nonsense costs as well.
                    self.cost_milli += 100;
                    self.reply(&pending, Err(&failure));
                }
                Ok((action, price)) => {
                    self.cost_milli += price;
                    self.begin(pending, action, world);
                }
            }
        }
    }

    fn begin(&mut self, pending: Pending, action: Action, world: &mut World<'_>) {
        if let Action::Version(client, named) = action {
            return self.agree(&pending, &client, &named, world.info);
        }
        self.spoke = true;
        match action {
            Action::Ask(query, shape) => self.ask(pending, query, shape, None),
            Action::SubscribeScript(script) => {
                self.subscribe(pending, Wanted::Script(script), world);
            }
            Action::SubscribeOutpoint(of, script) => {
                self.subscribe(pending, Wanted::Outpoint(of, script), world);
            }
            Action::UnsubscribeScript(script) => {
                self.unsubscribe(&pending, Subject::Script(script), world);
            }
            Action::UnsubscribeOutpoint(of) => {
                self.unsubscribe(&pending, Subject::Outpoint(of), world);
            }
            action => match self.tell(action, world) {
                Ok(text) => self.reply(&pending, Ok(&text)),
                Err(failure) => self.reply(&pending, Err(&failure)),
            },
        }
    }

    /// What the session knows by itself.
    fn tell(&mut self, action: Action, world: &World<'_>) -> Result<Vec<u8>, Failure> {
        let info = world.info;
        Ok(match action {
            Action::SubscribeHeaders => {
                let tip = world.tip.ok_or_else(|| {
                    Failure::new(code::UNAVAILABLE, "unavailable: no block is known yet")
                })?;
                self.headers = true;
                write::tip(tip)
            }
            Action::Ping(_) if self.version < Version::V1_7 => b"null".to_vec(),
            Action::Ping(digits) if digits > MAX_PONG => {
                return Err(Failure::new(code::BAD_REQUEST, "pong_len is too high"));
            }
            Action::Ping(digits) => format!("{{\"data\":\"{}\"}}", "0".repeat(digits)).into_bytes(),
            Action::Features => info.features().to_string().into_bytes(),
            Action::Banner => write::string(&info.banner()),
            Action::DonationAddress => write::string(&info.donation_address),
            Action::Peers => info.peers().to_string().into_bytes(),
            Action::AddPeer(features) if self.limits.peers => {
                self.outputs.push_back(Output::AddPeer(features));
                b"true".to_vec()
            }
            _ => b"false".to_vec(),
        })
    }

    /// "Only the first server.version message is accepted", and from 1.6 on "This must be the first message sent on the wire."
    fn agree(&mut self, pending: &Pending, client: &str, named: &Value, info: &Info) {
        let refuse = |message| Failure::new(code::BAD_REQUEST, message);
        if self.agreed {
            return self.reply(pending, Err(&refuse("server.version already sent")));
        }
        let kept = client.chars().filter(|letter| !letter.is_control());
        self.client = kept.take(MAX_CLIENT_NAME).collect();
        let failure = match agree(named) {
            None => refuse("unsupported protocol version"),
            Some(version) if version >= Version::V1_6 && self.spoke => {
                refuse("server.version must be the first message")
            }
            Some(version) => {
                (self.version, self.agreed) = (version, true);
                let told = serde_json::json!([info.software, version.to_string()]);
                return self.reply(pending, Ok(told.to_string().as_bytes()));
            }
        };
        self.reply(pending, Err(&failure));
        if let Slot::Batch(name, _) = pending.slot {
            // What was answered so far is not held back by calls that will not be begun.
            self.release(name);
        }
        self.close(Close::Version);
    }

    fn subscribe(&mut self, pending: Pending, wanted: Wanted, world: &mut World<'_>) {
        if let Err(full) = world.subscriptions.subscribe(self.id, wanted) {
            let failure = Failure::new(code::EXCESSIVE, full.to_string());
            return self.reply(&pending, Err(&failure));
        }
        let query = question(&wanted);
        self.ask(pending, query, Shape::Plain, Some(wanted.subject()));
    }

    fn unsubscribe(&mut self, pending: &Pending, subject: Subject, world: &mut World<'_>) {
        let was = world.subscriptions.unsubscribe(self.id, subject);
        self.reply(pending, Ok(if was { b"true" } else { b"false" }));
    }

    fn ask(&mut self, pending: Pending, query: Query, shape: Shape, subject: Option<Subject>) {
        let request = RequestId(self.next);
        self.next += 1;
        let asked = Asked {
            pending,
            shape,
            subject,
        };
        self.asked.insert(request, asked);
        self.outputs.push_back(Output::Ask(request, query));
    }

    /// Takes what came of a question. If it was the first status of something it subscribed to, that is for
    /// [`Subscriptions::answered`]; if there was none, for [`Subscriptions::unsubscribe`].
    pub fn answered(
        &mut self,
        request: RequestId,
        told: &Told,
    ) -> Option<(Subject, Option<Status>)> {
        let asked = self.asked.remove(&request)?;
        let answer = told.answer.as_ref();
        self.cost_milli += price_of_answer(answer.ok(), told.looked_at);
        match answer {
            Ok(answer) => {
                let text = write::answer(self.version, &asked.shape, answer);
                match text.is_empty() {
                    false => self.reply(&asked.pending, Ok(&text)),
                    true => self.refuse(&asked, &Refusal::Internal),
                }
            }
            Err(refusal) => self.refuse(&asked, refusal),
        }
        let subject = asked.subject?;
        Some((subject, answer.ok().and_then(status)))
    }

    fn refuse(&mut self, asked: &Asked, refusal: &Refusal) {
        let failure = write::refusal(self.version, &asked.shape, refusal);
        self.reply(&asked.pending, Err(&failure));
    }

    /// Takes something that it was not asking for.
    pub fn notify(&mut self, notice: &Notice) {
        if self.closed {
            return;
        }
        let (method, params) = match notice {
            Notice::Tip(_) if !self.headers => return,
            Notice::Tip(tip) => ("blockchain.headers.subscribe", write::tip(tip)),
            Notice::Changed(Subject::Script(script), Status::Script(status)) => {
                let method = match self.version < Version::V1_7 {
                    true => "blockchain.scripthash.subscribe",
                    false => "blockchain.scriptpubkey.subscribe",
                };
                (method, write::script_changed(script, status.as_ref()))
            }
            Notice::Changed(Subject::Outpoint(of), Status::Outpoint(funder, spender)) => {
                let params = write::outpoint_changed(of, *funder, *spender);
                ("blockchain.outpoint.subscribe", params)
            }
            Notice::Changed(..) => return,
        };
        self.send(jsonrpc::notification(method, &params));
    }

    /// Puts an answer where it belongs.
    fn reply(&mut self, pending: &Pending, result: Result<&[u8], &Failure>) {
        if self.closed {
            return;
        }
        let answer = |result| jsonrpc::answer(pending.dialect, &pending.id, result);
        let mut text = answer(result);
        let before = match pending.slot {
            Slot::Single => 0,
            Slot::Batch(name, _) => self.batches.get(&name).map_or(0, |batch| batch.bytes),
        };
        if result.is_ok() && before + text.len() > self.limits.response_bytes {
            let message = format!(
                "response too large (over {} bytes)",
                self.limits.response_bytes
            );
            text = answer(Err(&Failure::new(code::INVALID_REQUEST, message)));
        }
        let Slot::Batch(name, index) = pending.slot else {
            return self.send(text);
        };
        let Some(batch) = self.batches.get_mut(&name) else {
            return;
        };
        batch.bytes += text.len();
        batch.left -= 1;
        if let Some(place) = batch.answers.get_mut(index) {
            *place = text;
        }
        if batch.left == 0 {
            self.release(name);
        }
    }

    fn release(&mut self, name: u64) {
        if let Some(mut batch) = self.batches.remove(&name) {
            batch.answers.retain(|answer| !answer.is_empty());
            self.send(jsonrpc::batch(&batch.answers));
        }
    }

    fn send(&mut self, mut text: Vec<u8>) {
        if self.limits.pad && self.version >= Version::V1_7 {
            pad(&mut text);
        }
        self.cost_milli += Costs::of_bytes(text.len());
        self.outputs.push_back(Output::Send(text));
    }

    /// The next thing to be done for it.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }
}

/// Bytes of the shortest padded frame, with its line's end. Protocol 1.7 recommends powers of two from here on. It also
/// recommends holding frames back for up to a second, which is not done: news within milliseconds are what this server is for.
const PADDED_BYTES: usize = 1_024;

/// Puts spaces before the last bracket.
fn pad(text: &mut Vec<u8>) {
    let length = (text.len() + 1).next_power_of_two().max(PADDED_BYTES);
    if let Some(last) = text.pop() {
        text.resize(length - 2, b' ');
        text.push(last);
    }
}

/// What the data is asked for the status of something.
pub fn question(wanted: &Wanted) -> Query {
    match wanted {
        Wanted::Script(script) => Query::Status(*script),
        Wanted::Outpoint((txid, index), script) => Query::Outpoint {
            txid: *txid,
            index: *index,
            script: *script,
        },
    }
}

/// The status that an answer tells, if it tells one.
pub fn status(answer: &Answer) -> Option<Status> {
    match answer {
        Answer::Status(status) => Some(Status::Script(*status)),
        Answer::Outpoint { funder, spender } => Some(Status::Outpoint(*funder, *spender)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;

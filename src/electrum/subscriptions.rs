//! Who wants to be told of what: scripts and outputs, the sessions that subscribed to them, and what each was last told.
//!
//! A change names scripts and outputs; [`Subscriptions::changed`] says which of them anybody wants, each to be asked for once
//! whatever the number of sessions; [`Subscriptions::learned`] takes what came of it and says whom to notify: those who were last told
//! something else. What this is not: it sends nothing.
//!
//! # A subscription's states
//!
//! It is *awaited* from the request on, before the data is asked, so that no change falls between. A change makes it *stale*.
//! With the answer it is *told*; one that was stale is asked for again.
//!
//! # Memory
//!
//! A script's subscription is 36 bytes of key and 8 of state in one ordered map, and 36 in an ordered set for when its session
//! ends; as the nodes of such trees are about 70% full, some 120 bytes: 120 MB for a million. (ElectrumX reckons 160 each.)
//! An output's has the output's script beside, some 180 bytes. No allocation is made for a single one.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};

use super::protocol::Outpoint;
use super::query::{Change, Place};
use super::script_hash::ScriptHash;
use crate::merkle::Hash;

/// Subscriptions of one session unless configured otherwise. Reason: wallets of merchants have some ten thousand addresses;
/// Fulcrum takes 75,000 from one address. This many take 6 MB.
pub const MAX_PER_SESSION: usize = 50_000;

/// Subscriptions of all sessions unless configured otherwise. Reason: at some 120 bytes each they take 240 MB.
pub const MAX_SUBSCRIPTIONS: usize = 2_000_000;

/// A session, as long as the server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u32);

/// What can be subscribed to, besides headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A script's history.
    Script(ScriptHash),
    /// An output's life.
    Outpoint(Outpoint),
}

/// What is told of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The hash over a script's history.
    Script(Option<[u8; 32]>),
    /// Where an output was made, and by what and where it was spent.
    Outpoint(Option<Place>, Option<(Hash, Place)>),
}

/// What a session was last told, in eight bytes: a digest, or one of two marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told(u64);

impl Told {
    /// Its first answer is on the way.
    const AWAITED: Self = Self(0);
    /// The same, and there was a change meanwhile.
    const STALE: Self = Self(1);

    fn of(status: &Status) -> Self {
        let first = |bytes: &[u8]| match bytes {
            [a, b, c, d, e, f, g, h, ..] => u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]),
            _ => 0,
        };
        let digest = match status {
            Status::Script(None) => 2,
            Status::Script(Some(status)) => first(status),
            Status::Outpoint(funder, spender) => {
                let mut hasher = Sha256::new();
                // No block has this height.
                let height = |place: Option<Place>| place.map_or(i64::MIN, Place::height);
                hasher.update(height(*funder).to_le_bytes());
                hasher.update(height(spender.map(|(_, place)| place)).to_le_bytes());
                hasher.update(spender.map_or([0; 32], |(txid, _)| txid));
                first(&hasher.finalize())
            }
        };
        Self(digest.max(2))
    }
}

/// Why there is no subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// This session has too many.
    #[error("too many subscriptions in this session")]
    Session,
    /// All sessions together have too many.
    #[error("too many subscriptions on this server")]
    Server,
}

/// Who wants to know of one kind of subject; `E` is what has to be kept of it beside.
#[derive(Debug)]
struct Register<K, E> {
    wanted: BTreeMap<(K, SessionId), (Told, E)>,
    by_session: BTreeMap<SessionId, BTreeSet<K>>,
    /// What is being asked for since a change, and whether there was another one meanwhile.
    asked: BTreeMap<K, bool>,
}

impl<K, E> Default for Register<K, E> {
    fn default() -> Self {
        Self {
            wanted: BTreeMap::new(),
            by_session: BTreeMap::new(),
            asked: BTreeMap::new(),
        }
    }
}

const FIRST: SessionId = SessionId(0);
const LAST: SessionId = SessionId(u32::MAX);

impl<K: Copy + Ord, E: Copy> Register<K, E> {
    fn insert(&mut self, key: K, session: SessionId, extra: E) {
        self.wanted.insert((key, session), (Told::AWAITED, extra));
        self.by_session.entry(session).or_default().insert(key);
    }

    fn remove(&mut self, key: K, session: SessionId) -> bool {
        if let Some(keys) = self.by_session.get_mut(&session) {
            keys.remove(&key);
        }
        self.wanted.remove(&(key, session)).is_some()
    }

    /// What anybody wants of these, without what is being asked for already.
    fn changed(&mut self, keys: &[K], ask: &mut impl FnMut(K, E)) {
        for key in keys {
            let mut extra = None;
            for (_, (told, of_it)) in self.wanted.range_mut((*key, FIRST)..=(*key, LAST)) {
                extra = Some(*of_it);
                if *told == Told::AWAITED {
                    *told = Told::STALE;
                }
            }
            let Some(extra) = extra else { continue };
            match self.asked.get_mut(key) {
                Some(again) => *again = true,
                None => {
                    self.asked.insert(*key, false);
                    ask(*key, extra);
                }
            }
        }
    }

    /// Whom to notify; and whether to ask again.
    fn learned(&mut self, key: K, status: Option<Told>) -> (Vec<SessionId>, bool) {
        let again = self.asked.remove(&key).unwrap_or(false);
        let mut notify = Vec::new();
        let mut anybody = false;
        for ((_, session), (told, _)) in self.wanted.range_mut((key, FIRST)..=(key, LAST)) {
            anybody = true;
            let waits = *told == Told::AWAITED || *told == Told::STALE;
            if let Some(status) = status.filter(|status| !waits && status != told) {
                *told = status;
                notify.push(*session);
            }
        }
        let again = again && anybody;
        if again {
            self.asked.insert(key, false);
        }
        (notify, again)
    }

    /// Whether it has to be asked for again; what is kept of it, if so.
    fn answered(&mut self, key: K, session: SessionId, status: Told) -> Option<E> {
        let (told, extra) = self.wanted.get_mut(&(key, session))?;
        let stale = *told == Told::STALE;
        *told = status;
        if !stale {
            return None;
        }
        match self.asked.get_mut(&key) {
            Some(again) => {
                *again = true;
                None
            }
            None => {
                self.asked.insert(key, false);
                Some(*extra)
            }
        }
    }

    fn end(&mut self, session: SessionId) {
        for key in self.by_session.remove(&session).unwrap_or_default() {
            self.wanted.remove(&(key, session));
        }
    }

    fn count(&self, session: SessionId) -> usize {
        self.by_session.get(&session).map_or(0, BTreeSet::len)
    }
}

/// Who wants to be told of what.
#[derive(Debug)]
pub struct Subscriptions {
    scripts: Register<ScriptHash, ()>,
    outpoints: Register<Outpoint, ScriptHash>,
    per_session: usize,
    total: usize,
}

impl Default for Subscriptions {
    fn default() -> Self {
        Self::new(MAX_PER_SESSION, MAX_SUBSCRIPTIONS)
    }
}

/// What is to be asked for: a subject, and an output's script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wanted {
    /// A script's status.
    Script(ScriptHash),
    /// An output's, which has this script.
    Outpoint(Outpoint, ScriptHash),
}

impl Wanted {
    /// What of.
    pub fn subject(&self) -> Subject {
        match self {
            Self::Script(script) => Subject::Script(*script),
            Self::Outpoint(outpoint, _) => Subject::Outpoint(*outpoint),
        }
    }
}

impl Subscriptions {
    /// None yet; with bounds for one session and for all.
    pub fn new(per_session: usize, total: usize) -> Self {
        Self {
            scripts: Register::default(),
            outpoints: Register::default(),
            per_session,
            total,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.scripts.wanted.len() + self.outpoints.wanted.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many of them are of this session.
    pub fn count(&self, session: SessionId) -> usize {
        self.scripts.count(session) + self.outpoints.count(session)
    }

    /// A session is about to ask for the first status: from here on no change escapes it. One who is subscribed already
    /// starts anew.
    ///
    /// # Errors
    /// When there are too many.
    pub fn subscribe(&mut self, session: SessionId, wanted: Wanted) -> Result<(), Full> {
        let known = match &wanted {
            Wanted::Script(script) => self.scripts.wanted.contains_key(&(*script, session)),
            Wanted::Outpoint(of, _) => self.outpoints.wanted.contains_key(&(*of, session)),
        };
        if !known && self.count(session) >= self.per_session {
            return Err(Full::Session);
        }
        if !known && self.len() >= self.total {
            return Err(Full::Server);
        }
        match wanted {
            Wanted::Script(script) => self.scripts.insert(script, session, ()),
            Wanted::Outpoint(of, script) => self.outpoints.insert(of, session, script),
        }
        Ok(())
    }

    /// The first status went out. What is to be asked for again, if there was a change meanwhile.
    pub fn answered(
        &mut self,
        session: SessionId,
        subject: Subject,
        status: &Status,
    ) -> Option<Wanted> {
        let told = Told::of(status);
        match subject {
            Subject::Script(script) => {
                let again = self.scripts.answered(script, session, told);
                again.map(|()| Wanted::Script(script))
            }
            Subject::Outpoint(of) => {
                let again = self.outpoints.answered(of, session, told);
                again.map(|script| Wanted::Outpoint(of, script))
            }
        }
    }

    /// Ends a subscription; whether there was one.
    pub fn unsubscribe(&mut self, session: SessionId, subject: Subject) -> bool {
        match subject {
            Subject::Script(script) => self.scripts.remove(script, session),
            Subject::Outpoint(of) => self.outpoints.remove(of, session),
        }
    }

    /// A session is gone.
    pub fn end(&mut self, session: SessionId) {
        self.scripts.end(session);
        self.outpoints.end(session);
    }

    /// What of a change somebody wants and is not being asked for yet: each once.
    pub fn changed(&mut self, change: &Change) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        self.scripts.changed(&change.scripts, &mut |script, ()| {
            wanted.push(Wanted::Script(script))
        });
        self.outpoints
            .changed(&change.outpoints, &mut |of, script| {
                wanted.push(Wanted::Outpoint(of, script));
            });
        wanted
    }

    /// What came of asking for a subject, `None` if nothing did: the sessions to notify, and whether to ask again, for there was
    /// another change meanwhile.
    pub fn learned(&mut self, subject: Subject, status: Option<&Status>) -> (Vec<SessionId>, bool) {
        let told = status.map(Told::of);
        match subject {
            Subject::Script(script) => self.scripts.learned(script, told),
            Subject::Outpoint(of) => self.outpoints.learned(of, told),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(number: u8) -> ScriptHash {
        ScriptHash::of(&[number])
    }

    fn change(numbers: &[u8]) -> Change {
        let mut scripts: Vec<_> = numbers.iter().map(|number| script(*number)).collect();
        scripts.sort();
        Change {
            scripts,
            ..Change::default()
        }
    }

    fn status(number: u8) -> Status {
        Status::Script(Some([number; 32]))
    }

    const ONE: SessionId = SessionId(1);
    const TWO: SessionId = SessionId(2);

    /// Two sessions that were told status 9 of script 1, and one of them of script 2.
    fn two() -> Subscriptions {
        let mut all = Subscriptions::new(3, 4);
        for (session, number) in [(ONE, 1), (TWO, 1), (TWO, 2)] {
            all.subscribe(session, Wanted::Script(script(number)))
                .unwrap();
            let again = all.answered(session, Subject::Script(script(number)), &status(9));
            assert_eq!(again, None);
        }
        all
    }

    #[test]
    fn a_status_is_asked_for_once_and_told_to_those_to_whom_it_is_new() {
        let mut all = two();
        let subject = Subject::Script(script(1));
        assert_eq!(all.changed(&change(&[1, 3])), [Wanted::Script(script(1))]);
        assert_eq!(
            all.learned(subject, Some(&status(8))),
            (vec![ONE, TWO], false)
        );
        // Touched, but the same.
        assert_eq!(all.changed(&change(&[1])).len(), 1);
        assert_eq!(all.learned(subject, Some(&status(8))), (vec![], false));
        // A second change while the first is asked for: once more, afterwards.
        assert_eq!(all.changed(&change(&[1])).len(), 1);
        assert_eq!(all.changed(&change(&[1])), []);
        assert_eq!(
            all.learned(subject, Some(&status(7))),
            (vec![ONE, TWO], true)
        );
        assert_eq!(
            all.learned(subject, Some(&status(6))),
            (vec![ONE, TWO], false)
        );
        // Nothing came of it.
        assert_eq!(all.changed(&change(&[1])).len(), 1);
        assert_eq!(all.learned(subject, None), (vec![], false));
    }

    #[test]
    fn a_change_before_the_first_answer_is_not_lost() {
        let mut all = two();
        let subject = Subject::Script(script(3));
        all.subscribe(ONE, Wanted::Script(script(3))).unwrap();
        assert_eq!(all.changed(&change(&[3])).len(), 1);
        assert_eq!(all.learned(subject, Some(&status(5))), (vec![], false));
        // The first answer is of before the change: it is asked for again, and told.
        let again = all.answered(ONE, subject, &status(4));
        assert_eq!(again, Some(Wanted::Script(script(3))));
        assert_eq!(all.learned(subject, Some(&status(5))), (vec![ONE], false));
    }

    #[test]
    fn ended_ones_are_not_told_and_bounds_hold() {
        let mut all = two();
        let subject = Subject::Script(script(1));
        assert_eq!(all.changed(&change(&[1])).len(), 1);
        assert!(all.unsubscribe(ONE, subject));
        assert!(!all.unsubscribe(ONE, subject));
        assert_eq!(all.learned(subject, Some(&status(1))), (vec![TWO], false));
        all.subscribe(TWO, Wanted::Script(script(5))).unwrap();
        // Again is not more.
        all.subscribe(TWO, Wanted::Script(script(5))).unwrap();
        assert_eq!(
            all.subscribe(TWO, Wanted::Script(script(6))),
            Err(Full::Session)
        );
        all.subscribe(ONE, Wanted::Script(script(7))).unwrap();
        assert_eq!(
            all.subscribe(ONE, Wanted::Script(script(8))),
            Err(Full::Server)
        );
        assert_eq!((all.count(ONE), all.count(TWO), all.len()), (1, 3, 4));
        all.end(TWO);
        assert_eq!((all.count(TWO), all.len()), (0, 1));
        assert_eq!(all.changed(&change(&[1, 2, 5])), []);
    }

    #[test]
    fn outputs_too() {
        let mut all = Subscriptions::default();
        let of = ([3; 32], 1);
        let wanted = Wanted::Outpoint(of, script(1));
        all.subscribe(ONE, wanted).unwrap();
        let unmade = Status::Outpoint(None, None);
        assert_eq!(all.answered(ONE, wanted.subject(), &unmade), None);
        let change = Change {
            outpoints: vec![of],
            ..Change::default()
        };
        assert_eq!(all.changed(&change), [wanted]);
        let made = Status::Outpoint(Some(Place::Block(4)), None);
        let (notify, _) = all.learned(wanted.subject(), Some(&made));
        assert_eq!(notify, [ONE]);
        let spent = Status::Outpoint(Some(Place::Block(4)), Some(([1; 32], Place::Block(5))));
        assert_ne!(Told::of(&made), Told::of(&spent));
        assert_ne!(Told::of(&unmade), Told::of(&made));
    }
}

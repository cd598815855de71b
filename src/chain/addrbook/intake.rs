//! What others tell: taken, refused, or already known.

use rand::RngExt as _;

use super::address::{Address, Door, Group, Source, Unfit, admit};
use super::entry::{Entry, FUTURE_S, HORIZON_S, Table};
use super::{Book, MAX_SOURCES, keeps_addresses, seconds};
use crate::chain::p2p::AddressRecord;
use crate::time::Time;

/// What gossip says of an age is taken to be two hours more, as in Bitcoin Core: nobody's word is as good as ours.
const GOSSIP_PENALTY_S: u32 = 2 * 3600;
/// The age of what claims to be from the future, or from before there was a network, as in Bitcoin Core.
const ASSUMED_AGE_S: u32 = 5 * 24 * 3600;
/// Times up to this one are no times at all, as in Bitcoin Core: 1973.
const NO_TIME: u32 = 100_000_000;
/// How old "last seen" must be to be set anew: an hour if the node seems to be there, else a day, as in Bitcoin
/// Core.
const REFRESH_S: [u32; 2] = [3600, 24 * 3600];

/// An address with what somebody says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hearsay {
    /// Where.
    pub address: Address,
    /// Its services. With [`Door::Control`] the flag of the project goes without saying.
    pub services: u64,
    /// When it was last seen, in Unix seconds.
    pub last_seen: u32,
}

impl From<AddressRecord> for Hearsay {
    fn from(record: AddressRecord) -> Self {
        Self {
            address: Address::bitcoin(record.address),
            services: record.services,
            last_seen: record.last_seen,
        }
    }
}

/// What became of hearsay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Intake {
    /// New in the book.
    pub added: u64,
    /// Known before; perhaps something was learned.
    pub known: u64,
    /// Their place was taken by something better.
    pub crowded_out: u64,
    /// Refused: nobody else can reach them.
    pub private: u64,
    /// Refused: a port that must not be dialled on hearsay.
    pub port: u64,
    /// Refused: a network that we do not reach.
    pub unreachable: u64,
    /// Refused: too old, or nodes that keep no addresses and have no flag.
    pub useless: u64,
}

impl Intake {
    fn add(&mut self, other: &Self) {
        self.added += other.added;
        self.known += other.known;
        self.crowded_out += other.crowded_out;
        self.private += other.private;
        self.port += other.port;
        self.unreachable += other.unreachable;
        self.useless += other.useless;
    }
}

impl Book {
    /// Takes what a source says, one address after another; the caller bounds how many.
    pub fn heard(
        &mut self,
        now: Time,
        source: Source,
        told: impl IntoIterator<Item = Hearsay>,
    ) -> Intake {
        let now = seconds(now);
        let mut intake = Intake::default();
        for one in told {
            match self.weigh(now, source, one) {
                Ok(one) => self.take(now, source.group(&one.address), &one, &mut intake),
                Err(count) => *count(&mut intake) += 1,
            }
        }
        self.intake.add(&intake);
        intake
    }

    /// Refuses what is of no use, and sets right what is said of time and services.
    fn weigh(
        &self,
        now: u32,
        source: Source,
        mut told: Hearsay,
    ) -> Result<Hearsay, fn(&mut Intake) -> &mut u64> {
        admit(&told.address, self.rules.locality, self.rules.reachable).map_err(
            |unfit| -> fn(&mut Intake) -> &mut u64 {
                match unfit {
                    Unfit::Private => |intake| &mut intake.private,
                    Unfit::Port => |intake| &mut intake.port,
                    Unfit::Network => |intake| &mut intake.unreachable,
                }
            },
        )?;
        if told.address.door == Door::Control {
            told.services |= self.rules.flag;
        }
        if told.last_seen <= NO_TIME || told.last_seen > now.saturating_add(FUTURE_S) {
            told.last_seen = now.saturating_sub(ASSUMED_AGE_S);
        }
        let penalty = match source {
            Source::Peer(peer) if peer.host == told.address.host => 0,
            Source::Peer(_) => GOSSIP_PENALTY_S,
            Source::OurNode | Source::DnsSeed(_) | Source::Fixed | Source::Operator => 0,
        };
        told.last_seen = told.last_seen.saturating_sub(penalty);
        let stale = now.saturating_sub(told.last_seen) > HORIZON_S;
        if stale || !keeps_addresses(told.services) && told.services & self.rules.flag == 0 {
            return Err(|intake| &mut intake.useless);
        }
        Ok(told)
    }

    fn take(&mut self, now: u32, source: Group, told: &Hearsay, intake: &mut Intake) {
        if let Some(id) = self.id_of(&told.address) {
            intake.known += 1;
            self.learn(now, id, source, told);
            return;
        }
        let flagged = told.services & self.rules.flag != 0;
        let table = if flagged { Table::Claimed } else { Table::New };
        let entry = Entry::new(told.address, told.services, told.last_seen, table);
        match self.shelve_new(now, entry, source) {
            Some(_) => intake.added += 1,
            None => intake.crowded_out += 1,
        }
    }

    /// More hearsay of an address that is in the book: it adds services, and perhaps a place.
    fn learn(&mut self, now: u32, id: usize, source: Group, told: &Hearsay) {
        let flag = self.rules.flag;
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        let is_news = told.last_seen > entry.last_seen;
        let online = now.saturating_sub(told.last_seen) < REFRESH_S[1];
        let refresh = if online { REFRESH_S[0] } else { REFRESH_S[1] };
        if told.last_seen > entry.last_seen.saturating_add(refresh) {
            entry.last_seen = told.last_seen;
        }
        entry.services |= told.services & !flag;
        let claims = told.services & flag != 0;
        if claims && entry.services & flag == 0 {
            if entry.may_claim(now) {
                self.begin_claim(now, id, source);
            }
            return;
        }
        let has_room = entry.sources.len() < MAX_SOURCES;
        match entry.table {
            Table::New | Table::Claimed => {
                let vouches = entry.table == Table::New || claims;
                let odds = 1_u32 << entry.sources.len().min(MAX_SOURCES);
                if is_news && has_room && vouches && self.random.random_range(0..odds) == 0 {
                    self.shelve_again(now, id, source);
                }
            }
            Table::Tried if claims && has_room && !entry.sources.contains(&source) => {
                entry.sources.push(source);
            }
            Table::Tried | Table::Proven => {}
        }
    }

    /// The first claim that an address has the flag.
    fn begin_claim(&mut self, now: u32, id: usize, source: Group) {
        let flag = self.rules.flag;
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        let took_effect = match entry.table {
            Table::New => self.move_hearsay(now, id, Table::Claimed, source),
            Table::Tried => {
                entry.sources.clear();
                entry.sources.push(source);
                true
            }
            Table::Claimed | Table::Proven => false,
        };
        if let (true, Some(entry)) = (took_effect, self.entries.get_mut(id)) {
            entry.services |= flag;
            entry.refuted = 0;
        }
    }
}

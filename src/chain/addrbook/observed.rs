//! What we have seen ourselves: who answered, with what, and who did not.

use rand::RngExt as _;

use super::address::{Address, Door};
use super::standing::Evidence;
use super::{Book, seconds};
use crate::chain::p2p::Advert;
use crate::time::Time;

impl Book {
    /// An address is being dialled.
    pub fn dialled(&mut self, now: Time, address: &Address) {
        let now = seconds(now);
        let jitter = self.random.random();
        let waits = self.waits;
        if let Some(entry) = self.find_mut(address) {
            entry.last_try = now;
            let wait = waits.after(entry.streak, entry.advert.is_some(), jitter);
            entry.next_try = now.saturating_add(wait);
        }
    }

    /// Nobody answered there.
    ///
    /// It counts against the address (and, a little, whoever told of its flag) only if somebody else has answered
    /// since it was last counted: else it may be we who are cut off.
    pub fn failed(&mut self, now: Time, address: &Address) {
        let now = seconds(now);
        let jitter = self.random.random();
        let (waits, flag, any_success) = (self.waits, self.rules.flag, self.any_success);
        let Some(entry) = self.find_mut(address) else {
            return;
        };
        entry.last_try = now;
        entry.streak = entry.streak.saturating_add(1);
        let wait = waits.after(entry.streak, entry.advert.is_some(), jitter);
        entry.next_try = now.saturating_add(wait);
        if any_success <= entry.counted {
            return;
        }
        entry.counted = now;
        entry.failures = entry.failures.saturating_add(1);
        if entry.is_claim(flag) {
            let sources = entry.sources.clone();
            self.note(&sources, Evidence::Unanswered, now);
        }
    }

    /// It answered by Bitcoin's protocol, with these services. They replace what was known.
    ///
    /// If the flag is missing, whoever claimed it is trusted less. If it is there, it is still a claim, until
    /// [`Book::met`] or [`Book::refuted`] is called.
    pub fn reached(&mut self, now: Time, address: &Address, services: u64) {
        let flag = self.rules.flag;
        let Some((id, entry)) = self.find(address) else {
            return;
        };
        let had_flag = entry.services & flag != 0;
        self.answered(now, id, services);
        if services & flag == 0 {
            if had_flag {
                self.disprove(now, id);
            } else {
                self.withdraw(now, id);
            }
        }
        self.settle(seconds(now), id);
    }

    /// It said by Bitcoin's protocol where its control stream is. To be called after [`Book::reached`]; an address
    /// that is not in the book stays out.
    ///
    /// A control port of 0 says that it takes no connections. Then it is not dialled as a relay, and nobody lied.
    pub fn advertised(&mut self, now: Time, address: &Address, advert: Advert) {
        let Some((id, entry)) = self.find(address) else {
            return;
        };
        if entry.address.door == Door::Control {
            return;
        }
        if advert.control_port == 0 {
            self.withdraw(now, id);
        } else {
            self.take_advert(now, id, advert);
        }
        self.settle(seconds(now), id);
    }

    /// A session of the relay's protocol was established with the control stream at this address. If it is in the
    /// book under no name, it is added. `data_port`: 0 if it is not known.
    pub fn met(&mut self, now: Time, control: &Address, version: u16, data_port: u16) {
        if control.door == Door::Bitcoin {
            return;
        }
        let Some(id) = self.find_or_add(now, control) else {
            return;
        };
        let flag = self.rules.flag;
        let Some(entry) = self.entries.get(id) else {
            return;
        };
        let services = entry.services | flag;
        if entry.is_claim(flag) {
            let sources = entry.sources.clone();
            self.note(&sources, Evidence::True, seconds(now));
        }
        self.answered(now, id, services);
        if let Some(entry) = self.entries.get_mut(id) {
            let told = entry.advert.map_or(0, |advert| advert.data_port);
            entry.advert = Some(Advert {
                version,
                control_port: control.port,
                data_port: if data_port == 0 { told } else { data_port },
            });
            entry.met = seconds(now).max(1);
            entry.refuted = 0;
        }
        self.settle(seconds(now), id);
    }

    /// It answered, but is no relay, whatever it or others say. It loses the flag, which hearsay gives it back after
    /// a day at the soonest; whoever claimed it is trusted less.
    pub fn refuted(&mut self, now: Time, address: &Address) {
        let Some((id, entry)) = self.find(address) else {
            return;
        };
        let (door, services) = (entry.address.door, entry.services);
        self.answered(now, id, services);
        self.disprove(now, id);
        match door {
            Door::Control => self.remove(id),
            Door::Bitcoin => self.settle(seconds(now), id),
        }
    }

    /// A connection to it has ended: it was there until now.
    ///
    /// Not noted while it lasts, so that no answer of ours tells whom we are connected to (as in Bitcoin Core).
    pub fn left(&mut self, now: Time, address: &Address) {
        let now = seconds(now);
        let jitter = self.random.random();
        let waits = self.waits;
        if let Some(entry) = self.find_mut(address) {
            entry.last_seen = entry.last_seen.max(now);
            // What Bitcoin's protocol has told of a control stream may be followed at once.
            if address.door == Door::Control || entry.advert.is_none() {
                let wait = waits.after(0, entry.advert.is_some(), jitter);
                entry.next_try = entry.next_try.max(now.saturating_add(wait));
            }
        }
    }

    /// Lets everybody who is known to be a relay be tried at once: for the start, when no connection is left of
    /// those that made us wait.
    pub fn forgive_relays(&mut self) {
        for (_, entry) in &mut self.entries {
            if entry.advert.is_some() {
                entry.next_try = 0;
                entry.streak = 0;
            }
        }
    }

    /// What every answer means, whatever it said.
    fn answered(&mut self, now: Time, id: usize, services: u64) {
        let now = seconds(now);
        let jitter = self.random.random();
        self.any_success = now;
        if let Some(entry) = self.entries.get_mut(id) {
            entry.services = services;
            entry.last_try = now;
            entry.last_success = now.max(1);
            entry.failures = 0;
            entry.streak = 0;
            let wait = self.waits.after(0, entry.advert.is_some(), jitter);
            entry.next_try = now.saturating_add(wait);
        }
    }

    /// Takes the flag from an entry, and trust from whoever claimed it.
    fn disprove(&mut self, now: Time, id: usize) {
        if let Some(entry) = self.entries.get(id)
            && entry.is_claim(self.rules.flag)
        {
            let sources = entry.sources.clone();
            self.note(&sources, Evidence::False, seconds(now));
        }
        self.refuted += 1;
        self.withdraw(now, id);
    }

    /// Takes the flag from an entry, and blames nobody.
    fn withdraw(&mut self, now: Time, id: usize) {
        self.forget_control(id);
        if let Some(entry) = self.entries.get_mut(id) {
            entry.services &= !self.rules.flag;
            entry.advert = None;
            entry.met = 0;
            entry.refuted = seconds(now).max(1);
        }
    }

    /// Notes where an entry says that its control stream is. Whatever else the book has for that stream becomes
    /// one with it: a stream is one node.
    fn take_advert(&mut self, now: Time, id: usize, advert: Advert) {
        let Some(entry) = self.entries.get(id) else {
            return;
        };
        let control = entry.address.with_control_port(advert.control_port);
        let was = entry.advert.map(|advert| advert.control_port);
        let mut met = if was == Some(advert.control_port) {
            entry.met
        } else {
            0
        };
        if let Some(twin) = self.id_of(&control).filter(|twin| *twin != id)
            && let Some(other) = self.entries.get(twin)
        {
            met = met.max(other.met);
            match other.address.door {
                Door::Control => self.remove(twin),
                Door::Bitcoin => {
                    self.withdraw(now, twin);
                    self.settle(seconds(now), twin);
                }
            }
        }
        self.forget_control(id);
        if let Some(entry) = self.entries.get_mut(id) {
            entry.advert = Some(advert);
            entry.services |= self.rules.flag;
            entry.met = met;
            entry.refuted = 0;
            entry.next_try = seconds(now);
            self.controls.insert(control, id);
        }
    }

    /// Forgets which entry a control stream belongs to, if it is this one.
    pub(super) fn forget_control(&mut self, id: usize) {
        let Some(entry) = self.entries.get(id) else {
            return;
        };
        if let (Door::Bitcoin, Some(advert)) = (entry.address.door, entry.advert) {
            self.controls
                .remove(&entry.address.with_control_port(advert.control_port));
        }
    }
}

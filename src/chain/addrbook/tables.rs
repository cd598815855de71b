//! Who is in which table, and who makes room for whom.

use super::address::{Address, Door, Group, admit};
use super::entry::{Entry, Table};
use super::{Book, FRESH_S, MAX_COLLISIONS, TEST_S, TEST_WINDOW_S, seconds};
use crate::time::Time;

/// Who wants a place of hearsay.
#[derive(Clone, Copy)]
struct Newcomer {
    source: Group,
    /// Whether it has none in that table.
    is_first: bool,
}

impl Newcomer {
    const fn first(source: Group) -> Self {
        Self {
            source,
            is_first: true,
        }
    }
}

impl Book {
    /// Puts a new entry into its table of hearsay; `None` if its place is taken by something that stays.
    pub(super) fn shelve_new(&mut self, now: u32, entry: Entry, source: Group) -> Option<usize> {
        let (table, address) = (entry.table, entry.address);
        let place = self.key.place(table, &address, &source);
        if !self.make_room(now, table, place, Newcomer::first(source)) {
            return None;
        }
        let id = self.entries.insert(entry);
        self.index.insert(address, id);
        self.put(table, place, id, source);
        Some(id)
    }

    /// Gives an entry one more place in its table of hearsay, if that is free.
    pub(super) fn shelve_again(&mut self, now: u32, id: usize, source: Group) {
        let Some(entry) = self.entries.get(id) else {
            return;
        };
        let table = entry.table;
        let place = self.key.place(table, &entry.address, &source);
        let newcomer = Newcomer {
            source,
            is_first: false,
        };
        if self.at(table, place) != Some(id) && self.make_room(now, table, place, newcomer) {
            self.put(table, place, id, source);
        }
    }

    /// Moves an entry from one table of hearsay to another, or says that there is no room.
    pub(super) fn move_hearsay(&mut self, now: u32, id: usize, to: Table, source: Group) -> bool {
        let Some(entry) = self.entries.get(id) else {
            return false;
        };
        let place = self.key.place(to, &entry.address, &source);
        if !self.make_room(now, to, place, Newcomer::first(source)) {
            return false;
        }
        self.vacate(id);
        if let Some(entry) = self.entries.get_mut(id) {
            entry.table = to;
        }
        self.put(to, place, id, source);
        true
    }

    /// Puts an entry where its state says that it belongs, as far as there is room.
    pub(super) fn settle(&mut self, now: u32, id: usize) {
        self.resolve_collisions(now);
        let Some(entry) = self.entries.get(id) else {
            return;
        };
        let flagged = entry.services & self.rules.flag != 0;
        let wanted = match entry.last_success {
            _ if entry.is_proven() => Table::Proven,
            0 if flagged => Table::Claimed,
            0 => Table::New,
            _ => Table::Tried,
        };
        if wanted == entry.table {
            self.drop_stale_sources(id);
            return;
        }
        if !wanted.is_hearsay() && self.promote(now, id, wanted, false) {
            return;
        }
        self.settle_below(now, id, flagged);
    }

    /// Where an entry stays that finds no room where it belongs: wherever it may, else nowhere.
    fn settle_below(&mut self, now: u32, id: usize, flagged: bool) {
        let Some(entry) = self.entries.get(id) else {
            return;
        };
        let has_place = !entry.sources.is_empty();
        let stays = match entry.table {
            Table::New => !flagged && has_place,
            Table::Claimed => flagged && has_place,
            Table::Tried => true,
            Table::Proven => entry.is_proven(),
        };
        if stays {
            return;
        }
        let hearsay = if flagged { Table::Claimed } else { Table::New };
        let source = entry
            .sources
            .first()
            .copied()
            .unwrap_or(entry.address.group());
        if !self.move_hearsay(now, id, hearsay, source) {
            self.remove(id);
        }
    }

    /// Moves an entry to a table of facts. If its place is taken by someone who may still be there, it has to wait
    /// until that one was tried, unless `by_force`.
    fn promote(&mut self, now: u32, id: usize, to: Table, by_force: bool) -> bool {
        let Some(entry) = self.entries.get(id) else {
            return false;
        };
        let address = entry.address;
        let place = self.key.place(to, &address, &address.group());
        let sources = entry.sources.clone();
        let incumbent = self.at(to, place);
        let gone = incumbent
            .and_then(|incumbent| self.entries.get(incumbent))
            .is_none_or(|one| one.is_terrible(now));
        if !gone && !by_force {
            if self.collisions.len() < MAX_COLLISIONS && !self.collisions.contains(&address) {
                self.collisions.push(address);
            }
            return false;
        }
        // Before anybody is put out, since whoever is may need the places that this one leaves.
        self.vacate(id);
        match incumbent {
            Some(incumbent) if gone => self.remove(incumbent),
            Some(incumbent) => self.demote(incumbent),
            None => {}
        }
        self.place_mut(to).put(place, id);
        if let Some(entry) = self.entries.get_mut(id) {
            entry.table = to;
            entry.sources = sources;
        }
        self.drop_stale_sources(id);
        true
    }

    /// Moves an entry from a table of facts back to hearsay, where it takes what place it has.
    fn demote(&mut self, id: usize) {
        let Some(entry) = self.entries.get(id) else {
            return;
        };
        let flagged = entry.services & self.rules.flag != 0;
        let to = if flagged { Table::Claimed } else { Table::New };
        let source = entry.address.group();
        let place = self.key.place(to, &entry.address, &source);
        self.vacate(id);
        self.evict(to, place);
        if let Some(entry) = self.entries.get_mut(id) {
            entry.table = to;
        }
        self.put(to, place, id, source);
    }

    /// In the tables of facts sources matter only as those who claim the flag.
    fn drop_stale_sources(&mut self, id: usize) {
        let flag = self.rules.flag;
        if let Some(entry) = self.entries.get_mut(id)
            && !entry.table.is_hearsay()
            && !entry.is_claim(flag)
        {
            entry.sources.clear();
        }
    }

    /// The entry. If there is none, one is made that has no place: the caller settles it.
    pub(super) fn find_or_add(&mut self, now: Time, address: &Address) -> Option<usize> {
        if let Some(id) = self.id_of(address) {
            return Some(id);
        }
        admit(address, self.rules.locality, self.rules.reachable).ok()?;
        let entry = Entry::new(*address, self.rules.flag, seconds(now), Table::Claimed);
        let id = self.entries.insert(entry);
        self.index.insert(*address, id);
        Some(id)
    }

    /// Removes an entry and all its places.
    pub(super) fn remove(&mut self, id: usize) {
        self.forget_control(id);
        self.vacate(id);
        if let Some(entry) = self.entries.try_remove(id) {
            self.index.remove(&entry.address);
        }
    }

    /// Decides the cases of those who wait for someone to be tested, by the rules of Bitcoin Core.
    pub(super) fn resolve_collisions(&mut self, now: u32) {
        for address in std::mem::take(&mut self.collisions) {
            let Some(id) = self.index.get(&address).copied() else {
                continue;
            };
            let Some((table, incumbent)) = self.contest(id) else {
                self.promote_if_free(now, id);
                continue;
            };
            let (Some(old), Some(new)) = (self.entries.get(incumbent), self.entries.get(id)) else {
                continue;
            };
            let since = |when: u32| now.saturating_sub(when);
            if since(old.last_success) < FRESH_S {
                continue;
            }
            let failed = since(old.last_try) < FRESH_S && since(old.last_try) > TEST_S;
            let late = since(old.last_try) >= FRESH_S && since(new.last_success) > TEST_WINDOW_S;
            // Feelers speak Bitcoin's protocol: where that is not spoken, not to be tested proves nothing.
            if failed || late && old.address.door == Door::Bitcoin {
                self.promote(now, id, table, true);
            } else if !late {
                self.collisions.push(address);
            }
        }
    }

    /// Those whose place others wait for.
    pub(super) fn incumbents(&self) -> impl Iterator<Item = &Entry> {
        let ids = self.collisions.iter().filter_map(|address| {
            let id = self.index.get(address)?;
            self.contest(*id).map(|(_, incumbent)| incumbent)
        });
        ids.filter_map(|id| self.entries.get(id))
    }

    /// The table that an entry should be in and the entry that has its place there.
    fn contest(&self, id: usize) -> Option<(Table, usize)> {
        let entry = self.entries.get(id)?;
        let table = if entry.is_proven() {
            Table::Proven
        } else {
            Table::Tried
        };
        let place = self
            .key
            .place(table, &entry.address, &entry.address.group());
        let incumbent = self.at(table, place).filter(|found| *found != id)?;
        Some((table, incumbent))
    }

    fn promote_if_free(&mut self, now: u32, id: usize) {
        let Some(entry) = self.entries.get(id) else {
            return;
        };
        let to = if entry.is_proven() {
            Table::Proven
        } else {
            Table::Tried
        };
        if entry.table != to && entry.last_success != 0 {
            self.promote(now, id, to, false);
        }
    }

    /// Makes a place of hearsay free, if whoever is there may be put out: terrible; or with other places left while
    /// the newcomer has none; or claimed to have the flag by those who are trusted less than half as much.
    fn make_room(&mut self, now: u32, table: Table, place: usize, newcomer: Newcomer) -> bool {
        let Some(entry) = self.at(table, place).and_then(|id| self.entries.get(id)) else {
            return true;
        };
        let trust = |source: &Group| self.standings.trust(source, now);
        let distrusted = || {
            let most = entry.sources.iter().map(trust).max().unwrap_or_default();
            table == Table::Claimed && trust(&newcomer.source) > 2 * most
        };
        let has_others = newcomer.is_first && entry.sources.len() > 1;
        let yields = entry.is_terrible(now) || has_others || distrusted();
        let stays = entry.advert.is_some() || !yields;
        if !stays {
            self.evict(table, place);
        }
        !stays
    }

    /// Takes a place of hearsay from whoever is there; with its last place an entry leaves the book.
    fn evict(&mut self, table: Table, place: usize) {
        let Some(id) = self.at(table, place) else {
            return;
        };
        let key = self.key;
        self.place_mut(table).clear(place);
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        let address = entry.address;
        entry
            .sources
            .retain(|source| key.place(table, &address, source) != place);
        if entry.sources.is_empty() {
            self.remove(id);
        }
    }

    /// Takes all its places from an entry.
    fn vacate(&mut self, id: usize) {
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        let (table, address) = (entry.table, entry.address);
        let sources = std::mem::take(&mut entry.sources);
        if table.is_hearsay() {
            for source in &sources {
                let place = self.key.place(table, &address, source);
                self.place_mut(table).clear(place);
            }
        } else {
            let place = self.key.place(table, &address, &address.group());
            self.place_mut(table).clear(place);
        }
    }

    /// Notes an entry in a free place of hearsay.
    fn put(&mut self, table: Table, place: usize, id: usize, source: Group) {
        self.place_mut(table).put(place, id);
        if let Some(entry) = self.entries.get_mut(id) {
            entry.sources.push(source);
        }
    }

    pub(super) fn at(&self, table: Table, place: usize) -> Option<usize> {
        self.places.get(table as usize)?.at(place)
    }

    pub(super) fn place_mut(&mut self, table: Table) -> &mut super::Places {
        let [new, claimed, tried, proven] = &mut self.places;
        match table {
            Table::New => new,
            Table::Claimed => claimed,
            Table::Tried => tried,
            Table::Proven => proven,
        }
    }
}

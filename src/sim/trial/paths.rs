//! The network of a trial as the limits see it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::limits::Network;
use super::super::link::LinkOptions;
use super::super::scenario::{EventKind, EventSpec};
use super::{Access, Trial};

/// One direction of a link: from where to where.
type Way = (usize, usize);

/// One direction of a link: how it is, and the best that it has been since the submission.
struct Best {
    now: LinkOptions,
    delay: Duration,
    rate_bytes_per_s: Option<u64>,
}

impl Best {
    fn new(now: LinkOptions) -> Self {
        Self {
            delay: now.delay,
            rate_bytes_per_s: now.rate_bytes_per_s,
            now,
        }
    }

    /// Takes what the link is now into account. No rate is no limit.
    fn improve(&mut self) {
        self.delay = self.delay.min(self.now.delay);
        let rates = self.rate_bytes_per_s.zip(self.now.rate_bytes_per_s);
        self.rate_bytes_per_s = rates.map(|(one, other)| one.max(other));
    }
}

impl Trial {
    /// The network as the limits see it, for a block that is submitted at `at`. Adversaries are in it: what they carry may
    /// be true. A link is as good as it is at any time from then on.
    pub fn network(&self, at: Duration) -> Network {
        let limited = self
            .access
            .iter()
            .any(|access| access.up_bytes_per_s.is_some() || access.down_bytes_per_s.is_some());
        let rates = |of: &dyn Fn(&Access) -> Option<u64>| match limited {
            true => self.access.iter().map(of).collect(),
            false => Vec::new(),
        };
        let link =
            |(&(from, to), best): (&Way, &Best)| (from, to, best.delay, best.rate_bytes_per_s);
        Network {
            nodes: self.plan.nodes,
            links: self.best_links(at).iter().map(link).collect(),
            up: rates(&|access| access.up_bytes_per_s),
            down: rates(&|access| access.down_bytes_per_s),
        }
    }

    fn best_links(&self, at: Duration) -> BTreeMap<Way, Best> {
        let mut links = BTreeMap::new();
        for (&(low, high), [forth, back]) in self.plan.edges.iter().zip(&self.links) {
            links.insert((low, high), Best::new(forth.clone()));
            links.insert((high, low), Best::new(back.clone()));
        }
        let at_ms = at.as_secs_f64() * 1e3;
        let mut events: Vec<&EventSpec> = self.scenario.event.iter().collect();
        events.retain(|event| event.kind == EventKind::SetLink);
        // Of two at the same time the later one in the file comes later.
        events.sort_by(|one, other| one.at_ms.total_cmp(&other.at_ms));
        for event in events {
            let one = event.between.map(|[one, other]| vec![(one, other)]);
            for (one, other) in one.unwrap_or_else(|| self.plan.edges.clone()) {
                for (way, change) in [
                    ((one, other), &event.link),
                    ((other, one), &event.link),
                    ((other, one), &event.back),
                ] {
                    if let Some(link) = links.get_mut(&way) {
                        change.apply(&mut link.now);
                    }
                }
                for way in [(one, other), (other, one)] {
                    match links.get_mut(&way) {
                        Some(link) if event.at_ms <= at_ms => *link = Best::new(link.now.clone()),
                        Some(link) => link.improve(),
                        None => {}
                    }
                }
            }
        }
        links
    }
}

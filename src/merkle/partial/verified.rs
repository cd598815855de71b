//! The hashes that are proven, by level and in pages that exist only where something was proven.

use std::ops::Range;

use crate::merkle::{Geometry, Hash, Node};

/// Nodes in a page: as many as a chunk of short hashes usually has, 4 KiB of hashes.
const PAGE: u32 = 128;

/// The hashes of [`PAGE`] neighbours, and which of them are proven.
#[derive(Clone, Debug)]
struct Page {
    proven: u128,
    hashes: [Hash; PAGE as usize],
}

/// The proven hashes of one level.
#[derive(Clone, Debug, Default)]
struct Row {
    pages: Vec<Option<Box<Page>>>,
}

/// Proven hashes. An ancestor of what is proven is proven, and so is its sibling: a hash is proven only
/// together with all that leads from it to the root.
#[derive(Clone, Debug)]
pub(super) struct Verified {
    rows: Vec<Row>,
}

impl Verified {
    pub(super) fn new(geometry: &Geometry) -> Self {
        Self {
            rows: vec![Row::default(); usize::from(geometry.depth()) + 1],
        }
    }

    pub(super) fn find(&self, node: Node) -> Option<&Hash> {
        let row = self.rows.get(usize::from(node.level()))?;
        let page = row.pages.get((node.index() / PAGE) as usize)?.as_ref()?;
        let place = node.index() % PAGE;
        if page.proven & (1 << place) == 0 {
            return None;
        }
        page.hashes.get(place as usize)
    }

    /// Keeps the hash of a node; whether it is new.
    pub(super) fn insert(&mut self, geometry: &Geometry, node: Node, hash: Hash) -> bool {
        let row = &mut self.rows[usize::from(node.level())];
        if row.pages.is_empty() {
            let pages = geometry.width(node.level()).div_ceil(PAGE);
            row.pages.resize(pages as usize, None);
        }
        let page = row.pages[(node.index() / PAGE) as usize].get_or_insert_with(|| {
            Box::new(Page {
                proven: 0,
                hashes: [[0; 32]; PAGE as usize],
            })
        });
        let place = node.index() % PAGE;
        let bit = 1 << place;
        let new = page.proven & bit == 0;
        page.proven |= bit;
        page.hashes[place as usize] = hash;
        new
    }

    /// Whether each node of `indices` of `level` is proven.
    pub(super) fn all(&self, level: u8, indices: Range<u32>) -> bool {
        if indices.is_empty() {
            return true;
        }
        let Some(row) = self.rows.get(usize::from(level)) else {
            return false;
        };
        let (first, last) = (indices.start / PAGE, (indices.end - 1) / PAGE);
        (first..=last).all(|number| {
            let Some(Some(page)) = row.pages.get(number as usize) else {
                return false;
            };
            let from = indices.start.max(number * PAGE) - number * PAGE;
            let to = (indices.end - number * PAGE).min(PAGE);
            let wanted = (u128::MAX >> (PAGE - (to - from))) << from;
            page.proven & wanted == wanted
        })
    }

    #[cfg(test)]
    pub(super) fn pages(&self) -> usize {
        let pages = self.rows.iter().flat_map(|row| &row.pages);
        pages.flatten().count()
    }
}

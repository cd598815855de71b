//! The most that can flow from one node to another: Dinic's algorithm, on capacities that may have no limit.

/// A capacity that nothing exceeds.
pub const UNLIMITED: f64 = f64::INFINITY;

#[derive(Clone, Copy, Debug)]
struct Arc {
    to: usize,
    left: f64,
}

/// Nodes, and arcs with capacities.
#[derive(Clone, Debug, Default)]
pub struct FlowNetwork {
    /// Arcs, each followed by its reverse.
    arcs: Vec<Arc>,
    from: Vec<Vec<usize>>,
}

impl FlowNetwork {
    /// `nodes` nodes without arcs.
    pub fn new(nodes: usize) -> Self {
        Self {
            arcs: Vec::new(),
            from: vec![Vec::new(); nodes],
        }
    }

    /// Adds an arc.
    pub fn add(&mut self, from: usize, to: usize, capacity: f64) {
        for (from, to, left) in [(from, to, capacity), (to, from, 0.0)] {
            if let Some(list) = self.from.get_mut(from) {
                list.push(self.arcs.len());
            }
            self.arcs.push(Arc { to, left });
        }
    }

    /// The greatest flow, [`UNLIMITED`] if a way without limits leads there.
    pub fn greatest(mut self, source: usize, sink: usize) -> f64 {
        let mut flow = 0.0;
        loop {
            let levels = self.levels(source);
            if levels.get(sink).is_none_or(|level| *level == usize::MAX) {
                return flow;
            }
            let mut next = vec![0; self.from.len()];
            loop {
                let more = self.push(source, sink, UNLIMITED, &levels, &mut next);
                if more == UNLIMITED {
                    return UNLIMITED;
                }
                // What is left of floating-point sums is no flow.
                if more <= 1e-9 {
                    break;
                }
                flow += more;
            }
        }
    }

    fn levels(&self, source: usize) -> Vec<usize> {
        let mut levels = vec![usize::MAX; self.from.len()];
        let mut row = vec![source];
        let mut level = 0;
        while !row.is_empty() {
            let mut next = Vec::new();
            for node in row {
                match levels.get_mut(node) {
                    Some(place) if *place == usize::MAX => *place = level,
                    _ => continue,
                }
                let arcs = self.from.get(node).into_iter().flatten();
                let open = arcs.filter_map(|&arc| self.arcs.get(arc));
                next.extend(open.filter(|arc| arc.left > 1e-9).map(|arc| arc.to));
            }
            row = next;
            level += 1;
        }
        levels
    }

    /// Sends at most `most` from `node` on along one way of the levels. Depth: the number of nodes at most.
    fn push(
        &mut self,
        node: usize,
        sink: usize,
        most: f64,
        levels: &[usize],
        next: &mut [usize],
    ) -> f64 {
        if node == sink {
            return most;
        }
        while let Some(&place) = next.get(node)
            && let Some(&arc) = self.from.get(node).and_then(|arcs| arcs.get(place))
        {
            let Some(&Arc { to, left }) = self.arcs.get(arc) else {
                break;
            };
            let deeper = levels.get(to).copied() == levels.get(node).map(|level| level + 1);
            if left > 1e-9 && deeper {
                let sent = self.push(to, sink, most.min(left), levels, next);
                if sent > 1e-9 {
                    if let Some(arc) = self.arcs.get_mut(arc) {
                        arc.left -= sent;
                    }
                    if let Some(back) = self.arcs.get_mut(arc ^ 1) {
                        back.left += sent;
                    }
                    return sent;
                }
            }
            if let Some(place) = next.get_mut(node) {
                *place += 1;
            }
        }
        0.0
    }
}

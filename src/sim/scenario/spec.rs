//! What a scenario may say, as plain data.

use super::harm::AdversaryKind;
use serde::{Deserialize, Serialize};

use super::super::topology::Topology;

/// A whole study.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scenario {
    /// What it is called: letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// What it is for, in a line.
    pub about: String,
    /// The first seed.
    pub seed: u64,
    /// How often it is run, each time with the next seed; at least 1.
    pub runs: u32,
    /// Nodes whose figures count, such as the far end of a line. Default: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub measure: Vec<usize>,
    /// Who is joined to whom.
    pub topology: TopologySpec,
    /// How every link behaves, from the lower number to the higher unless `back` says otherwise.
    pub link: LinkSpec,
    /// Links that behave differently.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub path: Vec<PathSpec>,
    /// What each node can send and take altogether.
    pub access: AccessSpec,
    /// The blocks.
    pub block: BlockSpec,
    /// What nodes have of them beforehand.
    pub mempool: MempoolSpec,
    /// How nodes are configured.
    pub node: NodeSpec,
    /// How far their clocks disagree.
    pub clock: ClockSpec,
    /// What happens on the way.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub event: Vec<EventSpec>,
    /// Who means harm.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub adversary: Vec<AdversarySpec>,
    /// When to give up.
    pub limit: LimitSpec,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            name: "unnamed".to_owned(),
            about: String::new(),
            seed: 1,
            runs: 1,
            topology: TopologySpec::default(),
            link: LinkSpec::default(),
            path: Vec::new(),
            access: AccessSpec::default(),
            block: BlockSpec::default(),
            mempool: MempoolSpec::default(),
            node: NodeSpec::default(),
            clock: ClockSpec::default(),
            event: Vec::new(),
            adversary: Vec::new(),
            measure: Vec::new(),
            limit: LimitSpec::default(),
        }
    }
}

/// `[topology]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TopologySpec {
    /// How nodes are joined.
    pub kind: Topology,
    /// How many there are, adversaries included; node 0 has the block first unless `[block]` says otherwise.
    pub nodes: usize,
    /// Links of each node: of `regular`, `small-world` (even) and `geographic`. Default 8, or fewer where there are
    /// fewer nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub degree: Option<usize>,
    /// Share of links that `small-world` moves to a node drawn at random. Default 0.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewire: Option<f64>,
    /// How much longer than the great circle the cables of `geographic` are. Default 1.5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stretch: Option<f64>,
    /// What `geographic` adds to each one-way delay for the way from the city's exchange to the machine, at both
    /// ends together. Default 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_mile_ms: Option<f64>,
}

impl Default for TopologySpec {
    fn default() -> Self {
        Self {
            kind: Topology::Line,
            nodes: 2,
            degree: None,
            rewire: None,
            stretch: None,
            last_mile_ms: None,
        }
    }
}

/// `[link]`: one direction, or both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LinkSpec {
    /// One-way delay. Default 50; in a geographic topology distance decides, and it is not to be given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<f64>,
    /// Each datagram takes up to this much longer, evenly spread: it reorders.
    pub jitter_ms: f64,
    /// What the link carries, headers included; 0: no limit.
    pub rate_mbit: f64,
    /// How long the queue before the link is at its rate; what comes when it is full is dropped. Default 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_ms: Option<f64>,
    /// The same in kB, instead of `queue_ms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_kb: Option<f64>,
    /// Share of datagrams lost.
    pub loss: f64,
    /// Mean length of a burst of losses, in datagrams; 1: losses are independent.
    pub burst: f64,
    /// Share of datagrams that take `reorder_by_ms` longer.
    pub reorder: f64,
    /// How much longer.
    pub reorder_by_ms: f64,
    /// Share of datagrams that arrive twice.
    pub duplicate: f64,
    /// Share of datagrams in which one bit is flipped.
    pub corrupt: f64,
    /// Largest packet that passes, in bytes with its headers.
    pub mtu: u16,
    /// Whether UDP passes at all.
    pub udp: bool,
    /// What is different from the higher number to the lower.
    #[serde(skip_serializing_if = "LinkChange::is_empty")]
    pub back: LinkChange,
}

impl Default for LinkSpec {
    /// The reference link of the targets.
    fn default() -> Self {
        Self {
            delay_ms: None,
            jitter_ms: 0.0,
            rate_mbit: 50.0,
            queue_ms: None,
            queue_kb: None,
            loss: 0.0,
            burst: 1.0,
            reorder: 0.0,
            reorder_by_ms: 5.0,
            duplicate: 0.0,
            corrupt: 0.0,
            mtu: 1_500,
            udp: true,
            back: LinkChange::default(),
        }
    }
}

/// What of a link is different; what is not named stays.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LinkChange {
    /// As in [`LinkSpec`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<f64>,
    /// As in [`LinkSpec`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter_ms: Option<f64>,
    /// As in [`LinkSpec`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_mbit: Option<f64>,
    /// As in [`LinkSpec`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_ms: Option<f64>,
    /// As in [`LinkSpec`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_kb: Option<f64>,
    /// As in [`LinkSpec`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// As in [`LinkSpec`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<f64>,
    /// As in [`LinkSpec`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reorder: Option<f64>,
    /// As in [`LinkSpec`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reorder_by_ms: Option<f64>,
    /// As in [`LinkSpec`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicate: Option<f64>,
    /// As in [`LinkSpec`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corrupt: Option<f64>,
    /// As in [`LinkSpec`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// As in [`LinkSpec`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp: Option<bool>,
}

/// `[[path]]`: a link that is not like the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathSpec {
    /// The nodes at its ends; `link` is from the first to the second.
    pub between: [usize; 2],
    /// What is different, in both directions.
    #[serde(default)]
    pub link: LinkChange,
    /// What is different from the second to the first, on top of that.
    #[serde(default, skip_serializing_if = "LinkChange::is_empty")]
    pub back: LinkChange,
}

/// `[access]`: what lies between a node and all its links.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AccessSpec {
    /// What each node can send altogether; 0: no limit but its links.
    pub up_mbit: f64,
    /// What each node can take altogether; 0: no limit but its links.
    pub down_mbit: f64,
    /// How long the queues of both are at their rates.
    pub queue_ms: f64,
    /// Nodes for which other rates hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<AccessException>,
}

impl Default for AccessSpec {
    fn default() -> Self {
        Self {
            up_mbit: 0.0,
            down_mbit: 0.0,
            queue_ms: 100.0,
            except: Vec::new(),
        }
    }
}

/// `[[access.except]]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessException {
    /// Which nodes.
    pub nodes: Vec<usize>,
    /// What each of them can send; what the others can unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_mbit: Option<f64>,
    /// What each of them can take; what the others can unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down_mbit: Option<f64>,
}

/// `[block]`: of `file`, `real` and the synthetic ones at most one kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BlockSpec {
    /// A raw block, as a path; with `count` above 1 or `racing`, only the first block is it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// A block that is built in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub real: Option<RealBlock>,
    /// Bytes of a synthetic block, about. Default 1,060,000 with 2,500 transactions; if only `transactions` is
    /// given, what so many take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Transactions of a synthetic block, the coinbase included. If only `bytes` is given, as many as it takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transactions: Option<u32>,
    /// How sizes of a synthetic block's transactions are spread.
    pub shape: BlockShape,
    /// How many blocks follow each other.
    pub count: u32,
    /// Time from one to the next.
    pub every_ms: f64,
    /// How many of the first blocks are not measured: a node that has been running knows what blocks lack there.
    pub unmeasured: u32,
    /// How many different blocks are found at the same time, each at a node of its own.
    pub racing: u32,
    /// Where blocks are handed in, in turn. Default: node 0, and the others of a race evenly spread.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<usize>,
}

impl Default for BlockSpec {
    fn default() -> Self {
        Self {
            file: None,
            real: None,
            bytes: None,
            transactions: None,
            shape: BlockShape::Real,
            count: 1,
            every_ms: 1_000.0,
            unmeasured: 0,
            racing: 1,
            from: Vec::new(),
        }
    }
}

/// A block that is built in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RealBlock {
    /// Block 702,861 of mainnet: 1,381,836 bytes, 2,500 transactions.
    #[serde(rename = "mainnet-702861")]
    Mainnet702861,
}

/// How the sizes of a synthetic block's transactions are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BlockShape {
    /// As in real blocks.
    Real,
    /// All about the same.
    Even,
    /// One takes most of the block, the others are small.
    OneGiant,
}

/// `[mempool]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MempoolSpec {
    /// What each node has of a block's transactions: a share, or `"wild"`.
    pub overlap: Overlap,
    /// The same for the nodes at which blocks are handed in. Default 1: who found a block knew what is in it.
    pub source_overlap: f64,
    /// Whether all nodes lack the same transactions; otherwise each draws its own.
    pub together: bool,
    /// Transactions that each node has and that are in no block.
    pub others: u32,
    /// How long after its first appearance a transaction reaches a node, on average, exponentially spread; 0: all that a node
    /// has it had long before. Those of a block have appeared evenly over the ten minutes before it, where it is handed in
    /// they are there in time, and elsewhere what is still on its way is lacking besides what `overlap` leaves out.
    pub late_ms: f64,
}

impl Default for MempoolSpec {
    fn default() -> Self {
        Self {
            overlap: Overlap::Share(0.0),
            source_overlap: 1.0,
            together: false,
            others: 0,
            late_ms: 0.0,
        }
    }
}

/// What a node has of a block's transactions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Overlap {
    /// That share of the transactions, 0 to 1, at random.
    Share(f64),
    /// All but some bytes, drawn as seen in the wild: 50% of blocks miss nothing, 90% at most 852 bytes, 95% at most
    /// 44 kB, 99% at most 1.72 MB.
    Wild,
}

/// `[node]`: how every node is configured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeSpec {
    /// What peers may send unasked: 0 announcement, 1 tree, 2 short ids, 3 missing transactions.
    pub push_level: u8,
    /// 0 for bandwidth to 255 for latency.
    pub preference: u8,
    /// What a node sends to one peer at most; 0: no limit.
    pub max_up_mbit: f64,
    /// What a node asks each peer not to exceed; 0: no limit.
    pub max_down_mbit: f64,
    /// Sessions at once. Default: 64, or as many as the topology gives it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_peers: Option<usize>,
    /// Largest datagram that path probes may try, in bytes of UDP payload.
    pub max_datagram: u16,
}

impl Default for NodeSpec {
    fn default() -> Self {
        Self {
            push_level: 3,
            preference: 255,
            max_up_mbit: 0.0,
            max_down_mbit: 0.0,
            max_peers: None,
            max_datagram: 1_472,
        }
    }
}

/// `[clock]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClockSpec {
    /// Each node's clock is ahead or behind by up to this, evenly spread.
    pub skew_ms: f64,
}

/// `[[event]]`: something that happens on the way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventSpec {
    /// When, counted from the first block's submission; negative: before it.
    pub at_ms: f64,
    /// What.
    pub kind: EventKind,
    /// The nodes that it befalls: of `partition` (cut off from all others), `crash` and `restart`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<usize>,
    /// The ends of the link that it befalls: of `link-down`, `link-up`, `cut` and `set-link` (which without it befalls
    /// all links).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub between: Option<[usize; 2]>,
    /// What `set-link` changes in both directions.
    #[serde(default, skip_serializing_if = "LinkChange::is_empty")]
    pub link: LinkChange,
    /// What `set-link` changes from the second of `between` to the first, on top of that; without `between`, from the
    /// higher number to the lower.
    #[serde(default, skip_serializing_if = "LinkChange::is_empty")]
    pub back: LinkChange,
}

/// What can happen on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// Nothing passes between `nodes` and the others; connections stay.
    Partition,
    /// All partitions end, and all links are up.
    Heal,
    /// `nodes` stop at once and lose what they held.
    Crash,
    /// `nodes` that crashed start anew and dial those they had dialled.
    Restart,
    /// Nothing passes `between` two nodes.
    LinkDown,
    /// That ends.
    LinkUp,
    /// The control connection `between` two nodes is reset, and dialled anew after a second.
    Cut,
    /// A link behaves differently from now on.
    SetLink,
}

/// `[[adversary]]`: nodes that mean harm; never those at which blocks are handed in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdversarySpec {
    /// What they do.
    pub kind: AdversaryKind,
    /// How many; places are drawn from the seed so that honest nodes stay joined to each other.
    #[serde(default = "one")]
    pub count: usize,
    /// Where they are, instead of `count`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<usize>,
}

const fn one() -> usize {
    1
}

/// `[limit]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitSpec {
    /// Virtual time, from the last block's submission, after which a run is given up.
    pub seconds: f64,
    /// Virtual time for connections and path probes, before the first block.
    pub settle_ms: f64,
}

impl Default for LimitSpec {
    fn default() -> Self {
        Self {
            seconds: 120.0,
            settle_ms: 3_000.0,
        }
    }
}

mod overlap {
    use std::fmt;

    use serde::de::{self, Deserialize, Deserializer, Visitor};
    use serde::ser::{Serialize, Serializer};

    use super::Overlap;

    impl Serialize for Overlap {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            match self {
                Self::Share(share) => serializer.serialize_f64(*share),
                Self::Wild => serializer.serialize_str("wild"),
            }
        }
    }

    impl<'de> Deserialize<'de> for Overlap {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_any(ShareOrWild)
        }
    }

    struct ShareOrWild;

    impl Visitor<'_> for ShareOrWild {
        type Value = Overlap;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a share from 0 to 1, or \"wild\"")
        }

        fn visit_f64<E: de::Error>(self, share: f64) -> Result<Overlap, E> {
            Ok(Overlap::Share(share))
        }

        fn visit_i64<E: de::Error>(self, share: i64) -> Result<Overlap, E> {
            Ok(Overlap::Share(share as f64))
        }

        fn visit_u64<E: de::Error>(self, share: u64) -> Result<Overlap, E> {
            Ok(Overlap::Share(share as f64))
        }

        fn visit_str<E: de::Error>(self, word: &str) -> Result<Overlap, E> {
            match word {
                "wild" => Ok(Overlap::Wild),
                _ => Err(E::invalid_value(de::Unexpected::Str(word), &self)),
            }
        }
    }
}

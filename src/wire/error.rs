//! Why bytes were refused: one variant and one counter name for each reason.

use thiserror::Error;

/// A refusal of malformed bytes. Whoever receives one drops the frame or the datagram, counts it by
/// [`WireError::reason`], and on the control stream disconnects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[error("{}", self.reason())]
#[non_exhaustive]
pub enum WireError {
    /// The bytes end inside a field.
    Truncated,
    /// Bytes follow the last field.
    TrailingBytes,
    /// A CompactSize is longer than its value needs.
    NonMinimalSize,
    /// A CompactSize is above what its field can hold.
    TooLarge,
    /// A frame announces a body above the limit.
    FrameTooLong,
    /// A frame type below 0x80 that this version does not know.
    UnknownType,
    /// A datagram below the smallest or above the largest size.
    DatagramSize,
    /// A datagram whose MAC is not that of its bytes.
    BadMac,
    /// A BTVERSION that does not begin with the magic.
    BadMagic,
    /// A range of versions that is empty.
    VersionRange,
    /// A text that is too long or not printable ASCII.
    BadText,
    /// A datagram size outside what the field allows.
    BadDatagramSize,
    /// A parameter that does not follow the key before it.
    ParameterOrder,
    /// A parameter whose value is out of its range.
    ParameterValue,
    /// A list with more entries than its limit.
    TooManyEntries,
    /// A list without entries where there must be one.
    EmptyList,
    /// A network id whose addresses have no known length.
    UnknownNetwork,
    /// A count of probes that is zero or above the limit.
    ProbeCount,
    /// A job id that its message may not carry.
    BadJob,
    /// Flag bits that are reserved.
    ReservedFlags,
    /// A code (reason, kind, type) without a meaning.
    UnknownCode,
    /// A count of transactions that is zero or above 2^24.
    LeafCount,
    /// A level above the deepest.
    BadLevel,
    /// A direction that may not stand here.
    BadDirection,
    /// A run that leaves its level, or is longer than a run of its direction can be.
    RunOutOfLevel,
    /// A run, or a hash sequence, without nodes.
    EmptyRun,
    /// A bitmap whose first or last bit is clear, or with unused bits set.
    BadBitmap,
    /// A hash size outside 4 to 8 and 32, or not allowed where it stands.
    HashSize,
    /// An exception of a hash sequence that is not ascending, past the end, or no exception.
    BadException,
    /// Runs of a lap that are not DOWN, FLAT, UP, each once at most.
    LapOrder,
    /// A run of a lap that leaves the subtree of its ancestor.
    LapOutside,
    /// The flag for short ids and the sizes of the hashes disagree.
    ShortFlag,
    /// An empty transaction, or part of one.
    EmptyTransaction,
    /// A part of a transaction off the grid of cells, or past its end.
    OffGrid,
    /// Padding that is too short or not zero.
    BadPadding,
    /// A receive report with no words, or too many.
    ReportWords,
    /// Parity without cells, with cells of unlike sizes, or numbers beyond any code's.
    ParityCells,
}

impl WireError {
    /// Every variant, in the order of the enumeration: what a table of counters is made from.
    pub const ALL: [Self; 37] = [
        Self::Truncated,
        Self::TrailingBytes,
        Self::NonMinimalSize,
        Self::TooLarge,
        Self::FrameTooLong,
        Self::UnknownType,
        Self::DatagramSize,
        Self::BadMac,
        Self::BadMagic,
        Self::VersionRange,
        Self::BadText,
        Self::BadDatagramSize,
        Self::ParameterOrder,
        Self::ParameterValue,
        Self::TooManyEntries,
        Self::EmptyList,
        Self::UnknownNetwork,
        Self::ProbeCount,
        Self::BadJob,
        Self::ReservedFlags,
        Self::UnknownCode,
        Self::LeafCount,
        Self::BadLevel,
        Self::BadDirection,
        Self::RunOutOfLevel,
        Self::EmptyRun,
        Self::BadBitmap,
        Self::HashSize,
        Self::BadException,
        Self::LapOrder,
        Self::LapOutside,
        Self::ShortFlag,
        Self::EmptyTransaction,
        Self::OffGrid,
        Self::BadPadding,
        Self::ReportWords,
        Self::ParityCells,
    ];

    /// The name of this reason, as counters and test vectors carry it.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::TrailingBytes => "trailing-bytes",
            Self::NonMinimalSize => "non-minimal-size",
            Self::TooLarge => "too-large",
            Self::FrameTooLong => "frame-too-long",
            Self::UnknownType => "unknown-type",
            Self::DatagramSize => "datagram-size",
            Self::BadMac => "bad-mac",
            Self::BadMagic => "bad-magic",
            Self::VersionRange => "version-range",
            Self::BadText => "bad-text",
            Self::BadDatagramSize => "bad-datagram-size",
            Self::ParameterOrder => "parameter-order",
            Self::ParameterValue => "parameter-value",
            Self::TooManyEntries => "too-many-entries",
            Self::EmptyList => "empty-list",
            Self::UnknownNetwork => "unknown-network",
            Self::ProbeCount => "probe-count",
            Self::BadJob => "bad-job",
            Self::ReservedFlags => "reserved-flags",
            Self::UnknownCode => "unknown-code",
            Self::LeafCount => "leaf-count",
            Self::BadLevel => "bad-level",
            Self::BadDirection => "bad-direction",
            Self::RunOutOfLevel => "run-out-of-level",
            Self::EmptyRun => "empty-run",
            Self::BadBitmap => "bad-bitmap",
            Self::HashSize => "hash-size",
            Self::BadException => "bad-exception",
            Self::LapOrder => "lap-order",
            Self::LapOutside => "lap-outside",
            Self::ShortFlag => "short-flag",
            Self::EmptyTransaction => "empty-transaction",
            Self::OffGrid => "off-grid",
            Self::BadPadding => "bad-padding",
            Self::ReportWords => "report-words",
            Self::ParityCells => "parity-cells",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_reason_has_its_own_name() {
        let names: BTreeSet<_> = WireError::ALL.iter().map(|error| error.reason()).collect();
        assert_eq!(names.len(), WireError::ALL.len());
        assert_eq!(WireError::OffGrid.to_string(), "off-grid");
    }
}

//! The kinds of message: their names, their numbers in BIP324, and how long each may be.

use super::{MAX_ADDRESSES, MAX_HEADERS_PER_MESSAGE, MAX_INVENTORY, MAX_LOCATOR};

/// Bytes of a command in a v1 header.
pub(super) const COMMAND_BYTES: usize = 12;
/// Most bytes of any payload (Bitcoin Core's `MAX_PROTOCOL_MESSAGE_LENGTH`).
///
/// Reason: a block's, and no message is longer than a block.
pub(super) const MAX_PAYLOAD_BYTES: usize = 4_000_000;
/// Most bytes of a message whose content is small or nothing.
///
/// Reason: later versions of the protocol may add to it what we pass over; a kilobyte is more than any has.
const MAX_SMALL_BYTES: usize = 1_024;
/// Most bytes of a message that we do not know.
///
/// Reason: whoever wants to send more than this of something new has to find out first whether we know it (BIP434).
const MAX_UNKNOWN_BYTES: usize = 1 << 16;
/// Bytes of a count of up to 65,535.
const COUNT: usize = 3;
/// Most bytes of an address of BIP155: time, services, network, length, address, port.
const MAX_ADDRESS_V2_BYTES: usize = 4 + 9 + 1 + COUNT + 512 + 2;

macro_rules! kinds {
    ($($name:ident = $text:literal, $id:literal, $max:expr;)+) => {
        /// A kind of message.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(super) enum Kind {
            $($name,)+
            /// Anything else.
            Unknown,
        }

        impl Kind {
            #[cfg(test)]
            pub(super) const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// Its command in v1.
            pub(super) const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)+ Self::Unknown => "" }
            }

            /// Its number in BIP324; 0: it is named there as well.
            pub(super) const fn id(self) -> u8 {
                match self { $(Self::$name => $id,)+ Self::Unknown => 0 }
            }

            /// Most bytes of its payload.
            ///
            /// Reason: the limits on what it holds, in bytes; whoever sends more breaks them.
            pub(super) const fn max_bytes(self) -> usize {
                match self { $(Self::$name => $max,)+ Self::Unknown => MAX_UNKNOWN_BYTES }
            }

            fn of_name(name: &str) -> Self {
                match name { $($text => Self::$name,)+ _ => Self::Unknown }
            }

            /// The kind with this number, which is not 0.
            pub(super) const fn of_id(id: u8) -> Self {
                $(if id == $id && $id != 0 { return Self::$name; })+
                Self::Unknown
            }
        }
    };
}

kinds! {
    Version = "version", 0, MAX_SMALL_BYTES;
    Verack = "verack", 0, MAX_SMALL_BYTES;
    WtxidRelay = "wtxidrelay", 0, MAX_SMALL_BYTES;
    SendAddrV2 = "sendaddrv2", 0, MAX_SMALL_BYTES;
    Feature = "feature", 37, 1 + 80 + COUNT + 512;
    Advert = "blktorrent", 0, 512;
    SendHeaders = "sendheaders", 0, MAX_SMALL_BYTES;
    SendCompact = "sendcmpct", 20, MAX_SMALL_BYTES;
    FeeFilter = "feefilter", 5, MAX_SMALL_BYTES;
    Ping = "ping", 18, MAX_SMALL_BYTES;
    Pong = "pong", 19, MAX_SMALL_BYTES;
    GetHeaders = "getheaders", 12, 4 + 1 + (MAX_LOCATOR + 1) * 32;
    Headers = "headers", 13, COUNT + MAX_HEADERS_PER_MESSAGE * 81;
    Inventory = "inv", 14, COUNT + MAX_INVENTORY * 36;
    GetData = "getdata", 11, COUNT + MAX_INVENTORY * 36;
    NotFound = "notfound", 17, COUNT + MAX_INVENTORY * 36;
    Block = "block", 2, MAX_PAYLOAD_BYTES;
    Transaction = "tx", 21, MAX_PAYLOAD_BYTES;
    CompactBlock = "cmpctblock", 4, MAX_PAYLOAD_BYTES;
    GetBlockTransactions = "getblocktxn", 10, 32 + COUNT + 16_666 * COUNT;
    BlockTransactions = "blocktxn", 3, MAX_PAYLOAD_BYTES;
    Addresses = "addr", 1, COUNT + MAX_ADDRESSES * 30;
    AddressesV2 = "addrv2", 28, COUNT + MAX_ADDRESSES * MAX_ADDRESS_V2_BYTES;
    GetAddresses = "getaddr", 0, MAX_SMALL_BYTES;
    GetBlocks = "getblocks", 9, 4 + 1 + (MAX_LOCATOR + 1) * 32;
    Mempool = "mempool", 15, MAX_SMALL_BYTES;
    FilterLoad = "filterload", 8, MAX_SMALL_BYTES;
    FilterAdd = "filteradd", 6, MAX_SMALL_BYTES;
    FilterClear = "filterclear", 7, MAX_SMALL_BYTES;
    GetFilters = "getcfilters", 22, MAX_SMALL_BYTES;
    GetFilterHeaders = "getcfheaders", 24, MAX_SMALL_BYTES;
    GetFilterCheckpoints = "getcfcheckpt", 26, MAX_SMALL_BYTES;
}

impl Kind {
    /// The kind that a v1 command names: printable ASCII, then zeros. `None`: it is no command.
    pub(super) fn of_command(command: &[u8; COMMAND_BYTES]) -> Option<Self> {
        let length = command.iter().take_while(|&&byte| byte != 0).count();
        let (name, padding) = command.split_at_checked(length)?;
        let is_name = name.iter().all(|byte| (0x20..0x7f).contains(byte));
        if !is_name || padding.iter().any(|&byte| byte != 0) {
            return None;
        }
        std::str::from_utf8(name).ok().map(Self::of_name)
    }

    /// Its v1 command.
    pub(super) fn command(self) -> [u8; COMMAND_BYTES] {
        let mut command = [0; COMMAND_BYTES];
        for (place, &byte) in command.iter_mut().zip(self.name().as_bytes()) {
            *place = byte;
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_read_back() {
        for &kind in Kind::ALL {
            assert!(kind.name().len() <= COMMAND_BYTES);
            assert_eq!(Kind::of_command(&kind.command()), Some(kind));
            assert!(kind.max_bytes() <= MAX_PAYLOAD_BYTES);
            if kind.id() != 0 {
                assert_eq!(Kind::of_id(kind.id()), kind);
            }
        }
        assert_eq!(Kind::of_id(0), Kind::Unknown);
        assert_eq!(Kind::of_id(36), Kind::Unknown);
        assert_eq!(Kind::of_command(b"sendtxrcncl\0"), Some(Kind::Unknown));
        assert_eq!(Kind::of_command(b"ping\0\0\0\0\0\0\0x"), None);
        assert_eq!(Kind::of_command(b"p\x01ng\0\0\0\0\0\0\0\0"), None);
    }
}

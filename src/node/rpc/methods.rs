//! The table of methods: names, parameters and help. `cli` reads it too, to know which arguments are
//! JSON and which are plain text.

use std::fmt::Write as _;

/// A method that can be called.
#[derive(Debug, PartialEq, Eq)]
pub struct Method {
    /// Which one.
    pub kind: Kind,
    /// Its name.
    pub name: &'static str,
    /// Its parameters, in order.
    pub parameters: &'static [Parameter],
    /// What it does and answers.
    pub help: &'static str,
}

/// One parameter of a method.
#[derive(Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// Whether a call needs it.
    pub required: bool,
    /// Whether `cli` reads it as JSON; otherwise it is text as it stands.
    pub json: bool,
}

const fn text(name: &'static str) -> Parameter {
    Parameter {
        name,
        required: true,
        json: false,
    }
}

const fn json(name: &'static str) -> Parameter {
    Parameter {
        name,
        required: true,
        json: true,
    }
}

const fn optional_text(name: &'static str) -> Parameter {
    Parameter {
        name,
        required: false,
        json: false,
    }
}

const fn optional_json(name: &'static str) -> Parameter {
    Parameter {
        name,
        required: false,
        json: true,
    }
}

macro_rules! methods {
    ($($kind:ident $name:literal ($($parameter:expr),*) $help:literal;)+) => {
        /// Which method is meant.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind { $(#[doc = concat!("`", $name, "`")] $kind,)+ }

        /// Every method, in the order of `help`.
        pub static METHODS: &[Method] = &[$(Method {
            kind: Kind::$kind,
            name: $name,
            parameters: &[$($parameter),*],
            help: $help,
        },)+];
    };
}

methods! {
    GetBestBlockHash "getbestblockhash" ()
        "The hash of the tip of the header chain.";
    GetBlock "getblock" (text("blockhash"), optional_json("verbosity"))
        "A block that this node keeps.\n\
         verbosity 0: its bytes in hex; 1 (default): an object with the txids in \"tx\"; 2: with the transactions.";
    GetBlockchainInfo "getblockchaininfo" ()
        "The header chain. \"headers\" is its height, \"bestblockhash\" its tip; \"blocks\" is the height of the \
         newest block that is kept whole.\nWhat Bitcoin Core's fields say of validation is absent: a relay checks work, not scripts.";
    GetBlockCount "getblockcount" ()
        "The height of the tip of the header chain.\n\
         Blocks below it need not be kept here: see \"blocks\" and \"blocks_kept\" in getblockchaininfo.";
    GetBlockHash "getblockhash" (json("height"))
        "The hash of the block at a height of the header chain.";
    GetBlockHeader "getblockheader" (text("blockhash"), optional_json("verbose"))
        "A header of the chain: an object, or its 80 bytes in hex if verbose is false.";
    GetJobInfo "getjobinfo" ()
        "The blocks being relayed or relayed lately, newest last: progress, times in microseconds since the Unix epoch, \
         requests sent, and how many chunks came from whom.";
    GetMempoolInfo "getmempoolinfo" ()
        "The transactions held for short ids: count, bytes and bound.";
    SendRawTransaction "sendrawtransaction" (text("hexstring"), optional_json("maxfeerate"), optional_json("maxburnamount"))
        "Holds a transaction, so that blocks need not bring it. Answers its txid.\n\
         It is parsed, not validated, and relayed only as part of a block; the limits on fees are ignored.";
    SubmitBlock "submitblock" (text("hexdata"), optional_text("dummy"))
        "Relays a block. Answers null once peers can have it and the disk holds it, or a word of BIP22 that says why not.";
    SubmitHeader "submitheader" (text("hexdata"))
        "Adds a header to the chain, if it shows the work that its context demands. Answers null.";
    AddNode "addnode" (text("node"), text("command"))
        "Peers to keep connected. command \"add\": connect to it again and again; \"remove\": no longer; \
         \"onetry\": connect once.\n\
         FINGERPRINT@HOST:PORT as node is a private peer, where private links are on.";
    DisconnectNode "disconnectnode" (optional_text("address"), optional_json("nodeid"))
        "Ends a session, named by its \"addr\" or its \"id\" in getpeerinfo. To name it by id, give \"\" as address.\n\
         A connection of Bitcoin's protocol is named by its \"addr\" in getbitcoinpeerinfo.";
    GetNetworkInfo "getnetworkinfo" ()
        "This node: name, addresses, sessions, traffic.\n\
         \"addednode_failures\": of \"addednodes\", private peers among them, those whose last attempt failed, and why.\n\
         \"refused\" counts what was refused, by reason: ordinary ones are unknown-job (a message that crossed the \
         end of its job), replay and connection-id (datagrams of an ended session).\n\
         \"p2p\" tells the same of the connections that speak Bitcoin's own protocol; \"finding\" of the search for peers.";
    GetKey "getkey" ()
        "This node's key for private links.\nThe fingerprint, and what peers put among the values of two options: in \
         \"quic-allow\" it lets this node connect there; in \"quic-peer\" it makes that node connect here, which is null \
         unless quic-listen is set. HOST in it stands for a name or address that only you know.";
    GetPeerInfo "getpeerinfo" ()
        "The sessions: with Bitcoin Core's field names where the thing is the same.\n\
         connection_type: \"manual\" is a peer that you named, \"outbound-full-relay\" one that this node found itself,\n\
         \"private\" one whose \"key\" is pinned. transport: how data goes, \"udp\" or \"tcp\"; on private links \"quic\", or \
         \"quic-stream\" where datagrams do not get through.";
    GetNodeAddresses "getnodeaddresses" (optional_json("count"), optional_text("network"))
        "Nodes of Bitcoin's network that this node knows.\nThey are named by their port of Bitcoin's protocol, in no order.\n\
         count: so many at most, 1 by default, 0 for all; network: ipv4 or ipv6 alone.";
    GetAddrmanInfo "getaddrmaninfo" ()
        "How many addresses are known of each network: new ones, of which others told, and tried ones, which have answered.\n\
         \"claimed\" are those of the new ones that are said to be relays, \"proven\" those of the tried ones that were met as such.";
    GetRelayAddresses "getrelayaddresses" (optional_json("count"))
        "Relays that this node knows.\nThey are named by the port of their control connections, those met last first.\n\
         count: so many at most, 0 (default) for all. \"met\" is 0 for one that only says that it is a relay.";
    GetBitcoinPeerInfo "getbitcoinpeerinfo" ()
        "The connections of Bitcoin's own P2P protocol.\nThe fields are those of Bitcoin Core's getpeerinfo.\n\
         connection_type: \"manual\" is a bitcoind of yours, \"outbound-full-relay\" an ordinary node that is listened to for \
         addresses, \"block-relay-only\" another relay that is asked for blocks, \"feeler\" one looked at for a moment.\n\
         The sessions of the relay's protocol are in getpeerinfo.";
    GetElectrumInfo "getelectruminfo" ()
        "The Electrum server: how its index stands, who is there, what was refused.\n\
         \"state\": at the tip, behind, being built (with \"building\": what is counted, how fast, how long yet), or what is lacking.\n\
         \"refused\" were not let in, \"failed\" did not get through their handshake, \"cut\" were ended by this side.\n\
         \"hosts\": by which names this server is told of; \"peers\": the servers that wallets are told of.\n\
         \"cost\": from soft on a session waits before its next call, at hard it is cut.";
    GetElectrumSessions "getelectrumsessions" ()
        "The wallets that are connected, and what they cost.\n\
         \"cost\" is by now, with what has decayed; see getelectruminfo for the limits.";
    GetElectrumGroups "getelectrumgroups" (optional_json("count"))
        "Networks of wallets (/24, /48), with what they cost by now.\n\
         Those that cost most first, as many as count says: 100 by default, 0 for all. Sessions of a network that have ended \
         are in its cost.";
    DisconnectElectrum "disconnectelectrum" (json("id"))
        "Ends the session of a wallet, by its \"id\" in getelectrumsessions. Answers null.";
    ElectrumLog "electrumlog" (json("id"), text("state"))
        "Logs when a session sends messages, and how long they are: on or off.\n\
         What is asked is never logged: it would tell whose coins are whose. Answers null.";
    ElectrumQuery "electrumquery" (text("script"), optional_json("count"))
        "What wallets are told of an address or script hash.\n\
         script: an address, or 64 hexadecimal digits as in Electrum's protocol. Amounts are in satoshis.\n\
         count: so many transactions of the history at most, the last ones, 10 by default.";
    SetElectrumBanner "setelectrumbanner" (optional_text("banner"))
        "Greets wallets by this text, or by what the banner's file says now.\n\
         The text holds until electrum-banner's file changes, or the node ends. Answers what wallets see.";
    Help "help" (optional_text("command"))
        "All methods, or what one of them does.";
    Stop "stop" ()
        "Stops the node.";
    Uptime "uptime" ()
        "Seconds since the start.";
}

/// The method of that name.
pub fn find(name: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.name == name)
}

/// Every method with its parameters, and below each what it does.
pub fn overview() -> String {
    let lines = METHODS
        .iter()
        .map(|method| format!("{}\n    {}", method.synopsis(), method.purpose()));
    let lines: Vec<String> = lines.collect();
    lines.join("\n")
}

impl Method {
    /// What to write to call it.
    pub fn synopsis(&self) -> String {
        let mut line = self.name.to_owned();
        for parameter in self.parameters {
            let name = parameter.name;
            let _ = match (parameter.required, parameter.json) {
                (true, false) => write!(line, " \"{name}\""),
                (true, true) => write!(line, " {name}"),
                (false, false) => write!(line, " ( \"{name}\" )"),
                (false, true) => write!(line, " ( {name} )"),
            };
        }
        line
    }

    /// What it does, in a sentence.
    pub fn purpose(&self) -> &'static str {
        let end = |mark: &str| self.help.find(mark);
        let first = [end(". "), end(".\n"), end(": ")];
        match first.into_iter().flatten().min() {
            Some(end) => self.help.get(..end).unwrap_or(self.help),
            None => self.help.trim_end_matches('.'),
        }
    }

    /// What to write, and what it does.
    pub fn usage(&self) -> String {
        format!("{}\n\n{}", self.synopsis(), self.help)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_required_parameters_come_first() {
        for (place, method) in METHODS.iter().enumerate() {
            assert_eq!(find(method.name).map(|found| found.kind), Some(method.kind));
            assert!(
                METHODS[..place]
                    .iter()
                    .all(|other| other.name != method.name)
            );
            let required: Vec<bool> = method.parameters.iter().map(|it| it.required).collect();
            assert!(required.is_sorted_by(|left, right| left >= right));
            let purpose = method.purpose();
            assert!((8..=76).contains(&purpose.len()), "{purpose}");
        }
        assert_eq!(find("nonsense"), None);
        assert_eq!(
            find("getblock").unwrap().synopsis(),
            "getblock \"blockhash\" ( verbosity )"
        );
    }
}

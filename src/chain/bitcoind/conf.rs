//! `bitcoin.conf`, as far as it tells how a node is reached: read as Bitcoin Core reads it (`common/config.cpp`).
//!
//! What this is not: a check of the file. What Core would refuse is passed over here.

use crate::chain::Network;

/// Lines of a file and what it includes. Reason: Core knows some 200 options, and some of them are repeated.
const MAX_LINES: usize = 10_000;

/// Options that outside a section are for the main network only.
const MAIN_ONLY: &[&str] = &["bind", "port", "rpcbind", "rpcport"];

/// The options of one or several files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conf(Vec<Line>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    section: Option<String>,
    key: String,
    value: String,
}

impl Conf {
    /// Adds what another file says; what was said before it has precedence.
    pub fn add(&mut self, text: &str) {
        let mut section: Option<String> = None;
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if let Some(name) = line
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'))
            {
                section = Some(name.trim().to_owned());
                continue;
            }
            let Some((key, value)) = line.split_once('=') else {
                continue;
            };
            if self.0.len() == MAX_LINES {
                return;
            }
            // A section may stand before the key as well.
            let (section, key) = match key.trim().split_once('.') {
                Some((section, key)) => (Some(section.to_owned()), key),
                None => (section.clone(), key.trim()),
            };
            let (key, value) = match key.strip_prefix("no") {
                Some(positive) if is_switch(positive) => {
                    let is_on = matches!(value.trim(), "0");
                    (positive, if is_on { "1" } else { "0" })
                }
                _ => (key, value.trim()),
            };
            self.0.push(Line {
                section,
                key: key.to_owned(),
                value: value.to_owned(),
            });
        }
    }

    /// The value of `key` for `network`.
    pub fn value<'a>(&'a self, network: Network, key: &str) -> Option<&'a str> {
        self.values(network, key)
            .next()
            .filter(|value| !value.is_empty())
    }

    /// All values of `key` for `network`, those of the network's section first.
    pub fn values<'a, 'k>(
        &'a self,
        network: Network,
        key: &'k str,
    ) -> impl Iterator<Item = &'a str> + use<'a, 'k> {
        let is_general = network == Network::Main || !MAIN_ONLY.contains(&key);
        let of = move |section: Option<&'static str>| {
            self.0
                .iter()
                .filter(move |line| line.section.as_deref() == section && line.key == key)
                .map(|line| line.value.as_str())
        };
        of(Some(network.name())).chain(of(None).filter(move |_| is_general))
    }

    /// Whether `key` is switched off for `network`.
    pub fn is_off(&self, network: Network, key: &str) -> bool {
        self.value(network, key) == Some("0")
    }
}

/// Options that are read here and can be negated by "no" before them.
fn is_switch(key: &str) -> bool {
    ["listen", "server", "rpccookiefile"].contains(&key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(text: &str) -> Conf {
        let mut conf = Conf::default();
        conf.add(text);
        conf
    }

    #[test]
    fn sections_and_networks_are_kept_apart() {
        let conf = conf(
            "# comment\nrpcport=1\nrpcuser = alice # why\nserver=1\n\ntest.rpcport=2\nno-such\n\
             [regtest]\nrpcport=3\nrpcport=4\nrpcuser=bob\nnolisten=1\n[main]\nport=5\n",
        );
        let value = |network, key: &'static str| conf.value(network, key).map(str::to_owned);
        assert_eq!(value(Network::Main, "rpcport").as_deref(), Some("1"));
        assert_eq!(value(Network::Testnet3, "rpcport").as_deref(), Some("2"));
        assert_eq!(value(Network::Regtest, "rpcport").as_deref(), Some("3"));
        assert_eq!(value(Network::Signet, "rpcport"), None);
        assert_eq!(value(Network::Signet, "rpcuser").as_deref(), Some("alice"));
        assert_eq!(value(Network::Regtest, "rpcuser").as_deref(), Some("bob"));
        assert_eq!(value(Network::Main, "port").as_deref(), Some("5"));
        assert!(conf.is_off(Network::Regtest, "listen") && !conf.is_off(Network::Main, "listen"));
    }

    #[test]
    fn what_comes_first_holds_and_lists_add_up() {
        let mut conf = conf("zmqpubrawtx=a\nrpcuser=\n");
        conf.add("zmqpubrawtx=b\n[signet]\nzmqpubrawtx=c");
        let all = |network| conf.values(network, "zmqpubrawtx").collect::<Vec<_>>();
        assert_eq!(all(Network::Main), ["a", "b"]);
        assert_eq!(all(Network::Signet), ["c", "a", "b"]);
        assert_eq!(conf.value(Network::Main, "rpcuser"), None);
        let mut long = Conf::default();
        long.add(&"a=b\n".repeat(MAX_LINES + 5));
        assert_eq!(long.0.len(), MAX_LINES);
    }
}

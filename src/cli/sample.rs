//! The configuration file that `node --print-config` writes.

use std::fmt::Write as _;
use std::net::SocketAddr;

use clap::CommandFactory as _;

use super::CommandLine;
use crate::config::{NetworkName, Options};

/// What holds on a network where nothing is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// The network.
    pub network: NetworkName,
    /// Where peers' control connections are accepted, and data is exchanged.
    pub control: SocketAddr,
    /// Where Bitcoin's P2P protocol is served.
    pub p2p: SocketAddr,
    /// Where RPC is served.
    pub rpc: SocketAddr,
}

/// What stands in the file for an option.
#[derive(Debug, PartialEq, Eq)]
enum Sample {
    /// What holds anyway.
    Default(String),
    /// What holds anyway, and another value that shows the form.
    DefaultAnd(String, &'static str),
    /// Nothing holds; the value shows the form.
    Example(&'static str),
}

/// A configuration file with every option, its meaning above it. All are commented out; only a network other than
/// main is set, since the addresses in the file are that network's.
pub fn sample_config(defaults: &Defaults) -> String {
    let mut text = String::from(
        "# Configuration of a blocktorrent node: every option, commented out, with its default.\n\
         # Flags of the same names override what stands here; lists add up.\n",
    );
    let command = CommandLine::command();
    let keys = Options::keys();
    let arguments = command
        .find_subcommand("node")
        .into_iter()
        .flat_map(clap::Command::get_arguments);
    for argument in arguments {
        let Some(key) = argument
            .get_long()
            .filter(|long| keys.iter().any(|key| key == long))
        else {
            continue;
        };
        let help = argument.get_long_help().or_else(|| argument.get_help());
        let help = help.map(ToString::to_string).unwrap_or_default();
        text.push('\n');
        for line in help.lines().filter(|line| !line.is_empty()) {
            let _ = writeln!(text, "# {line}");
        }
        let is_set = key == "network" && defaults.network != NetworkName::Main;
        let sign = if is_set { "" } else { "#" };
        let _ = match sample(key, defaults) {
            Sample::Default(value) => writeln!(text, "{sign}{key} = {value}"),
            Sample::DefaultAnd(value, example) => {
                writeln!(
                    text,
                    "# For example: {key} = {example}\n{sign}{key} = {value}"
                )
            }
            Sample::Example(example) => {
                writeln!(text, "# No default; for example:\n#{key} = {example}")
            }
        };
    }
    text
}

/// What stands in the file for option `key`, as TOML.
fn sample(key: &str, defaults: &Defaults) -> Sample {
    let quoted = |text: &dyn std::fmt::Display| format!("\"{text}\"");
    let number = |number: &str| Sample::Default(number.to_owned());
    Sample::Default(match key {
        "datadir" => quoted(&"~/.blocktorrent"),
        "network" => quoted(&defaults.network),
        "control-listen" | "data-listen" => quoted(&defaults.control),
        "p2p-listen" => quoted(&defaults.p2p),
        "rpc-listen" => quoted(&defaults.rpc),
        "connect" => {
            let example = "[\"relay.example\", \"203.0.113.5:9000\", \"[2001:db8::1]:9000\"]";
            return Sample::DefaultAnd("[]".to_owned(), example);
        }
        "quic-listen" => return Sample::Example("\"0.0.0.0:8436\""),
        "quic-peer" | "quic-allow" => {
            return Sample::DefaultAnd(
                "[]".to_owned(),
                match key {
                    "quic-peer" => "[\"FINGERPRINT@relay.example:8436\"]",
                    _ => "[\"FINGERPRINT\"]",
                },
            );
        }
        key if key.starts_with("electrum-") => return electrum_sample(key),
        "find-peers" | "dns-seed" | "fixed-seeds" => match (key, defaults.network) {
            ("find-peers", _) => quoted(&"on"),
            (_, NetworkName::Regtest) => quoted(&"off"),
            _ => quoted(&"on"),
        },
        "private-addresses" if defaults.network == NetworkName::Regtest => quoted(&"on"),
        "private-addresses" => quoted(&"off"),
        "seed-node" => return Sample::DefaultAnd("[]".to_owned(), "[\"node.example\"]"),
        "external-ip" => return Sample::DefaultAnd("[]".to_owned(), "[\"203.0.113.5\"]"),
        "outbound-relays" => return number("8"),
        "outbound-nodes" => return number("2"),
        "bitcoind" => return Sample::DefaultAnd("[]".to_owned(), "[\"auto\"]"),
        "service-bit" => return number("30"),
        "max-mempool-mb" => return number("300"),
        "store-mb" => return number("1000"),
        "max-peers" => return number("64"),
        "reserved-outbound" | "max-per-group" => return number("8"),
        "push-level" => return number("3"),
        "preference" => return number("128"),
        "role" => quoted(&"relay"),
        "log" => quoted(&"info"),
        "log-format" => quoted(&"full"),
        "rpc-user" => return Sample::Example("\"alice\""),
        "rpc-password" => return Sample::Example("\"a long secret\""),
        "uacomment" => return Sample::Example("\"alice\""),
        "trusted-start" => {
            return Sample::Example(
                "\"0,000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f,1d00ffff,1231006505\"",
            );
        }
        // Rates.
        _ => return Sample::Example("100"),
    })
}

/// The same of the Electrum server's options.
fn electrum_sample(key: &str) -> Sample {
    let number = |text: &str| Sample::Default(text.to_owned());
    let list = |example| Sample::DefaultAnd("[]".to_owned(), example);
    match key {
        "electrum-listen" => list("[\"tcp://127.0.0.1:50001\", \"ssl://0.0.0.0:50002\"]"),
        "electrum-cache-mb" => number("512"),
        "electrum-host" => list("[\"electrum.example\"]"),
        "electrum-peer" => list("[\"other.example:50002\"]"),
        "electrum-peers" => Sample::Default("\"off\"".to_owned()),
        "electrum-max-sessions" => number("10000"),
        "electrum-cost-soft" => number("1000"),
        "electrum-cost-hard" => number("10000"),
        "electrum-cert" => Sample::Example("\"/etc/ssl/electrum.pem\""),
        "electrum-key" => Sample::Example("\"/etc/ssl/electrum.key\""),
        "electrum-banner" => Sample::Example("\"/etc/blocktorrent/banner.txt\""),
        "electrum-donation" => Sample::Example("\"bc1q...\""),
        _ => Sample::Example("\"\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn defaults(network: NetworkName) -> Defaults {
        let at = |port| SocketAddr::from(([0, 0, 0, 0], port));
        Defaults {
            network,
            control: at(1),
            p2p: at(2),
            rpc: SocketAddr::from(([127, 0, 0, 1], 3)),
        }
    }

    /// The keys that are commented out, those that `keep` wants, as they would be if they were not.
    fn said(sample: &str, keep: impl Fn(&str) -> bool) -> Options {
        let mut before = "";
        let mut text = String::new();
        for line in sample.lines() {
            if !line.starts_with("# ") && keep(before) {
                text.push_str(line.trim_start_matches('#'));
                text.push('\n');
            }
            before = line;
        }
        Options::from_toml("sample", &text).unwrap()
    }

    #[test]
    fn the_sample_file_has_every_option_and_each_is_valid() {
        let sample = sample_config(&defaults(NetworkName::Main));
        assert!(Options::from_toml("sample", &sample).unwrap() == Options::default());
        assert!(Config::resolve(said(&sample, |_| true)).is_ok());
        for key in Options::keys() {
            assert!(sample.contains(&format!("\n#{key} = ")), "{key}");
        }
        let signet = sample_config(&defaults(NetworkName::Signet));
        let set = Options::from_toml("sample", &signet).unwrap();
        assert_eq!(set.network, Some(NetworkName::Signet));
    }

    #[test]
    fn what_stands_there_is_the_default() {
        let sample = sample_config(&defaults(NetworkName::Main));
        let said = said(&sample, |before| !before.starts_with("# No default"));
        let mut config = Config::resolve(said).unwrap();
        // These depend on the machine or the network, and are filled in elsewhere.
        assert!(config.datadir.take().is_some() && config.control_listen.take().is_some());
        assert!(config.data_listen.take().is_some() && config.rpc_listen.take().is_some());
        assert!(config.p2p_listen.take().is_some());
        assert_eq!(config, Config::resolve(Options::default()).unwrap());
    }
}

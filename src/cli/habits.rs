//! What is said to those who write flags as Bitcoin Core has them.

use clap::error::ErrorKind;

use crate::config::Options;

/// Flags of Bitcoin Core, and what to write here.
const HABITS: &[(&str, &str)] = &[
    ("regtest", "use --network regtest"),
    ("signet", "use --network signet"),
    ("testnet", "use --network test"),
    ("testnet4", "use --network testnet4"),
    ("chain", "use --network NAME"),
    (
        "daemon",
        "a node stays in the foreground; run it by a service manager, or end the line with &",
    ),
    ("printtoconsole", "the log always goes to stderr"),
    (
        "debuglogfile",
        "the log goes to stderr; redirect it with 2> FILE",
    ),
    ("debug", "use --log debug"),
    ("loglevel", "use --log LEVEL"),
    ("conf", "use --config FILE"),
    ("rpcuser", "use --rpc-user NAME"),
    ("rpcpassword", "use --rpc-password PASSWORD"),
    ("rpcport", "use --rpc-listen 127.0.0.1:PORT"),
    ("rpcbind", "use --rpc-listen 127.0.0.1:PORT"),
    (
        "rpcconnect",
        "the node of --datadir and --network is called, wherever it listens",
    ),
    (
        "rpcwait",
        "a node that answers has written its node.json; wait for that file",
    ),
    ("server", "the RPC server always runs"),
    ("addnode", "use --connect HOST[:PORT]"),
    ("seednode", "use --connect HOST[:PORT]"),
    ("bind", "use --control-listen IP:PORT"),
    ("port", "use --control-listen IP:PORT"),
    ("maxconnections", "use --max-peers COUNT"),
    ("maxmempool", "use --max-mempool-mb MB"),
    ("prune", "use --store-mb MB"),
];

/// What is wrong with a command line, and what would be right, in one line.
pub fn explain(error: &clap::Error, arguments: &[String]) -> String {
    let line = one_line(&error.render().to_string());
    let advice = match error.kind() {
        ErrorKind::UnknownArgument => arguments.iter().find_map(|argument| advice(argument)),
        _ => None,
    };
    match (advice, error.kind()) {
        (Some(advice), _) => advice,
        (None, ErrorKind::MissingRequiredArgument) if line.contains("<METHOD>") => {
            "error: which method? `blocktorrent cli help` lists them".to_owned()
        }
        _ => line,
    }
}

fn advice(argument: &str) -> Option<String> {
    let (bare, dashes) = match argument.strip_prefix("--") {
        Some(bare) => (bare, 2),
        None => (argument.strip_prefix('-')?, 1),
    };
    let name = bare.split_once('=').map_or(bare, |(name, _)| name);
    let plain = name.to_ascii_lowercase();
    let known = HABITS.iter().find(|(habit, _)| *habit == plain);
    let advice = match known {
        Some((_, advice)) => (*advice).to_owned(),
        None if dashes == 1 && Options::keys().contains(&plain) => {
            format!("flags have two dashes: --{plain}")
        }
        None => return None,
    };
    let shown = argument.escape_default();
    Some(format!("error: unexpected argument '{shown}'; {advice}"))
}

/// What is wrong and what would be right, without the usage that follows.
pub fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .filter(|line| !line.is_empty())
        .collect();
    lines.join(" ")
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::CommandLine;
    use super::*;

    fn said(line: &str) -> String {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let words = std::iter::once("blocktorrent".to_owned()).chain(arguments.clone());
        let error = CommandLine::try_parse_from(words).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}");
        explain(&error, &arguments)
    }

    #[test]
    fn habits_are_met_with_what_to_write() {
        for (line, says) in [
            ("node -regtest", "'-regtest'; use --network regtest"),
            ("node --regtest", "'--regtest'; use --network regtest"),
            ("-testnet node", "'-testnet'; use --network test"),
            ("cli -signet getpeerinfo", "'-signet'; use --network signet"),
            (
                "node -datadir=/x",
                "'-datadir=/x'; flags have two dashes: --datadir",
            ),
            ("node --daemon", "stays in the foreground"),
            ("node --printtoconsole", "the log always goes to stderr"),
            ("cli", "`blocktorrent cli help` lists them"),
            ("node --nonsense", "unexpected argument '--nonsense' found"),
        ] {
            let told = said(line);
            assert!(told.starts_with("error: ") && told.contains(says), "{told}");
            assert!(!told.contains('\n'), "{told}");
        }
    }

    #[test]
    fn no_habit_is_a_flag_of_this_program() {
        let keys = Options::keys();
        for (habit, advice) in HABITS {
            assert!(!keys.contains(&(*habit).to_owned()), "{habit}");
            if let Some(flag) = advice.strip_prefix("use --") {
                let name = flag.split(' ').next().unwrap().to_owned();
                assert!(name == "config" || keys.contains(&name), "{advice}");
            }
        }
    }
}

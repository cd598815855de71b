//! `blocktorrent cli`: calls the running node, as bitcoin-cli does.

use std::io::{ErrorKind, Read};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::datadir::{read_addresses, read_cookie};
use super::rpc::Code;
use super::rpc::http::MAX_BODY_BYTES;
use super::rpc::methods::{self, Method};
use super::settings::Settings;
use crate::cli::{CallOptions, complain, print};
use crate::config::Options;

/// How long the node may take to accept a connection, on loopback.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// How long an answer may take: beyond what the node itself allows any call.
const ANSWER_TIME: Duration = Duration::from_secs(120);
/// Bytes of an answer: the largest block with all its transactions as objects is about 40 MB.
const MAX_ANSWER_BYTES: u64 = 256 << 20;

/// Calls the node and prints its answer; the exit code is bitcoin-cli's.
///
/// # Errors
///
/// One line that says what to do: no node runs, the credential is wrong, an argument is no JSON.
pub fn call(options: &CallOptions) -> anyhow::Result<ExitCode> {
    let flags = Options {
        config: options.config.clone(),
        datadir: options.datadir.clone(),
        network: options.network,
        ..Options::default()
    };
    let settings = Settings::load(flags)?;
    let parameters = read_arguments(&options.method, &options.arguments)?;
    let Some(addresses) = read_addresses(&settings.folder) else {
        // The list of methods is here as well.
        return match help_text(&options.method, &options.arguments) {
            Some(text) => print(&format!("{text}\n")).map(|()| ExitCode::SUCCESS),
            None => Err(no_answer(&options.method, no_node(&settings))),
        };
    };
    let address = addresses.rpc;
    let (user, password) = match (&options.rpc_user, &options.rpc_password) {
        (Some(user), Some(password)) => (user.clone(), password.clone()),
        _ => cookie(&settings.folder)?,
    };
    let request = json!({
        "jsonrpc": "2.0",
        "id": 1,
        "method": options.method,
        "params": parameters,
    });
    let login = BASE64_STANDARD.encode(format!("{user}:{password}"));
    let (status, text) = post(&address.to_string(), &login, request.to_string())
        .map_err(|error| no_answer(&options.method, unreachable_node(error, &settings)))?;
    if status == 401 {
        bail!(
            "the node at {address} refuses this user and password; without --rpc-user the cookie in {} is used",
            settings.folder.display()
        );
    }
    let response: Value = serde_json::from_str(&text).map_err(|_| {
        let shown: String = text.trim().chars().take(200).collect();
        anyhow!("the server at {address} answered with status {status}: {shown}")
    })?;
    if options.method == "submitblock" && response["result"] == "prev-blk-not-found" {
        eprintln!(
            "the block's parent is not on the node's header chain (getblockchaininfo tells its tip); see --trusted-start in `blocktorrent node --help`"
        );
    }
    let answered = print_answer(&response);
    let is_unknown = methods::find(&options.method).is_none();
    if is_unknown && response["error"]["code"] == Code::MethodNotFound as i32 {
        complain(&unknown_method(&options.method));
    }
    answered
}

/// What `help` answers, which takes no running node.
fn help_text(method: &str, arguments: &[String]) -> Option<String> {
    match (method, arguments) {
        ("help", []) => Some(methods::overview()),
        ("help", [name]) => methods::find(name).map(Method::usage),
        _ => None,
    }
}

/// What to say of a method that there is not.
fn unknown_method(name: &str) -> String {
    let likely = methods::METHODS
        .iter()
        .map(|method| (distance(method.name, name), method.name))
        .min()
        .filter(|(distance, known)| *distance <= known.len() / 3);
    match likely {
        Some((_, known)) => {
            format!(
                "`{name}` is no method; did you mean `{known}`? `blocktorrent cli help` lists them"
            )
        }
        None => format!("`{name}` is no method; `blocktorrent cli help` lists them"),
    }
}

/// How many letters must be added, removed or changed to make one word of another.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.chars().count()).collect();
    for (line, one) in left.chars().enumerate() {
        let mut diagonal = line;
        let mut before = line + 1;
        for (cell, other) in row.iter_mut().skip(1).zip(right.chars()) {
            let changed = diagonal + usize::from(one != other);
            diagonal = *cell;
            before = changed.min(before + 1).min(*cell + 1);
            *cell = before;
        }
        if let Some(first) = row.first_mut() {
            *first = line + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

/// What to say when no node has answered: of a method that is not even known here, that comes first.
fn no_answer(method: &str, error: anyhow::Error) -> anyhow::Error {
    match methods::find(method) {
        Some(_) => error,
        None => error.context(unknown_method(method)),
    }
}

fn no_node(settings: &Settings) -> anyhow::Error {
    anyhow!(
        "no node runs for network {} in {}; start one with `blocktorrent node{}`, or name its --datadir and --network",
        settings.config.network,
        settings.folder.display(),
        settings.flags()
    )
}

/// What to say of a node that wrote where it listens and does not answer there.
fn unreachable_node(error: anyhow::Error, settings: &Settings) -> anyhow::Error {
    match error.downcast_ref::<ureq::Error>() {
        Some(ureq::Error::Io(cause)) if cause.kind() == ErrorKind::ConnectionRefused => {
            anyhow!("{} (the last one there was killed)", no_node(settings))
        }
        _ => error.context(no_node(settings)),
    }
}

fn cookie(folder: &Path) -> anyhow::Result<(String, String)> {
    read_cookie(folder).with_context(|| {
        format!(
            "can't read the cookie in {}; run as the node's user, or give --rpc-user and --rpc-password",
            folder.display()
        )
    })
}

/// Calls a node on this machine; the status of HTTP and the body.
pub(super) fn post(address: &str, login: &str, body: String) -> anyhow::Result<(u16, String)> {
    let agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .timeout_connect(Some(CONNECT_TIME))
        .timeout_global(Some(ANSWER_TIME))
        .build()
        .new_agent();
    let mut response = agent
        .post(format!("http://{address}/"))
        .header("Authorization", format!("Basic {login}"))
        .header("Content-Type", "application/json")
        .send(body)?;
    let status = response.status().as_u16();
    let text = response
        .body_mut()
        .with_config()
        .limit(MAX_ANSWER_BYTES)
        .read_to_string()?;
    Ok((status, text))
}

/// Arguments as the method takes them: text as it stands, or JSON. `-` is read from stdin.
fn read_arguments(method: &str, arguments: &[String]) -> anyhow::Result<Vec<Value>> {
    let method = methods::find(method);
    let mut values = Vec::new();
    for (place, argument) in arguments.iter().enumerate() {
        let text = match argument.as_str() {
            "-" => read_stdin()?,
            text => text.to_owned(),
        };
        values.push(read_argument(method, place, text)?);
    }
    Ok(values)
}

fn read_argument(method: Option<&Method>, place: usize, text: String) -> anyhow::Result<Value> {
    let parameter = method.and_then(|method| method.parameters.get(place));
    if parameter.is_none_or(|parameter| !parameter.json) {
        return Ok(Value::String(text));
    }
    serde_json::from_str(&text).map_err(|_| {
        let shown: String = text.chars().take(80).collect();
        let name = parameter.map_or("", |parameter| parameter.name);
        let what = match name {
            "height" | "count" | "nodeid" | "maxfeerate" | "maxburnamount" => "a number",
            "verbose" => "true or false",
            "verbosity" => "a number, true or false",
            _ => "a number, true, false, null, a list or an object",
        };
        anyhow!("`{shown}` makes no sense here: {name} is {what}")
    })
}

fn read_stdin() -> anyhow::Result<String> {
    let mut text = String::new();
    let limit = MAX_BODY_BYTES as u64 + 1;
    std::io::stdin()
        .take(limit)
        .read_to_string(&mut text)
        .map_err(|error| match error.kind() {
            ErrorKind::InvalidData => anyhow!(
                "the argument on stdin is no text; give hex, as `xxd -p FILE | tr -d '\\n'` writes it"
            ),
            _ => anyhow!("can't read the argument from stdin: {error}"),
        })?;
    if text.len() as u64 >= limit {
        bail!("the argument on stdin is larger than a call can be ({MAX_BODY_BYTES} bytes)");
    }
    Ok(text.trim().to_owned())
}

fn print_answer(response: &Value) -> anyhow::Result<ExitCode> {
    if let Some(error) = response.get("error").filter(|error| !error.is_null()) {
        let code = error["code"].as_i64().unwrap_or(1);
        let message = error["message"].as_str().unwrap_or_default();
        complain(&format!("error code: {code}"));
        complain("error message:");
        message.lines().for_each(complain);
        // The status of a process has eight bits; what would read as success must not.
        let status = u8::try_from(code.unsigned_abs() % 256).unwrap_or(1);
        return Ok(ExitCode::from(status.max(1)));
    }
    let text = match response.get("result") {
        None | Some(Value::Null) => return Ok(ExitCode::SUCCESS),
        Some(Value::String(text)) => text.clone(),
        Some(value) => serde_json::to_string_pretty(value)?,
    };
    print(&format!("{text}\n")).map(|()| ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(method: &str, given: &[&str]) -> Result<Vec<Value>, String> {
        let given: Vec<String> = given.iter().map(ToString::to_string).collect();
        read_arguments(method, &given).map_err(|error| error.to_string())
    }

    #[test]
    fn an_unknown_method_is_named_before_the_missing_node() {
        let said = |method| format!("{:#}", no_answer(method, anyhow!("no node runs")));
        assert_eq!(
            said("frob"),
            "`frob` is no method; `blocktorrent cli help` lists them: no node runs"
        );
        assert!(said("getpeerinfos").contains("did you mean `getpeerinfo`?"));
        assert_eq!(said("getpeerinfo"), "no node runs");
    }

    #[test]
    fn the_table_says_what_is_json_and_what_is_text() {
        assert_eq!(
            arguments("getblock", &["00ff", "2"]).unwrap(),
            [json!("00ff"), json!(2)]
        );
        // A hash of digits alone stays text.
        assert_eq!(arguments("getblock", &["123"]).unwrap(), [json!("123")]);
        assert_eq!(
            arguments("disconnectnode", &["", "7"]).unwrap(),
            [json!(""), json!(7)]
        );
        assert_eq!(
            arguments("nonsense", &["1", "true"]).unwrap(),
            [json!("1"), json!("true")]
        );
        assert!(
            arguments("getblock", &["00", "x"])
                .unwrap_err()
                .starts_with("`x` makes no sense here: verbosity is a number")
        );
        assert!(
            arguments("getblockhash", &["abc"])
                .unwrap_err()
                .ends_with("height is a number")
        );
    }

    #[test]
    fn a_method_that_there_is_not_is_explained_and_help_needs_no_node() {
        assert!(unknown_method("getblokcount").contains("did you mean `getblockcount`?"));
        assert!(!unknown_method("nosuch").contains("did you mean"));
        assert!(unknown_method("nosuch").contains("cli help"));
        let all = help_text("help", &[]).unwrap();
        assert!(all.contains("getblockchaininfo"));
        let one = help_text("help", &["stop".to_owned()]);
        assert!(one.is_some_and(|text| text.starts_with("stop")));
        assert_eq!(help_text("stop", &[]), None);
    }
}

//! From text to a scenario, and back.

use serde::Deserialize as _;
use toml::de::{DeTable, DeValue};

use super::error::ScenarioError;
use super::spec::{LinkChange, LinkSpec, Scenario};

/// Characters of a key or value that an error repeats: enough to find it, and the error stays one line.
const MAX_SHOWN: usize = 200;

impl Scenario {
    /// Reads the scenario of the TOML file `file`, whose content is `text`.
    ///
    /// # Errors
    ///
    /// The first line that is no TOML, has no key of a scenario, or makes no sense; and what to write instead.
    pub fn from_toml(file: &str, text: &str) -> Result<Self, ScenarioError> {
        Self::with_changes(file, text, &[])
    }

    /// Reads a scenario as [`Scenario::from_toml`] does, with some keys set to other values. A change names a key with
    /// dots before its tables (`link.loss`, `event.0.at_ms`); its value is TOML, or else a string.
    ///
    /// # Errors
    ///
    /// As [`Scenario::from_toml`]; the first change that names no key of a scenario.
    pub fn with_changes(
        file: &str,
        text: &str,
        changes: &[(String, String)],
    ) -> Result<Self, ScenarioError> {
        let fail = |error: toml::de::Error| ScenarioError {
            file: file.to_owned(),
            line: Some(line_at(text, error.span().map_or(0, |span| span.start))),
            problem: with_key(text, &error),
        };
        let mut scenario: Self = toml::from_str(text).map_err(fail)?;
        if !changes.is_empty() {
            let Apart { mut seed, mut rest } = toml::from_str(text).map_err(fail)?;
            for (key, value) in changes {
                let problem_of = |problem| ScenarioError {
                    file: format!("--set {}", shown(key)),
                    line: None,
                    problem,
                };
                if key == "seed" {
                    seed = Some(value.parse().map_err(|_| problem_of(advice_for("u64")))?);
                    continue;
                }
                let changed = set(&mut rest, key, parsed(value));
                let read = changed.and_then(|()| {
                    Self::deserialize(rest.clone()).map_err(|error| plain(error.message()))
                });
                scenario = read.map_err(problem_of)?;
            }
            scenario.seed = seed.unwrap_or(scenario.seed);
        }
        scenario.check().map_err(|fault| {
            // The table above a key that was set may be at fault, or a key below it.
            let blamed = changes.iter().rfind(|(key, _)| {
                fault.key.starts_with(key.as_str()) || key.starts_with(&fault.key)
            });
            match blamed {
                Some((key, _)) => ScenarioError {
                    file: format!("--set {}", shown(key)),
                    line: None,
                    problem: format!("{}: {}", fault.key, fault.advice),
                },
                None => ScenarioError::at_key(file, text, &fault.key, &fault.advice),
            }
        })?;
        Ok(scenario)
    }

    /// The scenario as TOML, every key with its value: what [`Scenario::from_toml`] reads as the same scenario.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("its maps have strings for keys")
    }
}

impl ScenarioError {
    /// What is wrong with the value of a key (with dots before its tables) in the file `file`, whose content is `text`.
    pub fn at_key(file: &str, text: &str, key: &str, advice: &str) -> Self {
        Self {
            file: file.to_owned(),
            line: line_of(text, key),
            problem: format!("{key}: {advice}"),
        }
    }
}

impl LinkChange {
    /// Whether nothing is different.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl LinkSpec {
    /// This link with what is different; what `change` does not name stays. A queue in ms takes the place of one in
    /// kB, and the other way round.
    pub fn changed(&self, change: &LinkChange) -> Self {
        let (queue_ms, queue_kb) = match (change.queue_ms, change.queue_kb) {
            (None, None) => (self.queue_ms, self.queue_kb),
            changed => changed,
        };
        Self {
            delay_ms: change.delay_ms.or(self.delay_ms),
            jitter_ms: change.jitter_ms.unwrap_or(self.jitter_ms),
            rate_mbit: change.rate_mbit.unwrap_or(self.rate_mbit),
            queue_ms,
            queue_kb,
            loss: change.loss.unwrap_or(self.loss),
            burst: change.burst.unwrap_or(self.burst),
            reorder: change.reorder.unwrap_or(self.reorder),
            reorder_by_ms: change.reorder_by_ms.unwrap_or(self.reorder_by_ms),
            duplicate: change.duplicate.unwrap_or(self.duplicate),
            corrupt: change.corrupt.unwrap_or(self.corrupt),
            mtu: change.mtu.unwrap_or(self.mtu),
            udp: change.udp.unwrap_or(self.udp),
            back: self.back.clone(),
        }
    }
}

/// A scenario whose seed is apart: a number of TOML's is signed.
#[derive(serde::Deserialize)]
struct Apart {
    seed: Option<u64>,
    #[serde(flatten)]
    rest: toml::Table,
}

/// A value as TOML has it; what is none is text.
fn parsed(value: &str) -> toml::Value {
    let line = format!("value = {value}");
    let table: Result<toml::Table, _> = toml::from_str(&line);
    let parsed = table.ok().and_then(|mut table| table.remove("value"));
    parsed.unwrap_or_else(|| toml::Value::String(value.to_owned()))
}

/// Sets the key that `path` names, making the tables on its way.
fn set(table: &mut toml::Table, path: &str, value: toml::Value) -> Result<(), String> {
    let (tables, last) = match path.rsplit_once('.') {
        Some((tables, last)) => (Some(tables), last),
        None => (None, path),
    };
    let no_table = || {
        format!(
            "`{}` is no table of a scenario; name a key as in link.loss or event.0.at_ms",
            shown(path)
        )
    };
    let mut at = table;
    let mut steps = tables.into_iter().flat_map(|tables| tables.split('.'));
    while let Some(step) = steps.next() {
        let index = steps
            .clone()
            .next()
            .and_then(|index| index.parse::<usize>().ok());
        if let (Some(index), None) = (index, at.get(step)) {
            return Err(format!(
                "there is no {} {index}: the scenario has none; a file can have it",
                shown(step)
            ));
        }
        let mut next = at
            .entry(step)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()));
        if let toml::Value::Array(list) = next {
            let index = steps.next().and_then(|index| index.parse::<usize>().ok());
            next = index
                .and_then(|index| list.get_mut(index))
                .ok_or_else(no_table)?;
        }
        at = next.as_table_mut().ok_or_else(no_table)?;
    }
    at.insert(last.to_owned(), value);
    Ok(())
}

/// The line of the byte at `offset`, counted from 1.
fn line_at(text: &str, offset: usize) -> usize {
    let before = text.bytes().take(offset);
    1 + before.filter(|byte| *byte == b'\n').count()
}

/// The line on which the key at `path` stands, or the nearest table above it that there is.
fn line_of(text: &str, path: &str) -> Option<usize> {
    let table = DeTable::parse(text).ok()?;
    let mut at = table.get_ref();
    let mut found = None;
    let mut steps = path.split('.');
    while let Some(step) = steps.next() {
        let Some((key, value)) = at.iter().find(|(key, _)| key.get_ref() == step) else {
            break;
        };
        found = Some(key.span().start);
        at = match value.get_ref() {
            DeValue::Table(inner) => inner,
            DeValue::Array(list) => {
                let index = steps.next().and_then(|index| index.parse::<usize>().ok());
                match index.and_then(|index| list.get(index)) {
                    Some(item) => {
                        found = Some(item.span().start);
                        match item.get_ref() {
                            DeValue::Table(inner) => inner,
                            _ => break,
                        }
                    }
                    None => break,
                }
            }
            _ => break,
        };
    }
    found.map(|offset| line_at(text, offset))
}

/// What a parser says of a value, and what it should say to whoever wrote the value.
const EXPECTED: &[(&str, &str)] = &[
    ("f64", "give a number, without quotes"),
    (
        "u64",
        "give a whole number from 0 to 18446744073709551615, without quotes",
    ),
    (
        "u32",
        "give a whole number from 0 to 4294967295, without quotes",
    ),
    (
        "usize",
        "give a whole number, 0 or more but not too large, without quotes",
    ),
    // All of these have a range of their own, which the next answer names.
    (
        "u16",
        "give a whole number, not negative and below 65536, without quotes",
    ),
    ("u8", "give a whole number from 0 to 255, without quotes"),
    ("a string", "give text in quotes"),
    ("a boolean", "give true or false, without quotes"),
    ("a sequence", "give a list, as in [0, 1]"),
    ("an array of length 2", "give two nodes, as in [0, 1]"),
];

/// The message of a parser, in words that need no knowledge of its types.
fn plain(message: &str) -> String {
    if let Some(rest) = message.strip_prefix("unknown field `")
        && let Some((key, known)) = rest.split_once("`, expected ")
    {
        return unknown(key, known);
    }
    if let Some(rest) = message.strip_prefix("unknown variant `")
        && let Some((value, known)) = rest.split_once("`, expected ")
    {
        let known: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
        let one_of = if known.len() > 1 { "one of " } else { "" };
        let names = known.join(", ");
        return format!(
            "`{}` is not known here; write {one_of}{names}",
            shown(value)
        );
    }
    if let Some(key) = message.strip_prefix("missing field `") {
        let example = match key {
            "kind`" => ", as in kind = \"crash\" of an event, or \"floods\" of an adversary",
            _ => "",
        };
        return format!("`{} is missing; add it{example}", shown(key));
    }
    let expected = message.rsplit_once(", expected ").map(|(_, what)| what);
    match expected.map(advice_for).filter(|advice| !advice.is_empty()) {
        Some(advice) => advice,
        None => shown(message),
    }
}

/// What to say where a parser expected something of that name; nothing if that is not known.
fn advice_for(expected: &str) -> String {
    let known = EXPECTED.iter().find(|(known, _)| *known == expected);
    known.map_or(String::new(), |(_, advice)| (*advice).to_owned())
}

/// What to say of a key that is none, given the list of those that are.
fn unknown(key: &str, known: &str) -> String {
    let names: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
    let folded = key.replace('-', "_").to_ascii_lowercase();
    let apart = |name: &&str| match name.split('_').next() == folded.split('_').next() {
        true => 0, // The unit is missing, or another.
        false => strsim::damerau_levenshtein(name, &folded),
    };
    let nearest = names.iter().copied().min_by_key(apart);
    let near = nearest.filter(|name| apart(name) <= 2 && apart(name) < name.len());
    let advice = match near {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("write one of {}", names.join(", ")),
    };
    format!("no key is called `{}` here; {advice}", shown(key))
}

/// The error in one line, with the key of the line that it speaks of.
fn with_key(text: &str, error: &toml::de::Error) -> String {
    let message = plain(error.message());
    if message.starts_with("no key is called") {
        return message;
    }
    let offset = error.span().map_or(0, |span| span.start);
    let line = text.lines().nth(line_at(text, offset) - 1);
    match line.unwrap_or_default().split_once('=') {
        Some((key, _)) => format!("{}: {message}", shown(key.trim())),
        None => message,
    }
}

/// `text` without line breaks and other control characters, and not too long for one line.
fn shown(text: &str) -> String {
    let clean = |character: char| match character.is_control() {
        true => ' ',
        false => character,
    };
    text.chars().map(clean).take(MAX_SHOWN).collect()
}

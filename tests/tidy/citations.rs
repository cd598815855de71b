//! The numbered requirements of the specification, and where the code cites them.

use std::collections::BTreeSet;

use super::source::Finding;

/// The requirements that the specification defines (`* '''LAP-2.''' ...`); one defined twice is a breach.
pub fn requirements(file: &str, text: &str) -> (BTreeSet<String>, Vec<Finding>) {
    let mut known = BTreeSet::new();
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let Some(rest) = line.strip_prefix("* '''") else {
            continue;
        };
        let Some((name, _)) = rest.split_once(".'''") else {
            continue;
        };
        if cited(name).next() == Some(name) && !known.insert(name.to_owned()) {
            findings.push(Finding {
                file: file.to_owned(),
                line: index + 1,
                advice: format!("{name} is defined above already: number it anew"),
            });
        }
    }
    (known, findings)
}

/// Citations of requirements that the specification does not have, though it has others of that kind.
pub fn check_citations(file: &str, text: &str, known: &BTreeSet<String>) -> Vec<Finding> {
    let kinds: BTreeSet<&str> = known.iter().filter_map(|name| name.get(..4)).collect();
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for name in cited(line) {
            if kinds.contains(&name[..4]) && !known.contains(name) {
                findings.push(Finding {
                    file: file.to_owned(),
                    line: index + 1,
                    advice: format!("the specification has no {name}: cite what it says"),
                });
            }
        }
    }
    findings
}

/// The words of a line that look like a requirement: three capitals, a hyphen, digits.
fn cited(line: &str) -> impl Iterator<Item = &str> {
    let words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words.filter(|word| {
        let digits = word.strip_prefix(|c: char| c.is_ascii_uppercase());
        let digits = digits.and_then(|rest| rest.strip_prefix(|c: char| c.is_ascii_uppercase()));
        let digits = digits.and_then(|rest| rest.strip_prefix(|c: char| c.is_ascii_uppercase()));
        let digits = digits.and_then(|rest| rest.strip_prefix('-')).unwrap_or("");
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    })
}

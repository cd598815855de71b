//! The scenarios that everyone can name: those of the targets' tables, and what else a change should be held against.

use super::scenario::Scenario;

/// Every standard scenario: its name and its text.
#[rustfmt::skip] // one row each
pub const STANDARD: &[(&str, &str)] = &[
    ("warm-100-loss-0", include_str!("scenarios/warm-100-loss-0.toml")),
    ("warm-100-loss-1", include_str!("scenarios/warm-100-loss-1.toml")),
    ("warm-100-loss-5", include_str!("scenarios/warm-100-loss-5.toml")),
    ("warm-99-loss-0", include_str!("scenarios/warm-99-loss-0.toml")),
    ("warm-99-loss-1", include_str!("scenarios/warm-99-loss-1.toml")),
    ("warm-99-loss-5", include_str!("scenarios/warm-99-loss-5.toml")),
    ("warm-95-loss-0", include_str!("scenarios/warm-95-loss-0.toml")),
    ("warm-95-loss-1", include_str!("scenarios/warm-95-loss-1.toml")),
    ("warm-95-loss-5", include_str!("scenarios/warm-95-loss-5.toml")),
    ("wild", include_str!("scenarios/wild.toml")),
    ("wild-loss-1", include_str!("scenarios/wild-loss-1.toml")),
    ("cold-loss-0", include_str!("scenarios/cold-loss-0.toml")),
    ("cold-loss-1", include_str!("scenarios/cold-loss-1.toml")),
    ("cold-loss-5", include_str!("scenarios/cold-loss-5.toml")),
    ("line-4-warm", include_str!("scenarios/line-4-warm.toml")),
    ("line-4-warm-loss-1", include_str!("scenarios/line-4-warm-loss-1.toml")),
    ("line-4-cold", include_str!("scenarios/line-4-cold.toml")),
    ("line-4-cold-loss-1", include_str!("scenarios/line-4-cold-loss-1.toml")),
    ("line-8-cold", include_str!("scenarios/line-8-cold.toml")),
    ("swarm-1000-cold", include_str!("scenarios/swarm-1000-cold.toml")),
    ("swarm-1000-cold-1mb", include_str!("scenarios/swarm-1000-cold-1mb.toml")),
    ("swarm-1000-cold-32mb", include_str!("scenarios/swarm-1000-cold-32mb.toml")),
    ("swarm-100-cold", include_str!("scenarios/swarm-100-cold.toml")),
    ("swarm-100-cold-32mb", include_str!("scenarios/swarm-100-cold-32mb.toml")),
    ("swarm-1000-warm", include_str!("scenarios/swarm-1000-warm.toml")),
    ("bursts-warm-100", include_str!("scenarios/bursts-warm-100.toml")),
    ("bursts-warm-99", include_str!("scenarios/bursts-warm-99.toml")),
    ("bursts-cold", include_str!("scenarios/bursts-cold.toml")),
    ("liars", include_str!("scenarios/liars.toml")),
    ("liars-warm", include_str!("scenarios/liars-warm.toml")),
    ("liars-hashes", include_str!("scenarios/liars-hashes.toml")),
    ("liars-witnesses", include_str!("scenarios/liars-witnesses.toml")),
    ("liars-count", include_str!("scenarios/liars-count.toml")),
    ("liars-parity", include_str!("scenarios/liars-parity.toml")),
    ("liars-short-ids", include_str!("scenarios/liars-short-ids.toml")),
    ("liars-invalid-block", include_str!("scenarios/liars-invalid-block.toml")),
    ("liars-withhold", include_str!("scenarios/liars-withhold.toml")),
    ("liars-trickle", include_str!("scenarios/liars-trickle.toml")),
    ("liars-flood", include_str!("scenarios/liars-flood.toml")),
    ("liars-replay", include_str!("scenarios/liars-replay.toml")),
    ("liars-spoof", include_str!("scenarios/liars-spoof.toml")),
    ("liars-open-jobs", include_str!("scenarios/liars-open-jobs.toml")),
    ("liars-impossible", include_str!("scenarios/liars-impossible.toml")),
    ("liars-identities", include_str!("scenarios/liars-identities.toml")),
    ("liars-all", include_str!("scenarios/liars-all.toml")),
    ("geographic", include_str!("scenarios/geographic.toml")),
    ("geographic-cold", include_str!("scenarios/geographic-cold.toml")),
    ("small-world", include_str!("scenarios/small-world.toml")),
    ("race", include_str!("scenarios/race.toml")),
    ("burst", include_str!("scenarios/burst.toml")),
    ("one-giant", include_str!("scenarios/one-giant.toml")),
    ("real", include_str!("scenarios/real.toml")),
    ("asymmetric", include_str!("scenarios/asymmetric.toml")),
    ("tcp-alone", include_str!("scenarios/tcp-alone.toml")),
    ("partition", include_str!("scenarios/partition.toml")),
    ("churn", include_str!("scenarios/churn.toml")),
];

/// The text of the standard scenario of that name.
pub fn text(name: &str) -> Option<&'static str> {
    let found = STANDARD.iter().find(|(known, _)| *known == name);
    found.map(|(_, text)| *text)
}

/// Every standard scenario, in order.
///
/// # Panics
///
/// If one makes no sense, which a test excludes.
pub fn all() -> Vec<Scenario> {
    let read = |(name, text): &(&str, &str)| {
        Scenario::from_toml(name, text).expect("a test reads each of them")
    };
    STANDARD.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_makes_sense_and_is_named_as_its_file() {
        let names: BTreeSet<&str> = STANDARD.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), STANDARD.len());
        for (scenario, (name, text)) in all().iter().zip(STANDARD) {
            assert_eq!(scenario.name, *name);
            assert!(scenario.about.len() > 20, "{name}");
            let again = Scenario::from_toml(name, text).map_err(|error| error.to_string());
            assert_eq!(again.as_ref(), Ok(scenario));
        }
        assert!(text("no-such").is_none() && text("wild").is_some());
    }
}

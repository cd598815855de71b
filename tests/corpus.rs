//! Replays the corpora of the fuzzers: what they found once stays found, on any toolchain.

use std::fs;
use std::path::Path;

use blocktorrent::fuzzing::TARGETS;

#[test]
fn every_corpus_passes() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    for (name, target) in TARGETS {
        let folder = fuzz.join("corpus").join(name);
        let entries = fs::read_dir(&folder).expect("every target has a corpus");
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        assert!(!paths.is_empty(), "{} is empty", folder.display());
        for path in paths {
            let data = fs::read(&path).expect("a corpus file is readable");
            println!("{}", path.display());
            target(&data);
        }
        target(&[]);
    }
}

#[test]
fn every_target_has_its_shell_and_every_shell_its_target() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/Cargo.toml");
    let manifest = fs::read_to_string(manifest).expect("the shells have a manifest");
    let manifest: toml::Table = manifest.parse().expect("the manifest is TOML");
    let shells = manifest["bin"].as_array().expect("the shells are listed");
    let shells: Vec<_> = shells
        .iter()
        .filter_map(|bin| bin["name"].as_str())
        .collect();
    let targets: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(shells, targets);
}

//! The walls of the crate, held as a test from one table, and the habits that a compiler does not check.
//!
//! `cargo test --test tidy` reads every file under `src/` (and, for the rules that hold everywhere,
//! `tests/`, `benches/`, `fuzz/` and `tools/`), parses it and reports each breach as
//! `file:line: what to do`. The rules:
//!
//! * who may import whom: `WALLS` in `tidy/table.rs`; test code is bound by it as well;
//! * pure files perform no I/O, read no clock, lock nothing, spawn nothing, draw no global randomness:
//!   `IMPURE`;
//! * no order of a hash map reaches the output of a pure file. There a `HashMap` or `HashSet` is a
//!   lookup table only: its type names its hasher (the standard one is seeded by the system), and
//!   nothing of that type, by the names that the file declares, is iterated. Whoever needs an order
//!   takes a `BTreeMap`;
//! * every `MAX_` constant has a doc comment with its reason;
//! * no file above 600 lines without its tests, no function above 70, no module named after nothing;
//! * no `unwrap()` outside tests, no unfinished code, no silent `allow`, no ignored test, no unbounded
//!   channel, no `anyhow` below the composition root.
//!
//! And what the code cites of the specification (`LAP-2` and the like) stands there, once.
//!
//! What this is not: a proof. It sees names, not types; a determined author could get past it.

mod tidy {
    mod cases;
    pub mod citations;
    pub mod inspector;
    mod names;
    pub mod source;
    mod table;
}

use std::fs;
use std::path::{Path, PathBuf};

use syn::Attribute;
use syn::visit::Visit;

use tidy::citations::{check_citations, requirements};
use tidy::inspector::{check_attribute, inspect, inspect_text};
use tidy::source::{Finding, Tree, display, into_ordered, rust_files};

fn fail_on(findings: Vec<Finding>) {
    let findings = into_ordered(findings);
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(findings.is_empty(), "\n{}\n", lines.join("\n"));
}

#[test]
fn the_crate_keeps_its_walls() {
    let tree = Tree::read();
    let mut findings = tree.findings;
    for source in &tree.sources {
        findings.extend(inspect(source));
    }
    let mut files = Vec::new();
    rust_files(&tree.package, Path::new("src"), &mut files);
    for file in files.iter().map(|file| display(file)) {
        if !tree.sources.iter().any(|source| source.file == file) {
            let advice = "no module declares this file: declare it or delete it".into();
            let line = 1;
            findings.push(Finding { file, line, advice });
        }
    }
    fail_on(findings);
}

#[test]
fn what_the_code_cites_stands_in_the_specification() {
    let package = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let bip = "bip/bip-blocktorrent.mediawiki";
    let text = fs::read_to_string(package.join(bip)).expect("the specification is there");
    let (known, mut findings) = requirements(bip, &text);
    let mut files = Vec::new();
    for folder in ["src", "tests"] {
        rust_files(&package, Path::new(folder), &mut files);
    }
    for path in files {
        let text = fs::read_to_string(package.join(&path)).expect("a listed file is readable");
        findings.extend(check_citations(&display(&path), &text, &known));
    }
    fail_on(findings);
}

#[test]
fn the_other_folders_keep_the_rules_that_hold_everywhere() {
    struct Attributes<'a>(&'a str, Vec<(usize, String)>);
    impl<'ast> Visit<'ast> for Attributes<'_> {
        fn visit_attribute(&mut self, attribute: &'ast Attribute) {
            self.1.extend(check_attribute(attribute, self.0));
        }
    }
    let package = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["tests", "benches", "fuzz", "tools"] {
        rust_files(&package, Path::new(folder), &mut files);
    }
    let mut findings = Vec::new();
    for path in files {
        let file = display(&path);
        let text = fs::read_to_string(package.join(path)).expect("a listed file is readable");
        findings.extend(inspect_text(&file, &text));
        let syntax = syn::parse_file(&text).expect("a file of the package parses");
        let mut attributes = Attributes(&text, Vec::new());
        attributes.visit_file(&syntax);
        for (line, advice) in attributes.1 {
            let file = file.clone();
            findings.push(Finding { file, line, advice });
        }
    }
    fail_on(findings);
}

//! The files that are checked, each with its place in the module tree, and what is found in them.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use syn::Item;

use super::names::{given_path, is_test_only};
use super::table::{EVERYTHING, Purity, WALLS, Wall};

/// A breach: where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    pub file: String,
    pub line: usize,
    pub advice: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: {}", self.file, self.line, self.advice)
    }
}

/// One parsed file and its place in the module tree.
pub struct Source {
    /// Relative to the package.
    pub file: String,
    /// Module path from the crate's root; empty for `lib.rs`, `["main"]` for the program.
    pub module: Vec<String>,
    /// Declared under `#[cfg(test)]`.
    pub is_test: bool,
    pub text: String,
    pub syntax: syn::File,
}

impl Source {
    pub fn parse(file: &str, module: &[&str], is_test: bool, text: &str) -> Result<Self, Finding> {
        let syntax = syn::parse_file(text).map_err(|error| Finding {
            file: file.to_owned(),
            line: error.span().start().line,
            advice: format!("this does not parse: {error}"),
        })?;
        Ok(Self {
            file: file.to_owned(),
            module: module.iter().map(|&name| name.to_owned()).collect(),
            is_test,
            text: text.to_owned(),
            syntax,
        })
    }

    pub fn wall(&self) -> Option<&'static Wall> {
        let module = self.module.first()?;
        WALLS.iter().find(|wall| wall.module == module)
    }

    pub fn is_pure(&self) -> bool {
        match self.wall().map(|wall| wall.purity) {
            Some(Purity::Pure) => true,
            Some(Purity::PureExcept(impure)) => {
                let path = self.module.get(1..).unwrap_or_default().join("::");
                !impure.iter().any(|submodule| {
                    path.strip_prefix(submodule)
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
                })
            }
            Some(Purity::Impure) | None => false,
        }
    }

    pub fn may_import(&self, module: &str) -> bool {
        let Some(wall) = self.wall() else {
            return false;
        };
        let starred = matches!(wall.purity, Purity::PureExcept(_)) && !self.is_pure();
        wall.module == module
            || wall.may_import == EVERYTHING
            || wall.may_import.contains(&module)
            || (starred && ["config", "time"].contains(&module))
    }
}

pub fn into_ordered(findings: Vec<Finding>) -> Vec<Finding> {
    let unique: BTreeSet<Finding> = findings.into_iter().collect();
    unique.into_iter().collect()
}

/// The module tree of `src/`, followed from a root file as the compiler does.
pub struct Tree {
    pub package: PathBuf,
    pub sources: Vec<Source>,
    pub findings: Vec<Finding>,
}

impl Tree {
    pub fn read() -> Self {
        let mut tree = Self {
            package: PathBuf::from(env!("CARGO_MANIFEST_DIR")),
            sources: Vec::new(),
            findings: Vec::new(),
        };
        tree.load(Path::new("src/lib.rs"), &[], false);
        tree.load(Path::new("src/main.rs"), &["main"], false);
        tree
    }

    fn load(&mut self, file: &Path, module: &[&str], is_test: bool) {
        let name = display(file);
        let text = fs::read_to_string(self.package.join(file)).expect("a module has its file");
        match Source::parse(&name, module, is_test, &text) {
            Err(finding) => self.findings.push(finding),
            Ok(source) => {
                let folder = file.parent().expect("a file of src/ has a folder");
                let stem = file.file_stem().and_then(|stem| stem.to_str());
                let folder = match stem.unwrap_or("") {
                    "lib" | "main" | "mod" => folder.to_path_buf(),
                    stem => folder.join(stem),
                };
                let items = source.syntax.items.clone();
                self.sources.push(source);
                self.follow(&items, &folder, module, is_test, file);
            }
        }
    }

    /// Loads what `items` of `file` declare; their files lie in `folder`.
    fn follow(
        &mut self,
        items: &[Item],
        folder: &Path,
        module: &[&str],
        is_test: bool,
        file: &Path,
    ) {
        for item in items {
            let Item::Mod(item) = item else { continue };
            let name = item.ident.to_string();
            let is_test = is_test || item.attrs.iter().any(is_test_only);
            let mut inner = module.to_vec();
            inner.push(&name);
            if let Some((_, items)) = &item.content {
                self.follow(items, &folder.join(&name), &inner, is_test, file);
                continue;
            }
            if let Some(given) = given_path(&item.attrs) {
                self.load(&file.with_file_name(given), &inner, is_test);
                continue;
            }
            let beside = folder.join(format!("{name}.rs"));
            if self.package.join(&beside).exists() {
                self.load(&beside, &inner, is_test);
            } else {
                self.load(&folder.join(&name).join("mod.rs"), &inner, is_test);
            }
        }
    }
}

pub fn display(file: &Path) -> String {
    file.display().to_string().replace('\\', "/")
}

/// Every `.rs` file below a folder of the package, builds and corpora left out.
pub fn rust_files(package: &Path, folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(package.join(folder)) else {
        return;
    };
    for entry in entries.flatten() {
        let path = folder.join(entry.file_name());
        let mut skipped = ["target", "corpus", "artifacts"].iter();
        if entry.path().is_dir() {
            if !skipped.any(|name| path.ends_with(name)) {
                rust_files(package, &path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
}

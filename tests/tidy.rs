//! The walls of the crate, held as a test from one table, and the habits that a compiler does not check.
//!
//! `cargo test --test tidy` reads every file under `src/` (and, for the rules that hold everywhere,
//! `tests/`, `benches/`, `fuzz/` and `tools/`), parses it and reports each breach as
//! `file:line: what to do`. The rules:
//!
//! * who may import whom: [`WALLS`]; test code is bound by it as well;
//! * pure files perform no I/O, read no clock, lock nothing, spawn nothing, draw no global randomness:
//!   [`IMPURE`];
//! * no order of a hash map reaches the output of a pure file. There a `HashMap` or `HashSet` is a
//!   lookup table only: its type names its hasher (the standard one is seeded by the system), and
//!   nothing of that type, by the names that the file declares, is iterated. Whoever needs an order
//!   takes a `BTreeMap`;
//! * every `MAX_` constant has a doc comment with its reason;
//! * no file above 600 lines without its tests, no function above 70, no module named after nothing;
//! * no `unwrap()` outside tests, no unfinished code, no silent `allow`, no ignored test, no unbounded
//!   channel, no `anyhow` below the composition root.
//!
//! What this is not: a proof. It sees names, not types; a determined author could get past it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Expr, Item, Meta, Type, UseTree};

/// Which files of a module are pure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purity {
    /// All of them.
    Pure,
    /// All but these submodules, which may also import `config` and `time`.
    PureExcept(&'static [&'static str]),
    /// None: the module exists to do I/O.
    Impure,
}

/// One row: a module, what it may import of the crate, and which of its files are pure.
struct Wall {
    module: &'static str,
    may_import: &'static [&'static str],
    purity: Purity,
}

const fn wall(module: &'static str, may_import: &'static [&'static str], purity: Purity) -> Wall {
    Wall {
        module,
        may_import,
        purity,
    }
}

/// The composition root may import everything.
const EVERYTHING: &[&str] = &["*"];

/// The table. A module without a row is a breach.
#[rustfmt::skip] // one row each
const WALLS: &[Wall] = &[
    wall("time", &[], Purity::Pure),
    wall("config", &[], Purity::Pure),
    wall("cli", &["config"], Purity::Impure),
    wall("merkle", &[], Purity::Pure),
    wall("wire", &["merkle"], Purity::Pure),
    wall("mempool", &[], Purity::Pure),
    wall("relay", &["merkle", "wire", "mempool", "time"], Purity::Pure),
    wall("sim", &["merkle", "wire", "mempool", "time", "relay"], Purity::Pure),
    wall("chain", &["time"], Purity::PureExcept(&["rpc", "zmq", "p2p"])),
    wall("electrum", &["merkle", "chain"], Purity::PureExcept(&["store", "server"])),
    wall("pool", &["merkle", "chain"], Purity::PureExcept(&["store", "server"])),
    wall("net", &["wire", "time", "config"], Purity::Impure),
    wall("observe", &[], Purity::PureExcept(&["web"])),
    wall("fuzzing", &["merkle", "wire", "mempool", "time", "relay", "sim", "chain"], Purity::Pure),
    wall("node", EVERYTHING, Purity::Impure),
    wall("main", &["node", "sim", "config", "cli"], Purity::Impure),
];

/// Paths that a pure file must not name, and what it does instead.
#[rustfmt::skip] // one row each
const IMPURE: &[(&[&str], &str)] = &[
    (&["std", "time", "Instant"], "take a `Time` as an argument"),
    (&["std", "time", "SystemTime"], "take a `Time` as an argument"),
    (&["std", "time", "UNIX_EPOCH"], "take a `Time` as an argument"),
    (&["std", "net", "TcpStream"], "sockets belong in `net`"),
    (&["std", "net", "TcpListener"], "sockets belong in `net`"),
    (&["std", "net", "UdpSocket"], "sockets belong in `net`"),
    (&["std", "net", "ToSocketAddrs"], "name lookup belongs in `node`"),
    (&["std", "fs"], "files belong in `node`"),
    (&["std", "io"], "take and give bytes"),
    (&["std", "env"], "the environment belongs in `main`"),
    (&["std", "process"], "processes belong in `node`"),
    (&["std", "thread"], "threads belong in `node`"),
    (&["std", "sync", "Mutex"], "own the state, or move it to `node`"),
    (&["std", "sync", "RwLock"], "own the state, or move it to `node`"),
    (&["std", "sync", "Condvar"], "own the state, or move it to `node`"),
    (&["std", "sync", "Barrier"], "own the state, or move it to `node`"),
    (&["std", "sync", "mpsc"], "queues belong in `node`"),
    (&["std", "sync", "atomic"], "own the state, or move it to `node`"),
    (&["std", "hash", "RandomState"], "take a seed as an argument"),
    (&["std", "collections", "hash_map", "RandomState"], "take a seed as an argument"),
    (&["std", "collections", "hash_map", "DefaultHasher"], "take a seed as an argument"),
    (&["tokio"], "asynchronous code belongs in `net` and `node`"),
    (&["axum"], "servers belong in `node`"),
    (&["ureq"], "clients belong in `node`"),
    (&["socket2"], "sockets belong in `net`"),
    (&["quinn_udp"], "sockets belong in `net`"),
    (&["crossterm"], "terminals belong in `node`"),
    (&["rand", "rng"], "take a seed as an argument"),
    (&["rand", "make_rng"], "take a seed as an argument"),
    (&["rand", "random"], "take a seed as an argument"),
    (&["rand", "random_iter"], "take a seed as an argument"),
    (&["rand", "random_range"], "take a seed as an argument"),
    (&["rand", "random_bool"], "take a seed as an argument"),
    (&["rand", "random_ratio"], "take a seed as an argument"),
    (&["rand", "fill"], "take a seed as an argument"),
    (&["rand", "rngs", "SysRng"], "take a seed as an argument"),
    (&["rand", "rngs", "ThreadRng"], "take a seed as an argument"),
    (&["getrandom"], "take a seed as an argument"),
];

/// Macros that a pure file must not call: they write to the process's streams.
const IMPURE_MACROS: &[&str] = &["print", "println", "eprint", "eprintln", "dbg"];

/// Methods that let the order of a hash map out.
#[rustfmt::skip] // one row for maps, one for sets
const ITERATING: &[&str] = &[
    "iter", "iter_mut", "keys", "values", "values_mut", "into_iter", "into_keys", "into_values", "drain", "extract_if",
    "union", "intersection", "difference", "symmetric_difference",
];

/// Constructors of hash maps that seed themselves from the system.
const SELF_SEEDED: &[&str] = &["new", "with_capacity", "from", "from_iter"];

/// Names that say nothing of what a module holds.
const EMPTY_NAMES: &[&str] = &["util", "utils", "helper", "helpers", "common", "misc"];

/// Modules that may use `anyhow`: where errors end at a person.
const ANYHOW: &[&str] = &["main", "node", "cli"];

/// Lines of a file, its test code not counted.
const FILE_LINES: usize = 600;
/// Files that are longer for now, and how long they may be at most: to be split, none to be added.
const OVERDUE: &[(&str, usize)] = &[("src/relay/loss.rs", 900)];
/// Lines of a function, from its signature to its closing brace.
const FUNCTION_LINES: usize = 70;
/// Words of the doc comment of a `MAX_` constant: fewer cannot name a reason.
const REASON_WORDS: usize = 8;

const UNWRAP: &str =
    "`unwrap()` outside tests: return the error, or `expect` with the reason why it holds";

/// A breach: where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    file: String,
    line: usize,
    advice: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: {}", self.file, self.line, self.advice)
    }
}

/// One parsed file and its place in the module tree.
struct Source {
    /// Relative to the package.
    file: String,
    /// Module path from the crate's root; empty for `lib.rs`, `["main"]` for the program.
    module: Vec<String>,
    /// Declared under `#[cfg(test)]`.
    is_test: bool,
    text: String,
    syntax: syn::File,
}

impl Source {
    fn parse(file: &str, module: &[&str], is_test: bool, text: &str) -> Result<Self, Finding> {
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

    fn wall(&self) -> Option<&'static Wall> {
        let module = self.module.first()?;
        WALLS.iter().find(|wall| wall.module == module)
    }

    fn is_pure(&self) -> bool {
        match self.wall().map(|wall| wall.purity) {
            Some(Purity::Pure) => true,
            Some(Purity::PureExcept(impure)) => !self
                .module
                .get(1)
                .is_some_and(|submodule| impure.contains(&submodule.as_str())),
            Some(Purity::Impure) | None => false,
        }
    }

    fn may_import(&self, module: &str) -> bool {
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

/// All breaches of one file of `src/`.
fn inspect(source: &Source) -> Vec<Finding> {
    let mut inspector = Inspector::new(source);
    if let Some(name) = source.module.last()
        && EMPTY_NAMES.contains(&name.as_str())
    {
        inspector.report(1, "name the module after the thing it holds".into());
    }
    if let Some(module) = source.module.first()
        && source.wall().is_none()
    {
        inspector.report(
            1,
            format!("give `{module}` a row in WALLS of tests/tidy.rs"),
        );
    }
    inspector.visit_file(&source.syntax);
    let lines = source.text.lines().count() - inspector.test_lines;
    let overdue = OVERDUE.iter().find(|(file, _)| *file == source.file);
    let most = overdue.map_or(FILE_LINES, |&(_, most)| most);
    if !source.is_test && lines > most {
        let advice = format!("{lines} lines without tests: split it, {most} is the most");
        inspector.report(1, advice);
    }
    let mut findings = inspector.findings.into_inner();
    findings.extend(inspect_text(&source.file, &source.text));
    into_ordered(findings)
}

/// Breaches that hold for any Rust file, found without its place in the module tree.
fn inspect_text(file: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for word in [concat!("TO", "DO"), concat!("FIX", "ME")] {
            let mut parts = line.split(|c: char| !c.is_ascii_alphanumeric());
            if parts.any(|part| part == word) {
                findings.push(Finding {
                    file: file.to_owned(),
                    line: index + 1,
                    advice: format!("{word}: do it, or write down the bound that holds today"),
                });
            }
        }
    }
    findings
}

fn into_ordered(findings: Vec<Finding>) -> Vec<Finding> {
    let unique: BTreeSet<Finding> = findings.into_iter().collect();
    unique.into_iter().collect()
}

/// Walks one file and collects what breaches a rule.
struct Inspector<'a> {
    source: &'a Source,
    /// Module path at the point of the walk, inline modules included.
    module: Vec<String>,
    /// How many enclosing items are test code.
    test_depth: usize,
    test_lines: usize,
    /// What `use` declarations outside tests call by another, shorter name.
    aliases: BTreeMap<String, Vec<String>>,
    /// Names of types that are hash maps or sets.
    hash_types: BTreeSet<String>,
    /// Names of fields, variables, parameters and functions of such a type.
    hash_names: BTreeSet<String>,
    findings: std::cell::RefCell<Vec<Finding>>,
}

impl<'a> Inspector<'a> {
    fn new(source: &'a Source) -> Self {
        let mut names = Names::default();
        names.visit_file(&source.syntax);
        let mut hash_types = names.hash_types;
        hash_types.extend(["HashMap", "HashSet"].map(str::to_owned));
        let declared = names.declared.into_iter();
        let hash_names = declared
            .filter(|(_, outermost)| hash_types.contains(outermost))
            .map(|(name, _)| name)
            .collect();
        Self {
            source,
            module: source.module.clone(),
            test_depth: usize::from(source.is_test),
            test_lines: 0,
            aliases: names.aliases,
            hash_types,
            hash_names,
            findings: std::cell::RefCell::default(),
        }
    }

    fn report(&self, line: usize, advice: String) {
        self.findings.borrow_mut().push(Finding {
            file: self.source.file.clone(),
            line,
            advice,
        });
    }

    const fn in_test(&self) -> bool {
        self.test_depth > 0
    }

    fn is_pure_here(&self) -> bool {
        !self.in_test() && self.source.is_pure()
    }

    /// Resolves a path as far as names allow, and holds it against the tables.
    fn check_path(&self, segments: &[String], line: usize) {
        let first = segments.first().map_or("", String::as_str);
        let expanded: Vec<String> = match self.aliases.get(first) {
            Some(full) if !self.in_test() && first != "*" => {
                full.iter().chain(&segments[1..]).cloned().collect()
            }
            _ => segments.to_vec(),
        };
        if let Some(absolute) = self.within_crate(&expanded) {
            self.check_import(&absolute, line);
            return;
        }
        self.check_everywhere(&expanded, line);
        if self.is_pure_here() {
            self.check_impure(&expanded, line);
            self.check_hash_constructor(segments, line);
        }
    }

    /// The path from the crate's root, if it is one of this crate.
    fn within_crate(&self, segments: &[String]) -> Option<Vec<String>> {
        let mut base = match segments.first()?.as_str() {
            "crate" | "blocktorrent" => Vec::new(),
            "super" | "self" => self.module.clone(),
            _ => return None,
        };
        let mut rest = segments;
        while let Some((segment, after)) = rest.split_first() {
            match segment.as_str() {
                "super" => {
                    base.pop();
                }
                "crate" | "blocktorrent" | "self" => {}
                _ => break,
            }
            rest = after;
        }
        base.extend(rest.iter().cloned());
        Some(base)
    }

    fn check_import(&self, absolute: &[String], line: usize) {
        let (Some(own), Some(module)) = (self.source.module.first(), absolute.first()) else {
            return; // lib.rs, which declares the modules, or a macro's bare `crate`
        };
        if module == "*" {
            let advice = "import by name: a glob of the crate's root hides what is used";
            self.report(line, advice.into());
        } else if module != own && !self.source.may_import(module) {
            self.report(
                line,
                format!(
                    "`{own}` may not import `{module}` (WALLS in tests/tidy.rs): pass what is \
                     needed as an argument, or move the code to where both may be seen"
                ),
            );
        }
    }

    fn check_everywhere(&self, segments: &[String], line: usize) {
        let names: Vec<&str> = segments.iter().map(String::as_str).collect();
        let module = self.source.module.first().map_or("", String::as_str);
        if names.first() == Some(&"anyhow") && !self.in_test() && !ANYHOW.contains(&module) {
            let advice = "return an error type of this module, not `anyhow`";
            self.report(line, advice.into());
        }
        let unbounded = names.ends_with(&["unbounded_channel"]);
        if unbounded || names == ["std", "sync", "mpsc", "channel"] {
            self.report(line, "give the queue a bound".into());
        }
    }

    fn check_impure(&self, segments: &[String], line: usize) {
        let mut names: Vec<&str> = segments.iter().map(String::as_str).collect();
        if let Some(first @ (&mut "core" | &mut "alloc")) = names.first_mut() {
            *first = "std";
        }
        for (forbidden, instead) in IMPURE {
            let path = forbidden.join("::");
            let glob = names.split_last().is_some_and(|(last, prefix)| {
                *last == "*" && prefix.len() < forbidden.len() && forbidden.starts_with(prefix)
            });
            if names.starts_with(forbidden) {
                self.report(line, format!("`{path}` in a pure file: {instead}"));
            } else if glob {
                self.report(
                    line,
                    format!("import by name: this glob may bring `{path}`"),
                );
            }
        }
    }

    fn check_hash_constructor(&self, segments: &[String], line: usize) {
        if let [.., kind, constructor] = segments
            && self.hash_types.contains(kind)
            && SELF_SEEDED.contains(&constructor.as_str())
        {
            self.report(
                line,
                format!(
                    "`{kind}::{constructor}` is seeded by the system: use `with_hasher`, or a BTreeMap"
                ),
            );
        }
    }

    /// A hash type that leaves its hasher to the default.
    fn check_hasher(&self, path: &syn::Path) {
        let Some(last) = path.segments.last().filter(|_| self.is_pure_here()) else {
            return;
        };
        let arguments_with_hasher = match last.ident.to_string().as_str() {
            "HashMap" => 3,
            "HashSet" => 2,
            _ => return,
        };
        if let syn::PathArguments::AngleBracketed(arguments) = &last.arguments
            && arguments.args.len() < arguments_with_hasher
        {
            self.report(
                path.span().start().line,
                format!(
                    "name the hasher of this {}: the default one draws on the system; or use a BTreeMap",
                    last.ident
                ),
            );
        }
    }

    fn check_iteration(&self, iterated: &Expr, line: usize) {
        if let Some(name) = last_name(iterated)
            && self.is_pure_here()
            && self.hash_names.contains(&name)
        {
            self.report(
                line,
                format!(
                    "`{name}` is a hash map, whose order may not reach any output: \
                     use a BTreeMap, or keep the order beside it"
                ),
            );
        }
    }

    /// Paths and calls inside a macro's arguments, which are not parsed.
    fn check_tokens(&self, tokens: TokenStream) {
        let trees: Vec<TokenTree> = tokens.into_iter().collect();
        let mut path: Vec<String> = Vec::new();
        let mut line = 0;
        let mut before = ' ';
        for (index, tree) in trees.iter().enumerate() {
            let next = trees.get(index + 1);
            match tree {
                TokenTree::Ident(ident) => {
                    let is_unwrap = before == '.' && *ident == "unwrap" && is_empty_call(next);
                    if is_unwrap && !self.in_test() {
                        self.report(ident.span().start().line, UNWRAP.into());
                    }
                    if path.is_empty() {
                        line = ident.span().start().line;
                    }
                    path.push(ident.to_string());
                }
                TokenTree::Group(group) => self.check_tokens(group.stream()),
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
            before = punct(Some(tree));
            if before != ':' && punct(next) != ':' && !path.is_empty() {
                self.check_path(&std::mem::take(&mut path), line);
            }
        }
    }

    fn check_function(&self, signature: &syn::Signature, block: &syn::Block) {
        let start = signature.fn_token.span().start().line;
        let lines = block.brace_token.span.close().end().line + 1 - start;
        if lines > FUNCTION_LINES && !self.in_test() {
            let name = &signature.ident;
            self.report(
                start,
                format!("`{name}` has {lines} lines: split it, {FUNCTION_LINES} is the most"),
            );
        }
    }

    fn check_reason(&self, name: &syn::Ident, attributes: &[Attribute]) {
        if !name.to_string().starts_with("MAX_") || self.in_test() {
            return;
        }
        let text = doc_text(attributes);
        if text.split_whitespace().count() < REASON_WORDS || !text.contains('.') {
            self.report(
                name.span().start().line,
                format!("say in a sentence above `{name}` why this bound, and not another"),
            );
        }
    }

    /// Notes that an item begins; true if it is test code, whose end the caller notes.
    fn enter(&mut self, attributes: &[Attribute], span: proc_macro2::Span) -> bool {
        let test = attributes.iter().any(is_test_only);
        if test {
            if !self.in_test() {
                self.test_lines += span.end().line + 1 - span.start().line;
            }
            self.test_depth += 1;
        }
        test
    }
}

impl<'ast> Visit<'ast> for Inspector<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let test = self.enter(item_attributes(item), item.span());
        match item {
            Item::Const(item) => self.check_reason(&item.ident, &item.attrs),
            Item::Static(item) => self.check_reason(&item.ident, &item.attrs),
            Item::Fn(item) => self.check_function(&item.sig, &item.block),
            _ => {}
        }
        visit::visit_item(self, item);
        self.test_depth -= usize::from(test);
    }

    fn visit_impl_item(&mut self, item: &'ast syn::ImplItem) {
        let attributes: &[Attribute] = match item {
            syn::ImplItem::Fn(item) => &item.attrs,
            syn::ImplItem::Const(item) => &item.attrs,
            _ => &[],
        };
        let test = self.enter(attributes, item.span());
        match item {
            syn::ImplItem::Const(item) => self.check_reason(&item.ident, &item.attrs),
            syn::ImplItem::Fn(item) => self.check_function(&item.sig, &item.block),
            _ => {}
        }
        visit::visit_impl_item(self, item);
        self.test_depth -= usize::from(test);
    }

    fn visit_trait_item(&mut self, item: &'ast syn::TraitItem) {
        match item {
            syn::TraitItem::Const(item) => self.check_reason(&item.ident, &item.attrs),
            syn::TraitItem::Fn(item) => {
                if let Some(block) = &item.default {
                    self.check_function(&item.sig, block);
                }
            }
            _ => {}
        }
        visit::visit_trait_item(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if item.attrs.iter().any(|attr| attr.path().is_ident("path")) {
            let advice = "put the module's file where its name says, without `#[path]`";
            self.report(item.ident.span().start().line, advice.into());
        }
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        item.attrs
            .iter()
            .for_each(|attr| self.visit_attribute(attr));
        for import in flatten(&item.tree) {
            self.check_path(&import.path, import.line);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        self.check_path(&segments, path.span().start().line);
        self.check_hasher(path);
        visit::visit_path(self, path);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        let line = call.method.span().start().line;
        if call.method == "unwrap" && call.args.is_empty() && !self.in_test() {
            self.report(line, UNWRAP.into());
        }
        if ITERATING.contains(&call.method.to_string().as_str()) {
            self.check_iteration(&call.receiver, line);
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_expr_for_loop(&mut self, expression: &'ast syn::ExprForLoop) {
        self.check_iteration(&expression.expr, expression.for_token.span.start().line);
        visit::visit_expr_for_loop(self, expression);
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        let line = called.path.span().start().line;
        let name = called.path.segments.last().map(|s| s.ident.to_string());
        let name = name.unwrap_or_default();
        if [concat!("to", "do"), "unimplemented"].contains(&name.as_str()) {
            let advice = "finish it, or return an error that says what is missing";
            self.report(line, format!("`{name}!`: {advice}"));
        }
        if IMPURE_MACROS.contains(&name.as_str()) && self.is_pure_here() {
            self.report(
                line,
                format!("`{name}!` in a pure file: report by an event"),
            );
        }
        self.check_tokens(called.tokens.clone());
        visit::visit_macro(self, called);
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if let Some((line, advice)) = check_attribute(attribute, &self.source.text) {
            self.report(line, advice);
        }
    }
}

/// Rules on attributes, which hold in every file.
fn check_attribute(attribute: &Attribute, text: &str) -> Option<(usize, String)> {
    let line = attribute.span().start().line;
    let tokens = match &attribute.meta {
        Meta::List(list) => list.tokens.to_string(),
        Meta::Path(_) | Meta::NameValue(_) => String::new(),
    };
    let is = |name: &str| attribute.path().is_ident(name);
    let conditional = |name: &str| is("cfg_attr") && tokens.contains(name);
    if is("ignore") || conditional("ignore") {
        let advice = "an ignored test tests nothing: make it run, or delete it";
        return Some((line, advice.into()));
    }
    let silences = is("allow") || is("expect") || conditional("allow");
    if silences && !tokens.contains("reason") && !has_comment(text, line) {
        let advice = "say why this lint does not apply: `reason = \"..\"`, or a comment above";
        return Some((line, advice.into()));
    }
    None
}

/// Whether the line ends in a comment, or the line above is one (documentation is not).
fn has_comment(text: &str, line: usize) -> bool {
    let at = |number: usize| {
        text.lines()
            .nth(number.wrapping_sub(1))
            .unwrap_or("")
            .trim()
    };
    let above = at(line.wrapping_sub(1));
    let is_doc = above.starts_with("///") || above.starts_with("//!");
    (above.starts_with("//") && !is_doc) || at(line).contains("] //")
}

/// First pass over a file: the names that matter to the second.
#[derive(Default)]
struct Names {
    aliases: BTreeMap<String, Vec<String>>,
    hash_types: BTreeSet<String>,
    /// Name and the outermost type it was declared with.
    declared: Vec<(String, String)>,
}

impl Names {
    fn declare(&mut self, name: Option<String>, kind: Option<String>) {
        self.declared.extend(name.zip(kind));
    }
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item(&mut self, item: &'ast Item) {
        if !item_attributes(item).iter().any(is_test_only) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        for import in flatten(&item.tree) {
            if import.path.last().is_some_and(|last| is_hash(last)) {
                self.hash_types.insert(import.name.clone());
            }
            self.aliases.insert(import.name, import.path);
        }
    }

    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        if outermost(&item.ty).is_some_and(|kind| is_hash(&kind)) {
            self.hash_types.insert(item.ident.to_string());
        }
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        let name = field.ident.as_ref().map(ToString::to_string);
        self.declare(name, outermost(&field.ty));
    }

    fn visit_pat_type(&mut self, typed: &'ast syn::PatType) {
        self.declare(pattern_name(&typed.pat), outermost(&typed.ty));
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        if let syn::ReturnType::Type(_, kind) = &signature.output {
            self.declare(Some(signature.ident.to_string()), outermost(kind));
        }
        visit::visit_signature(self, signature);
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        if let Some(init) = &local.init
            && let Expr::Call(call) = &*init.expr
            && let Expr::Path(path) = &*call.func
        {
            let kind = path.path.segments.iter().rev().nth(1);
            let kind = kind.map(|segment| segment.ident.to_string());
            self.declare(pattern_name(&local.pat), kind);
        }
        visit::visit_local(self, local);
    }
}

fn is_hash(kind: &str) -> bool {
    kind == "HashMap" || kind == "HashSet"
}

fn pattern_name(pattern: &syn::Pat) -> Option<String> {
    match pattern {
        syn::Pat::Ident(name) => Some(name.ident.to_string()),
        syn::Pat::Type(typed) => pattern_name(&typed.pat),
        _ => None,
    }
}

/// The last name of a type, behind references.
fn outermost(kind: &Type) -> Option<String> {
    match kind {
        Type::Reference(reference) => outermost(&reference.elem),
        Type::Path(path) => path.path.segments.last().map(|s| s.ident.to_string()),
        _ => None,
    }
}

/// The name that an expression ends in: a variable, a field or a call.
fn last_name(expression: &Expr) -> Option<String> {
    match expression {
        Expr::Path(path) => path.path.segments.last().map(|s| s.ident.to_string()),
        Expr::Field(field) => match &field.member {
            syn::Member::Named(name) => Some(name.to_string()),
            syn::Member::Unnamed(_) => None,
        },
        Expr::MethodCall(call) => Some(call.method.to_string()),
        Expr::Call(call) => last_name(&call.func),
        Expr::Reference(reference) => last_name(&reference.expr),
        Expr::Paren(paren) => last_name(&paren.expr),
        _ => None,
    }
}

/// One name that a `use` brings: its full path, where it stands, and what it is called here.
struct Import {
    path: Vec<String>,
    line: usize,
    name: String,
}

fn flatten(tree: &UseTree) -> Vec<Import> {
    let line = tree.span().start().line;
    let leaf = |segment: String, name: String| {
        let path = vec![segment];
        vec![Import { path, line, name }]
    };
    match tree {
        UseTree::Name(name) => leaf(name.ident.to_string(), name.ident.to_string()),
        UseTree::Rename(renamed) => leaf(renamed.ident.to_string(), renamed.rename.to_string()),
        UseTree::Glob(_) => leaf("*".into(), "*".into()),
        UseTree::Group(group) => group.items.iter().flat_map(flatten).collect(),
        UseTree::Path(path) => {
            let first = path.ident.to_string();
            let mut inner = flatten(&path.tree);
            for import in &mut inner {
                if import.path == ["self"] {
                    import.path.clear();
                    if import.name == "self" {
                        import.name.clone_from(&first);
                    }
                }
                import.path.insert(0, first.clone());
            }
            inner
        }
    }
}

/// Whether an attribute makes its item test code: `#[test]`, or a `cfg` that only tests satisfy.
fn is_test_only(attribute: &Attribute) -> bool {
    if attribute.path().is_ident("test") {
        return true;
    }
    let Meta::List(list) = &attribute.meta else {
        return false;
    };
    let condition = list.tokens.to_string();
    list.path.is_ident("cfg") && (condition == "test" || condition.starts_with("all (test"))
}

fn item_attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn doc_text(attributes: &[Attribute]) -> String {
    let mut text = String::new();
    for attribute in attributes {
        if let Meta::NameValue(pair) = &attribute.meta
            && pair.path.is_ident("doc")
            && let Expr::Lit(literal) = &pair.value
            && let syn::Lit::Str(line) = &literal.lit
        {
            text.push_str(&line.value());
            text.push(' ');
        }
    }
    text
}

fn is_empty_call(tree: Option<&TokenTree>) -> bool {
    matches!(tree, Some(TokenTree::Group(group)) if group.stream().is_empty())
}

fn punct(tree: Option<&TokenTree>) -> char {
    match tree {
        Some(TokenTree::Punct(punct)) => punct.as_char(),
        _ => ' ',
    }
}

/// The module tree of `src/`, followed from a root file as the compiler does.
struct Tree {
    package: PathBuf,
    sources: Vec<Source>,
    findings: Vec<Finding>,
}

impl Tree {
    fn read() -> Self {
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
                self.follow(&items, &folder, module, is_test);
            }
        }
    }

    fn follow(&mut self, items: &[Item], folder: &Path, module: &[&str], is_test: bool) {
        for item in items {
            let Item::Mod(item) = item else { continue };
            let name = item.ident.to_string();
            let is_test = is_test || item.attrs.iter().any(is_test_only);
            let mut inner = module.to_vec();
            inner.push(&name);
            if let Some((_, items)) = &item.content {
                self.follow(items, &folder.join(&name), &inner, is_test);
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

fn display(file: &Path) -> String {
    file.display().to_string().replace('\\', "/")
}

/// Every `.rs` file below a folder of the package, builds and corpora left out.
fn rust_files(package: &Path, folder: &Path, found: &mut Vec<PathBuf>) {
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

/// The check can fail: each rule on a small source that breaks it, and on one that does not.
mod cases {
    use super::{Source, inspect};

    fn advice(module: &[&str], text: &str) -> Vec<String> {
        let source = Source::parse("a.rs", module, false, text).expect("the case parses");
        let found = inspect(&source);
        found.iter().map(ToString::to_string).collect()
    }

    #[track_caller]
    fn breach(module: &[&str], text: &str, line: usize, words: &str) {
        let found = advice(module, text);
        let place = format!("a.rs:{line}: ");
        assert!(
            found
                .iter()
                .any(|f| f.starts_with(&place) && f.contains(words)),
            "line {line}, {words:?} not in {found:#?}"
        );
    }

    #[track_caller]
    fn clean(module: &[&str], text: &str) {
        assert_eq!(advice(module, text), Vec::<String>::new());
    }

    #[test]
    fn a_wall_is_seen_through_every_kind_of_path() {
        let codec = &["wire", "codec"];
        let wire = &["wire"];
        let words = "may not import `relay`";
        breach(codec, "\nuse crate::relay::Engine;", 2, words);
        breach(codec, "use crate::{merkle::Node, relay};", 1, words);
        breach(wire, "use super::relay::Engine;", 1, words);
        breach(codec, "use super::super::relay::Engine;", 1, words);
        breach(wire, "mod inner { use super::super::relay::A; }", 1, words);
        breach(wire, "fn f() -> crate::relay::Engine { g() }", 1, words);
        breach(wire, "fn f() { vec![crate::relay::new()]; }", 1, words);
        let exported = "macro_rules! m { () => { $crate::relay::new() } }";
        breach(wire, exported, 1, words);
        let tested = "#[cfg(test)] mod tests { use crate::relay::Engine; }";
        breach(wire, tested, 1, words);
        breach(wire, "use crate::*;", 1, "import by name");
        breach(&["main"], "use blocktorrent::relay;", 1, words);
        clean(codec, "use super::Limits; use crate::merkle::Node;");
        clean(codec, "use super::super::merkle;");
        clean(&["relay", "job"], "mod tests { use super::*; }");
        clean(
            &["relay"],
            "use crate::{merkle, wire, mempool, time::Time};",
        );
        clean(&["node"], "use crate::{relay, net, chain, config};");
    }

    #[test]
    fn a_module_needs_a_row_and_a_name() {
        breach(&["gossip"], "", 1, "row in WALLS");
        breach(&["relay", "utils"], "", 1, "name the module");
        breach(&["relay"], "#[path = \"x.rs\"] mod x;", 1, "name says");
    }

    #[test]
    fn starred_files_see_more_than_their_slice() {
        let headers = &["chain", "headers"];
        let rpc = &["chain", "rpc"];
        breach(headers, "use crate::config::Config;", 1, "may not import");
        breach(headers, "use std::fs;", 1, "pure");
        clean(rpc, "use crate::config::Config; use std::fs;");
        breach(rpc, "use crate::relay;", 1, "may not import");
    }

    #[test]
    fn clocks_and_io_are_seen_under_any_name() {
        let relay = &["relay", "job"];
        breach(relay, "use std::time::{Duration, Instant};", 1, "Instant");
        let through_module = "use std::time;\nfn f() { time::Instant::now(); }";
        breach(relay, through_module, 2, "Instant");
        let renamed = "use std::time as t;\nfn f() { t::SystemTime::now(); }";
        breach(relay, renamed, 2, "SystemTime");
        breach(relay, "use std::time::*;", 1, "glob");
        breach(relay, "use core::net::TcpStream;", 1, "TcpStream");
        breach(relay, "fn f(m: &std::sync::Mutex<u8>) {}", 1, "Mutex");
        breach(relay, "use std::io::Read;", 1, "std::io");
        breach(relay, "fn f() { tokio::spawn(g()); }", 1, "tokio");
        breach(relay, "fn f() { std::thread::spawn(g); }", 1, "thread");
        breach(relay, "fn f() -> u64 { rand::random() }", 1, "seed");
        breach(relay, "use rand::rngs::SysRng;", 1, "seed");
        breach(relay, "fn f() { println!(\"x\"); }", 1, "event");
        breach(relay, "fn f() { assert!(std::fs::g()); }", 1, "std::fs");
        let not_only_tests = "#[cfg(any(test, fuzzing))] mod m { use std::fs; }";
        breach(relay, not_only_tests, 1, "std::fs");
        clean(relay, "use std::net::{IpAddr, SocketAddr};");
        clean(relay, "use std::{sync::Arc, time::Duration};");
        clean(relay, "use rand::{SeedableRng, rngs::StdRng};");
        clean(relay, "#[cfg(test)] mod tests { use std::time::Instant; }");
        clean(&["net", "udp"], "use std::{net::UdpSocket, time::Instant};");
    }

    #[test]
    fn the_order_of_a_hash_map_stays_inside() {
        let relay = &["relay", "job"];
        let with = |body: &str| {
            let map = "use std::collections::HashMap; struct S { m: HashMap<u8, u8, H> }";
            format!("{map}\nimpl S {{ fn f(&self) {{ {body} }} }}")
        };
        clean(relay, &with("self.m.get(&1);"));
        breach(relay, &with("self.m.iter();"), 2, "`m`");
        breach(relay, &with("for x in &self.m {}"), 2, "`m`");
        breach(relay, &with("(&self.m).keys();"), 2, "`m`");
        let unnamed = "use std::collections::HashMap;\nfn f(m: HashMap<u8, u8>) {}";
        breach(relay, unnamed, 2, "name the hasher");
        let made = "use std::collections::HashSet;\nfn f() { let s = HashSet::new(); }";
        breach(relay, made, 2, "with_hasher");
        let renamed = "use std::collections::HashSet as H;\nfn f() { let s = H::new(); }";
        breach(relay, renamed, 2, "with_hasher");
        let aliased = "type M = std::collections::HashMap<u8, u8, S>;\nfn f(m: &M) { m.values(); }";
        breach(relay, aliased, 2, "`m`");
        let iterated = "fn f(m: HashMap<u8, u8>) { m.iter(); }";
        clean(&["node"], iterated);
        clean(relay, "fn f(m: BTreeMap<u8, u8>) { m.iter(); }");
    }

    #[test]
    fn a_bound_has_a_reason() {
        let words = "why this bound";
        breach(&["wire"], "\nconst MAX_X: u8 = 1;", 2, words);
        breach(&["wire"], "/// The most.\nconst MAX_X: u8 = 1;", 2, words);
        let associated = "struct S;\nimpl S { const MAX_X: u8 = 1; }";
        breach(&["wire"], associated, 2, words);
        let reason = "Jobs open at once: two blocks found together, and as many stale ones.";
        clean(&["wire"], &format!("/// {reason}\nconst MAX_X: u8 = 4;"));
    }

    #[test]
    fn length_is_counted_without_tests() {
        let wire = &["wire"];
        let function = |lines| format!("fn f() {{\n{}}}\n", "g();\n".repeat(lines));
        breach(wire, &function(69), 1, "`f` has 71 lines");
        clean(wire, &function(68));
        clean(wire, &format!("#[test]\n{}", function(69)));
        breach(wire, &"struct A;\n".repeat(601), 1, "601 lines");
        let code = "struct A;\n".repeat(600);
        let tests = "struct B;\n".repeat(300);
        clean(
            wire,
            &format!("{code}#[cfg(test)]\nmod tests {{\n{tests}}}\n"),
        );
    }

    #[test]
    fn unfinished_and_silenced_code_is_seen() {
        let net = &["net"];
        breach(net, "fn f() { x.unwrap(); }", 1, "unwrap");
        breach(net, "fn f() { assert!(x.unwrap()); }", 1, "unwrap");
        clean(net, "#[cfg(test)] mod tests { fn f() { x.unwrap(); } }");
        clean(net, "fn g() { x.unwrap_or(1); }");
        breach(net, concat!("// TO", "DO: later"), 1, "do it");
        breach(net, concat!("\n/// FIX", "ME\nstruct A;"), 2, "do it");
        breach(net, "fn f() { unimplemented!() }", 1, "finish it");
        breach(net, "#[allow(dead_code)]\nfn f() {}", 1, "say why");
        let documented = "/// Doc.\n#[allow(dead_code)]\nfn f() {}";
        breach(net, documented, 2, "say why");
        breach(net, "#[expect(unused)]\nuse a::b;", 1, "say why");
        clean(net, "#[allow(dead_code, reason = \"x\")]\nfn f() {}");
        clean(net, "// Kept for x.\n#[allow(dead_code)]\nfn f() {}");
        breach(net, "#[test] #[ignore] fn f() {}", 1, "ignored");
        breach(net, "#[test] #[ignore = \"slow\"] fn f() {}", 1, "ignored");
    }

    #[test]
    fn queues_are_bounded_and_errors_typed() {
        let node = &["node"];
        let unbounded = "use tokio::sync::mpsc::unbounded_channel;";
        breach(node, unbounded, 1, "bound");
        let standard = "use std::sync::mpsc;\nfn f() { mpsc::channel(); }";
        breach(node, standard, 2, "bound");
        clean(
            node,
            "use std::sync::mpsc; fn f() { mpsc::sync_channel(4); }",
        );
        clean(node, "use anyhow::Context;");
        breach(&["net"], "use anyhow::Result;", 1, "error type");
    }
}

//! The walk over one file that holds it against the rules.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Expr, Item, Meta};

use super::names::{Names, flatten, given_path, is_test_only, item_attributes, last_name};
use super::source::{Finding, Source, into_ordered};
use super::table::{
    ANYHOW, EMPTY_NAMES, FILE_LINES, FUNCTION_LINES, IMPURE, IMPURE_MACROS, ITERATING,
    REASON_WORDS, SELF_SEEDED, UNWRAP,
};

/// All breaches of one file of `src/`.
pub fn inspect(source: &Source) -> Vec<Finding> {
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
            format!("give `{module}` a row in WALLS of tests/tidy/table.rs"),
        );
    }
    inspector.visit_file(&source.syntax);
    let lines = source.text.lines().count() - inspector.test_lines;
    if !source.is_test && lines > FILE_LINES {
        let advice = format!("{lines} lines without tests: split it, {FILE_LINES} is the most");
        inspector.report(1, advice);
    }
    let mut findings = inspector.findings.into_inner();
    findings.extend(inspect_text(&source.file, &source.text));
    into_ordered(findings)
}

/// Breaches that hold for any Rust file, found without its place in the module tree.
pub fn inspect_text(file: &str, text: &str) -> Vec<Finding> {
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
                    "`{own}` may not import `{module}` (WALLS in tests/tidy/table.rs): pass what is \
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
        if given_path(&item.attrs).is_some() && !self.in_test() {
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
pub fn check_attribute(attribute: &Attribute, text: &str) -> Option<(usize, String)> {
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

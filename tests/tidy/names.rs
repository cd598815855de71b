//! What names mean in one file: imports, declarations, and which code is test code.

use std::collections::{BTreeMap, BTreeSet};

use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Expr, Item, Meta, Type, UseTree};

/// First pass over a file: the names that matter to the second.
#[derive(Default)]
pub struct Names {
    pub aliases: BTreeMap<String, Vec<String>>,
    pub hash_types: BTreeSet<String>,
    /// Name and the outermost type it was declared with.
    pub declared: Vec<(String, String)>,
}

impl Names {
    pub fn declare(&mut self, name: Option<String>, kind: Option<String>) {
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

pub fn is_hash(kind: &str) -> bool {
    kind == "HashMap" || kind == "HashSet"
}

pub fn pattern_name(pattern: &syn::Pat) -> Option<String> {
    match pattern {
        syn::Pat::Ident(name) => Some(name.ident.to_string()),
        syn::Pat::Type(typed) => pattern_name(&typed.pat),
        _ => None,
    }
}

/// The last name of a type, behind references.
pub fn outermost(kind: &Type) -> Option<String> {
    match kind {
        Type::Reference(reference) => outermost(&reference.elem),
        Type::Path(path) => path.path.segments.last().map(|s| s.ident.to_string()),
        _ => None,
    }
}

/// The name that an expression ends in: a variable, a field or a call.
pub fn last_name(expression: &Expr) -> Option<String> {
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
pub struct Import {
    pub path: Vec<String>,
    pub line: usize,
    pub name: String,
}

pub fn flatten(tree: &UseTree) -> Vec<Import> {
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

/// The file that a `#[path]` names.
pub fn given_path(attributes: &[Attribute]) -> Option<String> {
    let path = attributes
        .iter()
        .find(|attr| attr.path().is_ident("path"))?;
    match &path.meta.require_name_value().ok()?.value {
        Expr::Lit(syn::ExprLit {
            lit: syn::Lit::Str(file),
            ..
        }) => Some(file.value()),
        _ => None,
    }
}

/// Whether an attribute makes its item test code: `#[test]`, or a `cfg` that only tests satisfy.
pub fn is_test_only(attribute: &Attribute) -> bool {
    if attribute.path().is_ident("test") {
        return true;
    }
    let Meta::List(list) = &attribute.meta else {
        return false;
    };
    let condition = list.tokens.to_string();
    list.path.is_ident("cfg") && (condition == "test" || condition.starts_with("all (test"))
}

pub fn item_attributes(item: &Item) -> &[Attribute] {
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

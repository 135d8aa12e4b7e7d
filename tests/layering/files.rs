//! Which files of one module name each other, through re-exports of their parent too. Siblings that name each other in
//! a circle can only be read together. A module and its own children are one thing, and may name each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use crate::tokens::{Token, is_word, tokens, without_test_items};

/// A module by its names from the crate's root.
type Module = Vec<String>;

/// One sibling names another, at this place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Edge {
    /// `parent::child` that names.
    pub(crate) from: String,
    /// `parent::child` that is named.
    pub(crate) to: String,
    /// `path:line` of the first place.
    pub(crate) at: String,
}

/// Returns the edges that lie on a circle of siblings.
pub(crate) fn circles(sources: &[(PathBuf, String)]) -> Vec<Edge> {
    let files: Vec<(Module, &Path, Vec<Token>)> = sources
        .iter()
        .map(|(path, text)| (module(path), path.as_path(), without_test_items(&tokens(text))))
        .filter(|(module, ..)| module != &["lib"] && module != &["main"])
        .collect();
    let modules: BTreeSet<&Module> = files.iter().map(|(module, ..)| module).collect();
    let imports: BTreeMap<&Module, BTreeMap<String, Module>> =
        files.iter().map(|(module, _, tokens)| (module, imports(module, tokens, &modules))).collect();
    let mut edges = BTreeMap::<(Module, Module), String>::new();
    for (module, path, tokens) in &files {
        for (line, named) in paths(module, tokens) {
            let target = resolve(&named, &modules, &imports);
            let shared = module.iter().zip(&target).take_while(|(one, other)| one == other).count();
            if shared > 0 && shared < module.len() && shared < target.len() {
                let pair = (module[..=shared].to_vec(), target[..=shared].to_vec());
                edges.entry(pair).or_insert_with(|| format!("{}:{line}", path.display()));
            }
        }
    }
    let mut next = BTreeMap::<&Module, Vec<&Module>>::new();
    for (from, to) in edges.keys() {
        next.entry(from).or_default().push(to);
    }
    let on_circle = edges.iter().filter(|((from, to), _)| reaches(&next, to, from));
    on_circle.map(|((from, to), at)| Edge { from: from.join("::"), to: to.join("::"), at: at.clone() }).collect()
}

fn reaches<'a>(next: &BTreeMap<&'a Module, Vec<&'a Module>>, from: &'a Module, to: &Module) -> bool {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(here) = open.pop() {
        if here == to {
            return true;
        }
        if seen.insert(here) {
            open.extend(next.get(here).into_iter().flatten().copied());
        }
    }
    false
}

fn module(path: &Path) -> Module {
    let mut parts: Module = path.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    parts
}

/// The module in which a path ends, followed through re-exports.
fn resolve(
    path: &Module,
    modules: &BTreeSet<&Module>,
    imports: &BTreeMap<&Module, BTreeMap<String, Module>>,
) -> Module {
    let mut path = path.clone();
    // Bounds a circle of re-exports, which would not compile.
    for _ in 0..8 {
        let known = (0..=path.len()).rev().find(|len| modules.contains(&path[..*len].to_vec())).unwrap_or(0);
        let here = path[..known].to_vec();
        let next = path.get(known).and_then(|name| imports.get(&here)?.get(name));
        let Some(next) = next else { return here };
        path = next.iter().chain(&path[known + 1..]).cloned().collect();
    }
    path
}

/// What the `use` items of a module bring into it from this crate, by name.
fn imports(module: &Module, tokens: &[Token], modules: &BTreeSet<&Module>) -> BTreeMap<String, Module> {
    let mut found = BTreeMap::new();
    for (i, _) in tokens.iter().enumerate().filter(|(_, token)| token.text == "use") {
        let mut tree = Vec::new();
        expand(tokens, i + 1, &mut Vec::new(), &mut tree);
        for (_, path, alias) in tree {
            let absolute = match path.first().map(String::as_str) {
                Some("crate") => path[1..].to_vec(),
                Some("self") => module.iter().chain(&path[1..]).cloned().collect(),
                Some("super") => match up(module, &path) {
                    Some(absolute) => absolute,
                    None => continue,
                },
                Some(first) => {
                    let child: Module = module.iter().cloned().chain([first.to_owned()]).collect();
                    if !modules.contains(&child) {
                        continue;
                    }
                    module.iter().chain(&path).cloned().collect()
                }
                None => continue,
            };
            if let Some(name) = alias.or_else(|| absolute.last().cloned()) {
                found.insert(name, absolute);
            }
        }
    }
    found
}

/// Paths of this crate that a file names, from the root.
fn paths(module: &Module, tokens: &[Token]) -> Vec<(usize, Module)> {
    let text = |i: usize| tokens.get(i).map_or("", |token| token.text.as_str());
    let mut found = Vec::new();
    let mut braces: Vec<bool> = Vec::new();
    for i in 0..tokens.len() {
        match text(i) {
            "{" => braces.push(i >= 2 && text(i - 2) == "mod"),
            "}" => drop(braces.pop()),
            "crate" | "super" if text(i + 1) == "::" && (i == 0 || text(i - 1) != "::") => {
                let inner = braces.iter().filter(|is_module| **is_module).map(|_| "inline".to_owned());
                let here: Module = module.iter().cloned().chain(inner).collect();
                let mut tree = Vec::new();
                expand(tokens, i, &mut Vec::new(), &mut tree);
                found.extend(tree.into_iter().filter_map(|(line, path, _)| {
                    let absolute = if path[0] == "crate" { path[1..].to_vec() } else { up(&here, &path)? };
                    Some((line, absolute))
                }));
            }
            _ => {}
        }
    }
    found
}

/// Follows the `super` at the front of a path.
fn up(module: &Module, path: &[String]) -> Option<Module> {
    let ups = path.iter().take_while(|part| *part == "super").count();
    let around = module.len().checked_sub(ups)?;
    Some(module[..around].iter().chain(&path[ups..]).cloned().collect())
}

/// All paths of the tree at `from`: `a::{b, c as d}` gives `a::b` and `a::c`, the latter called `d`. Returns where it
/// ends.
fn expand(
    tokens: &[Token],
    from: usize,
    before: &mut Vec<String>,
    found: &mut Vec<(usize, Vec<String>, Option<String>)>,
) -> usize {
    let text = |i: usize| tokens.get(i).map_or("", |token| token.text.as_str());
    let (mut i, depth) = (from, before.len());
    loop {
        if text(i) == "{" {
            i += 1;
            while !matches!(text(i), "}" | "") {
                i = if text(i) == "," { i + 1 } else { expand(tokens, i, before, found) };
            }
            before.truncate(depth);
            return i + 1;
        }
        if !text(i).chars().all(is_word) || text(i).is_empty() {
            // `*`, or something that is no path.
            before.truncate(depth);
            return i + 1;
        }
        if text(i) != "self" || before.is_empty() {
            before.push(text(i).to_owned());
        }
        if text(i + 1) != "::" {
            break;
        }
        i += 2;
    }
    let alias = (text(i + 1) == "as").then(|| text(i + 2).to_owned());
    let end = if alias.is_some() { i + 3 } else { i + 1 };
    found.push((tokens[i].line, before.clone(), alias));
    before.truncate(depth);
    end
}

#[test]
fn circles_are_found_through_re_exports_and_groups() {
    let found = |files: &[(&str, &str)]| {
        let sources: Vec<_> = files.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect();
        circles(&sources).into_iter().map(|edge| format!("{} -> {}", edge.from, edge.to)).collect::<Vec<_>>()
    };
    let root = ("m/mod.rs", "mod a; mod b; pub use a::A; use self::b::{B, B as C};");
    let both = ["m::a -> m::b", "m::b -> m::a"];
    assert_eq!(found(&[root, ("m/a.rs", "use super::b::B;"), ("m/b.rs", "use crate::m::A;")]), both);
    assert_eq!(found(&[root, ("m/a.rs", "use super::{x, C};"), ("m/b.rs", "fn f(a: super::A) {}")]), both);
    assert_eq!(
        found(&[root, ("m/a/deep.rs", "use super::super::b;"), ("m/a.rs", ""), ("m/b.rs", "use super::a;")]),
        both
    );
    assert_eq!(found(&[root, ("m/a.rs", "use super::B;"), ("m/b.rs", "")]), [""; 0]);
    let child = ("m/a/deep.rs", "use super::A; use super::super::B;");
    assert_eq!(found(&[root, ("m/a.rs", "mod deep; use deep::D;"), child, ("m/b.rs", "")]), [""; 0]);
    let tests = ("m/b.rs", "#[cfg(test)] mod tests { use super::super::A; }");
    assert_eq!(found(&[root, ("m/a.rs", "use super::b;"), tests]), [""; 0]);
}

//! The floors of the house (ARCHITECTURE.md): a room imports only from itself and from floors below, and no two
//! files import each other.
//!
//! Read from the text of `src/`: every path that starts with `crate::`, `couchrep::`, `super::` or `self::`, in `use` lines
//! and in code, and `child::…` where a module calls its child. Tests may import what they like: files named `tests.rs`,
//! those below `tests/`, and what follows a file's `#[cfg(test)] mod`. A `pub use` of a child's names is a door, not an
//! import: who takes a name through it imports from where the name is made.
//!
//! What isn't so today stands in [`ABOVE`] and [`EACH_OTHER`], with what will become of it. A line there that is no longer
//! needed fails too, so that the tables shrink.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// From the ground up. A room stands on one floor, and rooms of one floor don't know each other.
const FLOORS: [&[&str]; 17] = [
    &["json", "tasks", "percent", "uuids", "data_file", "counters", "policy"],
    &["document", "config"],
    &["multipart", "term", "selector", "javascript", "access", "effort"],
    &["users", "replicator_docs"],
    &["beside"],
    &["store", "takeover"],
    &["endpoint", "accounts", "settings"],
    &["peer"],
    &["databases"],
    &["replicate"],
    &["verify"],
    &["jobs"],
    &["http"],
    &["server"],
    &["command"],
    &["lib"],
    &["main"],
];

/// Rooms that import from floors above, and what will become of it.
const ABOVE: &[(&str, &str, &str)] = &[];

/// Files that import each other, and what will become of it.
const EACH_OTHER: &[(&str, &str, &str)] = &[];

#[test]
fn rooms_import_only_from_floors_below() {
    let floor = |module: &str| {
        let room = room(module);
        FLOORS.iter().position(|rooms| rooms.contains(&room)).unwrap_or_else(|| panic!("{room} stands on no floor"))
    };
    let house = House::read();
    let mut above: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for (from, to) in house.imports() {
        if room(from) != room(to) && floor(from) <= floor(to) {
            above.entry((room(from), room(to))).or_default().push(format!("{from} imports from {to}"));
        }
    }
    let expected: BTreeSet<_> = ABOVE.iter().map(|(from, to, _)| (*from, *to)).collect();
    let found: Vec<_> = above.iter().filter(|(rooms, _)| !expected.contains(*rooms)).collect();
    assert!(found.is_empty(), "rooms import from their own floor or above: {found:#?}");
    let needless: Vec<_> = expected.iter().filter(|rooms| !above.contains_key(*rooms)).collect();
    assert!(needless.is_empty(), "these are mended, take them out of the table: {needless:?}");
}

#[test]
fn no_two_files_import_each_other() {
    let house = House::read();
    let imports: BTreeSet<_> = house.imports().collect();
    let circles = imports.iter().filter(|(from, to)| from < to && imports.contains(&(*to, *from)));
    let circles: BTreeSet<_> = circles.copied().collect();
    let expected: BTreeSet<_> = EACH_OTHER.iter().map(|(one, other, _)| (*one, *other)).collect();
    let found: Vec<_> = circles.difference(&expected).collect();
    assert!(found.is_empty(), "files import each other: {found:#?}");
    let needless: Vec<_> = expected.difference(&circles).collect();
    assert!(needless.is_empty(), "these are mended, take them out of the table: {needless:?}");
}

/// A reader that finds nothing holds nothing.
#[test]
fn imports_are_found_however_they_are_written() {
    let files = [
        ("a", "pub use self::deep::Thing;\nuse self::low::{self, f};\npub mod deep; mod low; mod kin;"),
        ("a::deep", "use super::{low::{g as h}, kin};\nfn f() -> crate::b::B { kin::x(\"crate::e\") }"),
        ("a::low", "use crate::{c, d::{D, self}}; // use crate::e;\nuse super::Thing;"),
        ("a::kin", "pub(crate) use couchrep::b;\n#[cfg(test)]\nmod tests { use crate::e; }"),
        ("b", "use crate::a::Thing;"),
        ("c", ""),
        ("d", "use crate::a::{low, *};"),
        ("e", ""),
    ];
    let house = House::of(files.map(|(module, text)| (module.to_owned(), text.to_owned())));
    let expected = [
        ("a", "a::low"),
        ("a::deep", "a::kin"),
        ("a::deep", "a::low"),
        ("a::deep", "b"),
        ("a::kin", "b"),
        ("a::low", "a::deep"),
        ("a::low", "c"),
        ("a::low", "d"),
        ("b", "a::deep"),
        ("d", "a"),
        ("d", "a::low"),
    ];
    assert_eq!(house.imports().collect::<Vec<_>>(), expected);
}

fn room(module: &str) -> &str {
    module.split("::").next().unwrap()
}

/// All modules and what they import.
struct House {
    /// Module to the paths that it names, from the root, resolved as far as the modules are known.
    imports: BTreeMap<String, BTreeSet<String>>,
}

impl House {
    fn read() -> Self {
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = Vec::new();
        walk(&src, &mut files);
        Self::of(files.into_iter().map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            let names = path.strip_prefix(&src).unwrap().with_extension("");
            let names: Vec<_> = names.iter().map(|name| name.to_str().unwrap()).collect();
            (names.join("::"), text)
        }))
    }

    fn of(files: impl IntoIterator<Item = (String, String)>) -> Self {
        let is_test = |module: &str| module.split("::").any(|name| name == "tests");
        let texts: BTreeMap<_, _> = files.into_iter().filter(|(module, _)| !is_test(module)).collect();
        let modules: BTreeSet<_> = texts.keys().cloned().collect();
        let named: BTreeMap<_, _> =
            texts.iter().map(|(module, text)| (module.clone(), paths(module, &code(text), &modules))).collect();
        // What a `pub use` lets others take from a module, and where it is made.
        let doors: BTreeMap<String, String> = named
            .iter()
            .flat_map(|(module, paths)| paths.iter().filter(|path| path.is_door).map(move |path| (module, path)))
            .filter_map(|(module, path)| Some((format!("{module}::{}", path.name()?), path.text.clone())))
            .collect();
        let imports = named.iter().map(|(module, paths)| {
            let imported = paths.iter().filter(|path| !path.is_door || !path.text.starts_with(&format!("{module}::")));
            let made = imported.filter_map(|path| made_in(&path.text, &doors, &modules));
            (module.clone(), made.filter(|made| made != module).collect())
        });
        Self { imports: imports.collect() }
    }

    fn imports(&self) -> impl Iterator<Item = (&str, &str)> {
        self.imports
            .iter()
            .flat_map(|(module, imported)| imported.iter().map(|other| (module.as_str(), other.as_str())))
    }
}

fn walk(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The text without comments, without what is in quotes, and without the tests at its end.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap();
    let mut code = String::new();
    for line in text.lines() {
        let mut in_quotes = false;
        let mut chars = line.chars().peekable();
        while let Some(char) = chars.next() {
            match char {
                '\\' if in_quotes => _ = chars.next(),
                '"' => in_quotes = !in_quotes,
                '/' if !in_quotes && chars.peek() == Some(&'/') => break,
                _ if in_quotes => {}
                char => code.push(char),
            }
        }
        code.push('\n');
    }
    code
}

/// A path that a module names.
struct Named {
    /// From the root.
    text: String,
    /// In a `pub use`.
    is_door: bool,
}

impl Named {
    fn name(&self) -> Option<&str> {
        self.text.rsplit("::").next()
    }
}

/// All paths that a module names, from the root.
fn paths(module: &str, code: &str, modules: &BTreeSet<String>) -> Vec<Named> {
    let mut found = Vec::new();
    let mut before = "";
    let mut rest = code;
    while let Some(start) = rest.find(|char: char| char.is_ascii_alphabetic() || char == '_') {
        let gap = &rest[..start];
        let end = rest[start..].find(|char: char| !char.is_ascii_alphanumeric() && char != '_');
        let (word, after) = rest[start..].split_at(end.unwrap_or(rest.len() - start));
        let begins = !gap.ends_with("::") && after.starts_with("::");
        let root = match word {
            _ if !begins => None,
            "crate" | "couchrep" => Some(String::new()),
            "self" => Some(module.to_owned()),
            "super" => Some(parent(module).to_owned()),
            child if modules.contains(&format!("{module}::{child}")) => Some(format!("{module}::{child}")),
            _ => None,
        };
        rest = after;
        if let Some(root) = root {
            let is_door = before == "use" && is_public(code, after);
            let mut texts = Vec::new();
            rest = tree(&root, after, &mut texts);
            found.extend(texts.into_iter().map(|text| Named { text, is_door }));
        }
        before = word;
    }
    found
}

/// Whether the `use` that ends right before `after` is a public one.
fn is_public(code: &str, after: &str) -> bool {
    let until = &code[..code.len() - after.len()];
    let statement = until.rsplit([';', '}', '{', ']']).next().unwrap_or_default();
    statement.trim_start().starts_with("pub")
}

/// Reads on after a path's first name: `::a::b`, `::{a, b::{c, self}}`, `::*`. Answers what follows.
fn tree<'a>(path: &str, mut rest: &'a str, found: &mut Vec<String>) -> &'a str {
    let mut path = path.to_owned();
    while let Some(after) = rest.strip_prefix("::") {
        if let Some(mut group) = after.strip_prefix('{') {
            loop {
                group = group.trim_start_matches(|char: char| char.is_whitespace() || char == ',');
                if let Some(after) = group.strip_prefix('}') {
                    return after;
                }
                let end = group.find(|char: char| !char.is_ascii_alphanumeric() && char != '_').unwrap_or(group.len());
                let (name, after) = group.split_at(end);
                group = match name {
                    "self" => {
                        found.push(path.clone());
                        after
                    }
                    // A `*`.
                    "" => {
                        found.push(path.clone());
                        group.get(1..).unwrap_or_default()
                    }
                    "as" => {
                        after.trim_start().trim_start_matches(|char: char| char.is_ascii_alphanumeric() || char == '_')
                    }
                    name => tree(&join(&path, name), after, found),
                };
            }
        }
        let end = after.find(|char: char| !char.is_ascii_alphanumeric() && char != '_').unwrap_or(after.len());
        match &after[..end] {
            "" => {
                found.push(path);
                return after;
            }
            "super" => path = parent(&path).to_owned(),
            name => path = join(&path, name),
        }
        rest = &after[end..];
    }
    found.push(path);
    rest
}

fn parent(module: &str) -> &str {
    module.rsplit_once("::").map_or("", |(parent, _)| parent)
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}::{name}") }
}

/// The module in which what a path names is made.
fn made_in(path: &str, doors: &BTreeMap<String, String>, modules: &BTreeSet<String>) -> Option<String> {
    let mut path = path.to_owned();
    // A door may lead to another one.
    for _ in 0..9 {
        let mut through = path.as_str();
        while !through.is_empty() && !doors.contains_key(through) {
            through = parent(through);
        }
        match doors.get(through) {
            Some(leads) if leads != through && !modules.contains(through) => path = leads.clone(),
            _ => break,
        }
    }
    let mut module = path.as_str();
    while !modules.contains(module) {
        if module.is_empty() {
            return None;
        }
        module = parent(module);
    }
    Some(module.to_owned())
}

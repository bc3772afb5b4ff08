//! Finds circles between the files of a room.
//!
//! A file uses the file that defines an item which it names by `super::`, `self::`, `crate::` or
//! the name of a module, through any number of `pub use`. A declaration `mod` does not count, nor
//! does a `pub use` of an item that the file itself does not need.
//!
//! A module's own file and the files below it naturally name each other: the file has its parts in
//! files of their own, and they share its items. From outside, a file with items counts as one with
//! all files below it; otherwise a circle through the file and one of its parts would be missed.
//! The parts are then checked among themselves. A room's root is a file like any other; a root that
//! only declares and re-exports does not count.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::names::{Names, names};

/// A module by its path below `src`.
type Module = Vec<String>;

/// The modules of the crate that are files, without those of tests.
struct Crate(BTreeMap<Module, Names>);

impl Crate {
    fn read(files: Vec<(String, String)>) -> Self {
        let mut modules = BTreeMap::new();
        for (file, text) in files {
            let module: Module =
                file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
            modules.insert(module, names(&text));
        }
        let of_tests = modules.iter().flat_map(|(module, names)| {
            names
                .of_tests
                .iter()
                .map(|child| [module.as_slice(), std::slice::from_ref(child)].concat())
        });
        let of_tests: Vec<Module> = of_tests.collect();
        modules.retain(|module, _| !of_tests.iter().any(|tests| module.starts_with(tests)));
        Self(modules)
    }

    /// The module to which `path`, named in `module`, leads, and the rest of the path. `None` if it
    /// leads out of the crate's files.
    fn enter<'a>(&self, module: &[String], path: &'a [String]) -> Option<(Module, &'a [String])> {
        let (mut here, mut rest) = (module.to_vec(), path);
        match path.first()?.as_str() {
            "crate" => (here, rest) = (Vec::new(), &path[1..]),
            "self" => rest = &path[1..],
            "super" => {}
            child => {
                let child = [here.as_slice(), &[child.to_owned()]].concat();
                self.0.contains_key(&child).then_some(())?;
            }
        }
        while let Some((first, after)) = rest.split_first() {
            if first == "super" {
                here.pop()?;
            } else {
                let child = [here.as_slice(), std::slice::from_ref(first)].concat();
                if !self.0.contains_key(&child) {
                    break;
                }
                here = child;
            }
            rest = after;
        }
        (!here.is_empty()).then_some((here, rest))
    }

    /// The file that defines the item which `module` calls `name`: its own, or the origin of a
    /// re-export.
    fn origin(&self, module: &Module, name: &str, depth: usize) -> Module {
        let shown = self.0.get(module).and_then(|names| {
            let mut shown = names.named.iter().filter(|named| named.is_shown_by_file());
            shown.find(|named| named.called.as_deref() == Some(name))
        });
        let entered = shown.and_then(|named| self.enter(module, &named.path));
        match entered {
            Some((there, rest)) if depth < 8 && there != *module => match rest.first() {
                Some(name) => self.origin(&there, name, depth + 1),
                None => there,
            },
            _ => module.clone(),
        }
    }

    /// The files that `module` uses.
    fn used(&self, module: &Module) -> BTreeSet<Module> {
        let names = &self.0[module];
        let mut aliases: BTreeMap<&str, Module> = BTreeMap::new();
        let mut used = BTreeSet::new();
        for named in names.named.iter().filter(|named| named.called.is_some()) {
            let within = [module.as_slice(), &named.within].concat();
            let Some((there, rest)) = self.enter(&within, &named.path) else { continue };
            let called = named.called.as_deref().unwrap_or_default();
            match rest.first() {
                None => drop(aliases.insert(called, there)),
                Some(name) if !named.is_shown || names.words.iter().any(|word| word == called) => {
                    if name == "*" {
                        used.extend(self.shown(&there));
                    }
                    used.insert(self.origin(&there, name, 0));
                }
                Some(_) => {}
            }
        }
        for named in names.named.iter().filter(|named| named.called.is_none()) {
            let within = [module.as_slice(), &named.within].concat();
            let entered = match aliases.get(named.path[0].as_str()) {
                Some(alias) => {
                    self.enter(alias, &named.path[1..]).or(Some((alias.clone(), &named.path[1..])))
                }
                None => self.enter(&within, &named.path),
            };
            let Some((there, rest)) = entered else { continue };
            used.insert(match rest.first() {
                Some(name) => self.origin(&there, name, 0),
                None => there,
            });
        }
        used.remove(module);
        used
    }

    /// The files from which `module` re-exports something.
    fn shown(&self, module: &Module) -> Vec<Module> {
        let shown = self.0[module].named.iter().filter(|named| named.is_shown_by_file());
        let shown = shown.filter_map(|named| named.called.as_deref());
        shown.map(|name| self.origin(module, name, 0)).collect()
    }

    fn has_parts(&self, module: &[String]) -> bool {
        self.0.keys().any(|other| other.len() > module.len() && other.starts_with(module))
    }

    /// The unit to which `module` belongs among the modules below `base`: itself, or the file with
    /// items of which it is a part.
    fn counts_as(&self, module: &Module, base: &[String]) -> Module {
        let above = (base.len() + 1..module.len()).map(|length| module[..length].to_vec());
        let whole = |above: &Module| self.0.get(above).is_some_and(|names| names.has_items);
        above.into_iter().find(whole).unwrap_or_else(|| module.clone())
    }

    /// Circles among the modules below `base`, and `base` itself if it is a room.
    fn circles(&self, base: &[String]) -> Vec<Vec<String>> {
        let below = |module: &&Module| {
            module.starts_with(base) && (module.len() > base.len() || base.len() == 1)
        };
        let mut uses: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
        for module in self.0.keys().filter(below) {
            let used = self.used(module).into_iter().filter(|used| below(&used));
            let used = used.map(|used| self.counts_as(&used, base));
            uses.entry(self.counts_as(module, base)).or_default().extend(used);
        }
        rings(&uses).into_iter().map(|ring| ring.iter().map(file).collect()).collect()
    }
}

fn file(module: &Module) -> String {
    format!("{}.rs", module.join("/"))
}

/// Sets of more than one node in which every node leads to every other.
fn rings<T: Clone + Ord>(uses: &BTreeMap<T, BTreeSet<T>>) -> Vec<Vec<T>> {
    let reached = |from: &T| {
        let (mut seen, mut left) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(next) = left.pop() {
            let used = uses.get(&next).into_iter().flatten().cloned();
            left.extend(used.filter(|used| seen.insert(used.clone())));
        }
        seen
    };
    let reached: BTreeMap<&T, BTreeSet<T>> =
        uses.keys().map(|from| (from, reached(from))).collect();
    let mut rings = BTreeSet::new();
    for (from, there) in &reached {
        let back = |to: &&T| reached.get(to).is_some_and(|back| back.contains(*from));
        let ring: BTreeSet<T> =
            there.iter().filter(back).cloned().chain([(*from).clone()]).collect();
        if ring.len() > 1 {
            rings.insert(ring.into_iter().collect::<Vec<T>>());
        }
    }
    rings.into_iter().collect()
}

#[test]
fn files_of_a_room_form_no_circle() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = super::files(&source).into_iter().map(|(file, text)| {
        let path = file.strip_prefix(&source).expect("below src").to_string_lossy();
        (path.into_owned(), text)
    });
    let all = Crate::read(files.filter(|(path, _)| !path.starts_with("layering")).collect());
    let bases = all
        .0
        .iter()
        .filter(|(module, names)| all.has_parts(module) && (module.len() == 1 || names.has_items));
    let found: Vec<_> = bases.flat_map(|(base, _)| all.circles(base)).collect();
    assert!(found.is_empty(), "circles of files: {found:#?}");
}

#[test]
fn circles_are_found_through_what_passes_an_item_on() {
    let circles = |files: &[(&str, &str)]| {
        let files = files.iter().map(|&(file, text)| (file.to_owned(), text.to_owned()));
        Crate::read(files.collect()).circles(&["room".to_owned()])
    };
    let root = ("room.rs", "mod a;\nmod b;\npub use a::A;\n");
    let a = ("room/a.rs", "use super::b;\npub struct A;\nfn f() { b::f() }\n");
    let expected = vec![vec!["room/a.rs".to_owned(), "room/b.rs".to_owned()]];
    for b in ["use super::A;\n", "fn f() -> crate::room::A { super::a::A }\n", "use super::a::*;\n"]
    {
        assert_eq!(circles(&[root, a, ("room/b.rs", b)]), expected, "{b}");
    }
    let none = "#[cfg(test)]\nmod tests {\n    use super::super::A;\n}\npub fn f() {}\n";
    assert_eq!(circles(&[root, a, ("room/b.rs", none)]), Vec::<Vec<String>>::new());
    // Re-exports of an inline module are its own.
    let inline = "pub mod c { pub use super::d; }\nmod e { use super::*; }\npub fn f() {}\n";
    let user = ("room.rs", "mod b;\npub fn g() { b::f() }\n");
    assert_eq!(circles(&[user, ("room/b.rs", inline)]), Vec::<Vec<String>>::new());
    // From outside, a file and its parts are one.
    let whole = ("room/a.rs", "mod part;\npub struct A;\n");
    let part = ("room/a/part.rs", "use crate::room::{A, b::B};\n");
    let b = ("room/b.rs", "use super::A;\npub struct B;\n");
    assert_eq!(circles(&[root, whole, part, b]), expected);
    assert_eq!(
        circles(&[root, whole, ("room/a/part.rs", "use super::A;\n"), b]),
        Vec::<Vec<String>>::new()
    );
}

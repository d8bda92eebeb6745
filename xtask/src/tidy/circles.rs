// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The files of a crate use each other in one direction only.
//!
//! A file uses another file if one of its paths, followed through re-exports, leads there. A parent
//! that declares a module and re-exports its items does not use it, unless the parent's own code
//! names those items. Method calls name no file and are not seen.

mod paths;

use std::collections::BTreeMap;

use self::paths::{Names, Path};
use super::tree::{Finding, Tree};
use crate::source::Source;

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut crates: BTreeMap<&str, Vec<&Source>> = BTreeMap::new();
    for source in tree
        .library_sources()
        .filter(|source| source.production > 0)
    {
        if let Some((name, _)) = source.path.split_once("/src/") {
            crates.entry(name).or_default().push(source);
        }
    }
    crates
        .values()
        .flat_map(|sources| Crate::new(sources).circles())
        .collect()
}

/// A file, as a module.
struct File<'a> {
    path: &'a str,
    /// Its path among the crate's modules: empty for the root.
    module: Vec<&'a str>,
    names: Names,
}

/// A use of one file by another, by their indices.
struct Arrow<'a> {
    to: usize,
    /// The first path that leads to the other file.
    path: &'a Path,
}

struct Crate<'a> {
    files: Vec<File<'a>>,
    /// The file of each module.
    modules: BTreeMap<Vec<&'a str>, usize>,
}

impl<'a> Crate<'a> {
    fn new(sources: &[&'a Source]) -> Self {
        let file = |source: &&'a Source| {
            let (_, inside) = source.path.split_once("/src/").unwrap_or_default();
            let module = inside.trim_end_matches(".rs").split('/');
            File {
                path: &source.path,
                module: module
                    .filter(|name| !["lib", "main"].contains(name))
                    .collect(),
                names: Names::of(source),
            }
        };
        let files: Vec<File<'a>> = sources.iter().map(file).collect();
        let mut modules = BTreeMap::new();
        // The sources are sorted, so `lib.rs` comes before `main.rs` and is the root of both.
        for (index, file) in files.iter().enumerate() {
            modules.entry(file.module.clone()).or_insert(index);
        }
        Self { files, modules }
    }

    /// Returns a finding for each arrow that is part of a circle.
    fn circles(&self) -> Vec<Finding> {
        let arrows: Vec<Vec<Arrow<'_>>> = (0..self.files.len())
            .map(|from| self.arrows(from))
            .collect();
        let mut findings = Vec::new();
        for (from, out) in arrows.iter().enumerate() {
            for arrow in out {
                if let Some(back) = way(&arrows, arrow.to, from) {
                    let names = back.into_iter().map(|file| self.short(file));
                    let circle: Vec<_> = names.collect();
                    let text = format!(
                        "`{}` closes a circle of files: {} -> {}; \
                         move what both need to a file below them",
                        arrow.path.segments.join("::"),
                        self.short(from),
                        circle.join(" -> "),
                    );
                    findings.push(Finding::at(self.files[from].path, arrow.path.line, text));
                }
            }
        }
        findings
    }

    /// Returns the name of a file within its crate.
    fn short(&self, file: usize) -> &'a str {
        self.files[file]
            .path
            .split_once("/src/")
            .unwrap_or_default()
            .1
    }

    /// Returns the other files that a file uses.
    fn arrows(&self, from: usize) -> Vec<Arrow<'_>> {
        let File { module, names, .. } = &self.files[from];
        let imports = names.imports.iter().filter_map(|import| {
            let to = self.resolve(from, &import.path.segments, 0)?;
            let below = self.files[to].module.starts_with(module);
            let only_handed_on = import.handed_on && below && !names.words.contains(&import.name);
            (!only_handed_on).then_some(Arrow {
                to,
                path: &import.path,
            })
        });
        let paths = names.paths.iter().filter_map(|path| {
            let to = self.resolve(from, &path.segments, 0)?;
            Some(Arrow { to, path })
        });
        let mut arrows: Vec<Arrow<'_>> = imports.chain(paths).collect();
        arrows.retain(|arrow| arrow.to != from);
        arrows.sort_by_key(|arrow| (arrow.to, arrow.path.line));
        arrows.dedup_by_key(|arrow| arrow.to);
        arrows
    }

    /// Returns the file that contains the item at a path, if it is in this crate.
    fn resolve(&self, from: usize, path: &[String], depth: usize) -> Option<usize> {
        // Re-exports may form a ring, which the compiler rejects later.
        if depth > 16 {
            return None;
        }
        let (first, mut rest) = path.split_first()?;
        let mut at = match first.as_str() {
            "crate" => *self.modules.get(&[][..])?,
            "self" => from,
            "super" => self.parent(from)?,
            name => self.member(from, name, depth)?,
        };
        while let Some((name, after)) = rest.split_first() {
            rest = after;
            at = match name.as_str() {
                "super" => self.parent(at)?,
                name if self.binds(at, name) => self.member(at, name, depth)?,
                _ => break, // an item of that file
            };
        }
        Some(at)
    }

    fn parent(&self, of: usize) -> Option<usize> {
        let (_, parent) = self.files[of].module.split_last()?;
        self.modules.get(parent).copied()
    }

    fn child(&self, of: usize, name: &str) -> Option<usize> {
        let mut module = self.files[of].module.clone();
        let name: Vec<&str> = vec![name];
        module.extend(name);
        self.modules.get(&module).copied()
    }

    /// Returns whether the name is a module or an import of the file rather than an item.
    fn binds(&self, file: usize, name: &str) -> bool {
        let mut imports = self.files[file].names.imports.iter();
        self.child(file, name).is_some() || imports.any(|import| import.name == name)
    }

    /// Returns the path to which such a name refers.
    fn member(&self, file: usize, name: &str, depth: usize) -> Option<usize> {
        if let Some(child) = self.child(file, name) {
            return Some(child);
        }
        let mut imports = self.files[file].names.imports.iter();
        let import = imports.find(|import| import.name == name)?;
        // `use log;` and `pub use macro_name;` stand for themselves.
        let segments = &import.path.segments;
        (segments.len() > 1).then(|| self.resolve(file, segments, depth + 1))?
    }
}

/// Returns the files on the shortest path from one file to another, including both.
fn way(arrows: &[Vec<Arrow<'_>>], from: usize, to: usize) -> Option<Vec<usize>> {
    let mut ways = vec![vec![from]];
    let mut seen = vec![from];
    let mut next = 0;
    while let Some(way) = ways.get(next).cloned() {
        next += 1;
        let last = *way.last()?;
        if last == to {
            return Some(way);
        }
        for arrow in &arrows[last] {
            if !seen.contains(&arrow.to) {
                seen.push(arrow.to);
                ways.push([way.as_slice(), &[arrow.to]].concat());
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the circles of a crate with these files.
    fn circles(files: &[(&str, &str)]) -> Vec<String> {
        let files = files
            .iter()
            .map(|(path, text)| (format!("crates/a/src/{path}"), *text));
        let findings = check(&Tree::new(files)).into_iter();
        findings
            .map(|finding| {
                let circle = finding.text.split_once(": ").unwrap().1;
                format!("{} {}", finding.place, circle.split_once(';').unwrap().0)
            })
            .collect()
    }

    const ROOT: (&str, &str) = ("lib.rs", "mod a;\nmod b;\npub use a::A;\npub use b::B;\n");

    #[test]
    fn one_way_arrows_are_accepted() {
        let a = ("a.rs", "use crate::b::B;\npub struct A(B);\n");
        let b = (
            "b.rs",
            "pub struct B;\n#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}\n",
        );
        assert_eq!(circles(&[ROOT, a, b]), [""; 0]);
    }

    #[test]
    fn two_files_that_use_each_other_are_found() {
        let a = ("a.rs", "use crate::b::B;\n");
        let b = ("b.rs", "fn f() {\n    crate::a::g();\n}\n");
        let expected = [
            "crates/a/src/a.rs:1 a.rs -> b.rs -> a.rs",
            "crates/a/src/b.rs:2 b.rs -> a.rs -> b.rs",
        ];
        assert_eq!(circles(&[ROOT, a, b]), expected);
    }

    #[test]
    fn a_circle_through_the_root_is_found() {
        let a = ("a.rs", "use crate::{B, Other};\n");
        let b = ("b.rs", "use super::A;\n");
        assert_eq!(circles(&[ROOT, a, b]).len(), 2);
    }

    #[test]
    fn a_child_may_use_a_parent_that_only_re_exports_it() {
        let child = ("a/child.rs", "use super::A;\npub struct C(A);\n");
        let hands_on = ("a.rs", "mod child;\npub use child::C;\npub struct A;\n");
        assert_eq!(circles(&[ROOT, hands_on, child]), [""; 0]);
        for works_with_it in [
            "mod child;\npub use child::C;\nstruct A(C);\n",
            "mod child;\nuse child::C;\n",
            "mod child;\nfn f() -> child::C {}\n",
        ] {
            let found = circles(&[ROOT, ("a.rs", works_with_it), child]);
            assert_eq!(found.len(), 2, "{works_with_it}: {found:?}");
        }
    }

    #[test]
    fn a_longer_circle_is_shown_whole() {
        let files = [
            ("lib.rs", "mod a;\nmod b;\nmod c;\n"),
            ("a.rs", "use crate::b;\n"),
            ("b.rs", "use super::c as d;\n"),
            ("c.rs", "use crate::a::{self};\n"),
        ];
        let found = circles(&files);
        assert_eq!(found[0], "crates/a/src/a.rs:1 a.rs -> b.rs -> c.rs -> a.rs");
        assert_eq!(found.len(), 3);
    }

    #[test]
    fn external_crates_are_not_files() {
        let a = (
            "a.rs",
            "use b::B;\nuse log;\nfn f() { log::info!(); Self::g(); }\n",
        );
        let b = ("b.rs", "use crate::a::f;\n");
        assert_eq!(circles(&[("lib.rs", "mod a;\nmod b;\n"), a, b]), [""; 0]);
    }
}

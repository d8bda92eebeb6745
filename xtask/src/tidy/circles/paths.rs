// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The paths that a Rust file names outside its tests.

use std::collections::BTreeSet;

use crate::source::Source;

/// A path as written, segment by segment, and the line on which it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) line: usize,
    pub(super) segments: Vec<String>,
}

/// A name that a `use` imports.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Import {
    pub(super) path: Path,
    /// The name that the file gives it.
    pub(super) name: String,
    /// Whether it is re-exported: `pub use`, `pub(crate) use`.
    pub(super) handed_on: bool,
}

/// The names in a file.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) imports: Vec<Import>,
    /// Paths outside imports, of at least two segments.
    pub(super) paths: Vec<Path>,
    /// All words outside imports.
    pub(super) words: BTreeSet<String>,
}

/// A word, `::`, or any other character that is not a space.
type Token<'a> = (usize, &'a str);

impl Names {
    pub(super) fn of(source: &Source) -> Self {
        let mut tokens = Vec::new();
        for (number, line) in source.production_lines() {
            split(number, &line.code, &mut tokens);
        }
        let mut names = Self::default();
        let mut at = 0;
        while let Some(&(line, token)) = tokens.get(at) {
            if let Some(end) = end_of_test_item(&tokens[at..]) {
                at += end;
            } else if token == "use" {
                let handed_on = at > 0 && ["pub", ")"].contains(&tokens[at - 1].1);
                let mut tree = Tree {
                    rest: &tokens[at + 1..],
                    handed_on,
                    imports: &mut names.imports,
                };
                tree.read(&[]);
                at = tokens.len() - tree.rest.len();
            } else if is_word(token) {
                let segments = path(&tokens[at..]);
                at += 2 * segments.len() - 1;
                names.words.extend(segments.iter().cloned());
                if segments.len() > 1 {
                    names.paths.push(Path { line, segments });
                }
            } else {
                at += 1;
            }
        }
        names
    }
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

fn split<'a>(number: usize, code: &'a str, tokens: &mut Vec<Token<'a>>) {
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let of_word = |c: char| c.is_alphanumeric() || c == '_';
        let length = if of_word(first) {
            rest.find(|c| !of_word(c)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        tokens.push((number, &rest[..length]));
        rest = rest[length..].trim_start();
    }
}

/// Returns the segments of the path that begins with these tokens: one if it is a single word.
fn path(tokens: &[Token<'_>]) -> Vec<String> {
    let mut segments = vec![tokens[0].1.to_owned()];
    for pair in tokens[1..].chunks_exact(2) {
        if pair[0].1 != "::" || !is_word(pair[1].1) {
            break;
        }
        segments.push(pair[1].1.to_owned());
    }
    segments
}

/// Returns the length, in tokens, of an item under `#[cfg(test)]`, if the tokens begin with one.
fn end_of_test_item(tokens: &[Token<'_>]) -> Option<usize> {
    let text = |at: usize| tokens.get(at).map(|token| token.1);
    if (text(0), text(1), text(2)) != (Some("#"), Some("["), Some("cfg")) {
        return None;
    }
    let close = tokens.iter().position(|token| token.1 == "]")?;
    let has = |word| tokens[..close].iter().any(|token| token.1 == word);
    if !has("test") || has("not") {
        return None;
    }
    let mut depth = 0_usize;
    for (at, (_, token)) in tokens.iter().enumerate().skip(close + 1) {
        match *token {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" if depth == 0 => return Some(at),
            "}" if depth == 1 => return Some(at + 1),
            ")" | "]" | "}" => depth -= 1,
            ";" | "," if depth == 0 => return Some(at + 1),
            _ => {}
        }
    }
    Some(tokens.len())
}

/// The tree after the word `use`, read from left to right.
struct Tree<'a> {
    rest: &'a [Token<'a>],
    handed_on: bool,
    imports: &'a mut Vec<Import>,
}

impl Tree<'_> {
    fn next(&mut self) -> Option<(usize, &str)> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    /// Reads one branch and the comma, brace or semicolon after it.
    fn read(&mut self, prefix: &[String]) {
        let mut segments = prefix.to_vec();
        let mut name = None;
        let mut first_line = None;
        while let Some((line, token)) = self.next() {
            let line = *first_line.get_or_insert(line);
            match token {
                "::" => {}
                "{" => {
                    while self.rest.first().is_some_and(|token| token.1 != "}") {
                        self.read(&segments);
                    }
                    self.next();
                    segments.truncate(prefix.len());
                }
                "as" => name = self.next().map(|(_, name)| name.to_owned()),
                "}" | "," | ";" => {
                    if segments.len() > prefix.len() {
                        self.import(line, segments, name);
                    }
                    break;
                }
                word => segments.push(word.to_owned()),
            }
            // A brace that closes the enclosing list belongs to that list.
            if self.rest.first().is_some_and(|token| token.1 == "}") {
                if segments.len() > prefix.len() {
                    self.import(line, segments, name);
                }
                break;
            }
        }
    }

    fn import(&mut self, line: usize, mut segments: Vec<String>, name: Option<String>) {
        if segments.len() > 1 && segments.last().is_some_and(|last| last == "self") {
            segments.pop();
        }
        let name = name
            .or_else(|| segments.last().cloned())
            .unwrap_or_default();
        self.imports.push(Import {
            path: Path { line, segments },
            name,
            handed_on: self.handed_on,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Names {
        Names::of(&Source::new("crates/a/src/a.rs", text))
    }

    fn imports(text: &str) -> Vec<(usize, String, String, bool)> {
        let imports = names(text).imports.into_iter();
        imports
            .map(|import| {
                let Path { line, segments } = import.path;
                (line, segments.join("::"), import.name, import.handed_on)
            })
            .collect()
    }

    #[test]
    fn a_tree_of_imports_becomes_its_leaves() {
        let text = "use crate::{\n    a::{self, B as C},\n    d::E,\n};\n\
                    pub(crate) use f::G;\nuse super::h;\nfn i() {}\n";
        let row = |line, path: &str, name: &str, handed_on| {
            (line, path.to_owned(), name.to_owned(), handed_on)
        };
        let expected = [
            row(2, "crate::a", "a", false),
            row(2, "crate::a::B", "C", false),
            row(3, "crate::d::E", "E", false),
            row(5, "f::G", "G", true),
            row(6, "super::h", "h", false),
        ];
        assert_eq!(imports(text), expected);
        assert!(names(text).words.contains("i"));
    }

    #[test]
    fn paths_are_found_in_code_and_not_in_comments_or_literals() {
        let names =
            names("/// crate::a::B\nfn f(x: &crate::c::D<E>) { \"crate::e\"; g::<u8>(); }\n");
        let paths: Vec<_> = names
            .paths
            .iter()
            .map(|path| path.segments.join("::"))
            .collect();
        assert_eq!(paths, ["crate::c::D"]);
    }

    #[test]
    fn test_code_is_left_out() {
        let text = "#[cfg(test)]\nuse crate::a::B;\n#[cfg(all(test, loom))]\n\
                    fn f() { crate::c::d(); }\n\
                    #[cfg(not(test))]\nuse crate::e::F;\n\n\n\
                    #[cfg(test)]\nmod tests {\n use super::G;\n}\n";
        assert_eq!(imports(text).len(), 1, "{:?}", imports(text));
        assert_eq!(names(text).paths, []);
    }
}

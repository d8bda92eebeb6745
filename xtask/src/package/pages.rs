// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The pages of the documentation that the package contains, for the program's users. Links between
//! them work. Links to other pages are removed, and only their texts stay.

use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::Context;

/// The pages, from the directory of the documentation. They are not compressed: a link could not
/// be followed to a compressed page.
const PAGES: [&str; 4] = [
    "program.md",
    "control.md",
    "migration.md",
    "threat-model.md",
];

/// A link in a page.
#[derive(Debug, PartialEq)]
struct Link<'p> {
    /// The whole link, with its brackets.
    place: Range<usize>,
    text: &'p str,
    target: &'p str,
}

impl Link<'_> {
    /// Returns the file that a relative link names, without the heading in it.
    fn file(&self) -> Option<&str> {
        let file = self.target.split('#').next().unwrap_or_default();
        (!file.is_empty() && !file.contains(':')).then_some(file)
    }
}

/// Copies the pages and their pictures from one directory to another.
pub(super) fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    for page in PAGES {
        let text = read(&from.join(page))?;
        for file in links(&text).iter().filter_map(Link::file) {
            if file.ends_with(".svg") {
                let (picture, copy) = (from.join(file), to.join(file));
                copy.parent().map_or(Ok(()), fs::create_dir_all)?;
                fs::copy(&picture, copy).with_context(|| picture.display().to_string())?;
            }
        }
        fs::write(to.join(page), without_dead_links(&text))?;
    }
    Ok(())
}

/// Returns the relative links of the pages in a directory that lead nowhere, with their pages.
pub(super) fn dead_links(dir: &Path) -> anyhow::Result<Vec<String>> {
    let mut dead = Vec::new();
    for page in PAGES {
        let text = read(&dir.join(page))?;
        for file in links(&text).iter().filter_map(Link::file) {
            if !dir.join(file).is_file() {
                dead.push(format!("{page}: {file}"));
            }
        }
    }
    Ok(dead)
}

fn read(page: &Path) -> anyhow::Result<String> {
    fs::read_to_string(page).with_context(|| page.display().to_string())
}

/// Replaces links to files that are not copied by their texts.
fn without_dead_links(page: &str) -> String {
    let mut text = page.to_owned();
    // From the end, so that earlier places stay valid.
    for link in links(page).into_iter().rev() {
        let is_copied = |file: &str| PAGES.contains(&file) || file.ends_with(".svg");
        if link.file().is_some_and(|file| !is_copied(file)) {
            text.replace_range(link.place, link.text);
        }
    }
    text
}

/// Returns the links and pictures of a page: `[text](target)`, outside of code blocks.
fn links(page: &str) -> Vec<Link<'_>> {
    let mut found = Vec::new();
    let mut code = false;
    let mut block = 0..0;
    // Blocks without code, because a link can continue on the next line.
    for line in page.split_inclusive('\n').chain(["```"]) {
        let fence = line.trim_start().starts_with("```");
        if fence {
            if !code {
                links_in(page, block.clone(), &mut found);
            }
            code = !code;
            block = block.end + line.len()..block.end + line.len();
        } else {
            block.end += line.len();
            if code {
                block.start = block.end;
            }
        }
    }
    found
}

fn links_in<'p>(page: &'p str, block: Range<usize>, found: &mut Vec<Link<'p>>) {
    let mut from = block.start;
    while let Some(middle) = page[from..block.end].find("](").map(|at| from + at) {
        let start = page[block.start..middle].rfind('[');
        let end = page[middle..block.end].find(')');
        from = middle + 2;
        if let (Some(start), Some(end)) = (start, end) {
            let (start, end) = (block.start + start, middle + end);
            found.push(Link {
                place: start..end + 1,
                text: &page[start + 1..middle],
                target: &page[middle + 2..end],
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_outside_of_code_and_over_line_ends() {
        let page = "[a](a.md#x) and ![b\nc](d.svg)\n```\n[no](no.md)\n```\n[e](https://f) [g](#h)";
        let links = links(page);
        let found: Vec<_> = links.iter().map(|link| (link.text, link.file())).collect();
        let expected = [
            ("a", Some("a.md")),
            ("b\nc", Some("d.svg")),
            ("e", None),
            ("g", None),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_link_to_a_page_outside_the_package_becomes_its_text() {
        let page = "[one](control.md#a), [two\nthree](testing.md#b), [four](#c)\n";
        let expected = "[one](control.md#a), two\nthree, [four](#c)\n";
        assert_eq!(without_dead_links(page), expected);
    }

    #[test]
    fn every_relative_link_of_a_shipped_page_resolves() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        let dir = xshell::Shell::new().unwrap().create_temp_dir().unwrap();
        copy(&docs, dir.path()).unwrap();
        assert_eq!(dead_links(dir.path()).unwrap(), [""; 0]);
        fs::remove_file(dir.path().join("pictures/program.svg")).unwrap();
        fs::write(dir.path().join("control.md"), "[gone](gone.md)").unwrap();
        let dead = dead_links(dir.path()).unwrap();
        assert!(dead.contains(&"control.md: gone.md".to_owned()), "{dead:?}");
        let picture = "program.md: pictures/program.svg".to_owned();
        assert!(dead.contains(&picture), "{dead:?}");
    }
}

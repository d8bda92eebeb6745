// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The page of documentation that shows what the benches measured.
//!
//! Parts of the page are written by the benches: each is between two comments that name it. The
//! charts are pictures of their own, next to the page.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// The directory of documents, seen from the root of the repository.
pub const DOCS: &str = "docs";
/// The page, in that directory.
const PAGE: &str = "benchmarks.md";
/// Where its charts are.
const PICTURES: &str = "pictures";

/// Writes `parts` into the page of the directory `docs`, and `charts` next to it, each by its name.
///
/// Returns a line for a person that says what was written.
///
/// # Errors
///
/// The page cannot be read or written, or does not contain a part.
pub fn publish(docs: &Path, parts: &[(&str, String)], charts: &[(&str, String)]) -> Result<String> {
    let page = docs.join(PAGE);
    let mut text =
        fs::read_to_string(&page).with_context(|| format!("cannot read {}", page.display()))?;
    for (name, part) in parts {
        text = with_part(&text, name, part)
            .with_context(|| format!("{} has no part {name:?}", page.display()))?;
    }
    for (name, svg) in charts {
        let path = docs.join(PICTURES).join(name).with_extension("svg");
        fs::write(&path, svg).with_context(|| format!("cannot write {}", path.display()))?;
    }
    fs::write(&page, text).with_context(|| format!("cannot write {}", page.display()))?;
    let (parts, charts) = (parts.len(), charts.len());
    Ok(format!(
        "parts of {}: {parts}; charts in {}: {charts}",
        page.display(),
        docs.join(PICTURES).display()
    ))
}

/// Returns `page` with `part` between the comments that name it; `None` if it lacks them.
fn with_part(page: &str, name: &str, part: &str) -> Option<String> {
    let (begin, end) = (
        format!("<!-- bench: {name} -->\n"),
        format!("<!-- end: {name} -->\n"),
    );
    let (before, rest) = page.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    let part = part.trim_end();
    Some(format!("{before}{begin}\n{part}\n\n{end}{after}"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{PAGE, PICTURES, publish};

    #[test]
    fn a_part_is_replaced_and_the_rest_stays() {
        let docs = tempfile::tempdir().unwrap();
        let page = |part| format!("before\n<!-- bench: a -->\n\n{part}\n<!-- end: a -->\nafter\n");
        fs::write(docs.path().join(PAGE), page("old\nlines\n")).unwrap();
        fs::create_dir(docs.path().join(PICTURES)).unwrap();
        let part = [("a", "| new |\n".to_owned())];
        let chart = [("bench-a", "<svg/>".to_owned())];
        publish(docs.path(), &part, &chart).unwrap();
        let text = fs::read_to_string(docs.path().join(PAGE)).unwrap();
        assert_eq!(text, page("| new |\n"));
        let svg = fs::read_to_string(docs.path().join("pictures/bench-a.svg")).unwrap();
        assert_eq!(svg, "<svg/>");
    }

    #[test]
    fn a_part_that_the_page_lacks_is_an_error_and_changes_nothing() {
        let docs = tempfile::tempdir().unwrap();
        fs::write(docs.path().join(PAGE), "<!-- bench: a -->\n").unwrap();
        let error = publish(docs.path(), &[("a", String::new())], &[]).unwrap_err();
        assert!(error.to_string().contains("no part \"a\""), "{error}");
        let text = fs::read_to_string(docs.path().join(PAGE)).unwrap();
        assert_eq!(text, "<!-- bench: a -->\n");
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The licences of the libraries that are linked into the program.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;
use serde_json::Value;
use xshell::cmd;

use super::NAME;
use crate::shell::Env;

/// How the names of licence and notice files begin, in capitals.
const FILES: [&str; 5] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE"];

/// Lists each library with its licence, then each licence text with its libraries.
pub(super) fn licences(env: &Env) -> anyhow::Result<String> {
    let host = env.rustc("host: ")?;
    let text = cmd!(
        env.sh,
        "cargo metadata --format-version 1 --locked --filter-platform {host}"
    )
    .quiet()
    .read()?;
    let metadata: Value = serde_json::from_str(&text)?;
    let inside = inside(&metadata)?;
    let mut list = String::from("The libraries in the program:\n\n");
    let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in packages(&metadata).filter(|package| !package["source"].is_null()) {
        let (name, id) = (text_of(package, "name"), text_of(package, "id"));
        if !inside.contains(id) {
            continue;
        }
        let name = format!("{name} {}", text_of(package, "version"));
        writeln!(list, "{name}: {}", text_of(package, "license"))?;
        let dir = Path::new(text_of(package, "manifest_path")).parent();
        for file in env
            .sh
            .read_dir(dir.context("a manifest has no directory")?)?
        {
            let file_name = file.file_name().unwrap_or_default().to_string_lossy();
            let file_name = file_name.to_uppercase();
            if file.is_file() && FILES.iter().any(|begin| file_name.starts_with(begin)) {
                let text = env.sh.read_file(&file)?;
                texts.entry(text).or_default().insert(name.clone());
            }
        }
    }
    for (text, names) in texts {
        let names: Vec<_> = names.into_iter().collect();
        write!(
            list,
            "\n{}\n{}:\n\n{text}",
            "-".repeat(78),
            names.join(", ")
        )?;
    }
    Ok(list)
}

/// Returns the dependencies that are linked into the program, without those of tests and builds.
fn inside(metadata: &Value) -> anyhow::Result<BTreeSet<&str>> {
    let program = packages(metadata).find(|package| package["name"] == NAME);
    let program = program.context("cargo reports no such program")?;
    let nodes = metadata["resolve"]["nodes"].as_array();
    let nodes = nodes.context("cargo reports no dependencies")?;
    let nodes: BTreeMap<&str, &Value> = nodes
        .iter()
        .map(|node| (text_of(node, "id"), node))
        .collect();
    let mut inside = BTreeSet::new();
    let mut next = vec![text_of(program, "id")];
    while let Some(id) = next.pop() {
        if inside.insert(id) {
            let needed = nodes.get(id).and_then(|node| node["deps"].as_array());
            let needed = needed
                .into_iter()
                .flatten()
                .filter(|needed| is_built_in(needed));
            next.extend(needed.map(|needed| text_of(needed, "pkg")));
        }
    }
    Ok(inside)
}

/// Returns whether a dependency is needed for more than tests and builds.
fn is_built_in(needed: &Value) -> bool {
    let mut kinds = needed["dep_kinds"].as_array().into_iter().flatten();
    kinds.any(|kind| kind["kind"].is_null())
}

fn packages(metadata: &Value) -> impl Iterator<Item = &Value> {
    metadata["packages"].as_array().into_iter().flatten()
}

fn text_of<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn files_that_only_tests_need_are_not_inside() {
        let edge = |id: &str, kind: Value| json!({"pkg": id, "dep_kinds": [{"kind": kind}]});
        let metadata = json!({
            "packages": [{"name": NAME, "id": "p"}],
            "resolve": {"nodes": [
                {"id": "p", "deps": [edge("a", Value::Null), edge("t", json!("dev"))]},
                {"id": "a", "deps": [edge("b", Value::Null), edge("c", json!("build"))]},
            ]},
        });
        assert_eq!(inside(&metadata).unwrap(), BTreeSet::from(["a", "b", "p"]));
    }
}

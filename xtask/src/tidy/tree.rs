// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the rules look at: the repository's files and packages, read once.

use serde_json::Value;
use xshell::cmd;

use crate::shell::Env;
use crate::source::Source;

/// Something that a rule does not like.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// A path, with a line number where there is one.
    pub(crate) place: String,
    pub(crate) text: String,
}

impl Finding {
    /// About a whole file.
    pub(crate) fn new(place: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            text: text.into(),
        }
    }

    /// About a line.
    pub(crate) fn at(path: &str, line: usize, text: impl Into<String>) -> Self {
        Self::new(format!("{path}:{line}"), text)
    }
}

/// A text file that belongs to the repository.
#[derive(Debug)]
pub(crate) struct File {
    /// From the root, with forward slashes.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// A dependency, as a manifest has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// Whether it is for tests only.
    pub(crate) dev: bool,
    /// Whether it lies in this repository.
    pub(crate) local: bool,
    /// Whether the manifest asks for a version: then it must be published before.
    pub(crate) versioned: bool,
}

/// A package of the workspace.
#[derive(Debug, Clone)]
pub(crate) struct Package {
    pub(crate) name: String,
    /// Whether it lies in `crates`: the others are tools and tests.
    pub(crate) library: bool,
    pub(crate) dependencies: Vec<Dependency>,
}

/// The repository.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// All files that are text, also those not yet committed.
    pub(crate) files: Vec<File>,
    /// Those that are Rust.
    pub(crate) sources: Vec<Source>,
    pub(crate) packages: Vec<Package>,
}

impl Tree {
    pub(crate) fn read(env: &Env) -> anyhow::Result<Self> {
        let list = cmd!(
            env.sh,
            "git ls-files -z --cached --others --exclude-standard"
        )
        .quiet()
        .read()?;
        let mut files = Vec::new();
        for path in list.split('\0').filter(|path| !path.is_empty()) {
            // A file that was deleted is listed until that is committed; one that is not text is
            // not ours.
            if let Ok(text) = env.sh.read_file(path) {
                files.push((path, text));
            }
        }
        let mut tree = Self::new(files);
        tree.packages = packages(&env.metadata()?);
        Ok(tree)
    }

    /// A tree of these files.
    pub(crate) fn new<P: Into<String>, T: Into<String>>(
        files: impl IntoIterator<Item = (P, T)>,
    ) -> Self {
        let files: Vec<File> = files
            .into_iter()
            .map(|(path, text)| File {
                path: path.into(),
                text: text.into(),
            })
            .collect();
        let sources = files
            .iter()
            .filter(|file| file.path.ends_with(".rs"))
            .map(|file| Source::new(&file.path, &file.text))
            .collect();
        Self {
            files,
            sources,
            packages: Vec::new(),
        }
    }

    /// The text of a file.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.files
            .iter()
            .find(|file| file.path == path)
            .map(|file| file.text.as_str())
    }

    /// The sources of the library crates.
    pub(crate) fn library_sources(&self) -> impl Iterator<Item = &Source> {
        self.sources
            .iter()
            .filter(|source| source.path.starts_with("crates/") && source.path.contains("/src/"))
    }
}

/// The packages, from cargo's own description of the workspace.
fn packages(metadata: &Value) -> Vec<Package> {
    let list = |value: &'_ Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let crates = format!("{}/crates/", text(&metadata["workspace_root"]));
    list(&metadata["packages"])
        .iter()
        .map(|package| Package {
            name: text(&package["name"]),
            library: text(&package["manifest_path"]).starts_with(&crates),
            dependencies: list(&package["dependencies"])
                .iter()
                .map(|dependency| Dependency {
                    name: text(&dependency["name"]),
                    dev: dependency["kind"] == "dev",
                    local: dependency["path"].is_string(),
                    versioned: dependency["req"] != "*",
                })
                .collect(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_read_with_the_kind_of_each_dependency() {
        let metadata = serde_json::json!({"workspace_root": "/r", "packages": [{
            "name": "a",
            "manifest_path": "/r/crates/a/Cargo.toml",
            "dependencies": [
                {"name": "b", "kind": null, "req": "*", "path": "/r/b"},
                {"name": "c", "kind": "dev", "req": "^1.0"},
            ],
        }]});
        let packages = packages(&metadata);
        assert_eq!(packages[0].name, "a");
        assert!(packages[0].library);
        let expected = [
            Dependency {
                name: "b".to_owned(),
                dev: false,
                local: true,
                versioned: false,
            },
            Dependency {
                name: "c".to_owned(),
                dev: true,
                local: false,
                versioned: true,
            },
        ];
        assert_eq!(packages[0].dependencies, expected);
    }
}

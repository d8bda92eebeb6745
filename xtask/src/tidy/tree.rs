// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The repository's files and packages, read once for all rules.

use serde_json::Value;
use xshell::cmd;

use crate::shell::Env;
use crate::source::Source;

/// A violation of a rule.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// A path, with a line number if there is one.
    pub(crate) place: String,
    pub(crate) text: String,
}

impl Finding {
    /// A finding about a whole file.
    pub(crate) fn new(place: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            text: text.into(),
        }
    }

    /// A finding about a line.
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

/// A dependency, as the manifest describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// Whether it is for tests only.
    pub(crate) dev: bool,
    /// Whether it is in this repository.
    pub(crate) local: bool,
    /// Whether the manifest names a version. Then the dependency must be published first.
    pub(crate) versioned: bool,
}

/// A package of the workspace.
#[derive(Debug, Clone)]
pub(crate) struct Package {
    pub(crate) name: String,
    /// Whether it is in `crates`. The others are tools and tests.
    pub(crate) library: bool,
    pub(crate) dependencies: Vec<Dependency>,
}

/// The repository.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// All text files, including those that are not yet committed.
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
            // A deleted file is listed until its removal is committed. Binary files have no rules.
            if let Ok(text) = env.sh.read_file(path) {
                files.push((path, text));
            }
        }
        let mut tree = Self::new(files);
        tree.packages = packages(&env.metadata()?);
        Ok(tree)
    }

    /// Creates a tree of these files.
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

    /// Returns the text of a file.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.files
            .iter()
            .find(|file| file.path == path)
            .map(|file| file.text.as_str())
    }

    /// Returns the sources of the library crates.
    pub(crate) fn library_sources(&self) -> impl Iterator<Item = &Source> {
        self.sources
            .iter()
            .filter(|source| source.path.starts_with("crates/") && source.path.contains("/src/"))
    }
}

/// Returns the packages in cargo's description of the workspace.
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

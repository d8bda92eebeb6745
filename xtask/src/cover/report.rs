// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Has LLVM make its reports, and sums them up per crate.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context;
use xshell::cmd;

use super::figures::{Count, Row, read_lcov, read_regions};
use super::tools::Llvm;
use crate::shell::Env;
use crate::source::Source;

/// A merged profile with the programs that made it.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    env: &'a Env,
    cov: &'a Path,
    /// `--instr-profile` and `--object`.
    inputs: Vec<String>,
}

impl<'a> Report<'a> {
    pub(super) fn new(
        env: &'a Env,
        llvm: &'a Llvm,
        profile: &Path,
        objects: &[PathBuf],
    ) -> anyhow::Result<Self> {
        let mut inputs = vec![format!("--instr-profile={}", profile.display())];
        for (index, object) in objects.iter().enumerate() {
            let object = object.to_str().context("a path that is not text")?;
            inputs.push(if index == 0 {
                object.to_owned()
            } else {
                format!("--object={object}")
            });
        }
        // Only what lies in `crates` has a floor.
        inputs.push("--sources".to_owned());
        inputs.push(env.root.join("crates").display().to_string());
        Ok(Self {
            env,
            cov: &llvm.cov,
            inputs,
        })
    }

    /// Writes the pages; gives back the first one.
    pub(super) fn html(&self, dir: &Path) -> anyhow::Result<PathBuf> {
        let Self { env, cov, inputs } = self;
        cmd!(
            env.sh,
            "{cov} show --format=html --output-dir={dir} --show-instantiations=false {inputs...}"
        )
        .quiet()
        .run()?;
        Ok(dir.join("index.html"))
    }

    /// The figures of each crate, without its tests.
    pub(super) fn rows(&self, crates: &[String]) -> anyhow::Result<Vec<Row>> {
        let Self { env, cov, inputs } = self;
        let lcov = cmd!(env.sh, "{cov} export --format=lcov {inputs...}")
            .quiet()
            .read()?;
        let json = cmd!(
            env.sh,
            "{cov} export --format=text --skip-functions {inputs...}"
        )
        .quiet()
        .read()?;
        let mut files = read_lcov(&lcov);
        read_regions(&serde_json::from_str(&json)?, &mut files);
        let mut rows = Vec::new();
        for name in crates {
            let mut row = Row {
                name: name.clone(),
                ..Row::default()
            };
            let dir = env.root.join("crates").join(name);
            for (path, file) in files
                .iter()
                .filter(|(path, _)| Path::new(path).starts_with(&dir))
            {
                let relative = path
                    .strip_prefix(&format!("{}/", env.root.display()))
                    .unwrap_or(path);
                let source = Source::new(relative, &env.sh.read_file(path)?);
                file.add_to(&mut row, relative, source.production);
            }
            rows.push(row);
        }
        Ok(rows)
    }
}

fn floor(floors: &[(&str, f64)], name: &str) -> Option<f64> {
    floors
        .iter()
        .find(|(of, _)| *of == name)
        .map(|(_, floor)| *floor)
}

/// The figures as a text.
pub(super) fn table(rows: &[Row], floors: &[(&str, f64)]) -> String {
    let mut text = format!(
        "{:<22}{:>16}{:>9}{:>17}{:>17}",
        "crate", "lines", "floor", "functions", "regions"
    );
    let share = |count: Count| format!("{:.1} % of {:>4}", count.share(), count.all);
    for row in rows {
        let floor = floor(floors, &row.name)
            .map_or_else(|| "-".to_owned(), |floor| format!("{floor:.1} %"));
        let (lines, functions, regions) =
            (share(row.lines), share(row.functions), share(row.regions));
        let _ = write!(
            text,
            "\n{:<22}{lines:>16}{floor:>9}{functions:>17}{regions:>17}",
            row.name
        );
    }
    text
}

/// A sentence for each crate that is under its floor, or has a floor and no code.
pub(super) fn under_floor(rows: &[Row], floors: &[(&str, f64)]) -> Vec<String> {
    let mut low = Vec::new();
    for (name, floor) in floors {
        match rows
            .iter()
            .find(|row| row.name == *name && row.lines.all > 0)
        {
            None => low.push(format!("{name} has a floor and no lines")),
            Some(row) if row.lines.share() < *floor => {
                low.push(format!(
                    "{name} has {:.2} % of lines, its floor is {floor} %",
                    row.lines.share()
                ));
            }
            Some(_) => {}
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(hit: u32) -> [Row; 1] {
        [Row {
            name: "api".to_owned(),
            lines: Count { all: 100, hit },
            ..Row::default()
        }]
    }

    #[test]
    fn a_crate_under_its_floor_is_named() {
        assert_eq!(under_floor(&api(94), &[("api", 95.0)]).len(), 1);
        assert_eq!(under_floor(&api(95), &[("api", 95.0)]), [""; 0]);
    }

    #[test]
    fn a_floor_without_a_crate_is_an_error() {
        assert_eq!(
            under_floor(&api(100), &[("gone", 95.0)]),
            ["gone has a floor and no lines"]
        );
    }
}

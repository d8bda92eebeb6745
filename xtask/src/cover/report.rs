// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Reads LLVM's reports and sums them up per crate.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::Value;
use xshell::cmd;

use super::tools::Llvm;
use crate::shell::Env;
use crate::source::Source;

/// How many there are, and how many of them a test reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) all: u32,
    pub(crate) hit: u32,
}

impl Count {
    fn add(&mut self, hit: bool) {
        self.all += 1;
        self.hit += u32::from(hit);
    }

    /// In percent; all of nothing is 100.
    pub(crate) fn share(self) -> f64 {
        if self.all == 0 {
            100.0
        } else {
            100.0 * f64::from(self.hit) / f64::from(self.all)
        }
    }
}

/// The figures of one crate.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) lines: Count,
    pub(crate) functions: Count,
    pub(crate) regions: Count,
}

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
                file.add_to(
                    &mut row,
                    Source::new(relative, &env.sh.read_file(path)?).production,
                );
            }
            rows.push(row);
        }
        Ok(rows)
    }
}

/// What was reached in a file. A generic function is reached if one of its instances is.
#[derive(Debug, Default)]
struct File {
    /// By number.
    lines: BTreeMap<usize, bool>,
    /// By the line of their head.
    functions: BTreeMap<usize, bool>,
    /// By line and column of their first character.
    regions: BTreeMap<(usize, usize), bool>,
}

impl File {
    /// Adds the figures of the first `production` lines.
    fn add_to(&self, row: &mut Row, production: usize) {
        self.lines
            .range(..=production)
            .for_each(|(_, hit)| row.lines.add(*hit));
        self.functions
            .range(..=production)
            .for_each(|(_, hit)| row.functions.add(*hit));
        self.regions
            .range(..(production + 1, 0))
            .for_each(|(_, hit)| row.regions.add(*hit));
    }
}

/// Lines and functions, from the tracefile format of lcov.
fn read_lcov(text: &str) -> BTreeMap<String, File> {
    let mut files: BTreeMap<String, File> = BTreeMap::new();
    let mut path = String::new();
    let mut heads: BTreeMap<&str, usize> = BTreeMap::new();
    for (key, value) in text.lines().filter_map(|line| line.split_once(':')) {
        let (first, second) = value.split_once(',').unwrap_or((value, ""));
        match key {
            "SF" => {
                value.clone_into(&mut path);
                heads.clear();
            }
            "FN" => {
                heads.insert(second, first.parse().unwrap_or_default());
            }
            "FNDA" => {
                let head = heads.get(second).copied().unwrap_or_default();
                *files
                    .entry(path.clone())
                    .or_default()
                    .functions
                    .entry(head)
                    .or_default() |= first != "0";
            }
            "DA" => {
                let line = first.parse().unwrap_or_default();
                *files
                    .entry(path.clone())
                    .or_default()
                    .lines
                    .entry(line)
                    .or_default() |= second != "0";
            }
            _ => {}
        }
    }
    files
}

/// Regions, from the segments of LLVM's own format: line, column, count, has a count, is an entry,
/// is a gap.
fn read_regions(json: &Value, files: &mut BTreeMap<String, File>) {
    let list = |value: &'_ Value| value.as_array().cloned().unwrap_or_default();
    for file in list(&json["data"][0]["files"]) {
        let path = file["filename"].as_str().unwrap_or_default().to_owned();
        let regions = &mut files.entry(path).or_default().regions;
        for segment in list(&file["segments"]) {
            let flag = |index: usize| segment[index].as_bool().unwrap_or_default();
            let number = |index: usize| segment[index].as_u64().unwrap_or_default();
            let place = |index: usize| usize::try_from(number(index)).unwrap_or_default();
            if flag(3) && flag(4) && !flag(5) {
                *regions.entry((place(0), place(1))).or_default() |= number(2) > 0;
            }
        }
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

    const LCOV: &str = "SF:/r/a.rs\nFN:1,f::<u8>\nFN:1,f::<u16>\nFN:9,test\nFNDA:0,f::<u8>\nFNDA:2,f::<u16>\n\
                        FNDA:1,test\nDA:1,2\nDA:2,0\nDA:9,1\nend_of_record\n";

    fn row(production: usize) -> Row {
        let json = r#"{"data":[{"files":[{"filename":"/r/a.rs","segments":[
            [1,1,2,true,true,false],[2,5,0,true,true,false],[2,9,2,true,false,false],[2,10,0,true,true,true],
            [9,1,1,true,true,false]]}]}]}"#;
        let mut files = read_lcov(LCOV);
        read_regions(&serde_json::from_str(json).unwrap(), &mut files);
        let mut row = Row::default();
        files["/r/a.rs"].add_to(&mut row, production);
        row
    }

    #[test]
    fn every_line_function_and_region_counts_once() {
        let row = row(100);
        assert_eq!(row.lines, Count { all: 3, hit: 2 });
        assert_eq!(row.functions, Count { all: 2, hit: 2 });
        assert_eq!(row.regions, Count { all: 3, hit: 2 });
    }

    #[test]
    fn tests_do_not_count() {
        let row = row(8);
        assert_eq!(row.lines, Count { all: 2, hit: 1 });
        assert_eq!(row.functions, Count { all: 1, hit: 1 });
        assert_eq!(row.regions, Count { all: 2, hit: 1 });
    }

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

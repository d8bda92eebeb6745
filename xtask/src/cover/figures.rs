// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the tests reached, as LLVM writes it and as sums.

use std::collections::BTreeMap;

use serde_json::Value;

/// How many there are, and how many of them a test reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) all: u32,
    pub(super) hit: u32,
}

impl Count {
    fn add(&mut self, hit: bool) {
        self.all += 1;
        self.hit += u32::from(hit);
    }

    /// In percent; all of nothing is 100.
    pub(super) fn share(self) -> f64 {
        if self.all == 0 {
            100.0
        } else {
            100.0 * f64::from(self.hit) / f64::from(self.all)
        }
    }
}

/// The figures of one crate.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) lines: Count,
    pub(super) functions: Count,
    pub(super) regions: Count,
    /// The lines that no test reached, as `path:first-last`.
    pub(super) missed: Vec<String>,
}

/// What was reached in a file. A generic function is reached if one of its instances is.
#[derive(Debug, Default)]
pub(super) struct File {
    /// By number.
    lines: BTreeMap<usize, bool>,
    /// By the line of their head.
    functions: BTreeMap<usize, bool>,
    /// By line and column of their first character.
    regions: BTreeMap<(usize, usize), bool>,
}

impl File {
    /// Adds the figures of the first `production` lines.
    pub(super) fn add_to(&self, row: &mut Row, path: &str, production: usize) {
        let lines: Vec<(usize, bool)> = self
            .lines
            .range(..=production)
            .map(|(n, hit)| (*n, *hit))
            .collect();
        lines.iter().for_each(|(_, hit)| row.lines.add(*hit));
        self.functions
            .range(..=production)
            .for_each(|(_, hit)| row.functions.add(*hit));
        self.regions
            .range(..(production + 1, 0))
            .for_each(|(_, hit)| row.regions.add(*hit));
        for run in lines.chunk_by(|a, b| a.1 == b.1) {
            match run {
                [(line, false)] => row.missed.push(format!("{path}:{line}")),
                [(first, false), .., (last, _)] => {
                    row.missed.push(format!("{path}:{first}-{last}"));
                }
                _ => {}
            }
        }
    }
}

/// Lines and functions, from the tracefile format of lcov.
pub(super) fn read_lcov(text: &str) -> BTreeMap<String, File> {
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
pub(super) fn read_regions(json: &Value, files: &mut BTreeMap<String, File>) {
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

#[cfg(test)]
mod tests {
    use super::{Count, Row, read_lcov, read_regions};

    const LCOV: &str = "SF:/r/a.rs\nFN:1,f::<u8>\nFN:1,f::<u16>\nFN:9,test\nFNDA:0,f::<u8>\nFNDA:2,f::<u16>\n\
                        FNDA:1,test\nDA:1,2\nDA:2,0\nDA:9,1\nend_of_record\n";

    fn row(production: usize) -> Row {
        let json = r#"{"data":[{"files":[{"filename":"/r/a.rs","segments":[
            [1,1,2,true,true,false],[2,5,0,true,true,false],[2,9,2,true,false,false],[2,10,0,true,true,true],
            [9,1,1,true,true,false]]}]}]}"#;
        let mut files = read_lcov(LCOV);
        read_regions(&serde_json::from_str(json).unwrap(), &mut files);
        let mut row = Row::default();
        files["/r/a.rs"].add_to(&mut row, "a.rs", production);
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

    #[test]
    fn missed_lines_next_to_each_other_are_one_range() {
        let lcov = "SF:a\nDA:1,1\nDA:2,0\nDA:3,0\nDA:5,0\nDA:6,1\nDA:7,0\nDA:9,0\n";
        let mut row = Row::default();
        read_lcov(lcov)["a"].add_to(&mut row, "a.rs", 8);
        assert_eq!(row.missed, ["a.rs:2-5", "a.rs:7"]);
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The file that is sent.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

/// The file is held in memory twice, so it must not be larger: 1 GiB.
const LIMIT: u64 = 1 << 30;

/// The largest file in the directories that the build has just filled, up to the limit.
pub(crate) fn largest_beside_this_program() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("this program does not know where it is")?;
    let directory = program
        .parent()
        .context("this program is in no directory")?;
    let files = [directory.to_path_buf(), directory.join("deps")];
    let largest = files
        .iter()
        .filter_map(|directory| fs::read_dir(directory).ok())
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let metadata = entry.metadata().ok()?;
            let fits = metadata.is_file() && metadata.len() <= LIMIT;
            fits.then(|| (metadata.len(), entry.path()))
        })
        .max();
    let (_, path) = largest.context("there is no file beside this program; name one")?;
    Ok(path)
}

/// Reads the whole file.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let cannot = || {
        format!(
            "cannot read {}; name a file that you may read",
            path.display()
        )
    };
    let file = File::open(path).with_context(cannot)?;
    let mut bytes = Vec::new();
    file.take(LIMIT + 1)
        .read_to_end(&mut bytes)
        .with_context(cannot)?;
    ensure!(
        bytes.len() as u64 <= LIMIT,
        "{} is larger than 1 GiB, which is held in memory twice; name a smaller file",
        path.display()
    );
    Ok(bytes)
}

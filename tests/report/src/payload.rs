// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The file that a demo sends there and back, held in memory and digested before and after.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use sha2::Sha256;

use crate::progress::Progress;

/// The file is held in memory twice, so it must not be larger: 1 GiB.
const LARGEST: u64 = 1 << 30;
/// How much is written or read at once.
const PIECE: usize = 64 * 1024;

/// SHA-256, and how it is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Of all of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(<Sha256 as sha2::Digest>::digest(bytes).into())
    }

    /// Whether the same came back.
    ///
    /// # Errors
    ///
    /// Both digests, if it did not.
    pub fn check(self, back: &[u8]) -> anyhow::Result<()> {
        let received = Self::of(back);
        ensure!(
            received == self,
            "what came back is not what was sent: SHA-256 {received} instead of {self}"
        );
        Ok(())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The largest file in the directories that the build has just filled, up to 1 GiB.
///
/// # Errors
///
/// There is none.
pub fn largest_of_build() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("this program does not know where it is")?;
    let directory = program
        .parent()
        .context("this program is in no directory")?;
    let files = [directory.to_path_buf(), directory.join("deps")];
    let entries = files
        .iter()
        .filter_map(|directory| fs::read_dir(directory).ok())
        .flatten();
    let sizes = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        let metadata = entry.metadata().ok()?;
        let fits = metadata.is_file() && metadata.len() <= LARGEST;
        fits.then(|| (metadata.len(), entry.path()))
    });
    let (_, path) = sizes
        .max()
        .context("there is no file beside this program; name one")?;
    Ok(path)
}

/// Reads the whole file.
///
/// # Errors
///
/// It cannot be read, or is larger than 1 GiB.
pub fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let name = path.display();
    let cannot = || format!("cannot read {name}; name a file that you may read");
    let file = File::open(path).with_context(cannot)?;
    let mut bytes = Vec::new();
    let read = file.take(LARGEST + 1).read_to_end(&mut bytes);
    ensure!(
        read.with_context(cannot)? as u64 <= LARGEST,
        "{name} is larger than 1 GiB, which is held in memory twice; name a smaller file"
    );
    Ok(bytes)
}

/// Writes all of `bytes` in pieces.
///
/// # Errors
///
/// Those of the writer.
pub fn send(writer: &mut (impl Write + ?Sized), bytes: &[u8]) -> io::Result<()> {
    bytes
        .chunks(PIECE)
        .try_for_each(|piece| writer.write_all(piece))
}

/// Reads into `back` up to the end; returns how many bytes came, which may be more than fit.
///
/// # Errors
///
/// Those of the reader.
pub fn receive(
    reader: &mut (impl Read + ?Sized),
    back: &mut [u8],
    progress: &Progress,
) -> io::Result<usize> {
    let (mut received, mut excess) = (0, [0; 1]);
    loop {
        let end = (received + PIECE).min(back.len());
        let place = match back.get_mut(received..end) {
            Some(place) if !place.is_empty() => place,
            _ => &mut excess,
        };
        match reader.read(place)? {
            0 => return Ok(received),
            read => {
                received += read;
                progress.advance(read as u64);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_that_of_the_standard() {
        let nothing = Digest::of(b"").to_string();
        assert!(nothing.starts_with("e3b0c44298fc1c14") && nothing.ends_with("7852b855"));
    }

    #[test]
    fn one_changed_bit_shows() {
        assert!(Digest::of(&[0, 1]).check(&[0, 0]).is_err());
        Digest::of(&[0, 1]).check(&[0, 1]).unwrap();
    }

    #[test]
    fn bytes_that_do_not_fit_are_counted() {
        let mut back = [0; 2];
        let progress = Progress::of_bytes(3);
        assert_eq!(receive(&mut &b"abc"[..], &mut back, &progress).unwrap(), 3);
        assert_eq!(back, *b"ab");
    }
}

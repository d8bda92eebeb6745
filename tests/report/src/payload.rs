// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a demo sends: a file, or random bytes.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

/// How many bytes are made up when no file is named.
const GENERATED: u64 = 64 << 20;
/// Any number: the bytes are the same in every round.
const SEED: u64 = 0x5EED;

/// The source of the bytes that a demo sends.
///
/// ```
/// let payload = vsock_report::Payload::new(None)?;
/// assert_eq!(payload.len(), 64 << 20);
/// assert_eq!(payload.to_string(), "64 MiB of random bytes");
/// # anyhow::Ok(())
/// ```
#[derive(Debug)]
pub struct Payload {
    /// The file, unless the bytes are generated.
    file: Option<PathBuf>,
    len: u64,
}

impl Payload {
    /// The file of this name, or 64 MiB of random bytes.
    ///
    /// # Errors
    ///
    /// The file does not exist, or is not a regular file.
    pub fn new(file: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = file else {
            return Ok(Self {
                file: None,
                len: GENERATED,
            });
        };
        let name = path.display();
        let metadata = path
            .metadata()
            .with_context(|| format!("cannot read {name}; name a file that you may read"))?;
        ensure!(
            metadata.is_file(),
            "{name} is not a regular file; name one that you can read"
        );
        Ok(Self {
            file: Some(path.to_owned()),
            len: metadata.len(),
        })
    }

    /// Its length in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "no caller needs it")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Its bytes from the beginning. A file that has grown is cut off, so that rounds agree.
    ///
    /// # Errors
    ///
    /// The file cannot be opened.
    pub fn open(&self) -> anyhow::Result<Box<dyn Read>> {
        match &self.file {
            None => Ok(Box::new(Random(SEED).take(self.len))),
            Some(path) => {
                let name = path.display();
                let file = File::open(path).with_context(|| {
                    format!("cannot read {name}; name a file that you may read")
                })?;
                Ok(Box::new(file.take(self.len)))
            }
        }
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            None => write!(f, "{} MiB of random bytes", self.len >> 20),
            Some(path) => write!(f, "{} ({} bytes)", path.display(), self.len),
        }
    }
}

/// The generator `SplitMix64`: bytes that no transport could compress or confuse.
struct Random(u64);

impl Read for Random {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        for piece in buf.chunks_mut(8) {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut word = self.0;
            word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            word ^= word >> 31;
            for (to, from) in piece.iter_mut().zip(word.to_le_bytes()) {
                *to = from;
            }
        }
        Ok(buf.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_the_published_one() {
        let mut bytes = [0; 8];
        Random(0).read_exact(&mut bytes).unwrap();
        assert_eq!(u64::from_le_bytes(bytes), 0xE220_A839_7B1D_CDAF);
    }

    #[test]
    fn every_round_gets_the_same_bytes() {
        let payload = Payload::new(None).unwrap();
        let read = || {
            let mut bytes = Vec::new();
            payload.open().unwrap().read_to_end(&mut bytes).unwrap();
            bytes
        };
        let first = read();
        assert_eq!(first.len() as u64, GENERATED);
        assert!(first == read());
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The destination of a capture: a regular file, which always ends with a complete block, or any
//! other writer.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::pcapng;
use crate::journal::{CAPTURES, say};

pub(super) struct Sink {
    output: Output,
    /// The size of the complete blocks in bytes.
    len: u64,
}

enum Output {
    /// A regular file, which can be truncated.
    File(File),
    Stream(Box<dyn Write + Send>),
}

/// How to handle an existing file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Existing {
    Overwritten,
    /// The file is kept, and opening it is an error.
    Kept,
}

/// A failure to write some of the blocks.
#[derive(Debug)]
pub(super) struct Unwritten {
    /// The size of the complete blocks that were written before, in bytes.
    pub(super) written: usize,
    pub(super) source: io::Error,
}

impl Sink {
    /// Creates a file that only its owner can read, or truncates an existing one if permitted.
    ///
    /// A FIFO must already have a reader.
    pub(super) fn open(path: &Path, existing: Existing) -> io::Result<Self> {
        // Opening a FIFO without a reader would otherwise block until there is one.
        let no_wait = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .create_new(existing == Existing::Kept)
            .mode(0o600)
            .custom_flags(no_wait)
            .open(path)?;
        let kind = file.metadata()?.file_type();
        if kind.is_block_device() {
            let text = "expected a file, a FIFO or a character device, found a block device";
            return Err(io::Error::new(ErrorKind::InvalidInput, text));
        }
        // From now on, only the writer thread uses the file, and it may block.
        fcntl_setfl(&file, fcntl_getfl(&file)?.difference(OFlags::NONBLOCK))?;
        Ok(if kind.is_file() {
            Self::new(Output::File(file))
        } else {
            Self::to(file)
        })
    }

    /// Creates a sink for any other writer.
    pub(super) fn to(writer: impl Write + Send + 'static) -> Self {
        Self::new(Output::Stream(Box::new(writer)))
    }

    const fn new(output: Output) -> Self {
        Self { output, len: 0 }
    }

    /// The size of the complete blocks that were written, in bytes.
    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    /// Writes complete blocks. After a failure, truncates a file after its last complete block.
    pub(super) fn write(&mut self, blocks: &[u8]) -> Result<(), Unwritten> {
        let (done, result) = self.output.write_all(blocks);
        // A failed write can end in the middle of a block, which must not stay in the file.
        let whole = match result {
            Ok(()) => done,
            Err(_) => whole_blocks(blocks, done as u64),
        };
        self.len += whole as u64;
        result.map_err(|source| {
            let written = whole;
            self.output.shorten(self.len);
            Unwritten { written, source }
        })
    }

    /// Whether the output ends with a complete block even after a failure.
    pub(super) const fn ends_whole(&self) -> bool {
        matches!(self.output, Output::File(_))
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        match &mut self.output {
            Output::File(file) => file.flush(),
            Output::Stream(writer) => writer.flush(),
        }
    }
}

impl Output {
    /// Writes bytes. Returns how many were written, and the error if these are not all.
    fn write_all(&mut self, bytes: &[u8]) -> (usize, io::Result<()>) {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            let written = match self {
                Self::File(file) => file.write(rest),
                Self::Stream(writer) => writer.write(rest),
            };
            match written {
                Ok(0) => return (done, Err(ErrorKind::WriteZero.into())),
                Ok(count) => done = done.saturating_add(count).min(bytes.len()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return (done, Err(error)),
            }
        }
        (done, Ok(()))
    }

    fn shorten(&mut self, len: u64) {
        if let Self::File(file) = self {
            let shortened = file
                .set_len(len)
                .and_then(|()| file.seek(SeekFrom::Start(len)));
            if let Err(error) = shortened {
                say!(
                    CAPTURES,
                    Debug,
                    "cannot truncate the capture after its last packet: {error}"
                );
            }
        }
    }
}

/// Returns the size of all blocks that are entirely within the first `limit` bytes.
pub(super) fn whole_blocks(blocks: &[u8], limit: u64) -> usize {
    let mut whole: usize = 0;
    while let Some(block) = blocks.get(whole..).and_then(pcapng::first) {
        let end = whole.saturating_add(block.len);
        if end as u64 > limit {
            break;
        }
        whole = end;
    }
    whole
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

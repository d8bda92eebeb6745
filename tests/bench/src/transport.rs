// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The rows of every table: ways to carry bytes between two threads of one process.

mod pipe;
mod ring;
mod unix;

use std::io::{self, Read, Write};

pub(crate) use pipe::Pipe;
pub(crate) use ring::BareRing;
pub(crate) use unix::UnixPair;

/// A way to make two connected ends.
pub(crate) trait Transport {
    /// One end: a byte stream in both directions, blocking.
    type End: Read + Write + Send + 'static;

    /// Makes a connected pair of ends.
    fn pair(&self) -> io::Result<(Self::End, Self::End)>;
}

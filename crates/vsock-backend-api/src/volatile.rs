// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io;

use vm_memory::bitmap::BitmapSlice;
use vm_memory::{ReadVolatile, VolatileMemoryError, VolatileSlice, WriteVolatile};

use crate::VsockStream;

/// A stream that copies to and from guest memory by itself, with no buffer in between.
///
/// What a packet or a row of packets needs lies in several pieces of guest memory. A stream for which a
/// call has a price, be it a system call or an atomic operation, takes many pieces in one. The methods
/// are to [`ReadVolatile`] and [`WriteVolatile`] what `read_vectored` and `write_vectored` are to `Read`
/// and `Write`: a stream that leaves them as they are takes the first piece that is not empty.
///
/// A call whose bytes end within a piece has found no more for now. One that has stopped between two
/// pieces may be followed by another.
pub trait VsockVolatileStream: VsockStream + ReadVolatile + WriteVolatile {
    /// Reads into the pieces, one after the other. 0 bytes are the end of the stream, or there was no
    /// place for any.
    ///
    /// # Errors
    ///
    /// As a read. Nothing was read then.
    fn read_volatile_vectored<B: BitmapSlice>(
        &mut self,
        pieces: &[VolatileSlice<'_, B>],
    ) -> io::Result<usize> {
        let Some(piece) = first(pieces) else {
            return Ok(0);
        };
        self.read_volatile(&mut piece.clone())
            .map_err(into_io_error)
    }

    /// Writes what is in the pieces, one after the other.
    ///
    /// # Errors
    ///
    /// As a write. Nothing was written then.
    fn write_volatile_vectored<B: BitmapSlice>(
        &mut self,
        pieces: &[VolatileSlice<'_, B>],
    ) -> io::Result<usize> {
        let Some(piece) = first(pieces) else {
            return Ok(0);
        };
        self.write_volatile(piece).map_err(into_io_error)
    }

    /// How many bytes wait to be read at least, as far as that is known without a system call: memory for
    /// more would be offered in vain. By default, as many as one likes.
    fn readable_bytes(&self) -> usize {
        usize::MAX
    }
}

fn first<'a, 'm, B: BitmapSlice>(
    pieces: &'a [VolatileSlice<'m, B>],
) -> Option<&'a VolatileSlice<'m, B>> {
    pieces.iter().find(|piece| !piece.is_empty())
}

fn into_io_error(error: VolatileMemoryError) -> io::Error {
    match error {
        VolatileMemoryError::IOError(error) => error,
        other => io::Error::other(other),
    }
}

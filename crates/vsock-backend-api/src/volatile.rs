// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io;

use vm_memory::bitmap::BitmapSlice;
use vm_memory::{ReadVolatile, VolatileMemoryError, VolatileSlice, WriteVolatile};

use crate::VsockStream;

/// A stream that copies to and from guest memory directly, without an intermediate buffer.
///
/// The payload of one packet, or of several in a row, occupies several pieces of guest memory. A
/// stream whose calls are expensive, because each is a system call or an atomic operation, can
/// transfer all pieces in one call. The methods relate to [`ReadVolatile`] and [`WriteVolatile`] as
/// `read_vectored` and `write_vectored` do to `Read` and `Write`. The defaults transfer the first
/// piece that is not empty, and return `InvalidData` if the underlying call reports more bytes than
/// the piece has.
///
/// A call that ends within a piece has found nothing more for now. After a call that ends between
/// two pieces, another may transfer more.
pub trait VsockVolatileStream: VsockStream + ReadVolatile + WriteVolatile {
    /// Reads into the pieces, in order. Returns 0 at the end of the stream, or if the pieces have
    /// no room.
    ///
    /// # Errors
    ///
    /// As for a read; nothing was read.
    fn read_volatile_vectored<B: BitmapSlice>(
        &mut self,
        pieces: &[VolatileSlice<'_, B>],
    ) -> io::Result<usize> {
        let Some(piece) = first(pieces) else {
            return Ok(0);
        };
        counted(self.read_volatile(&mut piece.clone()), piece.len())
    }

    /// Writes the content of the pieces, in order.
    ///
    /// # Errors
    ///
    /// As for a write; nothing was written.
    fn write_volatile_vectored<B: BitmapSlice>(
        &mut self,
        pieces: &[VolatileSlice<'_, B>],
    ) -> io::Result<usize> {
        let Some(piece) = first(pieces) else {
            return Ok(0);
        };
        counted(self.write_volatile(piece), piece.len())
    }

    /// Returns how many bytes are worth providing memory for: the bytes that wait to be read, as
    /// far as the stream knows without a system call. A guess that is too low costs an additional
    /// call. The default, `usize::MAX`, means unknown.
    fn readable_bytes(&self) -> usize {
        usize::MAX
    }
}

fn first<'a, 'm, B: BitmapSlice>(
    pieces: &'a [VolatileSlice<'m, B>],
) -> Option<&'a VolatileSlice<'m, B>> {
    pieces.iter().find(|piece| !piece.is_empty())
}

/// Checks the result of a call that was offered `offered` bytes.
fn counted(result: Result<usize, VolatileMemoryError>, offered: usize) -> io::Result<usize> {
    match result.map_err(into_io_error)? {
        moved if moved <= offered => Ok(moved),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn into_io_error(error: VolatileMemoryError) -> io::Error {
    match error {
        VolatileMemoryError::IOError(error) => error,
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use std::any::Any;
    use std::io::{self, Read, Write};
    use std::os::fd::{AsRawFd, RawFd};

    use vm_memory::bitmap::BitmapSlice;
    use vm_memory::{ReadVolatile, VolatileMemoryError, VolatileSlice, WriteVolatile};

    use super::VsockVolatileStream;
    use crate::{VsockBackendType, VsockStream};

    /// Written bytes can be read. It transfers one piece at a time, and reports this number of
    /// bytes too many.
    struct Loopback(Vec<u8>, usize);

    impl Read for Loopback {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let len = buf.len().min(self.0.len());
            buf[..len].copy_from_slice(&self.0[..len]);
            self.0.drain(..len);
            Ok(len)
        }
    }

    impl ReadVolatile for Loopback {
        fn read_volatile<B: BitmapSlice>(
            &mut self,
            buf: &mut VolatileSlice<'_, B>,
        ) -> Result<usize, VolatileMemoryError> {
            let mut bytes = vec![0; buf.len()];
            let len = self
                .read(&mut bytes)
                .map_err(VolatileMemoryError::IOError)?;
            buf.copy_from(&bytes[..len]);
            Ok(len + self.1)
        }
    }

    impl Write for Loopback {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.0.write(buf)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl WriteVolatile for Loopback {
        fn write_volatile<B: BitmapSlice>(
            &mut self,
            buf: &VolatileSlice<'_, B>,
        ) -> Result<usize, VolatileMemoryError> {
            if buf.len() > 3 {
                return Err(VolatileMemoryError::Misaligned {
                    addr: 1,
                    alignment: 8,
                });
            }
            let mut bytes = vec![0; buf.len()];
            buf.copy_to(&mut bytes[..]);
            let len = self.write(&bytes).map_err(VolatileMemoryError::IOError)?;
            Ok(len + self.1)
        }
    }

    impl AsRawFd for Loopback {
        fn as_raw_fd(&self) -> RawFd {
            -1
        }
    }

    impl VsockStream for Loopback {
        fn backend_type(&self) -> VsockBackendType {
            VsockBackendType::Other("loopback")
        }

        fn as_any(&self) -> &dyn Any {
            self
        }
    }

    impl VsockVolatileStream for Loopback {}

    #[test]
    fn the_default_transfers_the_first_piece_that_is_not_empty() {
        let mut stream = Loopback(Vec::new(), 0);
        let (mut none, mut first, mut second) = ([0; 0], *b"abc", *b"de");
        let pieces = [
            VolatileSlice::from(&mut none[..]),
            VolatileSlice::from(&mut first[..]),
            VolatileSlice::from(&mut second[..]),
        ];
        assert_eq!(stream.write_volatile_vectored(&pieces).unwrap(), 3);
        assert_eq!(stream.0, b"abc");
        let into = [&pieces[0], &pieces[2]].map(VolatileSlice::clone);
        assert_eq!(stream.read_volatile_vectored(&into).unwrap(), 2);
        assert_eq!((second, stream.0.as_slice()), (*b"ab", &b"c"[..]));
        assert_eq!(stream.readable_bytes(), usize::MAX);
    }

    #[test]
    fn t132_a_count_of_more_than_the_piece_is_an_error() {
        let mut two = *b"ab";
        let piece = VolatileSlice::from(&mut two[..]);
        let pieces = [piece, piece];
        let mut liar = Loopback(b"abcd".to_vec(), 1);
        let error = liar.read_volatile_vectored(&pieces);
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::InvalidData);
        let error = liar.write_volatile_vectored(&pieces);
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn empty_pieces_transfer_nothing() {
        let mut stream = Loopback(b"abc".to_vec(), 0);
        let mut none = [0; 0];
        let pieces = [VolatileSlice::from(&mut none[..])];
        assert_eq!(stream.read_volatile_vectored(&pieces).unwrap(), 0);
        assert_eq!(stream.write_volatile_vectored(&pieces).unwrap(), 0);
        assert_eq!(stream.0, b"abc");
    }

    #[test]
    fn an_error_of_volatile_memory_becomes_an_io_error() {
        let mut long = *b"abcd";
        let pieces = [VolatileSlice::from(&mut long[..])];
        let error = Loopback(Vec::new(), 0).write_volatile_vectored(&pieces);
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::Other);
    }
}

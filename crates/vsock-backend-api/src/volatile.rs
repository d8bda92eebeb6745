// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io;

use vm_memory::bitmap::BitmapSlice;
use vm_memory::{ReadVolatile, VolatileMemoryError, VolatileSlice, WriteVolatile};

use crate::VsockStream;

/// A stream that copies to and from guest memory by itself, with no buffer in between.
///
/// What a packet or a row of packets needs lies in several pieces of guest memory. A stream for
/// which a call has a price, be it a system call or an atomic operation, takes many pieces in one.
/// The methods are to [`ReadVolatile`] and [`WriteVolatile`] what `read_vectored` and
/// `write_vectored` are to `Read` and `Write`: a stream that leaves them as they are takes the
/// first piece that is not empty, and one that counts more bytes than that has is `InvalidData`.
///
/// A call whose bytes end within a piece has found no more for now. One that has stopped between
/// two pieces may be followed by another.
pub trait VsockVolatileStream: VsockStream + ReadVolatile + WriteVolatile {
    /// Reads into the pieces, one after the other. 0 bytes are the end of the stream, or there was
    /// no place for any.
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
        counted(self.read_volatile(&mut piece.clone()), piece.len())
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
        counted(self.write_volatile(piece), piece.len())
    }

    /// How many bytes are worth offering memory for: what waits to be read, known or guessed
    /// without a system call. Too low a guess costs another call. `usize::MAX`, the default, means
    /// unknown.
    fn readable_bytes(&self) -> usize {
        usize::MAX
    }
}

fn first<'a, 'm, B: BitmapSlice>(
    pieces: &'a [VolatileSlice<'m, B>],
) -> Option<&'a VolatileSlice<'m, B>> {
    pieces.iter().find(|piece| !piece.is_empty())
}

/// The result of a call that was offered `offered` bytes.
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

    /// What is written can be read; it knows one piece at a call, and counts this number of bytes
    /// too much.
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
    fn a_stream_of_single_pieces_takes_the_first_that_is_not_empty() {
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
    fn without_a_place_for_a_byte_nothing_is_moved() {
        let mut stream = Loopback(b"abc".to_vec(), 0);
        let mut none = [0; 0];
        let pieces = [VolatileSlice::from(&mut none[..])];
        assert_eq!(stream.read_volatile_vectored(&pieces).unwrap(), 0);
        assert_eq!(stream.write_volatile_vectored(&pieces).unwrap(), 0);
        assert_eq!(stream.0, b"abc");
    }

    #[test]
    fn a_failure_that_is_none_of_io_becomes_one() {
        let mut long = *b"abcd";
        let pieces = [VolatileSlice::from(&mut long[..])];
        let error = Loopback(Vec::new(), 0).write_volatile_vectored(&pieces);
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::Other);
    }
}

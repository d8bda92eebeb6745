// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Reading into guest memory and writing from it, any number of pieces in one publication.

use std::io;
use std::slice;

use vm_memory::bitmap::BitmapSlice;
use vm_memory::{ReadVolatile, VolatileMemoryError, VolatileSlice, WriteVolatile};
use vsock_backend_api::VsockVolatileStream;

use crate::half::total;
use crate::reader::{READING, VsockInnerReader};
use crate::stream::VsockInnerStream;
use crate::writer::VsockInnerWriter;

impl VsockInnerReader {
    /// Like a vectored read, directly into pieces of guest memory. If a bitmap of a piece panics,
    /// nothing has been read.
    ///
    /// # Errors
    ///
    /// As for a read.
    pub fn read_volatile_vectored<B: BitmapSlice>(
        &mut self,
        pieces: &[VolatileSlice<'_, B>],
    ) -> io::Result<usize> {
        match total(pieces.iter().map(VolatileSlice::len)) {
            0 => Ok(0),
            len => self.transfer(READING, |consumer| consumer.read_volatile(pieces, len)),
        }
    }
}

impl VsockInnerWriter {
    /// Like a vectored write, directly from pieces of guest memory.
    ///
    /// # Errors
    ///
    /// As for a write.
    pub fn write_volatile_vectored<B: BitmapSlice>(
        &mut self,
        pieces: &[VolatileSlice<'_, B>],
    ) -> io::Result<usize> {
        match total(pieces.iter().map(VolatileSlice::len)) {
            0 => Ok(0),
            _ if self.is_answer_pending() => {
                let mut line = [0; 32];
                let first = pieces.iter().find(|piece| !piece.is_empty());
                let len = first.map_or(0, |piece| piece.copy_to(&mut line));
                self.write_answer(&line[..len])
            }
            len => self.transfer(len, |producer, done| {
                producer.write_volatile(pieces, done, len - done)
            }),
        }
    }
}

impl VsockVolatileStream for VsockInnerStream {
    fn read_volatile_vectored<B: BitmapSlice>(
        &mut self,
        pieces: &[VolatileSlice<'_, B>],
    ) -> io::Result<usize> {
        self.reader.read_volatile_vectored(pieces)
    }

    fn write_volatile_vectored<B: BitmapSlice>(
        &mut self,
        pieces: &[VolatileSlice<'_, B>],
    ) -> io::Result<usize> {
        let written = self.writer.write_volatile_vectored(pieces);
        self.reader.wrote(&written);
        written
    }

    fn readable_bytes(&self) -> usize {
        usize::try_from(self.queued_in()).unwrap_or(usize::MAX)
    }
}

/// Implements one of `vm-memory`'s traits with the call for any number of pieces.
macro_rules! one_piece {
    ($trait:ident for $type:ty: $method:ident($($buf:tt)+) by $vectored:ident) => {
        impl $trait for $type {
            fn $method<B: BitmapSlice>(
                &mut self,
                buf: $($buf)+ VolatileSlice<'_, B>,
            ) -> Result<usize, VolatileMemoryError> {
                let moved = self.$vectored(slice::from_ref(buf));
                moved.map_err(VolatileMemoryError::IOError)
            }
        }
    };
}

one_piece!(ReadVolatile for VsockInnerReader: read_volatile(&mut) by read_volatile_vectored);
one_piece!(ReadVolatile for VsockInnerStream: read_volatile(&mut) by read_volatile_vectored);
one_piece!(WriteVolatile for VsockInnerWriter: write_volatile(&) by write_volatile_vectored);
one_piece!(WriteVolatile for VsockInnerStream: write_volatile(&) by write_volatile_vectored);

#[cfg(test)]
mod panics;

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};

    use proptest::collection::vec;
    use proptest::{prop_assert, prop_assert_eq, proptest};
    use vm_memory::{ReadVolatile, VolatileMemoryError, VolatileSlice, WriteVolatile};
    use vsock_backend_api::{VsockStream, VsockVolatileStream};

    use crate::{Capacity, VsockInnerConfig, VsockInnerStream};

    /// More than two blocks, so that their boundaries are crossed.
    const LEN: usize = 40_000;

    fn pattern() -> Vec<u8> {
        (0..LEN).map(|at| u8::try_from(at % 251).unwrap()).collect()
    }

    #[test]
    fn streams_and_halves_read_into_guest_memory_and_write_from_it() {
        let (mut near, mut far) = VsockInnerStream::pair().unwrap();
        let (mut source, mut target) = (pattern(), vec![0; LEN + 9]);
        let memory = VolatileSlice::from(&mut source[..]);
        near.write_all(&[1, 2, 3]).unwrap();
        near.write_all_volatile(&memory).unwrap();
        assert_eq!(far.read(&mut [0; 3]).unwrap(), 3);
        let got = far.read_volatile(&mut VolatileSlice::from(&mut target[..]));
        assert_eq!(got.unwrap(), LEN);
        assert!(target[..LEN] == pattern() && target[LEN..] == [0; 9]);

        let (_, mut writer) = near.into_split();
        let (mut reader, _keep) = far.into_split();
        writer.write_all_volatile(&memory).unwrap();
        target.fill(0);
        reader
            .read_exact_volatile(&mut VolatileSlice::from(&mut target[..LEN]))
            .unwrap();
        assert!(target[..LEN] == pattern() && target[LEN..] == [0; 9]);

        let nothing = &mut VolatileSlice::from(&mut source[..0]);
        assert_eq!(writer.write_volatile(nothing).unwrap(), 0);
        assert_eq!(reader.read_volatile(nothing).unwrap(), 0);
    }

    #[test]
    fn a_volatile_write_stops_at_the_capacity_and_continues_from_there() {
        let config = VsockInnerConfig::default().to_device(Capacity::Bytes(17_000));
        let (mut near, mut far) = VsockInnerStream::pair_with(&config).unwrap();
        near.set_nonblocking(true).unwrap();
        let mut source = pattern();
        let memory = VolatileSlice::from(&mut source[..]);
        assert_eq!(near.write_volatile(&memory).unwrap(), 17_000);
        let refused = near.write_volatile(&memory).unwrap_err();
        assert!(
            matches!(refused, VolatileMemoryError::IOError(e) if e.kind() == ErrorKind::WouldBlock)
        );

        near.set_nonblocking(false).unwrap();
        let all = std::thread::scope(|scope| {
            let reading = scope.spawn(|| {
                let mut all = vec![0; 17_000 + LEN];
                far.read_exact(&mut all).unwrap();
                all
            });
            assert_eq!(near.write_volatile(&memory).unwrap(), LEN);
            reading.join().unwrap()
        });
        assert!(all[..17_000] == pattern()[..17_000] && all[17_000..] == pattern());
    }

    /// Splits memory into pieces of these lengths, and a last one with the rest.
    fn pieces<'m>(mut memory: &'m mut [u8], lens: &[usize]) -> Vec<VolatileSlice<'m>> {
        let mut pieces = Vec::new();
        for &len in lens {
            let (piece, rest) = memory.split_at_mut(len.min(memory.len()));
            pieces.push(VolatileSlice::from(piece));
            memory = rest;
        }
        pieces.push(VolatileSlice::from(memory));
        pieces
    }

    proptest! {
        #[test]
        fn pieces_are_one_write_and_one_read_however_they_are_cut(
            capacity in 1..60_000_usize,
            len in 1..60_000_usize,
            (from, into) in (vec(0..9000_usize, 0..12), vec(0..9000_usize, 0..12)),
        ) {
            let config = VsockInnerConfig::default().to_device(Capacity::Bytes(capacity));
            let (mut near, mut far) = VsockInnerStream::pair_with(&config).unwrap();
            near.set_nonblocking(true).unwrap();
            let mut source: Vec<u8> = pattern().into_iter().cycle().take(len).collect();
            let expected = source.clone();
            let written = near.write_volatile_vectored(&pieces(&mut source, &from)).unwrap();
            prop_assert_eq!(written, len.min(capacity));
            prop_assert_eq!(far.readable_bytes(), written);

            let mut target = vec![0xee; 60_000];
            let read = far.read_volatile_vectored(&pieces(&mut target, &into)).unwrap();
            prop_assert_eq!(read, written, "everything available, in one call");
            prop_assert!(target[..read] == expected[..read]);
            prop_assert!(target[read..].iter().all(|&byte| byte == 0xee));
        }
    }

    #[test]
    fn a_blocking_write_of_pieces_continues_within_a_piece() {
        let config = VsockInnerConfig::default().to_device(Capacity::Bytes(5_000));
        let (mut near, mut far) = VsockInnerStream::pair_with(&config).unwrap();
        let mut source = pattern();
        let mut all = vec![0; LEN];
        std::thread::scope(|scope| {
            scope.spawn(|| far.read_exact(&mut all).unwrap());
            let pieces = pieces(&mut source, &[10_000, 0, 7, 20_000]);
            assert_eq!(near.write_volatile_vectored(&pieces).unwrap(), LEN);
        });
        assert!(all == pattern());
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Streams read into guest memory and write from it.

use vm_memory::bitmap::BitmapSlice;
use vm_memory::{ReadVolatile, VolatileMemoryError, VolatileSlice, WriteVolatile};

use crate::reader::VsockInnerReader;
use crate::stream::VsockInnerStream;
use crate::writer::VsockInnerWriter;

impl ReadVolatile for VsockInnerReader {
    /// As a read, into guest memory: no buffer lies in between.
    fn read_volatile<B: BitmapSlice>(
        &mut self,
        buf: &mut VolatileSlice<'_, B>,
    ) -> Result<usize, VolatileMemoryError> {
        if buf.is_empty() {
            return Ok(0);
        }
        self.transfer("reading from", |consumer| consumer.read_volatile(buf))
            .map_err(VolatileMemoryError::IOError)
    }
}

impl WriteVolatile for VsockInnerWriter {
    /// As a write, from guest memory: no buffer lies in between.
    fn write_volatile<B: BitmapSlice>(
        &mut self,
        buf: &VolatileSlice<'_, B>,
    ) -> Result<usize, VolatileMemoryError> {
        if buf.is_empty() {
            return Ok(0);
        }
        self.transfer(buf.len(), |producer, done| {
            producer.write_volatile(buf, done)
        })
        .map_err(VolatileMemoryError::IOError)
    }
}

impl ReadVolatile for VsockInnerStream {
    /// As a read, into guest memory: no buffer lies in between.
    fn read_volatile<B: BitmapSlice>(
        &mut self,
        buf: &mut VolatileSlice<'_, B>,
    ) -> Result<usize, VolatileMemoryError> {
        self.reader.read_volatile(buf)
    }
}

impl WriteVolatile for VsockInnerStream {
    /// As a write, from guest memory: no buffer lies in between.
    fn write_volatile<B: BitmapSlice>(
        &mut self,
        buf: &VolatileSlice<'_, B>,
    ) -> Result<usize, VolatileMemoryError> {
        let written = self.writer.write_volatile(buf);
        self.reader.wrote(&written);
        written
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};

    use vm_memory::{ReadVolatile, VolatileMemoryError, VolatileSlice, WriteVolatile};
    use vsock_backend_api::VsockStream;

    use crate::{Capacity, VsockInnerConfig, VsockInnerStream};

    /// More than two blocks, so that the seams are met.
    const LEN: usize = 40_000;

    fn pattern() -> Vec<u8> {
        (0..LEN).map(|at| u8::try_from(at % 251).unwrap()).collect()
    }

    #[test]
    fn guest_memory_is_read_into_and_written_from() {
        let (mut near, mut far) = VsockInnerStream::pair().unwrap();
        let mut source = pattern();
        near.write_all(&[1, 2, 3]).unwrap();
        near.write_all_volatile(&VolatileSlice::from(&mut source[..]))
            .unwrap();
        assert_eq!(far.read(&mut [0; 3]).unwrap(), 3);
        let mut target = vec![0; LEN + 9];
        let got = far
            .read_volatile(&mut VolatileSlice::from(&mut target[..]))
            .unwrap();
        assert_eq!(got, LEN);
        assert!(target[..LEN] == pattern() && target[LEN..] == [0; 9]);
    }

    #[test]
    fn a_volatile_write_stops_at_the_capacity_and_goes_on_where_it_stopped() {
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

    #[test]
    fn halves_move_guest_memory_too() {
        let (near, far) = VsockInnerStream::pair().unwrap();
        let (_, mut writer) = near.into_split();
        let (mut reader, _keep) = far.into_split();
        let (mut source, mut target) = (pattern(), vec![0; LEN]);
        writer
            .write_all_volatile(&VolatileSlice::from(&mut source[..]))
            .unwrap();
        reader
            .read_exact_volatile(&mut VolatileSlice::from(&mut target[..]))
            .unwrap();
        assert!(source == target);
    }

    #[test]
    fn empty_guest_memory_moves_nothing() {
        let (mut near, mut far) = VsockInnerStream::pair().unwrap();
        let mut none = [0; 0];
        assert_eq!(
            near.write_volatile(&VolatileSlice::from(&mut none[..]))
                .unwrap(),
            0
        );
        assert_eq!(
            far.read_volatile(&mut VolatileSlice::from(&mut none[..]))
                .unwrap(),
            0
        );
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::hint;
use std::io::{self, ErrorKind, Read, Write};

use rtrb::{Consumer, Producer, RingBuffer};

use crate::transport::Transport;

/// The limit of a stream over a ring: two bare `rtrb` rings whose users never sleep.
///
/// There is no end, no readiness and no wake-up, so nothing built on such a ring is faster.
pub(crate) struct BareRing {
    /// Bytes that each direction holds.
    pub(crate) capacity: usize,
}

/// One end of two bare rings.
pub(crate) struct RingEnd {
    incoming: Consumer<u8>,
    outgoing: Producer<u8>,
}

impl Transport for BareRing {
    type End = RingEnd;

    fn pair(&self) -> io::Result<(RingEnd, RingEnd)> {
        let (to_far, far) = RingBuffer::new(self.capacity);
        let (to_near, near) = RingBuffer::new(self.capacity);
        let here = RingEnd {
            incoming: near,
            outgoing: to_far,
        };
        let there = RingEnd {
            incoming: far,
            outgoing: to_near,
        };
        Ok((here, there))
    }
}

/// Repeats `attempt` until it does something. A limit may burn a core: it is not a product.
fn spin(mut attempt: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match attempt() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => hint::spin_loop(),
            done => return done,
        }
    }
}

impl Read for RingEnd {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        spin(|| self.incoming.read(buf))
    }
}

impl Write for RingEnd {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        spin(|| self.outgoing.write(buf))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

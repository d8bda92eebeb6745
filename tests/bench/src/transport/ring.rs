// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::hint;
use std::io::{self, ErrorKind, Read, Write};

use rtrb::{Consumer, Producer, RingBuffer};

use crate::transport::Transport;

/// The limit of a stream over a ring: two bare `rtrb` rings, whose users spin and never sleep.
///
/// There is no end of stream, no readiness and no wake-up, which a usable stream would add.
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

/// Failed polls after which the spinning side checks whether its peer is still there.
const PATIENCE: u32 = 1 << 16;

/// Repeats `attempt` until it succeeds. A limit is permitted to keep a core busy.
fn spin(
    gone: impl Fn() -> bool,
    mut attempt: impl FnMut() -> io::Result<usize>,
) -> io::Result<usize> {
    let mut in_vain = 0;
    loop {
        match attempt() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => hint::spin_loop(),
            done => return done,
        }
        in_vain += 1;
        if in_vain >= PATIENCE {
            if gone() {
                return Err(ErrorKind::BrokenPipe.into());
            }
            in_vain = 0;
        }
    }
}

impl Read for RingEnd {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let (incoming, outgoing) = (&mut self.incoming, &self.outgoing);
        spin(|| outgoing.is_abandoned(), || incoming.read(buf))
    }
}

impl Write for RingEnd {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let (incoming, outgoing) = (&self.incoming, &mut self.outgoing);
        spin(|| incoming.is_abandoned(), || outgoing.write(buf))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::array;
use std::collections::VecDeque;
use std::io::{ErrorKind, IoSliceMut};

use vsock_backend_api::VsockStream;
use vsock_muxer::{Allowance, GuestBuffers};
use vsock_proto::{Header, Progress};

/// The maximum number of buffers that one vectored read fills.
const VECTOR: usize = 16;

/// The receive buffers that a driver has provided, and those that the device has filled.
///
/// Buffers are reused, so nothing is allocated once all of them exist.
///
/// ```
/// use vsock_muxer::GuestBuffers;
/// use vsock_muxer_harness::guest::GuestRxQueue;
/// use vsock_proto::Header;
///
/// let mut queue = GuestRxQueue::default();
/// queue.post(4096);
/// assert_eq!(queue.room(), Some(4096 - 44));
/// queue.put_bytes(&Header { len: 2, ..Header::default() }, b"hi");
/// assert_eq!(queue.room(), None, "there was one buffer");
/// assert_eq!(queue.received().next().unwrap().1, b"hi");
/// queue.repost(1);
/// assert_eq!(queue.room(), Some(4096 - 44));
/// ```
#[derive(Debug, Default)]
pub struct GuestRxQueue {
    posted: VecDeque<Buffer>,
    used: VecDeque<Used>,
}

#[derive(Debug)]
struct Buffer {
    bytes: Box<[u8]>,
}

impl Buffer {
    fn room(&self) -> Option<usize> {
        self.bytes.len().checked_sub(Header::LEN)
    }

    fn payload(&mut self) -> &mut [u8] {
        let start = Header::LEN.min(self.bytes.len());
        &mut self.bytes[start..]
    }
}

#[derive(Debug)]
struct Used {
    buffer: Buffer,
    /// `None` if the device returned the buffer without a packet.
    packet: Option<(Header, usize)>,
}

impl GuestRxQueue {
    /// Provides a new buffer of this many bytes, including the header.
    pub fn post(&mut self, bytes: usize) {
        let bytes = vec![0; bytes].into_boxed_slice();
        self.posted.push_back(Buffer { bytes });
    }

    /// Returns the number of buffers that the device can fill.
    #[must_use]
    pub fn posted(&self) -> usize {
        self.posted.len()
    }

    /// Returns the number of buffers that the device has returned and that were not provided again.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.len()
    }

    /// Returns the packets in the returned buffers, oldest first. Buffers without a packet are
    /// omitted.
    pub fn received(&self) -> impl Iterator<Item = (&Header, &[u8])> {
        self.used.iter().filter_map(|used| {
            let (header, len) = used.packet.as_ref()?;
            let start = Header::LEN.min(used.buffer.bytes.len());
            Some((header, &used.buffer.bytes[start..start + len]))
        })
    }

    /// Provides the oldest returned buffers again, at most `most`.
    pub fn repost(&mut self, most: usize) {
        let count = most.min(self.used.len());
        let again = self.used.drain(..count).map(|used| used.buffer);
        self.posted.extend(again);
    }

    /// Removes the oldest returned buffers: the driver keeps them.
    pub(crate) fn drop_used(&mut self, most: usize) {
        self.used.drain(..most.min(self.used.len()));
    }

    /// Removes every buffer, as a driver does in a reset.
    pub fn clear(&mut self) {
        self.posted.clear();
        self.used.clear();
    }

    /// Returns the packet in the returned buffer at this index. The inner `None` stands for a
    /// buffer without a packet.
    pub(crate) fn at(&self, index: usize) -> Option<Option<(&Header, &[u8])>> {
        let used = self.used.get(index)?;
        Some(used.packet.as_ref().map(|(header, len)| {
            let start = Header::LEN.min(used.buffer.bytes.len());
            (header, &used.buffer.bytes[start..start + len])
        }))
    }

    fn give(&mut self, header: &Header, len: usize) {
        if let Some(buffer) = self.posted.pop_front() {
            self.used.push_back(Used {
                buffer,
                packet: Some((*header, len)),
            });
        }
    }
}

impl GuestBuffers for GuestRxQueue {
    fn room(&mut self) -> Option<usize> {
        loop {
            match self.posted.front()?.room() {
                Some(room) => return Some(room),
                None => {
                    let buffer = self.posted.pop_front()?;
                    self.used.push_back(Used {
                        buffer,
                        packet: None,
                    });
                }
            }
        }
    }

    fn put(&mut self, header: &Header) {
        self.put_bytes(header, &[]);
    }

    fn put_bytes(&mut self, header: &Header, payload: &[u8]) {
        if let Some(buffer) = self.posted.front_mut() {
            buffer.payload()[..payload.len()].copy_from_slice(payload);
        }
        self.give(header, payload.len());
    }

    fn fill(
        &mut self,
        stream: &mut dyn VsockStream,
        allowance: Allowance,
        packet: &mut dyn FnMut(usize) -> Header,
    ) -> Progress {
        let mut lens = [0; VECTOR];
        let mut slices: [IoSliceMut<'_>; VECTOR] = array::from_fn(|_| IoSliceMut::new(&mut []));
        let (mut count, mut left) = (0, allowance.bytes);
        for buffer in self.posted.iter_mut().take(allowance.packets.min(VECTOR)) {
            let room = buffer.payload();
            let len = room.len().min(allowance.packet_bytes).min(left);
            if len == 0 {
                break; // A buffer without room ends the run, because a read cannot skip it.
            }
            lens[count] = len;
            slices[count] = IoSliceMut::new(&mut room[..len]);
            count += 1;
            left -= len;
        }
        let read = loop {
            match stream.read_vectored(&mut slices[..count]) {
                Ok(0) => return Progress::Closed,
                Ok(read) => break read,
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock => return Progress::Pending,
                    _ => return Progress::Failed,
                },
            }
        };
        let mut rest = read;
        for len in lens {
            let filled = len.min(rest);
            if filled == 0 {
                break;
            }
            let header = packet(filled);
            self.give(&header, filled);
            rest -= filled;
        }
        Progress::Done(read)
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_SEMAPHORE, EventFd};

use crate::transport::{Endpoint, Pollable, Transport};

/// The usual design of an in-process vsock backend: a `Vec` per write over an unbounded channel of
/// the standard library, and one tick of a semaphore eventfd per message.
///
/// Written for this bench, and correct: an end's eventfd counts exactly the messages that are not
/// read to their end, so nothing is lost, nothing is duplicated, and a level-triggered loop sees
/// every byte. A write never blocks, so only the driver bounds the memory.
pub(crate) struct Channel;

/// One end of two channels.
pub(crate) struct ChannelEnd {
    messages: Receiver<Vec<u8>>,
    /// Counts the messages that arrived. Blocking, because the reader can overtake the tick.
    ticks: Arc<EventFd>,
    /// `None` once dropped, which the peer sees as the end of the stream.
    outgoing: Option<Sender<Vec<u8>>>,
    peer_ticks: Arc<EventFd>,
    /// The message that is being read, and how much of it was read.
    current: Vec<u8>,
    read: usize,
    nonblocking: bool,
}

impl Transport for Channel {
    type End = ChannelEnd;

    fn pair(&self) -> io::Result<(ChannelEnd, ChannelEnd)> {
        let (to_far, far) = channel();
        let (to_near, near) = channel();
        let near_ticks = Arc::new(EventFd::new(EFD_CLOEXEC | EFD_SEMAPHORE)?);
        let far_ticks = Arc::new(EventFd::new(EFD_CLOEXEC | EFD_SEMAPHORE)?);
        let here = ChannelEnd::new(
            near,
            Arc::clone(&near_ticks),
            to_far,
            Arc::clone(&far_ticks),
        );
        let there = ChannelEnd::new(far, far_ticks, to_near, near_ticks);
        Ok((here, there))
    }
}

impl ChannelEnd {
    fn new(
        messages: Receiver<Vec<u8>>,
        ticks: Arc<EventFd>,
        outgoing: Sender<Vec<u8>>,
        peer_ticks: Arc<EventFd>,
    ) -> Self {
        Self {
            messages,
            ticks,
            outgoing: Some(outgoing),
            peer_ticks,
            current: Vec::new(),
            read: 0,
            nonblocking: false,
        }
    }

    /// Makes the next message `current`. Returns `false` at the end of the stream.
    fn next_message(&mut self, may_wait: bool) -> io::Result<bool> {
        let next = match self.messages.try_recv() {
            Ok(message) => Some(message),
            Err(TryRecvError::Disconnected) => None,
            Err(TryRecvError::Empty) if may_wait => self.messages.recv().ok(),
            Err(TryRecvError::Empty) => return Err(ErrorKind::WouldBlock.into()),
        };
        self.read = 0;
        self.current = next.unwrap_or_default();
        Ok(!self.current.is_empty())
    }

    /// Copies from the current message, and consumes its tick after the last byte.
    fn take(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let rest = self.current.get(self.read..).unwrap_or_default();
        let length = rest.len().min(buf.len());
        buf[..length].copy_from_slice(&rest[..length]);
        self.read += length;
        if self.read == self.current.len() {
            self.ticks.read()?; // cannot block for long: the writer ticks right after it sends
            drop(mem::take(&mut self.current));
            self.read = 0;
        }
        Ok(length)
    }
}

impl Read for ChannelEnd {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut got = 0;
        while got < buf.len() {
            if self.current.is_empty() {
                let may_wait = got == 0 && !self.nonblocking;
                match self.next_message(may_wait) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(_) if got > 0 => break,
                    Err(error) => return Err(error),
                }
            }
            got += self.take(&mut buf[got..])?;
        }
        Ok(got)
    }
}

impl Write for ChannelEnd {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let peer = self.outgoing.as_ref().ok_or(ErrorKind::BrokenPipe)?;
        peer.send(buf.to_vec())
            .map_err(|_| io::Error::from(ErrorKind::BrokenPipe))?;
        self.peer_ticks.write(1)?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for ChannelEnd {
    fn drop(&mut self) {
        self.outgoing = None;
        // Makes the peer's descriptor readable. If that fails, the peer is gone.
        drop(self.peer_ticks.write(1));
    }
}

impl AsRawFd for ChannelEnd {
    fn as_raw_fd(&self) -> RawFd {
        self.ticks.as_raw_fd()
    }
}

impl Pollable for ChannelEnd {
    fn set_nonblocking(&mut self, nonblocking: bool) -> io::Result<()> {
        self.nonblocking = nonblocking;
        Ok(())
    }

    fn readable_fd(&self) -> RawFd {
        self.ticks.as_raw_fd()
    }

    fn writable_fd(&self) -> io::Result<RawFd> {
        Ok(self.ticks.as_raw_fd()) // never polled: a write always succeeds
    }
}

/// The endpoint of that design: a channel of ends, and an eventfd that counts them.
pub(crate) struct ChannelEndpoint {
    queue: Sender<ChannelEnd>,
    waiting: Receiver<ChannelEnd>,
    ticks: EventFd,
}

impl ChannelEndpoint {
    /// Returns an endpoint without pending connections.
    pub(crate) fn open() -> io::Result<Self> {
        let (queue, waiting) = channel();
        let ticks = EventFd::new(EFD_CLOEXEC | EFD_SEMAPHORE)?;
        Ok(Self {
            queue,
            waiting,
            ticks,
        })
    }
}

impl Endpoint for ChannelEndpoint {
    type Near = ChannelEnd;
    type Far = ChannelEnd;

    fn connect(&mut self) -> io::Result<ChannelEnd> {
        let (near, far) = Channel.pair()?;
        self.queue
            .send(far)
            .map_err(|_| io::Error::from(ErrorKind::ConnectionRefused))?;
        self.ticks.write(1)?;
        Ok(near)
    }

    fn accept(&mut self) -> io::Result<ChannelEnd> {
        self.ticks.read()?;
        self.waiting
            .recv()
            .map_err(|_| ErrorKind::NotConnected.into())
    }

    fn waiting_fd(&self) -> RawFd {
        self.ticks.as_raw_fd()
    }
}

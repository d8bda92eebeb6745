// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whole messages through a pipe of bytes.
//!
//! In the pipe, each message follows a word that contains its length, and both are published
//! together. So a reader finds either nothing or a whole message. Limits, readiness and ends work
//! as for bytes.

use std::any::Any;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::iter::once;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use vsock_backend_api::{
    Received, Record, VsockAddr, VsockBackendType, VsockCredit, VsockMessages, VsockStream,
};

use crate::config::{Capacity, VsockInnerConfig};
use crate::half::total;
use crate::stream::VsockInnerStream;
use crate::writer::VsockInnerWriter;

/// Size in bytes of the word in front of a message. It contains the length, and in the lowest bit
/// whether the message ends a record.
const WORD: usize = 4;

/// One end of an in-process connection that preserves message boundaries and [records](Record). It
/// connects the seqpacket sockets of two guests (virtio 1.3, section 5.10.6.6).
///
/// One end comes from
/// [`start_connect_seqpacket_from`](crate::VsockInnerConnector::start_connect_seqpacket_from), the
/// other from a backend's [`accept`](crate::VsockBackend::accept). The accepting device learns the
/// requested port only from [`requested_port`](VsockStream::requested_port), which it must call
/// before it receives the first message.
///
/// A message occupies four bytes in addition to its content. Its content can be as long as the
/// [capacity](crate::VsockInnerConfig) of its direction; sending a longer message fails with
/// `InvalidInput`. After a message was refused for lack of space, the stream is writable again once
/// that message fits. In all other respects it behaves like a [`VsockInnerStream`].
///
/// ```
/// use std::io::IoSlice;
/// use vsock_inner::{
///     Received, Record, VsockAddr, VsockBackend, VsockInnerBackend, VsockMessages, VsockStream,
/// };
///
/// let mut backend = VsockInnerBackend::new()?;
/// let (from, to) = (VsockAddr { cid: 3, port: 4000 }, VsockAddr { cid: 4, port: 52 });
/// let mut near = backend.get_connector().start_connect_seqpacket_from(from, to)?;
/// let mut far = backend.accept()?;
/// assert_eq!(far.requested_port(), Some(52));
/// far.confirm_from(to, from)?;
///
/// near.send_message(&[IoSlice::new(b"a whole "), IoSlice::new(b"message")], Record::Ends)?;
/// let mut buffer = [0; 64];
/// let received = far.messages().map(|messages| messages.receive_message(&mut buffer));
/// let message = Received::Message { len: 15, record: Record::Ends };
/// assert_eq!(received.transpose()?, Some(message));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct VsockInnerSeqpacket {
    stream: VsockInnerStream,
}

impl VsockInnerSeqpacket {
    pub(crate) const fn over(stream: VsockInnerStream) -> Self {
        Self { stream }
    }

    /// Converts limits for messages into limits for bytes: the longest message must fit with its
    /// word.
    pub(crate) const fn config(config: VsockInnerConfig) -> VsockInnerConfig {
        VsockInnerConfig {
            to_device: with_word(config.to_device),
            to_application: with_word(config.to_application),
            ..config
        }
    }
}

const fn with_word(capacity: Capacity) -> Capacity {
    match capacity {
        Capacity::Bytes(bytes) => Capacity::Bytes(bytes.saturating_add(WORD)),
        Capacity::Unbounded => Capacity::Unbounded,
    }
}

/// The error for a message that is too long for the direction even when nothing is queued.
fn too_long(len: usize) -> io::Error {
    io::Error::new(
        ErrorKind::InvalidInput,
        format!("cannot send a message of {len} bytes: it exceeds the connection's capacity"),
    )
}

impl VsockInnerWriter {
    /// Writes all `len` bytes together, or none of them. Writes nothing while the connection is not
    /// confirmed.
    ///
    /// # Errors
    ///
    /// As for a write, and `InvalidInput` if `len` exceeds the capacity.
    fn write_whole<'a, P>(&mut self, parts: impl Fn() -> P, len: usize) -> io::Result<usize>
    where
        P: Iterator<Item = &'a [u8]>,
    {
        if self.is_answer_pending() {
            return Err(ErrorKind::WouldBlock.into());
        }
        if !self.half.outgoing().may_hold(len) {
            return Err(ErrorKind::InvalidInput.into());
        }
        self.transfer(len, |producer, _| producer.write_whole(parts(), len))
    }
}

impl VsockMessages for VsockInnerSeqpacket {
    fn send_message(&mut self, message: &[IoSlice<'_>], record: Record) -> io::Result<()> {
        let len = total(message.iter().map(|piece| piece.len()));
        let word = u32::try_from(len).ok().and_then(|len| len.checked_mul(2));
        let word = word.ok_or_else(|| too_long(len))?;
        let word = (word | u32::from(record == Record::Ends)).to_le_bytes();
        let parts = || once(&word[..]).chain(message.iter().map(|piece| &**piece));
        let all = len.saturating_add(WORD);
        let sent = self.stream.writer.write_whole(parts, all);
        self.stream.reader.wrote(&sent);
        match sent {
            Err(error) if error.kind() == ErrorKind::InvalidInput => Err(too_long(len)),
            sent => sent.map(drop),
        }
    }

    fn receive_message(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        let reader = &mut self.stream.reader;
        let mut word = [0; WORD];
        if reader.read(&mut word)? == 0 {
            return Ok(Received::End);
        }
        // The rest of the message was published together with its word, so these reads never wait.
        let word = u32::from_le_bytes(word);
        let len = usize::try_from(word / 2).unwrap_or(usize::MAX);
        if let Some(message) = buffer.get_mut(..len) {
            reader.read_exact(message)?;
            let record = match word % 2 {
                0 => Record::Continues,
                _ => Record::Ends,
            };
            return Ok(Received::Message { len, record });
        }
        reader.skip(len)?;
        Ok(Received::TooLong)
    }
}

/// Reads one message. An empty message looks like the end.
impl Read for VsockInnerSeqpacket {
    /// # Errors
    ///
    /// As for [`VsockMessages::receive_message`], and `InvalidData` if the message was longer than
    /// the buffer. That message has been discarded.
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.receive_message(buf)? {
            Received::Message { len, .. } => Ok(len),
            Received::End => Ok(0),
            Received::TooLong => Err(ErrorKind::InvalidData.into()),
        }
    }
}

/// Writes one message.
impl Write for VsockInnerSeqpacket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(buf)])
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.send_message(bufs, Record::Continues)?;
        Ok(total(bufs.iter().map(|buf| buf.len())))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsRawFd for VsockInnerSeqpacket {
    /// For polling only, and only for `EPOLLIN`: readable when a message or an end is available.
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

impl AsFd for VsockInnerSeqpacket {
    /// For polling only, like `as_raw_fd`.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl VsockStream for VsockInnerSeqpacket {
    fn backend_type(&self) -> VsockBackendType {
        self.stream.backend_type()
    }

    fn set_nonblocking(&mut self, nonblocking: bool) -> io::Result<()> {
        self.stream.set_nonblocking(nonblocking)
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.stream.set_read_timeout(timeout)
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.stream.set_write_timeout(timeout)
    }

    fn shutdown(&mut self, how: Shutdown) -> io::Result<()> {
        self.stream.shutdown(how)
    }

    fn abort(self: Box<Self>) {
        self.stream.abort();
    }

    fn write_ready_fd(&self) -> io::Result<RawFd> {
        self.stream.write_ready_fd()
    }

    fn write_ready(&self) -> io::Result<BorrowedFd<'_>> {
        self.stream.write_ready()
    }

    fn finish_connect(&mut self) -> io::Result<()> {
        self.stream.finish_connect()
    }

    fn requested_port(&mut self) -> Option<u32> {
        self.stream.requested_port()
    }

    fn confirm(&mut self, host_port: u32) -> io::Result<()> {
        self.stream.confirm(host_port)
    }

    fn confirm_from(&mut self, guest: VsockAddr, host: VsockAddr) -> io::Result<()> {
        self.stream.confirm_from(guest, host)
    }

    fn peer(&self) -> Option<VsockAddr> {
        self.stream.peer()
    }

    fn local(&self) -> Option<VsockAddr> {
        self.stream.local()
    }

    fn messages(&mut self) -> Option<&mut dyn VsockMessages> {
        Some(self)
    }

    fn peer_gone(&self) -> bool {
        self.stream.peer_gone()
    }

    fn peer_stopped_reading(&self) -> bool {
        self.stream.peer_stopped_reading()
    }

    fn tell_credit(&self, credit: VsockCredit) {
        self.stream.tell_credit(credit);
    }

    fn peer_credit(&self) -> Option<VsockCredit> {
        self.stream.peer_credit()
    }

    fn credit_fd(&self, known: Option<VsockCredit>) -> io::Result<RawFd> {
        self.stream.credit_fd(known)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> Option<&mut dyn Any> {
        Some(self)
    }

    fn into_any(self: Box<Self>) -> Option<Box<dyn Any>> {
        Some(self)
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A reader that sleeps until the rest of an HTTP/2 frame has arrived, by `SO_RCVLOWAT`, as gRPC's
//! C++ readers do. Its peer must be able to send a whole frame, however small the packets are.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use nix::libc;
use nix::sys::socket::setsockopt;
use nix::{setsockopt_impl, sockopt_impl};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_vsock::VsockStream;

sockopt_impl!(
    /// `SO_RCVLOWAT`
    ReceiveLowWater, SetOnly, libc::SOL_SOCKET, libc::SO_RCVLOWAT, i32
);

/// The largest low-water mark: half of a guest socket's buffer.
const MOST: u32 = 128 << 10;

/// A socket whose reader is woken for whole frames.
#[derive(Debug)]
pub(crate) struct ByFrame {
    stream: VsockStream,
    place: Place,
    set: u32,
}

impl ByFrame {
    /// Wraps a socket. On an accepted one, the client's preface precedes the first frame.
    pub(crate) fn new(stream: VsockStream, accepted: bool) -> Self {
        let place = Place::new(accepted);
        let set = 1;
        Self { stream, place, set }
    }

    /// Sleeps until `missing` bytes have arrived.
    fn wait_for(&mut self, missing: u32) -> io::Result<()> {
        let bytes = missing.clamp(1, MOST);
        if bytes != self.set {
            setsockopt(
                &self.stream,
                ReceiveLowWater,
                &i32::try_from(bytes).unwrap_or(i32::MAX),
            )?;
            self.set = bytes;
        }
        Ok(())
    }
}

impl AsyncRead for ByFrame {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        ready!(read)?;
        // The mark for the next read is the rest of the current frame or header, so that no read
        // ends within one unless it is larger than the limit of the mark.
        self.place.advance(&buffer.filled()[before..]);
        let missing = self.place.missing();
        Poll::Ready(self.wait_for(missing))
    }
}

impl AsyncWrite for ByFrame {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A frame's header: three bytes of length, and the rest (RFC 9113, 4.1).
const HEADER: usize = 9;
/// The preface that a client sends first (RFC 9113, 3.4).
const PREFACE: u32 = 24;

/// The reader's position in the frames.
#[derive(Debug)]
struct Place {
    /// Missing bytes of the payload or of the preface.
    payload: u32,
    /// The bytes of the next header that have arrived.
    header: Vec<u8>,
}

impl Place {
    fn new(accepted: bool) -> Self {
        let payload = if accepted { PREFACE } else { 0 };
        let header = Vec::with_capacity(HEADER);
        Self { payload, header }
    }

    fn advance(&mut self, mut bytes: &[u8]) {
        while let Some(first) = bytes.first() {
            if self.payload > 0 {
                let taken = bytes.len().min(self.payload as usize);
                self.payload -= u32::try_from(taken).unwrap_or(self.payload);
                bytes = &bytes[taken..];
                continue;
            }
            self.header.push(*first);
            bytes = &bytes[1..];
            if self.header.len() == HEADER {
                let length = [0, self.header[0], self.header[1], self.header[2]];
                self.payload = u32::from_be_bytes(length);
                self.header.clear();
            }
        }
    }

    /// Returns how many bytes are missing to the end of the payload or header.
    fn missing(&self) -> u32 {
        let header = HEADER - self.header.len();
        match self.payload {
            0 => u32::try_from(header).unwrap_or(1),
            payload => payload,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Place;

    #[test]
    fn a_frame_is_waited_for_after_its_header() {
        let mut place = Place::new(true);
        assert_eq!(place.missing(), 24);
        place.advance(&[0; 24]);
        assert_eq!(place.missing(), 9);
        place.advance(&[0, 1]);
        assert_eq!(place.missing(), 7);
        place.advance(&[2, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(place.missing(), 256);
        place.advance(&[0; 256]);
        assert_eq!(place.missing(), 9);
    }

    #[test]
    fn one_read_can_return_several_frames() {
        let mut place = Place::new(false);
        let empty = [0; 9];
        let mut bytes = empty.to_vec();
        bytes.extend([0, 0, 3, 0, 0, 0, 0, 0, 1, 7]);
        place.advance(&bytes);
        assert_eq!(place.missing(), 2);
    }
}

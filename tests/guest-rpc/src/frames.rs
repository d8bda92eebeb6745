// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A reader that is not woken before the rest of an HTTP/2 frame is there: by `SO_RCVLOWAT`, as the
//! readers of gRPC in C++ do it. Its peer must be able to send as much, however small its packets
//! are.

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

/// What is waited for at most: half of the buffer that a socket of the guest has.
const MOST: u32 = 128 << 10;

/// A socket whose reader is woken by frames.
#[derive(Debug)]
pub(crate) struct ByFrame {
    stream: VsockStream,
    place: Place,
    set: u32,
}

impl ByFrame {
    /// One that was accepted receives the client's preface before the first frame.
    pub(crate) fn new(stream: VsockStream, accepted: bool) -> Self {
        let place = Place::new(accepted);
        let set = 1;
        Self { stream, place, set }
    }

    /// Waits for as much as is missing.
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

/// Of a frame: three bytes of its length, and what else its header has (RFC 9113, 4.1).
const HEADER: usize = 9;
/// What a client sends first (RFC 9113, 3.4).
const PREFACE: u32 = 24;

/// Where in the frames a reader is.
#[derive(Debug)]
struct Place {
    /// Bytes of the payload that are missing, or of the preface.
    payload: u32,
    /// What has come of the next header.
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

    /// Until the end of the payload or of the header.
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
    fn several_frames_come_in_one_read() {
        let mut place = Place::new(false);
        let empty = [0; 9];
        let mut bytes = empty.to_vec();
        bytes.extend([0, 0, 3, 0, 0, 0, 0, 0, 1, 7]);
        place.advance(&bytes);
        assert_eq!(place.missing(), 2);
    }
}

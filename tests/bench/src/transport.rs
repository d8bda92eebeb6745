// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The rows of the tables: ways to carry bytes between two threads of one process.

mod channel;
mod guest;
mod inner;
mod pipe;
mod ring;
mod tasks;
mod unix;

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};

pub(crate) use channel::{Channel, ChannelEndpoint};
pub(crate) use guest::Guest;
pub(crate) use inner::{Inner, InnerEndpoint};
pub(crate) use pipe::Pipe;
pub(crate) use ring::BareRing;
pub(crate) use tasks::{AsyncTransport, Duplex, TokioInner, TokioUnixPair};
pub(crate) use unix::{UnixEndpoint, UnixPair};
use vsock_backend_api::VsockStream;

/// Makes two connected ends.
///
/// The workloads are generic over it, so each row is called as directly as its users call it.
pub(crate) trait Transport {
    /// One end: a byte stream in both directions.
    type End: Read + Write + Send;

    /// Makes a connected pair of blocking ends: the application end and the device end.
    fn pair(&self) -> io::Result<(Self::End, Self::End)>;
}

/// An end that an event loop can serve.
pub(crate) trait Pollable {
    /// Makes this end return `WouldBlock` instead of waiting.
    fn set_nonblocking(&mut self, nonblocking: bool) -> io::Result<()>;

    /// Returns the descriptor to poll for `EPOLLIN`.
    fn readable_fd(&self) -> RawFd;

    /// Returns the descriptor to poll for `EPOLLOUT`.
    fn writable_fd(&self) -> io::Result<RawFd>;
}

impl<S: VsockStream> Pollable for S {
    fn set_nonblocking(&mut self, nonblocking: bool) -> io::Result<()> {
        VsockStream::set_nonblocking(self, nonblocking)
    }

    fn readable_fd(&self) -> RawFd {
        self.as_raw_fd()
    }

    fn writable_fd(&self) -> io::Result<RawFd> {
        self.write_ready_fd()
    }
}

/// Opens and accepts connections.
pub(crate) trait Endpoint {
    /// The end that connected.
    type Near;
    /// The end that was accepted.
    type Far: AsRawFd;

    /// Opens a connection.
    fn connect(&mut self) -> io::Result<Self::Near>;

    /// Accepts the pending connection.
    fn accept(&mut self) -> io::Result<Self::Far>;

    /// Returns the descriptor that is readable while a connection is pending.
    fn waiting_fd(&self) -> RawFd;
}

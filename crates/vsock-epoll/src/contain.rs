// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Calls of code that is not ours, whose panics stay where they are.

use std::any::Any;
use std::io::{self, ErrorKind, IoSlice};
use std::mem::ManuallyDrop;
use std::net::Shutdown;
use std::os::fd::RawFd;
#[cfg(feature = "muxer")]
use std::panic::resume_unwind;
use std::panic::{AssertUnwindSafe, catch_unwind};

use thiserror::Error;
use vsock_backend_api::{VsockBackendType, VsockStream};

use crate::{AddError, Refusal};

/// Makes a call. `None`: it has panicked. The state of the caller must be consistent at that
/// moment.
pub(crate) fn contain<R>(call: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => Some(result),
        Err(payload) => {
            dispose(payload);
            None
        }
    }
}

/// Does this with each, however many of them panic. Gives back what the first has panicked with.
#[cfg(feature = "muxer")]
#[must_use = "a panic is to pass through"]
pub(crate) fn each<T>(
    items: impl Iterator<Item = T>,
    mut call: impl FnMut(T),
) -> Option<Box<dyn Any + Send>> {
    let mut first = None;
    for item in items {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| call(item))) {
            if first.is_none() {
                first = Some(payload);
            } else {
                dispose(payload);
            }
        }
    }
    first
}

/// Lets a panic pass through, if there was one.
#[cfg(feature = "muxer")]
pub(crate) fn resume(panicked: Option<Box<dyn Any + Send>>) {
    if let Some(payload) = panicked {
        resume_unwind(payload);
    }
}

/// Drops what a panic has brought along. If that panics as well, what it brings along is left
/// alone.
fn dispose(payload: Box<dyn Any + Send>) {
    if let Err(next) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        let _left_alone = ManuallyDrop::new(next);
    }
}

/// What a stream has failed with that has not said so itself.
#[derive(Clone, Copy, Debug, Error)]
enum Misbehaviour {
    #[error("the stream has panicked")]
    Panic,
    #[error("the stream counts {counted} bytes where {offered} were offered")]
    Count { counted: usize, offered: usize },
}

impl From<Misbehaviour> for io::Error {
    fn from(misbehaviour: Misbehaviour) -> Self {
        Self::other(misbehaviour)
    }
}

/// A stream whose panics, and counts that cannot be, are failures of its own, wherever the call
/// came from. So they close this stream, not that of the handler at work, and leave no call of the
/// loop half done.
pub(crate) struct Contained {
    stream: Box<dyn VsockStream>,
    carrier: VsockBackendType,
    fd: RawFd,
}

impl Contained {
    /// Takes a stream in, made non-blocking, or gives it back.
    pub(crate) fn take(mut stream: Box<dyn VsockStream>) -> Result<Self, AddError> {
        let prepared = contain(|| {
            match stream.set_nonblocking(true) {
                // It has one mode only, which for a device's end is the non-blocking one.
                Err(error) if error.kind() != ErrorKind::Unsupported => return Err(error),
                _ => {}
            }
            Ok((stream.backend_type(), stream.as_raw_fd()))
        });
        match prepared.unwrap_or_else(|| Err(Misbehaviour::Panic.into())) {
            Ok((carrier, fd)) => Ok(Self {
                stream,
                carrier,
                fd,
            }),
            Err(error) => {
                let refusal = Refusal::Blocking(error);
                Err(AddError { refusal, stream })
            }
        }
    }

    pub(crate) const fn fd(&self) -> RawFd {
        self.fd
    }

    pub(crate) fn into_inner(self) -> Box<dyn VsockStream> {
        self.stream
    }

    pub(crate) fn get(&self) -> &dyn VsockStream {
        &*self.stream
    }

    pub(crate) const fn backend_type(&self) -> VsockBackendType {
        self.carrier
    }

    pub(crate) fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let offered = buf.len();
        counted(offered, contain(|| self.stream.read(buf)))
    }

    pub(crate) fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        counted(buf.len(), contain(|| self.stream.write(buf)))
    }

    pub(crate) fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let offered = bufs.iter().map(|buf| buf.len()).sum();
        counted(offered, contain(|| self.stream.write_vectored(bufs)))
    }

    /// One that panics knows no half-close.
    pub(crate) fn shutdown(&mut self, how: Shutdown) -> io::Result<()> {
        contain(|| self.stream.shutdown(how)).unwrap_or_else(|| Err(ErrorKind::Unsupported.into()))
    }

    pub(crate) fn write_ready_fd(&self) -> io::Result<RawFd> {
        contain(|| self.stream.write_ready_fd()).unwrap_or_else(|| Err(Misbehaviour::Panic.into()))
    }

    /// The peer of one that panics counts as gone.
    pub(crate) fn peer_gone(&self) -> bool {
        contain(|| self.stream.peer_gone()).unwrap_or(true)
    }

    pub(crate) fn close(self) {
        contain(|| drop(self.stream));
    }

    pub(crate) fn abort(self) {
        contain(|| self.stream.abort());
    }
}

/// The result of a call that was offered `offered` bytes.
fn counted(offered: usize, called: Option<io::Result<usize>>) -> io::Result<usize> {
    match called {
        None => Err(Misbehaviour::Panic.into()),
        Some(Ok(counted)) if counted > offered => {
            Err(Misbehaviour::Count { counted, offered }.into())
        }
        Some(result) => result,
    }
}

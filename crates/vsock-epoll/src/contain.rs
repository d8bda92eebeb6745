// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Calls of foreign code, whose panics are contained.

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

/// Runs `call`. Returns `None` if it panicked. The caller's state must be consistent at that
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

/// Runs `call` for each item, even if some of the calls panic. Returns the payload of the first
/// panic.
#[cfg(feature = "muxer")]
#[must_use = "the panic must be passed on with `resume`"]
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

/// Resumes a panic, if there was one.
#[cfg(feature = "muxer")]
pub(crate) fn resume(panicked: Option<Box<dyn Any + Send>>) {
    if let Some(payload) = panicked {
        resume_unwind(payload);
    }
}

/// Drops the payload of a panic. If that panics as well, the second payload is leaked.
fn dispose(payload: Box<dyn Any + Send>) {
    if let Err(next) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        let _left_alone = ManuallyDrop::new(next);
    }
}

/// An error that a stream has not reported itself.
#[derive(Clone, Copy, Debug, Error)]
enum Misbehaviour {
    #[error("the stream panicked")]
    Panic,
    #[error("the stream reported {counted} bytes where {offered} were offered")]
    Count { counted: usize, offered: usize },
}

impl From<Misbehaviour> for io::Error {
    fn from(misbehaviour: Misbehaviour) -> Self {
        Self::other(misbehaviour)
    }
}

/// A stream whose panics and impossible byte counts become errors of that stream, no matter which
/// call they occur in. So they close this stream and not the one whose handler is running, and no
/// call of the loop is left half done.
pub(crate) struct Contained {
    stream: Box<dyn VsockStream>,
    carrier: VsockBackendType,
    fd: RawFd,
}

impl Contained {
    /// Takes a stream and makes it non-blocking, or returns it.
    pub(crate) fn take(mut stream: Box<dyn VsockStream>) -> Result<Self, AddError> {
        let prepared = contain(|| {
            match stream.set_nonblocking(true) {
                // It has only one mode, which for a device end is non-blocking.
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

    /// A stream that panics here counts as one without half-close.
    pub(crate) fn shutdown(&mut self, how: Shutdown) -> io::Result<()> {
        contain(|| self.stream.shutdown(how)).unwrap_or_else(|| Err(ErrorKind::Unsupported.into()))
    }

    pub(crate) fn write_ready_fd(&self) -> io::Result<RawFd> {
        contain(|| self.stream.write_ready_fd()).unwrap_or_else(|| Err(Misbehaviour::Panic.into()))
    }

    /// The peer of a stream that panics here counts as gone.
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

/// Checks the result of a call that was offered `offered` bytes.
fn counted(offered: usize, called: Option<io::Result<usize>>) -> io::Result<usize> {
    match called {
        None => Err(Misbehaviour::Panic.into()),
        Some(Ok(counted)) if counted > offered => {
            Err(Misbehaviour::Count { counted, offered }.into())
        }
        Some(result) => result,
    }
}

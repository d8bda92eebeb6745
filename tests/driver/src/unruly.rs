// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Streams and backends that break their contract: a call panics, or reports too many bytes.

use std::any::Any;
use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use vm_memory::bitmap::BitmapSlice;
use vm_memory::{ReadVolatile, VolatileMemoryError, VolatileSlice, WriteVolatile};
use vsock_backend_api::{
    Received, Record, VsockBackend, VsockBackendType, VsockMessages, VsockStream,
    VsockVolatileStream,
};

use crate::stream::{read_into, write_from};

/// A method of a stream or of a backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(missing_docs, reason = "the variants have the names of the methods")]
pub enum Call {
    Read,
    Write,
    AsRawFd,
    BackendType,
    SetNonblocking,
    Shutdown,
    WriteReadyFd,
    PeerGone,
    Messages,
    RequestedPort,
    Confirm,
    Drop,
    Accept,
    Connect,
}

impl Call {
    /// Every method of a stream.
    pub const OF_STREAMS: [Self; 12] = [
        Self::Read,
        Self::Write,
        Self::AsRawFd,
        Self::BackendType,
        Self::SetNonblocking,
        Self::Shutdown,
        Self::WriteReadyFd,
        Self::PeerGone,
        Self::Messages,
        Self::RequestedPort,
        Self::Confirm,
        Self::Drop,
    ];
}

/// How a call misbehaves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Vice {
    Panics,
    /// It reports one byte more than it was offered.
    Lies,
}

/// Decides how streams and backends misbehave. Clones share the decision.
#[derive(Clone, Debug, Default)]
pub struct Temper(Arc<Mutex<Mood>>);

#[derive(Debug, Default)]
struct Mood {
    vice: Option<(Call, Vice)>,
    shown: usize,
}

impl Temper {
    /// Lets each such call panic.
    pub fn panic_in(&self, call: Call) {
        self.set(Some((call, Vice::Panics)));
    }

    /// Lets each such call, [`Call::Read`] or [`Call::Write`], report too many bytes.
    pub fn lie_in(&self, call: Call) {
        self.set(Some((call, Vice::Lies)));
    }

    /// Lets every call behave.
    pub fn calm(&self) {
        self.set(None);
    }

    /// Returns how many calls have misbehaved.
    #[must_use]
    pub fn shown(&self) -> usize {
        self.with(|mood| mood.shown)
    }

    /// Wraps a stream.
    #[must_use]
    pub fn stream(&self, stream: Box<dyn VsockStream>) -> Box<dyn VsockStream> {
        Box::new(Unruly {
            stream,
            temper: self.clone(),
        })
    }

    /// Wraps a backend and its streams.
    #[must_use]
    pub fn backend(&self, backend: Box<dyn VsockBackend>) -> Box<dyn VsockBackend> {
        Box::new(UnrulyBackend {
            backend,
            temper: self.clone(),
        })
    }

    fn set(&self, vice: Option<(Call, Vice)>) {
        self.with(|mood| mood.vice = vice);
    }

    /// Panics, or returns whether to lie.
    fn lies_in(&self, call: Call) -> bool {
        let vice = self.with(|mood| {
            let vice = mood.vice.filter(|(of, _)| *of == call)?.1;
            mood.shown += 1;
            Some(vice)
        });
        assert_ne!(vice, Some(Vice::Panics), "{call:?} panics on purpose");
        vice == Some(Vice::Lies)
    }

    fn with<R>(&self, f: impl FnOnce(&mut Mood) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// See [`Temper::stream`]. It can copy to and from guest memory, if the device is configured to.
#[expect(
    missing_debug_implementations,
    reason = "the wrapped stream has no `Debug`"
)]
pub struct Unruly {
    stream: Box<dyn VsockStream>,
    temper: Temper,
}

impl Drop for Unruly {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.temper.lies_in(Call::Drop);
        }
    }
}

impl Read for Unruly {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.temper.lies_in(Call::Read) {
            return Ok(buf.len() + 1);
        }
        self.stream.read(buf)
    }
}

impl Write for Unruly {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.temper.lies_in(Call::Write) {
            return Ok(buf.len() + 1);
        }
        self.stream.write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.temper.lies_in(Call::Write) {
            return Ok(bufs.iter().map(|buf| buf.len()).sum::<usize>() + 1);
        }
        self.stream.write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl ReadVolatile for Unruly {
    fn read_volatile<B: BitmapSlice>(
        &mut self,
        buf: &mut VolatileSlice<'_, B>,
    ) -> Result<usize, VolatileMemoryError> {
        read_into(self, buf)
    }
}

impl WriteVolatile for Unruly {
    fn write_volatile<B: BitmapSlice>(
        &mut self,
        buf: &VolatileSlice<'_, B>,
    ) -> Result<usize, VolatileMemoryError> {
        write_from(self, buf)
    }
}

impl VsockVolatileStream for Unruly {}

impl AsRawFd for Unruly {
    fn as_raw_fd(&self) -> RawFd {
        self.temper.lies_in(Call::AsRawFd);
        self.stream.as_raw_fd()
    }
}

impl VsockMessages for Unruly {
    fn send_message(&mut self, message: &[IoSlice<'_>], record: Record) -> io::Result<()> {
        self.temper.lies_in(Call::Write);
        self.kept()?.send_message(message, record)
    }

    fn receive_message(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        if self.temper.lies_in(Call::Read) {
            return Ok(Received::Message {
                len: buffer.len() + 1,
                record: Record::Continues,
            });
        }
        self.kept()?.receive_message(buffer)
    }
}

impl Unruly {
    fn kept(&mut self) -> io::Result<&mut dyn VsockMessages> {
        let kept = self.stream.messages();
        kept.ok_or_else(|| io::ErrorKind::Unsupported.into())
    }
}

impl VsockStream for Unruly {
    fn backend_type(&self) -> VsockBackendType {
        self.temper.lies_in(Call::BackendType);
        self.stream.backend_type()
    }

    fn set_nonblocking(&mut self, nonblocking: bool) -> io::Result<()> {
        self.temper.lies_in(Call::SetNonblocking);
        self.stream.set_nonblocking(nonblocking)
    }

    fn shutdown(&mut self, how: Shutdown) -> io::Result<()> {
        self.temper.lies_in(Call::Shutdown);
        self.stream.shutdown(how)
    }

    fn write_ready_fd(&self) -> io::Result<RawFd> {
        self.temper.lies_in(Call::WriteReadyFd);
        self.stream.write_ready_fd()
    }

    fn peer_gone(&self) -> bool {
        self.temper.lies_in(Call::PeerGone);
        self.stream.peer_gone()
    }

    fn messages(&mut self) -> Option<&mut dyn VsockMessages> {
        self.temper.lies_in(Call::Messages);
        self.stream.messages()?;
        Some(self)
    }

    fn requested_port(&mut self) -> Option<u32> {
        self.temper.lies_in(Call::RequestedPort);
        self.stream.requested_port()
    }

    fn confirm(&mut self, host_port: u32) -> io::Result<()> {
        self.temper.lies_in(Call::Confirm);
        self.stream.confirm(host_port)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> Option<&mut dyn Any> {
        Some(self)
    }
}

struct UnrulyBackend {
    backend: Box<dyn VsockBackend>,
    temper: Temper,
}

impl Drop for UnrulyBackend {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.temper.lies_in(Call::Drop);
        }
    }
}

impl AsRawFd for UnrulyBackend {
    fn as_raw_fd(&self) -> RawFd {
        self.temper.lies_in(Call::AsRawFd);
        self.backend.as_raw_fd()
    }
}

impl VsockBackend for UnrulyBackend {
    fn accept(&mut self) -> io::Result<Box<dyn VsockStream>> {
        self.temper.lies_in(Call::Accept);
        Ok(self.temper.stream(self.backend.accept()?))
    }

    fn connect(&self, dst_port: u32) -> io::Result<Box<dyn VsockStream>> {
        self.temper.lies_in(Call::Connect);
        Ok(self.temper.stream(self.backend.connect(dst_port)?))
    }

    fn has_seqpacket(&self) -> bool {
        self.backend.has_seqpacket()
    }

    fn connect_seqpacket(&self, dst_port: u32) -> io::Result<Box<dyn VsockStream>> {
        self.temper.lies_in(Call::Connect);
        Ok(self
            .temper
            .stream(self.backend.connect_seqpacket(dst_port)?))
    }

    fn r#type(&self) -> VsockBackendType {
        self.backend.r#type()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

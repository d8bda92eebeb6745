// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The seam between a vsock device and whatever carries its connections on the host.
//!
//! A vsock device multiplexes many guest connections. Each of them ends on the host in a *stream*:
//! a Unix socket, a TCP socket, a byte channel inside the process. A *backend* is where the device
//! gets such streams from: it [accepts](VsockBackend::accept) the connections that a host component
//! opens towards the guest, and it [connects](VsockBackend::connect) the ones that the guest opens
//! towards a host component.
//!
//! A stream may keep the boundaries of messages, for the guest's seqpacket sockets: then it has
//! [`messages`](VsockStream::messages), and whole ones are all that passes.
//!
//! This crate holds these traits, and makes the sockets of `std` such streams; it has two optional
//! dependencies: `vm-memory`, by the feature of that name, for streams that copy to and from guest
//! memory, and `rustix`, by `scm-rights`, for descriptors that come over Unix sockets. The names
//! and signatures are those of the vsock backend of `dbs-virtio-devices`, so code written for it
//! needs a new `use` line only. What was added has a default, so a foreign implementation still
//! compiles.
//!
//! # A complete backend
//!
//! A backend over Unix socket pairs, for a host component in the same process. It is a toy in one
//! point only: connections wait in an unbounded queue.
//!
//! ```
//! use std::any::Any;
//! use std::io::{self, Read, Write};
//! use std::net::Shutdown;
//! use std::os::fd::{AsRawFd, RawFd};
//! use std::os::unix::net::UnixStream;
//! use std::sync::mpsc::{Receiver, Sender, channel};
//! use std::time::Duration;
//!
//! use vsock_backend_api::{VsockBackend, VsockBackendType, VsockStream};
//!
//! /// One end of a connection.
//! struct ToyStream(UnixStream);
//!
//! impl Read for ToyStream {
//!     fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
//!         self.0.read(buf)
//!     }
//! }
//!
//! impl Write for ToyStream {
//!     fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
//!         self.0.write(buf)
//!     }
//!     fn flush(&mut self) -> io::Result<()> {
//!         self.0.flush()
//!     }
//! }
//!
//! impl AsRawFd for ToyStream {
//!     fn as_raw_fd(&self) -> RawFd {
//!         self.0.as_raw_fd()
//!     }
//! }
//!
//! impl VsockStream for ToyStream {
//!     fn backend_type(&self) -> VsockBackendType {
//!         VsockBackendType::Other("toy")
//!     }
//!     fn set_nonblocking(&mut self, nonblocking: bool) -> io::Result<()> {
//!         self.0.set_nonblocking(nonblocking)
//!     }
//!     fn set_read_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
//!         self.0.set_read_timeout(timeout)
//!     }
//!     fn set_write_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
//!         self.0.set_write_timeout(timeout)
//!     }
//!     fn shutdown(&mut self, how: Shutdown) -> io::Result<()> {
//!         self.0.shutdown(how)
//!     }
//!     fn as_any(&self) -> &dyn Any {
//!         self
//!     }
//! }
//!
//! /// Accepts what its connector sends. The ticket socket is readable while a connection waits.
//! struct ToyBackend {
//!     waiting: Receiver<UnixStream>,
//!     tickets: UnixStream,
//! }
//!
//! struct ToyConnector {
//!     queue: Sender<UnixStream>,
//!     tickets: UnixStream,
//! }
//!
//! impl ToyBackend {
//!     fn new() -> io::Result<(Self, ToyConnector)> {
//!         let (queue, waiting) = channel();
//!         let (ours, theirs) = UnixStream::pair()?;
//!         ours.set_nonblocking(true)?;
//!         Ok((Self { waiting, tickets: ours }, ToyConnector { queue, tickets: theirs }))
//!     }
//! }
//!
//! impl ToyConnector {
//!     fn connect(&mut self) -> io::Result<Box<dyn VsockStream>> {
//!         let (ours, theirs) = UnixStream::pair()?;
//!         self.queue.send(theirs).map_err(|_| io::ErrorKind::ConnectionRefused)?;
//!         self.tickets.write_all(&[0])?;
//!         Ok(Box::new(ToyStream(ours)))
//!     }
//! }
//!
//! impl AsRawFd for ToyBackend {
//!     fn as_raw_fd(&self) -> RawFd {
//!         self.tickets.as_raw_fd()
//!     }
//! }
//!
//! impl VsockBackend for ToyBackend {
//!     fn accept(&mut self) -> io::Result<Box<dyn VsockStream>> {
//!         self.tickets.read_exact(&mut [0])?; // `WouldBlock` when none waits
//!         let stream = self.waiting.recv().map_err(|_| io::ErrorKind::NotConnected)?;
//!         stream.set_nonblocking(true)?; // the device's end starts non-blocking
//!         Ok(Box::new(ToyStream(stream)))
//!     }
//!     fn connect(&self, _dst_port: u32) -> io::Result<Box<dyn VsockStream>> {
//!         Err(io::ErrorKind::ConnectionRefused.into()) // this backend has no listeners
//!     }
//!     fn r#type(&self) -> VsockBackendType {
//!         VsockBackendType::Other("toy")
//!     }
//!     fn as_any(&self) -> &dyn Any {
//!         self
//!     }
//! }
//!
//! # fn main() -> io::Result<()> {
//! let (mut backend, mut connector) = ToyBackend::new()?;
//! assert_eq!(backend.accept().err().unwrap().kind(), io::ErrorKind::WouldBlock);
//!
//! let mut host = connector.connect()?;
//! let mut device = backend.accept()?;
//! host.write_all(b"hello")?;
//! host.shutdown(Shutdown::Write)?;
//! let mut got = Vec::new();
//! device.set_nonblocking(false)?;
//! device.read_to_end(&mut got)?;
//! assert_eq!(got, b"hello");
//! # Ok(())
//! # }
//! ```
//!
//! # Invariants
//!
//! - This crate depends on nothing but `std` and names no type of another crate in public, except
//!   for `VsockVolatileStream` (feature `vm-memory`), which is about `vm-memory`'s.
//! - It performs no I/O of its own: every method is a promise of the implementor, and for the
//!   sockets of `std` the call of the same name.

#![forbid(unsafe_code)]
#![deny(clippy::disallowed_types)]

mod addr;
mod backend;
mod backend_type;
mod credit;
mod listener;
mod messages;
mod sockets;
mod stream;
#[cfg(feature = "vm-memory")]
mod volatile;

pub use addr::VsockAddr;
pub use backend::{ListenerId, VsockBackend};
pub use backend_type::VsockBackendType;
pub use credit::VsockCredit;
pub use listener::VsockListener;
pub use messages::{Received, Record, VsockMessages};
pub use stream::VsockStream;
#[cfg(feature = "vm-memory")]
pub use volatile::VsockVolatileStream;

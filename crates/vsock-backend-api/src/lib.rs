// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The interface between a vsock device and whatever carries its connections on the host.
//!
//! A vsock device multiplexes many guest connections. On the host, each connection ends in a
//! *stream*: a Unix socket, a TCP socket, or a byte channel inside the process. A *backend*
//! supplies the device with streams. It [accepts](VsockBackend::accept) connections that a host
//! component opens to the guest, and it [connects](VsockBackend::connect) those that the guest
//! opens to a host component.
//!
//! A stream for a seqpacket socket of the guest preserves message boundaries. Such a stream has
//! [`messages`](VsockStream::messages), and carries only whole messages.
//!
//! This crate defines these traits and implements [`VsockStream`] for the sockets of `std`. The
//! names and signatures are those of the vsock backend in `dbs-virtio-devices`, so code written for
//! it needs only a new `use` line. Every method added since has a default, so existing
//! implementations still compile.
//!
//! # Features
//!
//! Both are off by default.
//!
//! - `vm-memory`: `VsockVolatileStream`, for streams that copy to and from guest memory. Depends on
//!   the crate of that name.
//! - `scm-rights`: sockets of `std` receive descriptors
//!   ([`recv_data_fd`](VsockStream::recv_data_fd)) and report a closed peer
//!   ([`peer_gone`](VsockStream::peer_gone)). Depends on `rustix`.
//!
//! # A complete backend
//!
//! A backend over pairs of Unix sockets, for a host component in the same process. It differs from
//! a production backend in one respect: its queue of waiting connections is unbounded.
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
//!         self.tickets.read_exact(&mut [0])?; // `WouldBlock` if no connection waits
//!         let stream = self.waiting.recv().map_err(|_| io::ErrorKind::NotConnected)?;
//!         stream.set_nonblocking(true)?; // the device end starts non-blocking
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
//! - Without features this crate depends only on `std`. No public item names a type of another
//!   crate, except `VsockVolatileStream` (feature `vm-memory`).
//! - It performs no I/O of its own. The methods state what an implementation must do; for the
//!   sockets of `std`, each calls the method of the same name.

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

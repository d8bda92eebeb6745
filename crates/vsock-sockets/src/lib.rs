// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Vsock backends over host sockets. Host processes and the guest reach each other through Unix
//! sockets in the file system, or through TCP.
//!
//! The backends work with any device that takes a [`VsockBackend`]. With them, a VMM that embeds
//! `vsock-virtio` offers hybrid sockets without vhost.
//!
//! | | streams: [`UnixBackend`] | messages: [`UnixSeqpacketBackend`] |
//! |---|---|---|
//! | Bind the backend to | `/run/vm3/vm.vsock` | `/run/vm3/vm.vsock` |
//! | To reach the guest, connect to | `/run/vm3/vm.vsock` | `/run/vm3/vm.vsock_seqpacket` |
//! | with a socket of type | `SOCK_STREAM` | `SOCK_SEQPACKET` |
//! | To reach its port 52, write | `CONNECT 52\n` | the same, as one message |
//! | Once the guest has accepted, read | `OK <port>\n` | the same, as one message |
//! | To serve port 1024 for it, listen on | `/run/vm3/vm.vsock_1024` | `/run/vm3/vm.vsock_1024` |
//!
//! Streams and messages use the same path to serve a port, so a port has one of the two types.
//!
//! The device itself handles `CONNECT` and `OK`. A backend only accepts and connects sockets, and
//! never blocks.
//!
//! # With a device
//!
//! A [`UnixVsockStream`] moves data between its socket and guest memory with one system call for
//! many buffers. Register the type with the device (`direct`) to avoid an intermediate copy.
//!
//! ```
//! use std::io::Write;
//! use std::os::unix::net::UnixStream;
//! use vm_memory::GuestMemoryMmap;
//! use vsock_sockets::{UnixBackend, UnixSeqpacketBackend, UnixVsockStream};
//! use vsock_virtio::{Config, GuestCid, Muxer, VsockDevice};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = std::env::temp_dir().join(format!("vsock-embed-{}", std::process::id()));
//! # std::fs::create_dir_all(&directory)?;
//! let path = directory.join("vm.vsock");
//! let mut muxer = Muxer::new(GuestCid::try_from(3)?, Config::default());
//! muxer.add_backend(Box::new(UnixBackend::bind(&path)?))?;
//! muxer.add_backend(Box::new(UnixSeqpacketBackend::bind(&path)?))?;
//! let device: VsockDevice<GuestMemoryMmap> = VsockDevice::builder(muxer)
//!     .direct::<UnixVsockStream>(0)
//!     .build();
//!
//! // A host process can connect at any time. It waits for the guest.
//! let mut client = UnixStream::connect(&path)?;
//! client.write_all(b"CONNECT 52\n")?;
//!
//! // The device offers seqpacket sockets, because there is a backend for messages.
//! assert_eq!(device.device_features() & 2, 2);
//!
//! // From here on the VMM's event loop drives the device: it watches the descriptors that the
//! // device names, and reports events (`on_event`), kicks (`process`) and timeouts (`on_timeout`).
//! drop(device);
//! assert!(!path.exists(), "dropping a backend removes its file");
//! # std::fs::remove_dir_all(&directory)?;
//! # Ok(())
//! # }
//! ```
//!
//! `docs/embedding.md` in the repository shows the event loop.
//!
//! # Socket names
//!
//! - A file left behind by a dead process is replaced. A socket that answers, or a file that is not
//!   a socket, causes `AddrInUse`. If several processes want the same name, exactly one gets it.
//! - A file is removed only by the process that created it, and only if the same file is still
//!   there.
//! - No socket can also be a port of another guest. Within a process this is checked
//!   ([`SocketNames`]), including the program's own sockets ([`NamedListener`]). Between processes,
//!   give each guest its own directory: a process that can write to the directory can impersonate
//!   the guest and its services.
//! - The permissions of the file decide who can connect. They follow the process's `umask`, or a
//!   [`SocketAccess`].
//! - A service manager can create a socket and pass it to the process (`from_socket`). Its file
//!   then stays.
//!
//! # TCP, and sockets of existing programs
//!
//! | backend | who connects | to what |
//! |---|---|---|
//! | [`TcpBackend`] | host processes, with `CONNECT` | the backend's address |
//! | | the guest | the address that a port is mapped to |
//! | [`ExposeBackend`] | any program, without a handshake | a Unix or TCP socket for a port |
//! | [`ForwardBackend`] | the guest | a Unix, TCP or [datagram](DatagramStream) socket for a port |
//!
//! To serve clients that pass a descriptor to use as the stream, use a [`PassFdBackend`] instead of
//! a [`UnixBackend`].
//!
//! A TCP connection takes time to establish. The guest is answered once it is established or
//! refused, and nothing blocks in the meantime ([`VsockStream::finish_connect`]). [`SocketNames`]
//! also detects conflicts between TCP addresses.
//!
//! # Passed descriptors
//!
//! With a [`PassFdBackend`], a client passes one descriptor before its connection begins. In all
//! other cases a host process that sends descriptors (`SCM_RIGHTS`) to a guest gets an error
//! (`EPERM`). Before Linux 6.16 the kernel cannot refuse descriptors: the bytes arrive, and a
//! separate thread closes the descriptors. Closing a descriptor can block for as long as the sender
//! likes, and a device must not. There is one such thread in the process. It starts with the first
//! descriptor, or when [`start_closer`] is called.
//!
//! # Logging
//!
//! The crate logs through [`log`]. It warns if:
//!
//! - a socket's file cannot be removed;
//! - a path is too long to leave room for the suffix of a port;
//! - another process does not release the lock of a directory.
//!
//! It logs failures without consequences and refused clients of a [`PassFdBackend`] at the debug
//! level. No guest or host process can fill the log: each message that clients of a
//! [`PassFdBackend`] can repeat has its own limit for each backend, of ten messages at first and
//! then one every ten seconds. The number of messages left out is logged with the next message of
//! the kind, or when the backend and its streams have been dropped.

#![deny(unsafe_code)]

mod datagram;
mod expose;
mod forward;
#[doc(hidden)]
pub mod journal;
mod passed;
mod tcp;
mod tcp_names;
#[cfg(test)]
mod testing;
mod unix;

pub use datagram::DatagramStream;
pub use expose::{ExposeBackend, ExposedAt, ExposedAtError};
pub use forward::{ForwardBackend, ForwardTarget, ForwardTargetError};
pub use passed::{PassFdBackend, PassFdConfig, PassedStream};
pub use tcp::{TcpBackend, TcpVsockStream};
pub use unix::{
    ListenerHandle, NamedListener, SocketAccess, SocketFileRemover, SocketNames, UnixBackend,
    UnixSeqpacketBackend, UnixSeqpacketStream, UnixVsockStream, start_closer,
};
pub use vsock_backend_api::{
    ListenerId, Received, Record, VsockAddr, VsockBackend, VsockBackendType, VsockMessages,
    VsockStream, VsockVolatileStream,
};

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Vsock backends over sockets: host processes reach a guest, and the guest reaches them, by Unix
//! sockets in the file system. They go into any device that takes a [`VsockBackend`]: a VMM that
//! embeds `vsock-virtio` gets hybrid sockets by them, with no vhost.
//!
//! | | streams: [`UnixBackend`] | messages: [`UnixSeqpacketBackend`] |
//! |---|---|---|
//! | bound to | `/run/vm3/vm.vsock` | the same path |
//! | a host process that wants port 52 of the guest connects to | `/run/vm3/vm.vsock` | `/run/vm3/vm.vsock_seqpacket` |
//! | by a socket of the type | `SOCK_STREAM` | `SOCK_SEQPACKET` |
//! | writes, and reads once the guest has accepted | `CONNECT 52\n`, `OK <port>\n` | the same, as one message each |
//! | a host process that serves port 1024 for the guest listens on | `/run/vm3/vm.vsock_1024` | the same path, a port has either type |
//!
//! The device speaks `CONNECT` and `OK`; a backend accepts and connects sockets, and never waits.
//!
//! # With a device
//!
//! [`UnixVsockStream`] copies between its socket and guest memory by itself, one system call for
//! many buffers: a device that is told of the type (`direct`) has no copy of its own.
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
//! // A host process may come at any time: it waits for the guest.
//! let mut client = UnixStream::connect(&path)?;
//! client.write_all(b"CONNECT 52\n")?;
//!
//! // Seqpacket sockets are offered to the guest, because there is a backend for messages.
//! assert_eq!(device.device_features() & 2, 2);
//!
//! // From here on it is the VMM's event loop: it watches what the device says, and tells the device what is
//! // ready (`on_event`), kicked (`process`) and late (`on_timeout`).
//! drop(device);
//! assert!(!path.exists(), "a backend that is dropped removes its file");
//! # std::fs::remove_dir_all(&directory)?;
//! # Ok(())
//! # }
//! ```
//!
//! `docs/embedding.md` of the repository has the loop.
//!
//! # Names of sockets
//!
//! - The file that a dead process has left is replaced; a socket that answers, and anything that is
//!   no socket, is `AddrInUse`. Of any number of processes that want a name, one gets it.
//! - A file is removed only by the process that made it, and only if it is still the one that was
//!   made.
//! - No socket may be a port of another guest. In a process that is checked ([`SocketNames`]), also
//!   against the sockets of the program's own ([`NamedListener`]). Between processes, a directory
//!   for each guest does it: a process that can write to the directory speaks for the guest.
//!
//! - Who may connect, the permissions of the file say: those of the process's `umask`, or a
//!   [`SocketAccess`].
//! - A socket that a service manager has made can be handed over (`from_socket`): then its file
//!   stays.
//!
//! # TCP, and sockets that programs have anyway
//!
//! | | who connects | to |
//! |---|---|---|
//! | [`TcpBackend`] | a host component, with `CONNECT`; the guest | an address; the addresses that its ports are mapped to |
//! | [`ExposeBackend`] | any program, without a handshake | a Unix socket or an address that is one port of the guest |
//! | [`ForwardBackend`] | the guest | a Unix socket, an address, or a socket for datagrams ([`DatagramStream`]), for each port |
//!
//! A client that passes the descriptor which becomes the stream is served by a [`PassFdBackend`],
//! in place of a [`UnixBackend`].
//!
//! A connection over TCP takes its time: the guest is answered when it is there, or was refused,
//! and nothing waits meanwhile ([`VsockStream::finish_connect`]). Which of these sockets may not be
//! the same, [`SocketNames`] knows for addresses, too.
//!
//! # Descriptors
//!
//! With a [`PassFdBackend`], a client passes one descriptor, before its connection begins.
//! Otherwise, a host process that sends descriptors (`SCM_RIGHTS`) to a guest gets an error
//! (`EPERM`). On a system before Linux 6.16 its bytes arrive, and a thread of the crate's own, one
//! for the process, closes the descriptors: to close what a host process has passed may wait, and a
//! device must not. It starts with the first descriptor, or by [`start_closer`].
//!
//! # What it logs
//!
//! Through the crate [`log`]. Warnings: a socket's file cannot be removed; its path is too long for
//! a port; another process keeps the lock of its directory. Debug: what could not be done and does
//! no harm. Nothing that a guest or a host process can repeat.

#![deny(unsafe_code)]

mod datagram;
mod expose;
mod forward;
mod passed;
mod tcp;
mod tcp_names;
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

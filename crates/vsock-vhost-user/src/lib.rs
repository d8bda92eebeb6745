// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A vsock device outside the VMM. QEMU, Cloud Hypervisor, crosvm or any other vhost-user front-end
//! connects to a socket and shares its guest's memory. The host ends of the guest's connections are
//! in this process.
//!
//! # As a library
//!
//! Your program contains the device. Streams to and from the guest stay inside the process, and
//! bytes move between the streams and guest memory without a socket or a second copy:
//!
//! ```no_run
//! use std::io::{Read, Write};
//! use vsock_vhost_user::VhostUserVsockBuilder;
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let builder = VhostUserVsockBuilder::new(3, "/run/vm3/vhost.sock");
//!     let (builder, connector) = builder.in_process()?;
//!     let device = builder.spawn()?; // waits for the VMM on its own threads
//!
//!     // Accept a connection of the guest to CID 2, port 1024.
//!     let listener = connector.listen(1024)?;
//!     let mut stream = listener.accept()?;
//!     stream.write_all(b"hello, guest\n")?;
//!
//!     // Connect to port 52 of the guest.
//!     let mut stream = connector.connect_to(52)?;
//!     let mut answer = String::new();
//!     stream.read_to_string(&mut answer)?;
//!
//!     device.stop()?;
//!     Ok(())
//! }
//! ```
//!
//! Each guest needs its own socket paths. Within a process, the socket of a backend or device must
//! not have the path of another guest's port, such as `vm.vsock_1024`: creating the second of the
//! two fails with `AddrInUse`.
//!
//! `default-features = false` omits the dependencies of the program. This crate re-exports all
//! types that an embedder needs: limits, counters and errors, in-process streams and listeners,
//! backends over Unix sockets, and the traits for a custom backend:
//!
//! ```
//! use std::any::Any;
//! use std::io::{self, ErrorKind};
//! use std::os::fd::{AsRawFd, RawFd};
//! use std::os::unix::net::UnixStream;
//! use vsock_vhost_user::{
//!     Config, DeviceCounters, SealedMemory, UnixBackend, VhostUserError, VhostUserVsock,
//!     VhostUserVsockBuilder, VsockBackend, VsockBackendType, VsockInnerListener, VsockStream,
//! };
//!
//! /// Serves each connection of the guest on a thread of this process.
//! struct Threads;
//!
//! impl AsRawFd for Threads {
//!     fn as_raw_fd(&self) -> RawFd {
//!         -1 // the host opens no connections
//!     }
//! }
//!
//! impl VsockBackend for Threads {
//!     fn accept(&mut self) -> io::Result<Box<dyn VsockStream>> {
//!         Err(ErrorKind::WouldBlock.into())
//!     }
//!     fn connect(&self, _port: u32) -> io::Result<Box<dyn VsockStream>> {
//!         let (device, mut host) = UnixStream::pair()?;
//!         device.set_nonblocking(true)?;
//!         std::thread::spawn(move || io::copy(&mut host.try_clone()?, &mut host));
//!         Ok(Box::new(device))
//!     }
//!     fn r#type(&self) -> VsockBackendType {
//!         VsockBackendType::Other("threads")
//!     }
//!     fn as_any(&self) -> &dyn Any {
//!         self
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = std::env::temp_dir().join(format!("vsock-vhost-{}", std::process::id()));
//! # std::fs::create_dir_all(&directory)?;
//! let limits = Config::builder().max_connections(100).build()?;
//! let (builder, connector) = VhostUserVsockBuilder::new(3, directory.join("vhost.sock"))
//!     .config(limits)
//!     .sealed_memory(SealedMemory::Required)
//!     .backend(Box::new(UnixBackend::bind(directory.join("vm.vsock"))?))
//!     .backend_for(Box::new(Threads), &[7])
//!     .in_process_for(&[1024])?;
//! let device: VhostUserVsock = builder.spawn()?;
//! let listener: VsockInnerListener = connector.listen(1024)?;
//! let counters: DeviceCounters = device.queue_counters();
//! let ended: Result<(), VhostUserError> = device.stop();
//! # drop((listener, counters));
//! # std::fs::remove_dir_all(&directory)?;
//! # Ok(ended?)
//! # }
//! ```
//!
//! # As a program
//!
//! The program connects guests to host processes through Unix and TCP sockets:
//!
//! ```text
//! vsock-vhost-user --guest-cid 3 --socket /run/vm3/vhost.sock --uds-path /run/vm3/vm.vsock
//! ```
//!
//! `--help` describes all options, and `program.md` how to start each VMM, connect, and operate the
//! program; `control.md` describes its metrics. Both pages are in `docs` of the repository, and in
//! `/usr/share/doc/vsock-vhost-user` of the Debian package. The library has most of the program's
//! options too:
//!
//! | option | in the library |
//! |---|---|
//! | `--vm`, `--config` | a [`VhostUserVsockBuilder`] for each guest |
//! | `--fd` | [`VhostUserVsockBuilder::listener`], [`VhostUserVsockBuilder::vmm`] |
//! | `--uds-path` | [`UnixBackend`], [`UnixSeqpacketBackend`] |
//! | `--pass-fd` | [`PassFdBackend`] |
//! | `--forward`, `--expose` | [`ForwardBackend`], [`ExposeBackend`] |
//! | `--groups` | [`Siblings`] |
//! | `--capture` | [`Capture`] |
//! | `--control` | [`VhostUserVsock::inspector`] |
//! | limits and timeouts | [`Config`] |
//!
//! # Behaviour in unusual situations
//!
//! | event | what the device does |
//! |---|---|
//! | the guest reboots, or unloads its driver | resets the connections, keeps the listeners, and serves the next driver |
//! | the front-end disconnects or dies | the same, and serves the next front-end |
//! | the front-end requests a feature that was not offered, such as `packed=on` | refuses the request, and serves the next front-end |
//! | the front-end shares a memory region that is longer than its file | the same; see [`VhostUserVsockBuilder::sealed_memory`] for files that shrink later |
//! | the front-end adds or removes memory regions | supports up to 509 regions, and the queues keep running; a request to remove a region that contains a running queue fails |
//! | the front-end migrates the guest | marks each 4 KiB page that it writes in the front-end's log from the request on; resets the connections when the front-end has gone; the next device starts without connections |
//! | the front-end fills, empties or replaces its kicks and calls | blocks no thread; the guest may get no notifications |
//! | the guest's queues violate the rules | resets the connections, and waits until the driver resets the device |
//! | a host process does not read | lets the guest send up to [`buf_alloc`](ConfigBuilder::buf_alloc) bytes on this connection; other connections continue |
//! | the process has no file descriptor left | refuses or delays the connection that needs one; other connections continue |
//! | a host process sends descriptors (`SCM_RIGHTS`) | the sender gets an error (`EPERM`); before Linux 6.16 its bytes arrive, and a separate thread closes the descriptors |
//! | [`Stopper::stop`] | sends the guest its RSTs if it has room for them within 100 ms, resets connections, drops backends and ends its threads; the VMM's socket and the CID are released with the [`VhostUserVsock`] |
//! | a backend or the VMM's files block a stop | returns [`VhostUserError::NotEnded`] with the cause after two seconds; removes the socket files, and the CID stays in use |
//! | SIGTERM, SIGINT or SIGHUP (program) | stops in the same way, and the program ends |
//! | SIGUSR1 (program) | writes all counters and connections to standard error, regardless of the log level |
//! | the program makes a system call that it does not need | the kernel kills it, and standard error names the call |
//!
//! QEMU does not pass on the event queue, and informs a migrated guest itself. A front-end that
//! stops the queues and restarts them for the same driver, as QEMU does for `stop` and `cont`,
//! keeps the connections.
//!
//! # Logging
//!
//! The library uses the crate [`log`], with the targets `vsock_vhost_user`, `vsock_sockets` and
//! below. It does not log single packets, and logs a connection only if it is refused. Use
//! [`VhostUserVsock::inspector`] to observe connections.
//!
//! | level | events |
//! |---|---|
//! | error | a capture has ended because its file cannot be written; the driver cannot be served, because its queues are broken or it wants features that were not offered; a thread has panicked; the operating system lacks a resource that the device needs |
//! | warn | a capture lacks packets or has reached its limit; the front-end violated the protocol (names the request); the guest cannot be notified; a descriptor cannot be watched; notifications may block because asynchronous I/O is not available; a socket file cannot be removed, or its path is too long for a port; another process keeps the lock of a socket's directory |
//! | info | a front-end has connected or disconnected |
//! | debug | the guest's driver is up, and its features; why a client or a connection was refused, each reason with its own limit; failures without consequences |
//!
//! No guest, front-end or host process can fill the log. Each message that they can repeat has its
//! own limit for each guest: ten messages at first, then one every ten seconds, and unused turns
//! accumulate up to ten. Suppressed messages are counted. The count is logged with the next message
//! of the kind, or separately if none follows within ten seconds of its turn, or when the device is
//! dropped. A suppressed message is not formatted, and a message that the logger does not want is
//! not counted. Of the crates that the library uses, only `vsock_sockets` logs. Its messages have
//! the same limits, for each [`PassFdBackend`]. All captures of the process share the limits of
//! their messages, and the count is logged only with the next message of the kind.
//!
//! A logger that blocks also blocks the device that calls it. The program's logger does not:
//! messages wait in a bounded buffer for a thread that writes to standard error. It counts and
//! reports messages that find no room, and the program waits at most 1 s for it at the end.
//!
//! # Threads
//!
//! A device has two threads. The *front-end thread* waits for front-ends and answers their
//! requests. The *device thread* moves bytes, and only it reads and writes streams. It sleeps while
//! there is nothing to do, waits for nothing else, and handles events in batches: each batch needs
//! one wake-up, one look at the clock, one lock and one notification of the guest.
//!
//! A [`Capture`] has a thread that writes the file; no device waits for it.
//!
//! If the system lets host processes pass descriptors, the first such descriptor starts a thread
//! for the whole process that closes them; [`start_closer`] starts it in advance. Use
//! [`VhostUserVsockBuilder::on_thread_start`] to set up each thread of a device.
//!
//! # Invariants
//!
//! - Nothing that a guest, a front-end or a host process does ends the device or makes it spin.
//! - No call waits for a guest, a front-end or a host process while bytes could move.
//! - A stop takes at most two seconds, regardless of what the threads are doing.
//! - A thread that moves bytes never closes a descriptor that a host process has passed.
//! - Every descriptor is close-on-exec, and is closed with the object that it belongs to. One that
//!   a front-end passes becomes close-on-exec immediately after it was received.
//! - A process removes a socket file only if it created that file and the file has not been
//!   replaced.

#![forbid(unsafe_code)]

mod access_platform;
mod builder;
mod capture;
mod cid_claim;
mod device;
mod device_muxer;
mod dirty_log;
mod error;
mod frontend;
mod frontend_thread;
mod guest_clock;
mod inquiry;
mod inspector;
mod io_thread;
mod journal;
mod lifecycle;
mod log_fd;
mod memory;
mod migration;
mod panics;
mod received_file;
mod refusal;
mod served;
mod session;
mod shared;
mod shared_file;
mod signal;
mod status;
mod stopper;
mod thread;
mod virtio_device;
mod vmms;
mod vring;
mod worker;

pub use access_platform::AccessPlatform;
pub use builder::VhostUserVsockBuilder;
pub use capture::{Capture, CaptureConfig, CaptureCounters, CaptureError};
pub use device::VhostUserVsock;
pub use error::VhostUserError;
pub use inquiry::{Inquiry, InspectError};
pub use inspector::{ConnectionList, DeviceReport, Inspector};
pub use shared_file::SealedMemory;
pub use status::{DeviceStatus, StatusHandle};
pub use stopper::Stopper;
pub use thread::ThreadRole;
pub use vsock_backend_api::{
    ListenerId, Received, Record, VsockAddr, VsockBackend, VsockBackendType, VsockListener,
    VsockMessages, VsockStream, VsockVolatileStream,
};
pub use vsock_inner::{
    AcceptError, BackendCounters, Canceller, Capacity, ConnectError, HandshakeError, ListenError,
    StreamError, Target, VsockInnerBackend, VsockInnerConfig, VsockInnerConfigError,
    VsockInnerConnector, VsockInnerListener, VsockInnerReader, VsockInnerStream, VsockInnerWriter,
};
pub use vsock_muxer::{
    ConnectionId, ConnectionInfo, Ending, EndingCounts, Initiator, MuxerCounters, MuxerError,
    MuxerGauges, RefusalReason,
};
pub use vsock_proto::{
    Cid, CidError, Config, ConfigBuilder, ConfigError, ConnKey, GuestCid, Phase, Port, SocketType,
    Tick,
};
pub use vsock_siblings::{Groups, JoinError, SiblingBackend, SiblingError, Siblings};
pub use vsock_sockets::{
    DatagramStream, ExposeBackend, ExposedAt, ExposedAtError, ForwardBackend, ForwardTarget,
    ForwardTargetError, ListenerHandle, NamedListener, PassFdBackend, PassFdConfig, PassedStream,
    SocketAccess, SocketFileRemover, SocketNames, TcpBackend, TcpVsockStream, UnixBackend,
    UnixSeqpacketBackend, UnixSeqpacketStream, UnixVsockStream, start_closer,
};
pub use vsock_virtio::{DeviceCounters, QueueCounters, QueueDepths};

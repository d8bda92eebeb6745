// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A vsock device outside of the VMM: QEMU, Cloud Hypervisor, crosvm or any other front-end of
//! vhost-user connects to a socket and shares its guest's memory, and the host ends of the guest's
//! connections are here.
//!
//! # As a library: the host program is the device
//!
//! Streams to and from the guest stay inside of the process, and bytes go between them and the
//! guest's memory with no socket and no copy in between:
//!
//! ```no_run
//! use std::io::{Read, Write};
//! use vsock_vhost_user::VhostUserVsockBuilder;
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let (builder, connector) = VhostUserVsockBuilder::new(3, "/run/vm3/vhost.sock").in_process()?;
//!     let device = builder.spawn()?; // waits for the VMM, on threads of its own
//!
//!     // The guest connects to CID 2, port 1024 ...
//!     let listener = connector.listen(1024)?;
//!     let mut stream = listener.accept()?;
//!     stream.write_all(b"hello, guest\n")?;
//!
//!     // ... and the host to port 52 of the guest.
//!     let mut stream = connector.connect_to(52)?;
//!     let mut answer = String::new();
//!     stream.read_to_string(&mut answer)?;
//!
//!     device.stop()?;
//!     Ok(())
//! }
//! ```
//!
//! No guest may reach another one's socket as one of its ports: within the process, a backend or a
//! device with such a socket is refused with `AddrInUse`.
//!
//! `default-features = false` leaves out the program's dependencies, which a library does not need.
//! This crate re-exports all that a host program names: limits, counters and errors, streams and
//! listeners of the process, backends over Unix sockets, and the traits for a backend of its own:
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
//! /// Each connection of the guest ends in this process, on a thread of its own.
//! struct Threads;
//!
//! impl AsRawFd for Threads {
//!     fn as_raw_fd(&self) -> RawFd {
//!         -1 // nothing comes from the host
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
//! # As a program: host processes over Unix sockets
//!
//! ```text
//! vsock-vhost-user --guest-cid 3 --socket /run/vm3/vhost.sock --uds-path /run/vm3/vm.vsock
//! ```
//!
//! A host process reaches port 52 of the guest by connecting to `/run/vm3/vm.vsock` and writing
//! `CONNECT 52\n`, and serves port 1024 for the guest by listening on `/run/vm3/vm.vsock_1024`. By
//! `--vm guest-cid=3,socket=PATH,uds-path=PATH`, repeated, one process serves several guests, on
//! threads of their own. Each option of a guest is a key there, such as `buf-alloc=1M` or
//! `sealed-memory=true`; as an option of the program it holds for every guest that has no such key.
//! `--help` has them all: each limit and timeout of [`Config`] is one.
//!
//! `--config FILE` takes the guests from a YAML file:
//!
//! ```yaml
//! vms:
//!   - guest_cid: 3
//!     socket: /run/vm3/vhost.sock
//!     uds_path: /run/vm3/vm.vsock
//!     linger_timeout: 1min
//! ```
//!
//! `--check` says what is wrong with all of this and starts nothing. Command lines and files of
//! `vhost-device-vsock` 0.3.0 are understood, except for those that forward to `AF_VSOCK` sockets
//! of the host.
//!
//! Management software may pass the socket for the VMM (`--fd N`), as QEMU's conventions for
//! back-ends have it: one that listens, or one that is connected to the only VMM, with which the
//! device ends. `--print-capabilities` and `generate` do the rest of these conventions.
//!
//! Programs that know nothing of vsock are reached by `--forward PORT=unix:PATH`,
//! `=tcp:ADDRESS:PORT` or `=dgram:PATH` (each message is a datagram, as for systemd's
//! `$NOTIFY_SOCKET`), and reach the guest by `--expose unix:PATH=PORT` or `tcp:ADDRESS:PORT=PORT`,
//! without a handshake. With `--no-connect` nothing listens for `CONNECT`. After `--vm` they are
//! keys: `forward=PORT=TARGET`, `expose=ADDRESS=PORT`, `no-connect=true`.
//!
//! With `--pass-fd`, or the key `pass-fd=true`, a host process may hand over the pipe, file or
//! socket that becomes the stream, as in Kata Containers; see [`PassFdBackend`].
//!
//! Messages go over `SOCK_SEQPACKET` sockets: a host process finds the guest at
//! `/run/vm3/vm.vsock_seqpacket`, and the guest finds it where it finds those of streams; see
//! [`UnixSeqpacketBackend`].
//!
//! The front-end, with the guest's memory shared:
//!
//! ```text
//! qemu-system-x86_64 -machine q35,memory-backend=mem -m 512M \
//!     -object memory-backend-memfd,id=mem,size=512M,share=on \
//!     -chardev socket,id=vsock,path=/run/vm3/vhost.sock \
//!     -device vhost-user-vsock-pci,chardev=vsock ...
//! ```
//!
//! `docs/program.md` of the repository has the lines of other monitors.
//!
//! `vsock-vhost-user connect /run/vm3/vm.vsock 22` connects standard input and output to a port of
//! the guest, as ssh's `ProxyCommand` is to. `--capture FILE` writes packets for Wireshark, as
//! [`Capture`] does for a host program.
//!
//! `--control PATH` is a socket for those who watch the program, by HTTP: `GET /metrics`
//! (`OpenMetrics`), `GET /connections` (JSON) and `DELETE /connections/ID`.
//! `vsock-vhost-user ctl PATH connections`, `metrics`, `close ID` and `top` do it for people.
//! `docs/control.md` has the figures and the limits. A library asks by
//! [`VhostUserVsock::inspector`].
//!
//! # What happens when
//!
//! | event | what the device does |
//! |---|---|
//! | the guest reboots, or unloads its driver | its connections are reset, listeners stay, the next driver is served |
//! | the front-end goes, or dies | the same; the next front-end is served |
//! | the front-end wants what was not offered, such as `packed=on` | its request fails, the next front-end is served |
//! | the front-end shares memory that is longer than its file | the same; see [`VhostUserVsockBuilder::sealed_memory`] for files that shrink later |
//! | the front-end adds or removes memory regions | it may have up to 509, and the queues keep running; a request to remove a region that a running queue lies in fails |
//! | the front-end migrates the guest | each page of 4 KiB that the device writes is marked in the front-end's log, from when it requests this; when it has gone, connections are reset, and the next device has none |
//! | the front-end fills, empties or replaces its kicks and calls | no thread waits for it; the guest may get no notifications |
//! | the guest's queues break the rules | its connections are reset, until it resets the device |
//! | a host process does not read | the guest waits at [`buf_alloc`](ConfigBuilder::buf_alloc) bytes for this connection, all others go on |
//! | no descriptor is left | the connection that needed one is refused or waits, all others go on |
//! | a host process sends descriptors (`SCM_RIGHTS`) | it gets an error (`EPERM`); on a system before Linux 6.16 its bytes arrive, and a thread of its own closes the descriptors |
//! | [`Stopper::stop`] | the guest gets its RSTs, if it has room for them within 100 ms; connections are reset, backends dropped, threads ended; the socket for the VMM and the CID go with the [`VhostUserVsock`] |
//! | a stop is blocked by a backend, or by the VMM's files | two seconds after it [`VhostUserError::NotEnded`] says by what; socket files are removed, the CID stays taken |
//! | SIGTERM, SIGINT or SIGHUP, for the program | the same, and it ends |
//! | SIGUSR1, for the program | all figures and connections go to standard error, whatever is logged |
//! | a system call that the program does not need, for the program | it is killed, and standard error has the call |
//!
//! The event queue stays with QEMU, which does not pass it on: a guest that is migrated is told by
//! QEMU. A front-end that stops the queues and starts them again, as QEMU does for `stop` and
//! `cont`, resets the connections.
//!
//! # What it logs
//!
//! Through the crate [`log`], in the targets `vsock_vhost_user`, `vsock_sockets` and below. Nothing
//! is logged of single packets, and of connections only that they were refused:
//! [`VhostUserVsock::inspector`] has those.
//!
//! | level | what |
//! |---|---|
//! | error | a capture has ended, because its file cannot be written; the driver is not served: its queues are broken, or it wants what was not offered; a thread has panicked; the operating system lacks what the device needs |
//! | warn | packets are missing in a capture, or it has reached its limit; the front-end broke its protocol, with the name of the request; the guest cannot be notified; a descriptor cannot be watched; calls may wait for a front-end, for want of asynchronous I/O; a socket's file cannot be removed, or its path is too long for a port; another process keeps the lock of a socket's directory |
//! | info | a front-end has connected, or has gone |
//! | debug | the guest's driver is up, and with which features; why a client or a connection was refused, each reason with a limit of its own; what could not be done and does no harm |
//!
//! No guest, front-end or host process fills the log. Each line that they can repeat has a limit of
//! its own for each guest: it goes out ten times, and then once in ten seconds; a turn that is not
//! used is saved, up to ten. What was left out is counted, and told by the next line of the kind;
//! by a line of its own, if none comes within ten seconds of its turn; or when the device goes.
//! Nothing is formatted for a line that is left out, and one that the logger does not want is not
//! counted. Of the crates that the library uses, `vsock_sockets` alone logs, and nothing that
//! others can repeat.
//!
//! A logger that waits blocks the device that calls it. The program's does not: lines wait, up to
//! 256 KiB of them, for a thread that writes to standard error; what finds no room is counted and
//! told, and the end of the program waits for it 200 ms at most.
//!
//! # Threads
//!
//! A [`Capture`] has a thread, which writes the file; no device waits for it.
//!
//! A device has two threads: one waits for front-ends and answers their requests, the other
//! moves bytes. The latter is the only one that reads or writes a stream; it sleeps while there is
//! nothing to do, waits for nothing else, and takes what has happened in batches: one wake-up, one
//! look at the clock, one lock and one notification of the guest for a batch.
//!
//! Where the system lets host processes pass descriptors, the first of these starts another thread
//! for the whole process, which closes them; [`start_closer`] starts it beforehand. What each
//! thread is to do first, [`VhostUserVsockBuilder::on_thread_start`] says.
//!
//! # Invariants
//!
//! - Nothing that a guest, a front-end or a host process does ends the device or makes it spin.
//! - No call waits for a guest, a front-end or a host process while bytes could move.
//! - A stop ends within two seconds, whatever a thread is in.
//! - What a host process has passed is never closed by a thread that moves bytes.
//! - Every descriptor is close-on-exec, and closed when what it belonged to ends.
//! - A socket file is removed only by the process that made it, and only if it is still the one
//!   that was made.

#![forbid(unsafe_code)]

mod access_platform;
mod builder;
mod capture;
mod cid_claim;
mod device;
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
mod rate_limit;
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
pub use thread::DeviceThread;
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

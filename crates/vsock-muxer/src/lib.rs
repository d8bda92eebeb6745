// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Multiplexes the connections of one guest over any number of backends.
//!
//! [`Muxer`] owns the host's streams and the state of every connection. It takes the guest's
//! packets, the readiness of descriptors and the time; it fills the guest's buffers and tells the
//! event loop what to do ([`Action`]) and when to wake it. It never polls, takes no locks and reads
//! no clock; exclusive access comes from `&mut Muxer`.
//!
//! ```text
//!    guest's transmit queue                                     backends
//!  can_take_packet, on_packet ─▶ ┌───────┐ ◀─ accept, connect ─ VsockBackend
//!                                │ Muxer │
//!                    transmit ◀─ └───────┘ ◀─ read ─ write ─▶   VsockStream
//!     guest's receive queue        ▲   │
//!                        on_event  │   │  next_action: watch, unwatch, close
//!            on_timeout, deadline  │   ▼
//!                              the event loop
//! ```
//!
//! # Driving the muxer
//!
//! After every call that takes `now`, the caller must:
//!
//! 1. execute the [actions](Muxer::next_action) until there are no more;
//! 2. fill the guest's buffers, if the muxer [wants](Muxer::wants_transmit) to send and the guest
//!    has provided some;
//! 3. sleep until the [deadline](Muxer::deadline) at most, which may be now.
//!
//! Before it takes a packet out of the guest's queue, the caller must check
//! [`can_take_packet`](Muxer::can_take_packet). If the queue holds several packets, pass them as a
//! [batch](Muxer::on_packet_of_batch), which saves system calls.
//!
//! Register descriptors edge-triggered if possible. During a steady transfer, the muxer then has no
//! actions for the event loop: a stream stays registered while it is read, and while it cannot be
//! read. Only an event that the muxer cannot use makes it drop the watch, until a read finds
//! nothing; for this reason a level-triggered loop does not spin either.
//!
//! # Connections
//!
//! *The host initiates:* the muxer [accepts](VsockBackend::accept) a stream from a backend. If the
//! stream [names its port](VsockStream::requested_port), the connection begins immediately, and the
//! stream is [confirmed](VsockStream::confirm) when the guest accepts. Any other stream must first
//! send `CONNECT <port>\n`, and receives `OK <host port>\n`. A refused client sees only the end of
//! its stream; [`MuxerCounters`] record the reason. If a client [leaves](VsockStream::peer_gone)
//! before its REQUEST is in a buffer of the guest, the guest never learns of it, unless the client
//! has written data.
//!
//! *The guest initiates:* the muxer requests a stream from the backend that serves the port, or
//! from the first backend that was added without ports. If the backend returns `WouldBlock`, it is
//! asked again every 10 ms to 100 ms, and whenever another connection arrives, until
//! [`response_timeout`](Config::response_timeout) expires. At most
//! [`max_accepting`](Config::max_accepting) connections wait in this way, and the oldest is served
//! first. If the busy [listener](VsockBackend::listener) is replaced by another one, the
//! connections that wait for it receive an RST. Any other error is also answered with an RST, and
//! so is a REQUEST for a port that no backend serves. A REQUEST for ports that are in use shows
//! that the guest has no record of the old connection, so that one is dropped and a new one begins.
//!
//! *Other guests* connect to this guest, and this guest connects to them, through the backend for
//! [siblings](Muxer::add_sibling_backend), if there is one. A sibling's CID is part of the
//! connection's [key](ConnKey).
//!
//! # Messages
//!
//! A stream that has [`messages`](VsockStream::messages) is the host's end of a seqpacket
//! connection, whichever side initiates it. For the guest's REQUEST, the muxer asks the backend of
//! the port, or the first backend without ports that [supports
//! seqpacket](VsockBackend::has_seqpacket). A device offers `VIRTIO_VSOCK_F_SEQPACKET` if [any
//! backend](Muxer::has_seqpacket) supports it; unless the driver accepts the feature, the muxer
//! refuses every REQUEST and every client of this type. A client's command is its first message,
//! and the answer is a message too.
//!
//! The muxer assembles the guest's packets and writes each message to the stream as a whole. In the
//! other direction, it reads a message as a whole and splits it according to the guest's credit and
//! buffers. A connection holds at most one message of which the guest has received only a part;
//! meanwhile, other connections have their turn.
//!
//! A message that exceeds [`max_message`](Config::max_message), or is longer than its receiver can
//! hold, ends the connection: with [`MessageTooLong`](Ending::MessageTooLong), or with a violation
//! if the guest sent it. The receiver never sees such a message as complete. Connections end in the
//! same way as those of byte streams. The end-of-record mark is preserved if the stream supports
//! it.
//!
//! # Limits
//!
//! [`Config`] limits the connections, handshakes and pending replies, the window of each
//! connection, and every wait. Packets cause no allocations, with three exceptions: bytes that a
//! stream does not accept, up to the window; more than 4 KiB of a batch for one stream; and a
//! message of which the guest can take only a part.
//!
//! One event accepts at most 32 clients and makes at most 64 writes of waiting bytes to a stream;
//! the rest of the work becomes due through the deadline. One call of [`transmit`](Muxer::transmit)
//! sends at most its budget, and while several connections have data, each sends at most 64 KiB per
//! turn.
//!
//! # Monitoring
//!
//! The [counters](Muxer::counters) record what has happened, the [gauges](Muxer::gauges) show the
//! present state, and [`connections`](Muxer::connections) lists every connection with its byte
//! counts. [`next_refusal`](Muxer::next_refusal) returns the reasons of the most recent refusals,
//! for the log. [`reset_connection`](Muxer::reset_connection) ends one connection on both sides.
//! The thread that owns the muxer counts everything in plain integers.
//!
//! # Example
//!
//! A guest connects to a host component and exchanges a word with it.
//!
//! ```
//! use std::io::{Read, Write};
//! use std::os::unix::net::UnixStream;
//! # use std::any::Any;
//! # use std::io;
//! # use std::os::fd::{AsRawFd, RawFd};
//! # use std::sync::Mutex;
//! # use vsock_muxer::{VsockBackend, VsockBackendType, VsockStream};
//! use vsock_muxer::{
//!     Action, Config, GuestBuffers, GuestCid, Header, Muxer, Op, Readiness, SocketTypes, Tick,
//! };
//! # /// Connects the guest to one host component, once.
//! # struct Once(UnixStream, Mutex<Option<UnixStream>>);
//! # impl AsRawFd for Once {
//! #     fn as_raw_fd(&self) -> RawFd { self.0.as_raw_fd() }
//! # }
//! # impl VsockBackend for Once {
//! #     fn accept(&mut self) -> io::Result<Box<dyn VsockStream>> {
//! #         Err(io::ErrorKind::WouldBlock.into())
//! #     }
//! #     fn connect(&self, _port: u32) -> io::Result<Box<dyn VsockStream>> {
//! #         let stream = self.1.lock().unwrap().take();
//! #         let stream = stream.ok_or(io::ErrorKind::ConnectionRefused)?;
//! #         stream.set_nonblocking(true)?;
//! #         Ok(Box::new(stream))
//! #     }
//! #     fn r#type(&self) -> VsockBackendType { VsockBackendType::UnixStream }
//! #     fn as_any(&self) -> &dyn Any { self }
//! # }
//!
//! /// A guest that always provides another buffer of 4 KiB.
//! #[derive(Default)]
//! struct Buffers(Vec<(Header, Vec<u8>)>);
//!
//! impl GuestBuffers for Buffers {
//!     fn room(&mut self) -> Option<usize> {
//!         Some(4096)
//!     }
//!     fn put_bytes(&mut self, header: &Header, payload: &[u8]) {
//!         self.0.push((*header, payload.to_vec()));
//!     }
//! }
//!
//! let (mut component, ours) = UnixStream::pair()?;
//! # let backend = Once(UnixStream::pair()?.0, Mutex::new(Some(ours)));
//! let mut muxer = Muxer::new(GuestCid::try_from(3)?, Config::default());
//! muxer.add_backend(Box::new(backend))?;
//! let now = Tick::ZERO;
//! muxer.activate(now, SocketTypes::STREAM);
//!
//! let request = Header {
//!     src_cid: 3,
//!     dst_cid: 2,
//!     src_port: 1024,
//!     dst_port: 52,
//!     socket_type: 1,
//!     op: Op::Request.into(),
//!     buf_alloc: 65_536,
//!     ..Header::default()
//! };
//! muxer.on_packet(now, &request, &mut &b""[..]);
//! let data = Header { op: Op::ReadWrite.into(), len: 4, ..request };
//! let mut buffers = Buffers::default();
//! muxer.transmit(now, &mut buffers, usize::MAX);
//! muxer.on_packet(now, &data, &mut &b"ping"[..]);
//! let mut word = [0; 4];
//! component.read_exact(&mut word)?;
//! assert_eq!(&word, b"ping");
//!
//! component.write_all(b"pong")?;
//! // The event loop: watches the backend and the stream, and reports an event of the stream.
//! while let Some(action) = muxer.next_action() {
//!     if let Action::Watch { token, .. } = action {
//!         let readable = Readiness { readable: true, ..Readiness::default() };
//!         muxer.on_event(now, token, readable);
//!     }
//! }
//! muxer.transmit(now, &mut buffers, usize::MAX);
//! assert_eq!(Op::try_from(buffers.0[0].0.op), Ok(Op::Response));
//! assert_eq!(buffers.0[1].1, b"pong");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Invariants
//!
//! - No behaviour of the guest, the host clients or the event loop causes a panic or exceeds a
//!   limit.
//! - A panic in a stream, in a backend or in the guest's side propagates, and ends every
//!   connection.
//! - An event of a stream that was closed never reaches another stream.
//! - A connection releases its host port on every path.
//! - Every descriptor listed in [`Action::Close`] is registered at that time, and no other
//!   descriptor of the stream is.

#![forbid(unsafe_code)]
#![deny(clippy::disallowed_types)]

mod action;
mod backends;
mod backoff;
mod busy;
mod connection_info;
mod counters;
mod driven;
mod entry;
mod far_credit;
mod guest;
mod host_stream;
mod muxer;
mod payload;
mod ports;
mod refusal;
mod rxq;
mod sender;
mod slot;
mod state;
mod stream_calls;
mod table;
mod timers;
mod token;
mod unsent;
mod waiting;

pub use action::{Action, CloseMode, ClosingStream};
pub use backends::MuxerError;
pub use connection_info::{ConnectionId, ConnectionInfo, Initiator, ListPosition, MuxerGauges};
pub use counters::{EndingCounts, MuxerCounters};
pub use driven::{Driven, NextCall};
pub use guest::{Allowance, GuestBuffers, GuestPayload};
pub use muxer::Muxer;
pub use refusal::{ConnectionRefusal, RefusalReason};
pub use state::{MuxerState, StateVersionError};
pub use stream_calls::send_message;
pub use token::{BackendId, Readiness, Token};
pub use vsock_backend_api::{
    ListenerId, Received, Record, VsockAddr, VsockBackend, VsockBackendType, VsockCredit,
    VsockMessages, VsockStream,
};
pub use vsock_proto::{
    Cid, CidError, Config, ConfigBuilder, ConfigError, ConnKey, Ending, GuestCid, Header, Interest,
    MessageFlags, Op, Phase, Port, Progress, SocketType, SocketTypes, Tick,
};

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Many connections, many backends, one guest.
//!
//! [`Muxer`] owns the host's streams and the state of every connection. It takes packets of the
//! guest, readiness of descriptors and the time; it fills buffers of the guest, and says what the
//! event loop shall do ([`Action`]) and when it wants to be woken. It polls nothing, takes no lock,
//! reads no clock: `&mut Muxer` is the lock.
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
//! # How it is driven
//!
//! After every call that takes `now`, the caller takes the [actions](Muxer::next_action) until
//! there is none; fills buffers, if the muxer [wants](Muxer::wants_transmit) some and the guest has
//! posted some; and sleeps no longer than until the [deadline](Muxer::deadline), which may be now.
//! Before it takes a packet out of the guest's queue it asks
//! [`can_take_packet`](Muxer::can_take_packet). If the queue holds several packets, hand them over
//! as a [batch](Muxer::on_packet_of_batch), which saves system calls.
//!
//! Descriptors are best registered edge-triggered. In the steady flow nothing is said to the event
//! loop: a stream stays registered while it is read, and while it cannot be. Only an event that is
//! of no use takes its watch back, until a read has found nothing; so a level-triggered loop is not
//! kept awake either.
//!
//! # Connections
//!
//! *The host begins:* a backend is [accepted](VsockBackend::accept) from. A stream
//! that [names its port](VsockStream::requested_port) is a connection immediately, and
//! [confirmed](VsockStream::confirm) when the guest accepts. Any other first sends
//! `CONNECT <port>\n` and is answered `OK <host port>\n`; a client that is refused is answered by
//! the end of its stream, and [`MuxerCounters`] say why. One that has
//! [left](VsockStream::peer_gone) before its REQUEST is in a buffer of the guest is not announced,
//! unless it has written something.
//!
//! *The guest begins:* the backend of the port, or the first that was added without ports, is asked
//! for a stream. `WouldBlock` is asked again, from 10 ms to 100 ms apart and whenever another
//! comes, within [`response_timeout`](Config::response_timeout), for at most
//! [`max_accepting`](Config::max_accepting) connections at a time. The one that has waited longest
//! is served first. If the [listener](VsockBackend::listener) is not the one any more that was
//! busy, those that wait for it get an RST; so does the guest after any other error, and for a port
//! that no backend serves. A REQUEST for ports that are in use means that the guest has forgotten
//! the old connection: it is dropped, and the new one begins.
//!
//! *Another guest* is reached, and reaches this one, through the backend for
//! [siblings](Muxer::add_sibling_backend), if there is one. Its CID is part of the connection's
//! [key](ConnKey).
//!
//! # Messages
//!
//! A stream that has [`messages`](VsockStream::messages) is the host's end of a
//! seqpacket connection, whichever side begins it. For the guest's REQUEST the backend of the port
//! is asked, or the first without ports that [has such streams](VsockBackend::has_seqpacket); a
//! device offers `VIRTIO_VSOCK_F_SEQPACKET` if [any backend](Muxer::has_seqpacket) has, and where
//! the guest driver has not accepted it, both a REQUEST and a client are refused. A client's
//! command is its first message, the answer another one.
//!
//! The guest's packets are put together, and go to the stream as one message. A message of the
//! stream is read whole, and cut to the guest's credit and buffers; a connection holds at most one
//! of which the guest has a part, and others have their turn meanwhile. A message beyond
//! [`max_message`](Config::max_message), or beyond what its receiver can hold, ends the connection
//! ([`MessageTooLong`](Ending::MessageTooLong), or a violation if it is the guest's), without a
//! part of it: one of which a part is with the guest already is never given its end. Ends are those
//! of other streams. The mark of a record passes where the stream knows it.
//!
//! # What is bounded
//!
//! Connections, handshakes, owed replies, the window of a connection and every wait: by
//! [`Config`]. No packet allocates memory, except for bytes that a stream does
//! not take, within the window, for more than 4 KiB of a batch for one stream, and for a message of
//! which the guest can take a part. One event accepts at most 32 clients, and makes at most 64
//! writes of what waited for a stream; the rest comes through the deadline. One call of
//! [`transmit`](Muxer::transmit) sends at most its budget, and while several connections have
//! something, each at most 64 KiB in its turn.
//!
//! # Watching it
//!
//! The [counters](Muxer::counters) say what has happened, the [gauges](Muxer::gauges) what there
//! is, and [`connections`](Muxer::connections) lists every connection with its bytes.
//! [`next_refusal`](Muxer::next_refusal) says for the log why the last clients were refused, and
//! [`reset_connection`](Muxer::reset_connection) ends one connection on both sides. Everything is
//! counted in plain numbers by the thread that has the muxer.
//!
//! # Example
//!
//! A guest connects to a host component, and they exchange a word.
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
//! # /// Connects the guest to one component, once.
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
//! /// A guest that always has one buffer of 4 KiB more.
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
//! // The event loop: the backend's watch and the stream's, and the event that the latter brings.
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
//! - Whatever guest, host clients and event loop do: no panic, and every limit holds.
//! - A panic of a stream, a backend or the guest's side passes through, and ends every connection.
//! - An event of a stream that is gone never reaches another.
//! - A host port is given back by the connection that has it, on every path.
//! - Each descriptor is registered when it is named in [`Action::Close`], and in no other case.

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

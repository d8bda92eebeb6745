// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! An in-process vsock backend: a VMM talks to its own guest without a socket to itself.
//!
//! A [`VsockInnerBackend`] goes into the vsock device. Host components in the same process open
//! connections to the guest through a [`VsockInnerConnector`], and accept connections from the
//! guest through a [`VsockInnerListener`]. Both yield a [`VsockInnerStream`], a byte stream with
//! the semantics of a socket. It makes no system call while both ends are busy, and can be polled
//! when one of them waits. The host components' ends start in blocking mode; the device's ends,
//! which the backend returns, in non-blocking mode.
//!
//! ```
//! use std::io::{Read, Write};
//! use vsock_inner::{VsockBackend, VsockInnerBackend};
//!
//! let mut backend = VsockInnerBackend::new()?;
//! let mut host = backend.get_connector().connect_stream()?;
//! let mut device = backend.accept()?;
//!
//! host.write_all(b"ping")?;
//! let mut bytes = [0; 16];
//! assert_eq!(device.read(&mut bytes)?, 4);
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # Data
//!
//! Bytes arrive exactly once, in order and unchanged. A read collects the bytes of as many writes
//! as fit. Each direction holds at most its capacity, which is 256 KiB unless
//! [configured](VsockInnerConfig) otherwise. When it is full, the writer waits, times out, or gets
//! `WouldBlock`. After a refused write, the stream is writable again once a quarter of the capacity
//! is free, or 64 KiB if that is less.
//!
//! # Readiness
//!
//! `as_raw_fd` is readable exactly when a read would not return `WouldBlock`: when there is data,
//! an end, or a reset. [`write_ready_fd`] is writable (`EPOLLOUT`) exactly when a write would not
//! return `WouldBlock`. Both hold for level-triggered and edge-triggered polls, no matter when the
//! descriptor is first taken, as soon as no call is in progress at either end. A descriptor that is
//! never taken costs nothing.
//!
//! [`write_ready_fd`]: VsockStream::write_ready_fd
//!
//! Async tasks need no descriptor. [`poll_read`](VsockInnerStream::poll_read) and similar calls
//! store the waker of their task, which requires no system call. One end may be used by threads,
//! descriptors and tasks in turn.
//!
//! # Ends
//!
//! | event | the peer's read, after the queued bytes | the peer's write |
//! |---|---|---|
//! | `shutdown(Write)` | `Ok(0)` | unaffected |
//! | `shutdown(Read)` | unaffected | `BrokenPipe` |
//! | drop | `Ok(0)`, or a reset | `BrokenPipe`, or a reset |
//!
//! A drop is a close. It is a reset instead (`ConnectionReset` in both directions) if the dropped
//! end left bytes unread, was dropped while its thread panicked, or was
//! [aborted](VsockInnerStream::abort), and had not shut down writing before. A byte that is written
//! while the peer is being dropped either counts as left unread or comes after the drop; the two
//! directions always end in the same way. A direction that either side had already shut down keeps
//! that end.
//!
//! Dropping a [half](VsockInnerStream::into_split) closes only its direction, by the same rules.
//! The reading half resets what the peer writes if it left bytes unread; the writing half resets
//! what the peer reads if its thread panics.
//!
//! # Features
//!
//! - `vm-memory` (off by default): streams and halves implement `ReadVolatile` and `WriteVolatile`
//!   of the `vm-memory` crate. They copy directly between pipe and guest memory.
//!
//! # Invariants
//!
//! - The mode, timeouts and descriptors of one end never affect what the other end sees.
//! - A byte whose write returned `Ok` is never lost while the reader keeps reading.
//! - No call panics because of anything that a peer, a guest or the operating system does. A panic
//!   in the dirty bitmap of guest memory passes through, and nothing has been transferred then.

mod answer;
mod backend;
mod backlog;
mod canceller;
mod cancels;
mod config;
mod connection;
mod connector;
mod counters;
mod credit;
mod doorbell;
mod error;
mod half;
mod handshake;
mod hub;
mod listener;
#[cfg(all(test, loom))]
mod loom_model;
mod pipe;
mod poll;
mod reader;
mod ready_fd;
mod request;
mod seqpacket;
mod spin;
mod stream;
mod sync;
mod task;
mod task_slot;
mod tasks;
#[cfg(all(feature = "vm-memory", not(all(test, loom))))]
mod volatile;
mod wait;
mod word;
mod writer;

pub use backend::VsockInnerBackend;
pub use canceller::Canceller;
pub use config::{
    Capacity, DEFAULT_CAPACITY, MAX_CAPACITY, VsockInnerConfig, VsockInnerConfigError,
};
pub use connector::VsockInnerConnector;
pub use counters::BackendCounters;
pub use error::StreamError;
pub use handshake::HandshakeError;
pub use hub::{ConnectError, ListenError, Target};
pub use listener::{AcceptError, VsockInnerListener};
pub use reader::VsockInnerReader;
pub use seqpacket::VsockInnerSeqpacket;
pub use stream::VsockInnerStream;
#[cfg(feature = "vm-memory")]
pub use vsock_backend_api::VsockVolatileStream;
pub use vsock_backend_api::{
    ListenerId, Received, Record, VsockAddr, VsockBackend, VsockBackendType, VsockCredit,
    VsockListener, VsockMessages, VsockStream,
};
pub use writer::VsockInnerWriter;

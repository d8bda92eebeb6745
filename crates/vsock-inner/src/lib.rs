// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! An in-process vsock backend: a VMM talks to its own guest without a socket to itself.
//!
//! A [`VsockInnerBackend`] goes into the vsock device. Host components in the same process open
//! connections to the guest through a [`VsockInnerConnector`], and accept the guest's through a
//! [`VsockInnerListener`]. Both get a [`VsockInnerStream`]: a byte stream with the semantics of a
//! socket, which costs no system call while both sides are at work, and which can be polled when
//! one is not.
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
//! # Bytes
//!
//! They arrive once, in order, unchanged. A read gathers as many writes as fit. Each direction
//! holds at most its capacity, 256 KiB unless [configured](VsockInnerConfig) otherwise; then the
//! writer waits, times out, or gets `WouldBlock`. After a refused write, space counts again once a
//! quarter of the capacity is free, and no more than 64 KiB of it.
//!
//! # Readiness
//!
//! `as_raw_fd` is readable exactly when a read would not return `WouldBlock`: there is data, or the
//! end, or a reset. [`write_ready_fd`] is writable (`EPOLLOUT`) exactly when a write would not.
//! Both hold for level-triggered and edge-triggered polls, whenever the descriptor is first taken,
//! as soon as no call is in progress on either end. A descriptor that was not taken costs nothing.
//!
//! [`write_ready_fd`]: VsockStream::write_ready_fd
//!
//! Async tasks need no descriptor: [`poll_read`](VsockInnerStream::poll_read) and similar calls
//! leave the waker of their task, which costs no system call. Threads, descriptors and tasks may
//! take turns at one end.
//!
//! # Ends
//!
//! | event | the peer's read, after the queued bytes | the peer's write |
//! |---|---|---|
//! | `shutdown(Write)` | `Ok(0)` | unaffected |
//! | `shutdown(Read)` | unaffected | `BrokenPipe` |
//! | drop | `Ok(0)`, or a reset | `BrokenPipe`, or a reset |
//!
//! A drop is a close. It is a reset, `ConnectionReset` in both directions, if the dropped end
//! left bytes unread, was dropped while its thread panics, or was
//! [aborted](VsockInnerStream::abort), and had not shut down Write before. A byte that is written
//! while the peer is being dropped either counts as left unread, or comes after the drop; the two
//! directions always end alike. Where a direction was shut down before, by either side, it stays
//! so.
//!
//! A [half](VsockInnerStream::into_split) that is dropped closes its direction alone, by the same
//! rules: the reading half resets what the peer writes if it left bytes unread, the writing half
//! what the peer reads if its thread panics.
//!
//! # Features
//!
//! - `vm-memory` (off): streams and halves implement `ReadVolatile` and `WriteVolatile` of the
//!   `vm-memory` crate, copying between pipe and guest memory directly.
//!
//! # Invariants
//!
//! - A mode, a timeout or a descriptor of one end never changes what the other end sees.
//! - A byte that was written with `Ok` is never dropped while the reader goes on reading.
//! - No call panics for anything that a peer, a guest or the operating system does. A panic of
//!   guest memory's bitmap passes through, and nothing was moved then.

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

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Vsock backends and streams on an event loop.
//!
//! - A [`ListenerSubscriber`] accepts the connections that a guest opens to a port of the host; a
//!   [`BackendSubscriber`] accepts those that host components open to the guest. Both pass each
//!   connection to an [`AcceptHandler`].
//! - A [`StreamSubscriber`] serves many streams of any kind with a [`StreamHandler`]. The module
//!   [`services`] contains an echo service, a line-based service, and a proxy.
//! - With the feature `remote`, a `RemoteHandle` controls a [`StreamSubscriber`] from other
//!   threads.
//! - With the feature `muxer`, a `MuxerDriver` is the event loop of a device. It handles a muxer's
//!   streams, backends and deadlines, and the VMM's own descriptors.
//!
//! The subscribers work with rust-vmm's `event_manager` (a default feature), in any form that it
//! accepts: alone, in a `Box<dyn MutEventSubscriber>`, or shared as `Arc<Mutex<..>>`. Each
//! subscriber, and the driver, has a single descriptor, so any other loop can drive it as well,
//! without the feature.
//!
//! # Guarantees
//!
//! - An id refers to one stream only, even if its descriptor number is reused.
//! - A busy stream waits for its next turn like every other. The work per turn and per wake-up is
//!   limited.
//! - Bytes that `write` has accepted are delivered, unless the stream fails or is closed by force.
//!   Bytes lost in that way are counted.
//! - The loop does not spin: a descriptor that cannot be served is not watched. Spurious wake-ups
//!   are counted.
//!
//! # Invariants
//!
//! - Nothing blocks, except the calls of a `RemoteHandle`.
//! - A descriptor is unregistered before its stream is dropped. It is polled for writing only while
//!   there is something to write, and only through `write_ready_fd`.
//! - No handler is called inside a method of [`Streams`].

#![forbid(unsafe_code)]

mod acceptor;
mod contain;
mod counters;
mod deadlines;
#[cfg(feature = "muxer")]
mod driver;
mod entry;
mod error;
mod handler;
mod limits;
#[cfg(feature = "remote")]
mod remote;
pub mod services;
mod streams;
mod subscriber;
mod table;
mod watch;

pub use acceptor::{AcceptHandler, AcceptSubscriber, BackendSubscriber, ListenerSubscriber, More};
pub use counters::LoopCounters;
#[cfg(feature = "muxer")]
pub use driver::{DriverEvents, Handover, MuxerDriver, Waker};
pub use error::{AddError, LoopError, Refusal, StreamFailure};
#[cfg(feature = "event-manager")]
pub use event_manager;
pub use handler::{After, StreamHandler};
pub use limits::{AcceptLimits, LimitError, StreamLimits, Trigger};
#[cfg(feature = "remote")]
pub use remote::{RemoteError, RemoteHandle};
pub use streams::Streams;
pub use subscriber::StreamSubscriber;
pub use table::StreamId;
pub use vsock_backend_api::{
    ListenerId, Received, Record, VsockAddr, VsockBackend, VsockBackendType, VsockListener,
    VsockMessages, VsockStream,
};
#[cfg(feature = "muxer")]
pub use vsock_muxer::{
    Action, BackendId, CloseMode, ClosingStream, Driven, Interest, Readiness, Token,
};
#[cfg(feature = "muxer")]
pub use vsock_proto::Tick;

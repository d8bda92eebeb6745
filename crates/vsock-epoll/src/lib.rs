// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A vsock backend and its streams on an event loop.
//!
//! - A [`ListenerSubscriber`] accepts what a guest opens to a port of the host, a
//!   [`BackendSubscriber`] what host components open towards the guest. Each asks an
//!   [`AcceptHandler`] what to do with a connection.
//! - A [`StreamSubscriber`] serves many streams of any kind through a [`StreamHandler`].
//!   [`services`] has an echo, a service of lines, and a proxy.
//! - With the feature `remote`, a `RemoteHandle` does all of that from other threads.
//! - With the feature `muxer`, a `MuxerDriver` is the loop of a device: of a muxer's streams and
//!   backends, of deadlines and of a VMM's own descriptors.
//!
//! They are subscribers for rust-vmm's `event_manager` (a default feature), whatever its type of
//! subscriber is: alone, in a `Box<dyn MutEventSubscriber>`, or shared as `Arc<Mutex<..>>`. Each
//! has one descriptor, so any other loop can drive them, too, and leave the feature out.
//!
//! # What a loop promises
//!
//! - An id never means another stream than the one that it was made for, whatever descriptors do.
//! - A busy stream waits for its next turn like every other; work per turn and per wake-up is
//!   bounded.
//! - What `write` has accepted is delivered, unless the stream fails or is closed by force; and
//!   what is lost then is counted.
//! - Nothing spins: what cannot be served is not watched, and a spurious wake-up is counted.
//!
//! # Invariants
//!
//! - Nothing here waits, but for the calls of a `RemoteHandle`.
//! - A descriptor is unregistered before its stream is dropped, and polled for writing only while
//!   there is something to write, by `write_ready_fd` alone.
//! - No handler runs inside of a method of [`Streams`].

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

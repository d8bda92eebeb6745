// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The virtio vsock device (virtio 1.3, 5.10), for a VMM to embed.
//!
//! [`VsockDevice`] connects a [`Muxer`] with three virtqueues: it makes packets of
//! descriptor chains and fills the guest's buffers, and has the configuration space, the features
//! and the event queue. It has no event loop, no descriptor and no clock, and starts no thread:
//! memory and queues are lent to it for a call, time is passed in, and what is to be done comes
//! back.
//!
//! ```
//! use virtio_queue::{Queue, QueueT};
//! use vm_memory::{GuestAddress, GuestMemoryMmap};
//! use vsock_inner::{VsockInnerBackend, VsockInnerStream};
//! use vsock_virtio::{Config, F_VERSION_1, GuestCid, Muxer, NextCall, Queues, Tick, VsockDevice};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let backend = VsockInnerBackend::new()?;
//! let connector = backend.get_connector(); // for host components
//! let mut muxer = Muxer::new(GuestCid::try_from(3)?, Config::builder().build()?);
//! muxer.add_backend(Box::new(backend))?;
//! let mut device = VsockDevice::builder(muxer)
//!     .direct::<VsockInnerStream>(0) // copies between its buffer and guest memory
//!     .build();
//!
//! // What the driver sets up through the VMM's transport.
//! let memory: GuestMemoryMmap<()> = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)])?;
//! let mut all = [Queue::new(128)?, Queue::new(128)?, Queue::new(128)?];
//! for (queue, base) in all.iter_mut().zip([0x1000, 0x4000, 0x7000]) {
//!     queue.set_desc_table_address(Some(base), None);
//!     queue.set_avail_ring_address(Some(base + 0x1000), None);
//!     queue.set_used_ring_address(Some(base + 0x2000), None);
//!     queue.set_ready(true);
//! }
//! let [rx, tx, event] = &mut all;
//! let mut queues = Queues { rx, tx, event: Some(event) };
//!
//! device.ack_features(F_VERSION_1)?;
//! device.activate(Tick::ZERO, &memory, &mut queues)?;
//!
//! // After a kick, a ready descriptor or a timeout:
//! let outcome = device.process(Tick::ZERO, &memory, &mut queues)?;
//! assert!(outcome.notify_tx, "once, whatever a device before may have left unsaid");
//! assert_eq!(outcome.next, NextCall::OnEvent, "the loop may sleep; else it calls `process` again");
//! while let Some(action) = device.next_action() {
//!     println!("for the event loop: {action:?}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A whole program with kicks, interrupts and an event loop is in `docs/embedding.md` of the
//! repository.
//!
//! # What else is here
//!
//! What makes a muxer and what it tells a VMM, and the traits of backends and streams, are
//! re-exported from the crates below: a VMM depends on this crate, on rust-vmm's `virtio-queue` and
//! `vm-memory`, and on the crate of its backend. What a muxer exchanges with a device, such as
//! packets, stays in `vsock-muxer`.
//!
//! # What holds
//!
//! - A chain may have any layout; a header is read out of guest memory once; no reference to guest
//!   memory is ever made.
//! - Every chain that is taken is given back once, in order; a bad one unused. Between two calls
//!   none is held.
//! - A call does a bounded amount of work, allocates nothing per packet, and asks for at most one
//!   notification of each queue.
//! - Nothing that a guest writes anywhere makes a call panic. What it can do to its device is to
//!   break it until the next reset ([`DeviceFault`]). So does a panic of a stream, a backend or
//!   guest memory, which passes through ([`FaultCause::Panic`]).

#![forbid(unsafe_code)]
#![deny(clippy::disallowed_types)]

mod builder;
mod chain;
mod device;
mod direct;
mod error;
mod event;
mod exchange;
mod features;
mod fields;
mod notification;
mod rx;
mod scatter;
mod state;
mod stream_io;
mod suppression;
mod tap;
#[cfg(test)]
mod tests;
mod tx;
mod virtqueue;

pub use builder::VsockDeviceBuilder;
pub use device::VsockDevice;
pub use error::{ActivateError, DeviceFault, FaultCause, QueueName, RestoreError};
pub use exchange::{DeviceCounters, Outcome, QueueCounters, QueueDepths, Queues};
pub use features::{F_EVENT_IDX, F_IN_ORDER, F_INDIRECT_DESC, F_VERSION_1, FeatureError};
pub use state::DeviceState;
pub use tap::{PacketDirection, PacketTap};
pub use vsock_backend_api::{
    ListenerId, Received, Record, VsockAddr, VsockBackend, VsockBackendType, VsockMessages,
    VsockStream, VsockVolatileStream,
};
pub use vsock_muxer::{
    Action, BackendId, CloseMode, ClosingStream, ConnectionInfo, Driven, Ending, EndingCounts,
    Initiator, Interest, Muxer, MuxerCounters, MuxerError, MuxerState, NextCall, Readiness,
    StateVersionError, Token,
};
pub use vsock_proto::{
    Cid, CidError, Config, ConfigBuilder, ConfigError, ConnKey, GuestCid, Header, Phase, Port,
    SocketType, Tick,
};

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A virtio vsock device (virtio 1.3, 5.10) to embed in a VMM.
//!
//! [`VsockDevice`] connects a [`Muxer`] to three virtqueues. It turns descriptor chains into
//! packets, fills the guest's buffers, and implements the configuration space, feature negotiation
//! and the event queue. It has no event loop, file descriptor or clock, and starts no thread. Its
//! owner lends it memory and queues for each call, passes the time in, and carries out the actions
//! that it returns.
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
//! // The driver sets these up through the VMM's virtio transport.
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
//! assert!(outcome.notify_tx, "the first call always notifies the guest once");
//! assert_eq!(outcome.next, NextCall::OnEvent, "the loop may sleep");
//! while let Some(action) = device.next_action() {
//!     println!("for the event loop: {action:?}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! `docs/embedding.md` in the repository contains a complete program with kicks, interrupts and an
//! event loop.
//!
//! # Re-exports
//!
//! This crate re-exports the types that create, configure and observe a muxer, and the traits of
//! backends and streams. A VMM depends only on this crate, on rust-vmm's `virtio-queue` and
//! `vm-memory`, and on the crate of its backend. The types that a muxer exchanges with a device,
//! such as packets, stay in `vsock-muxer`.
//!
//! # Guarantees
//!
//! - A chain may have any layout. The device reads each header from guest memory once, and never
//!   creates a reference to guest memory.
//! - The device returns each chain that it takes exactly once and in order, and a malformed chain
//!   unused. It holds no chain between two calls.
//! - A call does a bounded amount of work, does not allocate per packet, and requests at most one
//!   notification for each queue.
//! - Nothing that a guest writes makes a call panic. A guest can only break its own device until
//!   the next reset ([`DeviceFault`]). A panic in a stream, a backend or guest memory has the same
//!   effect, and propagates to the caller ([`FaultCause::Panic`]).

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

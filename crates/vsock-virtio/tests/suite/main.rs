// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device through its public interface, on queues in plain memory. `rig` plays driver, event
//! loop and clock.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod batches;
mod dirty_bitmap;
mod events;
mod flow;
mod hostile;
mod inspect;
mod lifecycle;
mod looked_up;
mod lost_wakeups;
mod messages;
mod notifications;
mod packets;
mod panics;
mod pause;
mod polling;
mod rig;
#[cfg(feature = "serde")]
mod serialised;
mod sizes;
mod snapshot;
mod tap;
mod translation;

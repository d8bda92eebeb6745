// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tests the device's public interface with queues in plain memory. `rig` simulates the driver, the
//! event loop and the clock.

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
mod orders;
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

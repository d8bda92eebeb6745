// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The virtio vsock device (virtio 1.3, 5.10), for a VMM to embed.

#![forbid(unsafe_code)]

mod attempt;
mod builder;
mod chain;
mod config_space;
mod counters;
mod device;
mod direct;
mod error;
mod event;
mod features;
mod queues;
mod ring;
mod rx;
mod scatter;
mod scratch;
mod state;
#[cfg(test)]
mod tests;
mod tx;

pub use builder::VsockDeviceBuilder;
pub use counters::DeviceCounters;
pub use device::VsockDevice;
pub use error::{ActivateError, Fault, FaultCause, QueueName, RestoreError};
pub use features::{F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1, FeatureError};
pub use queues::{Outcome, Queues};
pub use state::DeviceState;

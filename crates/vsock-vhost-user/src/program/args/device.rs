// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The options for a guest's device: its queues, features and polling.

use clap::Args as ClapArgs;
use thiserror::Error;

use super::units::{BOOL, number};

/// Options for the device, as given.
#[expect(clippy::doc_markdown, reason = "the text of --help")]
#[derive(Clone, Debug, Default, Eq, PartialEq, ClapArgs)]
#[command(next_help_heading = "The device (for all guests, or keys of --vm)")]
pub(crate) struct DeviceArgs {
    /// The maximum size of a queue, a power of two from 2 to 32768 [default: 1024]
    #[arg(long, value_name = "N", value_parser = queue_size)]
    pub(crate) queue_size: Option<u16>,

    /// Refuse a VMM whose shared memory is not sealed against shrinking (QEMU: seal=on).
    ///
    /// If a VMM shrinks its memory while the device uses it, the kernel kills this program.
    #[arg(long, value_name = BOOL)]
    pub(crate) sealed_memory: Option<bool>,

    /// Offer VIRTIO_F_ACCESS_PLATFORM, which some VMMs require for guests with encrypted memory.
    ///
    /// The device does not translate addresses: it refuses a guest behind a virtual IOMMU.
    #[arg(long, value_name = BOOL)]
    pub(crate) access_platform: Option<bool>,

    /// How many microseconds the device polls for more work before it sleeps; 0 turns polling off
    /// [default: 30]
    #[arg(long, value_name = "N", value_parser = number::<u32>(0..=u32::MAX))]
    pub(crate) poll_us: Option<u32>,
}

/// The error for an invalid queue size.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("expected a power of two from 2 to 32768")]
struct QueueSizeError;

fn queue_size(text: &str) -> Result<u16, QueueSizeError> {
    let size = text.parse::<u16>().ok();
    size.filter(|size| *size >= 2 && size.is_power_of_two())
        .ok_or(QueueSizeError)
}

impl DeviceArgs {
    /// Fills in the options that are missing here from `others`.
    pub(super) fn or(self, others: &Self) -> Self {
        Self {
            queue_size: self.queue_size.or(others.queue_size),
            sealed_memory: self.sealed_memory.or(others.sealed_memory),
            access_platform: self.access_platform.or(others.access_platform),
            poll_us: self.poll_us.or(others.poll_us),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_size_is_a_power_of_two() {
        for size in ["2", "256", "1024", "32768"] {
            assert_eq!(queue_size(size).ok(), size.parse().ok());
        }
        for text in ["0", "1", "3", "100", "65536", "-2", "1K", ""] {
            assert_eq!(queue_size(text), Err(QueueSizeError), "{text}");
        }
    }
}

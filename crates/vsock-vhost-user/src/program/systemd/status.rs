// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The status line that a service manager shows for the program.

use std::convert::Infallible;
use std::fmt::Write;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use vsock_vhost_user::{DeviceStatus, StatusHandle, VhostUserVsock};

use super::notify::Manager;
use crate::program::counted::counted;

/// How often the line is updated.
const INTERVAL: Duration = Duration::from_secs(1);

/// The state of each guest's device, in one line.
#[derive(Debug)]
pub(crate) struct StatusLine {
    /// Each with its guest's CID.
    devices: Vec<(u64, StatusHandle)>,
}

impl StatusLine {
    /// Creates the status line of these devices.
    pub(crate) fn new(devices: &[VhostUserVsock]) -> Self {
        let devices = devices.iter().map(|device| {
            let cid = device.guest_cid().into();
            (cid, device.status_handle())
        });
        Self {
            devices: devices.collect(),
        }
    }

    /// Reports changes to the manager, until the sender of `serving` is dropped.
    pub(crate) fn report_while(&self, manager: &Manager, serving: &Receiver<Infallible>) {
        let mut reported = String::new();
        while serving.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
            let text = self.text();
            if text != reported {
                manager.status(&text);
                reported = text;
            }
        }
    }

    /// Returns the current line.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for (cid, device) in &self.devices {
            let separator = if text.is_empty() { "" } else { "; " };
            let _infallible = write!(text, "{separator}guest {cid}: ");
            text += &describe(device.status());
        }
        text
    }
}

fn describe(status: Option<DeviceStatus>) -> String {
    match status {
        None => "ended".to_owned(),
        Some(DeviceStatus { has_vmm: false, .. }) => "waiting for a VMM".to_owned(),
        Some(DeviceStatus { connections, .. }) => {
            format!("VMM connected, {}", counted(connections, "connection"))
        }
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The line that a service manager shows of the program.

use std::convert::Infallible;
use std::fmt::Write;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use vsock_vhost_user::{DeviceStatus, StatusHandle};

use super::notify::Manager;

/// How often the line is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// What each guest's device does, in one line.
#[derive(Debug)]
pub(crate) struct StatusLine {
    devices: Vec<(u64, StatusHandle)>,
}

impl StatusLine {
    /// Of these devices, by the CIDs of their guests.
    pub(crate) const fn new(devices: Vec<(u64, StatusHandle)>) -> Self {
        Self { devices }
    }

    /// Tells the manager of each change, until there is no sender any more.
    pub(crate) fn tell_while(&self, manager: &Manager, serving: &Receiver<Infallible>) {
        let mut told = String::new();
        while serving.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
            let text = self.text();
            if text != told {
                manager.status(&text);
                told = text;
            }
        }
    }

    /// The line as it is now.
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
        Some(DeviceStatus { connections: 1, .. }) => "VMM connected, 1 connection".to_owned(),
        Some(DeviceStatus { connections, .. }) => {
            format!("VMM connected, {connections} connections")
        }
    }
}

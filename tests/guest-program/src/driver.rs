// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest's driver and its devices.

use std::fs;

use anyhow::Context;
use nix::poll::poll;

use crate::job::Answer;

/// The driver in sysfs, which has a link for each of its devices.
const DRIVER: &str = "/sys/bus/virtio/drivers/vmw_vsock_virtio_transport";
/// Milliseconds between two looks, because sysfs has no event for this.
const AGAIN: u8 = 20;

/// Unbinds the driver from its device, which resets the device, and binds it again.
pub(crate) fn rebind() -> anyhow::Result<Answer> {
    let device = device()?.context("the driver has no device")?;
    for file in ["unbind", "bind"] {
        let path = format!("{DRIVER}/{file}");
        fs::write(&path, &device).with_context(|| format!("cannot write {device} to {path}"))?;
    }
    Ok(Answer::Done)
}

/// Waits until the driver has a device.
pub(crate) fn wait_for_device() -> anyhow::Result<Answer> {
    while device()?.is_none() {
        poll(&mut [], AGAIN)?;
    }
    Ok(Answer::Done)
}

/// Returns the driver's first device.
fn device() -> anyhow::Result<Option<String>> {
    let entries = fs::read_dir(DRIVER).with_context(|| format!("no {DRIVER}"))?;
    let mut names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.find(|name| name.starts_with("virtio")))
}

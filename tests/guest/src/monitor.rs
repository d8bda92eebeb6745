// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! QEMU's monitor protocol (QMP): each command is a line of JSON, and events can precede its
//! answer.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::device::LIMIT;
use crate::qemu::{CHARDEV, DEVICE, MODEL, SLOT};

/// A connection to QEMU's monitor.
#[derive(Debug)]
pub(crate) struct Monitor {
    input: BufReader<UnixStream>,
    output: UnixStream,
    /// Events that [`wait_for`](Self::wait_for) has not consumed.
    events: Vec<Value>,
}

impl Monitor {
    /// Opens the monitor on the connection that QEMU made for it.
    pub(crate) fn new(connection: UnixStream) -> anyhow::Result<Self> {
        connection.set_read_timeout(Some(LIMIT))?;
        let mut monitor = Self {
            input: BufReader::new(connection.try_clone()?),
            output: connection,
            events: Vec::new(),
        };
        // The greeting, which contains QEMU's version.
        monitor.line()?;
        monitor.run("qmp_capabilities", &json!({}))?;
        Ok(monitor)
    }

    /// Stops the virtual processors, which also stops the device.
    pub(crate) fn pause(&mut self) -> anyhow::Result<()> {
        self.run("stop", &json!({})).map(drop)
    }

    /// Resumes the virtual processors.
    pub(crate) fn resume(&mut self) -> anyhow::Result<()> {
        self.run("cont", &json!({})).map(drop)
    }

    /// Resets the machine, as the reset button does.
    pub(crate) fn reset(&mut self) -> anyhow::Result<()> {
        self.run("system_reset", &json!({})).map(drop)
    }

    /// Removes the device from the running guest, after its driver has released it, and closes the
    /// connection to the back-end.
    pub(crate) fn unplug(&mut self) -> anyhow::Result<()> {
        self.run("device_del", &json!({ "id": DEVICE }))?;
        self.wait_for("DEVICE_DELETED", |data| data["device"] == DEVICE)?;
        self.run("chardev-remove", &json!({ "id": CHARDEV }))
            .map(drop)
    }

    /// Connects to a back-end and adds the device to the running guest.
    pub(crate) fn plug(&mut self, socket: &Path) -> anyhow::Result<()> {
        let address = json!({ "type": "unix", "data": { "path": socket } });
        let data = json!({ "addr": address, "server": false });
        let backend = json!({ "type": "socket", "data": data });
        self.run("chardev-add", &json!({ "id": CHARDEV, "backend": backend }))?;
        let device = json!({ "driver": MODEL, "id": DEVICE, "chardev": CHARDEV, "bus": SLOT });
        self.run("device_add", &device).map(drop)
    }

    /// Runs a command. An error contains QEMU's own message.
    pub(crate) fn run(&mut self, command: &str, arguments: &Value) -> anyhow::Result<Value> {
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(self.output, "{request}").context("QEMU has ended")?;
        loop {
            let mut line = self.line().with_context(|| format!("after {command}"))?;
            if let Some(answer) = line.get_mut("return") {
                return Ok(answer.take());
            }
            if let Some(refusal) = line.get("error") {
                bail!("QEMU refuses {command}: {}", refusal["desc"]);
            }
            self.events.push(line);
        }
    }

    /// Waits for an event with this name and the expected data.
    fn wait_for(&mut self, event: &str, expected: impl Fn(&Value) -> bool) -> anyhow::Result<()> {
        loop {
            let found = |line: &Value| line["event"] == event && expected(&line["data"]);
            if self.events.drain(..).any(|line| found(&line)) {
                return Ok(());
            }
            let line = self.line().with_context(|| format!("no {event}"))?;
            self.events.push(line);
        }
    }

    fn line(&mut self) -> anyhow::Result<Value> {
        let mut line = String::new();
        let read = self.input.read_line(&mut line);
        if read.context("QEMU's monitor does not answer")? == 0 {
            bail!("QEMU has ended");
        }
        Ok(serde_json::from_str(&line)?)
    }
}

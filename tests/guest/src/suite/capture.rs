// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The program captures a guest's packets, and Debian's tshark dissects them.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use vsock_guest_program::job::{Job, Options};

use super::pairs::{Opener, connect};
use super::{NO_PROCESS, Outcome, Test};
use crate::bytes::range;
use crate::child::wait_until;
use crate::device::{Kind, LIMIT};
use crate::machine::Machine;
use crate::packages::Packages;
use crate::place::Place;
use crate::tool::{self, Missing};

pub(super) const TESTS: &[Test] =
    &[Test::new("captured_packets_are_dissected_by_tshark", dissected).within(240)];

/// The fields to extract, in this order.
const FIELDS: [&str; 14] = [
    "frame.interface_name",
    "frame.len",
    "frame.cap_len",
    "vsock.src_cid",
    "vsock.dst_cid",
    "vsock.src_port",
    "vsock.dst_port",
    "vsock.op",
    "vsock.trans",
    "vsock.virtio.op",
    "vsock.virtio.len",
    "vsock.virtio.type",
    "vsock.virtio.buf_alloc",
    "vsock.virtio.fwd_cnt",
];
/// Bytes in both headers, and bytes of payload that are captured.
const HEADERS: u64 = 76;
const KEPT: u64 = 10;
/// Virtio operations, each with the vsockmon operation that stands for it.
const OPERATIONS: [(u64, u64); 7] = [(1, 1), (2, 1), (3, 2), (4, 2), (5, 4), (6, 3), (7, 3)];

fn dissected(machine: &mut Machine) -> anyhow::Result<Outcome> {
    if machine.kind() != Kind::Ours {
        return Ok(match machine.kind() {
            Kind::InProcess => NO_PROCESS,
            _ => Outcome::NotOffered("the device captures nothing"),
        });
    }
    let tshark = match Packages::fetch(&Place::new()?, &["tshark"]) {
        Ok(packages) => packages,
        Err(error) if error.is::<Missing>() => {
            eprintln!("tshark: {error:#}");
            return Ok(Outcome::NotOffered(
                "Debian's packages cannot be downloaded",
            ));
        }
        Err(error) => return Err(error),
    };
    let file = machine.directory().join("packets.pcapng");
    let file_name = file.display().to_string();
    machine.restart_with(&["--capture", &file_name, "--capture-bytes", "10"].map(str::to_owned))?;

    pass_packets(machine)?;
    // The capture is written shortly after the packets pass.
    let mut rows = Vec::new();
    let all = wait_until(LIMIT, || {
        // During a write, the file can end within a packet.
        rows = dissect(tshark.command("usr/bin/tshark"), &file).unwrap_or_default();
        let resets = rows.iter().filter(|row| row[4] == 1 && row[8] == 3);
        Ok((resets.count() > 0).then_some(()))
    })?;
    all.context("the last packet is not in the file")?;
    check(&rows, machine.cid().into())?;
    Ok(Outcome::Measured(format!("{} packets", rows.len())))
}

/// Sends bytes both ways on a connection and closes it, then has a connection refused.
fn pass_packets(machine: &mut Machine) -> anyhow::Result<()> {
    let mut pair = connect(machine, Opener::Guest)?;
    let bytes = range(3, 300_000, 10_000);
    pair.send_to_host(machine, bytes)?;
    pair.send_to_guest(machine, bytes)?;
    machine.guest().finish(pair.guest)?;
    machine.guest().close(pair.guest)?;
    drop(pair);
    // A REQUEST that is refused.
    let (cid, options) = (2, Options::default());
    let refused = machine.guest().start(Job::Connect {
        cid,
        port: 1,
        options,
    })?;
    ensure!(refused.wait().is_err(), "port 1 has no listener");
    Ok(())
}

/// Checks every packet, and that together they account for the traffic.
fn check(rows: &[Vec<u64>], guest: u64) -> anyhow::Result<()> {
    let mut payload = [0, 0];
    let mut operations = BTreeSet::new();
    for row in rows {
        let [
            len,
            captured,
            src,
            dst,
            _,
            _,
            op,
            transport,
            virtio_op,
            virtio_len,
            kind,
            ..,
        ] = row[..]
        else {
            anyhow::bail!("{row:?}");
        };
        let from_guest = src == guest;
        let peer = if from_guest { dst } else { src };
        ensure!(peer == 2, "{row:?}");
        ensure!((transport, kind) == (2, 1), "{row:?}");
        ensure!(OPERATIONS.contains(&(virtio_op, op)), "{row:?}");
        ensure!(len == HEADERS + virtio_len, "{row:?}");
        ensure!(captured == HEADERS + virtio_len.min(KEPT), "{row:?}");
        payload[usize::from(from_guest)] += virtio_len;
        operations.insert(virtio_op);
    }
    ensure!(payload == [300_000; 2], "{payload:?}");
    ensure!((1..=6).all(|op| operations.contains(&op)), "{operations:?}");
    Ok(())
}

/// Returns the numbers of each packet, without the interface's name.
fn dissect(mut tshark: Command, file: &Path) -> anyhow::Result<Vec<Vec<u64>>> {
    tshark.arg("-r").arg(file).args(["-T", "fields"]);
    for field in FIELDS {
        tshark.args(["-e", field]);
    }
    let text = String::from_utf8(tool::output(&mut tshark)?)?;
    text.lines()
        .map(|line| {
            let mut fields = line.split('\t');
            let interface = fields.next().unwrap_or_default();
            ensure!(interface.starts_with("guest-"), "{line}");
            let numbers = fields.map(|field| match field.strip_prefix("0x") {
                Some(hex) => u64::from_str_radix(hex, 16),
                None => field.parse(),
            });
            numbers.collect::<Result<_, _>>().context(line.to_owned())
        })
        .collect()
}

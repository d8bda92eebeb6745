// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest's network: one interface with one address, over which test programs synchronise. It is
//! set up by `rtnetlink(7)` messages, because the guest has no `ip` program.

use std::fs;
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;

use anyhow::{Context, ensure};
use nix::libc::{AF_INET, NETLINK_ROUTE, RTM_NEWADDR, RTM_NEWLINK};
use nix::poll::poll;
use socket2::{Domain, Protocol, Socket, Type};

use crate::job::Answer;

/// The first interface, as the kernel names it.
const INTERFACE: &str = "/sys/class/net/eth0/ifindex";
/// The prefix length of the network.
const PREFIX: u8 = 24;
/// `NLM_F_REQUEST` and `NLM_F_ACK`: a request that the kernel acknowledges.
const ACKNOWLEDGED: u16 = 1 | 4;
/// `NLM_F_CREATE` and `NLM_F_REPLACE`: succeeds even if an address was set before.
const ANEW: u16 = 0x400 | 0x100;
/// `IFF_UP`.
const UP: u32 = 1;
/// `IFA_LOCAL`.
const LOCAL: u16 = 2;
/// The type of the answer (`NLMSG_ERROR`), and the length of its header.
const ERROR: u16 = 2;
const HEADER: usize = 16;
/// The state of a listening socket in the kernel's table.
const LISTENS: &str = "0A";
/// Milliseconds between two looks, because the table has no event.
const AGAIN: u8 = 20;

/// Gives the interface an address, and brings it up.
pub(crate) fn set_address(address: Ipv4Addr) -> anyhow::Result<Answer> {
    let index = fs::read_to_string(INTERFACE).with_context(|| format!("no {INTERFACE}"))?;
    let index: u32 = index.trim().parse()?;
    let mut netlink = Socket::new(
        Domain::from(nix::libc::AF_NETLINK),
        Type::RAW,
        Some(Protocol::from(NETLINK_ROUTE)),
    )
    .context("cannot create a netlink socket")?;
    let address = [
        &[u8::try_from(AF_INET)?, PREFIX, 0, 0][..],
        &index.to_ne_bytes(),
        &8_u16.to_ne_bytes(),
        &LOCAL.to_ne_bytes(),
        &address.octets(),
    ]
    .concat();
    ask(&mut netlink, RTM_NEWADDR, ACKNOWLEDGED | ANEW, &address)
        .context("cannot set the address")?;
    let link = [
        [0; 4],
        index.to_ne_bytes(),
        UP.to_ne_bytes(),
        UP.to_ne_bytes(),
    ]
    .concat();
    ask(&mut netlink, RTM_NEWLINK, ACKNOWLEDGED, &link).context("cannot bring the link up")?;
    Ok(Answer::Done)
}

/// Sends a message and waits for the acknowledgement.
fn ask(netlink: &mut Socket, kind: u16, flags: u16, body: &[u8]) -> anyhow::Result<()> {
    let len = u32::try_from(HEADER + body.len())?;
    let mut message = len.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    // Sequence and port number, which matter only with several requests in flight.
    message.extend([0; 8]);
    message.extend(body);
    netlink.write_all(&message)?;
    let mut answer = [0; 256];
    let read = netlink.read(&mut answer)?;
    ensure!(read >= HEADER + 4, "an answer of {read} bytes");
    let kind = u16::from_ne_bytes([answer[4], answer[5]]);
    ensure!(kind == ERROR, "an answer of type {kind}");
    let code = [answer[16], answer[17], answer[18], answer[19]];
    match i32::from_ne_bytes(code) {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code.saturating_neg()).into()),
    }
}

/// Waits until a program listens on a TCP port over IPv4.
pub(crate) fn wait_for_listener(port: u16) -> anyhow::Result<Answer> {
    let end = format!(":{port:04X}");
    loop {
        let table = fs::read_to_string("/proc/net/tcp").context("no TCP")?;
        let found = table.lines().any(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let local = fields.next().is_some_and(|local| local.ends_with(&end));
            local && fields.nth(1) == Some(LISTENS)
        });
        if found {
            return Ok(Answer::Done);
        }
        poll(&mut [], AGAIN)?;
    }
}

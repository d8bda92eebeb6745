// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest's network: one interface with one address, for programs that agree over TCP on what
//! they try over vsock. Set by the kernel's own messages (`rtnetlink(7)`), for there is no `ip`.

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
/// The bits of an address that both guests have in common.
const PREFIX: u8 = 24;
/// `NLM_F_REQUEST` and `NLM_F_ACK`: a request, to be answered by an error or its absence.
const ACKNOWLEDGED: u16 = 1 | 4;
/// `NLM_F_CREATE` and `NLM_F_REPLACE`: as if it were the first time.
const ANEW: u16 = 0x400 | 0x100;
/// `IFF_UP`.
const UP: u32 = 1;
/// `IFA_LOCAL`.
const LOCAL: u16 = 2;
/// The answer's type (`NLMSG_ERROR`), and the length of what is before it: a header.
const ERROR: u16 = 2;
const HEADER: usize = 16;
/// A listener's state in the kernel's table of sockets.
const LISTENS: &str = "0A";
/// Milliseconds until it is looked again: the table has no event.
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
    .context("no socket of netlink")?;
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

/// Sends a message and waits for the kernel's verdict.
fn ask(netlink: &mut Socket, kind: u16, flags: u16, body: &[u8]) -> anyhow::Result<()> {
    let len = u32::try_from(HEADER + body.len())?;
    let mut message = len.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    // Sequence and port, by which only a program with several requests under way needs to tell
    // them.
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

/// Waits until a program listens on a port of TCP over IPv4.
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

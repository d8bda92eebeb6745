// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Echo services on either side.

use std::thread;

use anyhow::{Context, ensure};
use vsock_guest_program::job::{End, Job, Options, Range};

use super::pairs::{Opener, Pair, connect, each};
use super::{Outcome, Test};
use crate::bytes::{came_to, complete, echo, ended, joined, range, receive, send};
use crate::machine::Machine;

pub(super) const TESTS: &[Test] = &[
    Test::new("the_guest_has_its_configured_cid", has_its_cid).within(30),
    Test::new("the_host_echoes_what_the_guest_sends", host_echoes),
    Test::new("the_guest_echoes_what_the_host_sends", guest_echoes),
    Test::new("single_bytes_go_back_and_forth", by_turns),
    Test::new("many_requests_in_flight_are_answered", under_way),
];

/// The bytes to send and the size of a write, from less than a header to many receive buffers.
const CASES: [(u64, u32); 5] = [
    (1, 1),
    (64 * 200, 64),
    (1_000_003, 1_000),
    (8 << 20, 64 << 10),
    (8 << 20, 1 << 20),
];

fn has_its_cid(machine: &mut Machine) -> anyhow::Result<Outcome> {
    let pair = connect(machine, Opener::Host)?;
    let cid = pair.guest.cid;
    ensure!(cid == machine.cid(), "it is {cid}, not {}", machine.cid());
    Ok(Outcome::Passed)
}

/// Runs each size on a separate connection.
fn cases<T>(
    machine: &mut Machine,
    once: fn(&Machine, Pair, Range) -> anyhow::Result<T>,
) -> anyhow::Result<Outcome> {
    for (len, piece) in CASES {
        each(machine, Options::default(), |machine, _, pair| {
            once(machine, pair, range(len, len, piece))
        })
        .with_context(|| format!("{len} bytes in writes of {piece}"))?;
    }
    Ok(Outcome::Passed)
}

fn host_echoes(machine: &mut Machine) -> anyhow::Result<Outcome> {
    cases(machine, |machine, Pair { mut host, guest }, range| {
        let service = thread::spawn(move || echo(&mut host));
        let sent = machine.guest().send(guest, range)?;
        let received = machine.guest().receive(guest, range)?;
        complete(sent.moved()?, range).context("sending")?;
        complete(received.moved()?, range).context("receiving")?;
        machine.guest().close(guest)?;
        let echoed = joined(service.join())??;
        ensure!(echoed == range.len, "the host saw {echoed} bytes");
        Ok(())
    })
}

fn guest_echoes(machine: &mut Machine) -> anyhow::Result<Outcome> {
    cases(machine, |machine, Pair { mut host, guest }, range| {
        let service = machine.guest().start(Job::Echo(guest.socket))?;
        let mut writer = host.writer;
        let sender = thread::spawn(move || send(&mut *writer, range).map(|()| writer));
        receive(&mut *host.reader, range)?;
        let writer = joined(sender.join())??;
        drop((host.reader, writer));
        let echoed = service.moved()?.count;
        ensure!(echoed == range.len, "the guest saw {echoed} bytes");
        Ok(())
    })
}

fn by_turns(machine: &mut Machine) -> anyhow::Result<Outcome> {
    each(machine, Options::default(), |machine, _, pair| {
        requests(machine, pair, 1, 500, 1)
    })
}

fn under_way(machine: &mut Machine) -> anyhow::Result<Outcome> {
    for (size, window) in [(64, 2), (1 << 10, 32), (16 << 10, 5)] {
        each(machine, Options::default(), |machine, _, pair| {
            requests(machine, pair, size, 1_000, window)
        })
        .with_context(|| format!("{window} of {size} bytes"))?;
    }
    Ok(Outcome::Passed)
}

/// The guest sends `count` messages, up to `window` of them in flight, and gets each back.
pub(super) fn requests(
    machine: &Machine,
    pair: Pair,
    size: u32,
    count: u32,
    window: u32,
) -> anyhow::Result<()> {
    let Pair { mut host, guest } = pair;
    let service = thread::spawn(move || echo(&mut host));
    let socket = guest.socket;
    let turns = machine.guest().start(Job::PingPong {
        socket,
        size,
        count,
        window,
    })?;
    came_to(turns.moved()?, count.into(), End::Complete)?;
    machine.guest().close(guest)?;
    joined(service.join())??;
    Ok(())
}

/// Checks that bytes go both ways. For tests of what happens around the traffic.
pub(super) fn works(machine: &mut Machine) -> anyhow::Result<()> {
    let range = range(77, 300_000, 10_000);
    each(machine, Options::default(), |machine, _, mut pair| {
        pair.send_to_host(machine, range)?;
        pair.send_to_guest(machine, range)?;
        machine.guest().close(pair.guest)?;
        ended(&mut *pair.host.reader)
    })
    .map(drop)
}

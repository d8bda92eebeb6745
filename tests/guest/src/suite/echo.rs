// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Echoes: what is sent comes back.

use std::thread;

use anyhow::{Context, anyhow, ensure};
use vsock_guest_program::job::{End, Job};

use super::pairs::{Opener, Pair, connect};
use super::{Outcome, Test};
use crate::bytes::{complete, echo, ended, range, receive, send};
use crate::machine::Machine;

pub(super) const TESTS: &[Test] = &[
    Test::new("the_guest_has_the_cid_that_it_was_given", 30, has_its_cid),
    Test::new("the_host_echoes_what_the_guest_sends", 60, host_echoes),
    Test::new("the_guest_echoes_what_the_host_sends", 60, guest_echoes),
    Test::new("one_byte_at_a_time_goes_by_turns", 60, by_turns),
    Test::new("many_requests_under_way_are_answered", 60, under_way),
];

/// Bytes and sizes of a write: from less than a header to many receive buffers.
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

fn host_echoes(machine: &mut Machine) -> anyhow::Result<Outcome> {
    for opener in Opener::BOTH {
        for (len, piece) in CASES {
            once_from_guest(machine, opener, len, piece).with_context(|| {
                format!("{opener:?} connects, {len} bytes in writes of {piece}")
            })?;
        }
    }
    Ok(Outcome::Passed)
}

fn once_from_guest(
    machine: &mut Machine,
    opener: Opener,
    len: u64,
    piece: u32,
) -> anyhow::Result<()> {
    let Pair { mut host, guest } = connect(machine, opener)?;
    let range = range(len, len, piece);
    let service = thread::spawn(move || echo(&mut host));
    let sent = machine.guest().send(guest, range)?;
    let received = machine.guest().receive(guest, range)?;
    complete(sent.moved()?, range).context("sending")?;
    complete(received.moved()?, range).context("receiving")?;
    machine.guest().close(guest)?;
    let echoed = service.join().map_err(|_| anyhow!("the echo panicked"))?;
    ensure!(echoed? == len, "the host saw another number of bytes");
    Ok(())
}

fn guest_echoes(machine: &mut Machine) -> anyhow::Result<Outcome> {
    for opener in Opener::BOTH {
        for (len, piece) in CASES {
            once_from_host(machine, opener, len, piece).with_context(|| {
                format!("{opener:?} connects, {len} bytes in writes of {piece}")
            })?;
        }
    }
    Ok(Outcome::Passed)
}

fn once_from_host(
    machine: &mut Machine,
    opener: Opener,
    len: u64,
    piece: u32,
) -> anyhow::Result<()> {
    let Pair { mut host, guest } = connect(machine, opener)?;
    let range = range(len, len, piece);
    let service = machine.guest().start(Job::Echo {
        socket: guest.socket,
    })?;
    let mut writer = host.writer;
    let sender = thread::spawn(move || send(&mut *writer, range).map(|()| writer));
    receive(&mut *host.reader, range)?;
    let writer = sender
        .join()
        .map_err(|_| anyhow!("the sender panicked"))??;
    drop((host.reader, writer));
    let echoed = service.moved()?;
    ensure!(
        echoed.count == len,
        "the guest saw {} of {len} bytes",
        echoed.count
    );
    machine.guest().close(guest)
}

fn by_turns(machine: &mut Machine) -> anyhow::Result<Outcome> {
    Opener::BOTH
        .into_iter()
        .try_for_each(|opener| requests(machine, opener, 1, 500, 1))?;
    Ok(Outcome::Passed)
}

fn under_way(machine: &mut Machine) -> anyhow::Result<Outcome> {
    for opener in Opener::BOTH {
        for (size, window) in [(64, 2), (1 << 10, 32), (16 << 10, 5)] {
            requests(machine, opener, size, 1_000, window)
                .with_context(|| format!("{opener:?} connects, {window} of {size} bytes"))?;
        }
    }
    Ok(Outcome::Passed)
}

/// The guest sends so many messages, a window of them at once, and gets each back.
fn requests(
    machine: &mut Machine,
    opener: Opener,
    size: u32,
    count: u32,
    window: u32,
) -> anyhow::Result<()> {
    let Pair { mut host, guest } = connect(machine, opener)?;
    let service = thread::spawn(move || echo(&mut host));
    let turns = machine.guest().start(Job::PingPong {
        socket: guest.socket,
        size,
        count,
        window,
    })?;
    let moved = turns.moved()?;
    ensure!(
        moved.count == u64::from(count) && moved.wrong.is_none() && moved.end == End::Complete,
        "{moved:?}"
    );
    machine.guest().close(guest)?;
    service.join().map_err(|_| anyhow!("the echo panicked"))??;
    Ok(())
}

/// That bytes go both ways, for tests of what happens around them.
pub(super) fn works(machine: &mut Machine) -> anyhow::Result<()> {
    for opener in Opener::BOTH {
        let Pair { mut host, guest } = connect(machine, opener)?;
        let range = range(77, 300_000, 10_000);
        let sent = machine.guest().send(guest, range)?;
        receive(&mut *host.reader, range)?;
        complete(sent.moved()?, range)?;
        let received = machine.guest().receive(guest, range)?;
        send(&mut *host.writer, range)?;
        complete(received.moved()?, range)?;
        machine.guest().close(guest)?;
        ended(&mut *host.reader)?;
    }
    Ok(())
}

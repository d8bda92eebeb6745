// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Ends: of one direction, of both, with bytes still on their way.

use std::time::Duration;

use anyhow::{Context, ensure};
use vsock_guest_program::job::{End, Job, Range};

use super::pairs::{Opener, Pair, connect};
use super::{Outcome, Test};
use crate::bytes::{HostEnd, complete, ended, range, receive, receive_all, send};
use crate::machine::Machine;

pub(super) const TESTS: &[Test] = &[
    Test::new(
        "g1_the_guest_ends_sending_and_gets_its_reply",
        60,
        guest_ends,
    ),
    Test::new("g1_the_host_ends_sending_and_gets_its_reply", 60, host_ends),
    Test::new(
        "g2_a_guest_closes_and_a_late_host_gets_all",
        60,
        guest_closes,
    ),
    Test::new("a_host_closes_and_a_late_guest_gets_all", 60, host_closes),
    Test::new("a_guest_learns_that_the_host_has_closed", 60, host_vanishes),
    Test::new(
        "a_host_learns_that_the_guest_has_closed",
        60,
        guest_vanishes,
    ),
    Test::new("a_port_is_free_again_at_once_after_a_close", 60, port_again),
];

/// Less than any side buffers, so that it can all be under way with nobody reading.
const MESSAGE: Range = range(21, 60_000, 10_000);
const REPLY: Range = range(22, 300_000, 64 << 10);
/// More than a socket's buffer takes, and less than a socket's and the device's together.
const IN_FLIGHT: Range = range(23, 250_000, 50_000);
/// A driver whose full close is not answered gives up after eight seconds.
const GIVES_UP: Duration = Duration::from_secs(8);

fn guest_ends(machine: &mut Machine) -> anyhow::Result<Outcome> {
    for opener in Opener::BOTH {
        let Pair { mut host, guest } = connect(machine, opener)?;
        complete(machine.guest().send(guest, MESSAGE)?.moved()?, MESSAGE)?;
        machine.guest().finish(guest)?;
        receive_all(&mut *host.reader, MESSAGE).context("the message")?;
        let reply = machine.guest().receive(guest, beyond(REPLY))?;
        send(&mut *host.writer, REPLY).context("the reply")?;
        host.writer.finish()?;
        closed(reply.moved()?, REPLY).context("the reply in the guest")?;
        machine.guest().close(guest)?;
    }
    Ok(Outcome::Passed)
}

fn host_ends(machine: &mut Machine) -> anyhow::Result<Outcome> {
    for opener in Opener::BOTH {
        let Pair { mut host, guest } = connect(machine, opener)?;
        let message = machine.guest().receive(guest, beyond(MESSAGE))?;
        send(&mut *host.writer, MESSAGE)?;
        host.writer.finish()?;
        closed(message.moved()?, MESSAGE).context("the message in the guest")?;
        let reply = machine.guest().send(guest, REPLY)?;
        receive(&mut *host.reader, REPLY).context("the reply")?;
        complete(reply.moved()?, REPLY)?;
        machine.guest().finish(guest)?;
        let end = ended(&mut *host.reader)?;
        ensure!(end == HostEnd::Closed, "a reset instead of the end");
        machine.guest().close(guest)?;
    }
    Ok(Outcome::Passed)
}

/// The host begins to read when the driver has given up on the connection, or been told that it is gone.
fn guest_closes(machine: &mut Machine) -> anyhow::Result<Outcome> {
    for opener in Opener::BOTH {
        let Pair { mut host, guest } = connect(machine, opener)?;
        complete(machine.guest().send(guest, IN_FLIGHT)?.moved()?, IN_FLIGHT)?;
        machine.guest().close(guest)?;
        if opener == Opener::Guest {
            machine.guest().run(Job::Freed { port: guest.port })?;
        }
        receive_all(&mut *host.reader, IN_FLIGHT)?;
    }
    Ok(Outcome::Passed)
}

fn host_closes(machine: &mut Machine) -> anyhow::Result<Outcome> {
    for opener in Opener::BOTH {
        let Pair { mut host, guest } = connect(machine, opener)?;
        send(&mut *host.writer, IN_FLIGHT)?;
        drop(host);
        let received = machine.guest().receive(guest, beyond(IN_FLIGHT))?.moved()?;
        ensure!(
            received.wrong.is_none() && received.count == IN_FLIGHT.len,
            "{received:?}"
        );
        machine.guest().close(guest)?;
    }
    Ok(Outcome::Passed)
}

fn host_vanishes(machine: &mut Machine) -> anyhow::Result<Outcome> {
    for opener in Opener::BOTH {
        let Pair { mut host, guest } = connect(machine, opener)?;
        let endless = range(24, 1 << 30, 64 << 10);
        let sent = machine.guest().send(guest, endless)?;
        receive(&mut *host.reader, range(24, 100_000, 0))?;
        drop(host);
        let sent = sent.moved().context("the guest's sending goes on")?;
        ensure!(matches!(sent.end, End::Error(_)), "{sent:?}");
        machine.guest().close(guest)?;
    }
    Ok(Outcome::Passed)
}

fn guest_vanishes(machine: &mut Machine) -> anyhow::Result<Outcome> {
    for opener in Opener::BOTH {
        let Pair { mut host, guest } = connect(machine, opener)?;
        machine.guest().close(guest)?;
        ended(&mut *host.reader)?;
        // The first write may still be taken by a socket; the host's own signal is an error of one.
        let more = range(25, 1 << 24, 64 << 10);
        let error = send(&mut *host.writer, more)
            .err()
            .context("writes go on")?;
        ensure!(error.kind() != std::io::ErrorKind::TimedOut, "{error}");
    }
    Ok(Outcome::Passed)
}

/// The same four numbers, again and again.
fn port_again(machine: &mut Machine) -> anyhow::Result<Outcome> {
    const TURNS: u64 = 50;
    let (there, from) = (machine.port(), machine.port());
    let listener = machine.host().listen(there)?;
    let options = vsock_guest_program::job::Options {
        from: Some(from),
        ..Default::default()
    };
    let start = std::time::Instant::now();
    for turn in 0..TURNS {
        let guest = machine.guest().connect_with(there, options)?;
        let mut host = listener.accept()?;
        let range = range(turn, 10_000, 10_000);
        let sent = machine.guest().send(guest, range)?;
        receive(&mut *host.reader, range)?;
        complete(sent.moved()?, range)?;
        machine.guest().close(guest)?;
        ended(&mut *host.reader)?;
        drop(host);
        machine.guest().run(Job::Freed { port: from })?;
    }
    let took = start.elapsed();
    ensure!(took < GIVES_UP, "{TURNS} turns took {took:?}");
    Ok(Outcome::Passed)
}

/// The same range, and room for more that must not come.
fn beyond(range: Range) -> Range {
    Range {
        len: range.len + 1,
        ..range
    }
}

/// The guest has received the range, and then the end in order.
fn closed(moved: vsock_guest_program::job::Moved, range: Range) -> anyhow::Result<()> {
    ensure!(
        moved.wrong.is_none() && moved.count == range.len && moved.end == End::Closed,
        "of {} bytes and the end: {moved:?}",
        range.len
    );
    Ok(())
}

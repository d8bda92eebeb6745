// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Ends: of one direction, of both, with bytes still on their way.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use vsock_guest_program::job::{Content, End, Job, Options};

use super::pairs::{Opener, Pair, each};
use super::{Outcome, Test};
use crate::bytes::{HostEnd, closed, complete, ended, range, receive, receive_all, send};
use crate::machine::Machine;

pub(super) const TESTS: &[Test] = &[
    Test::new("g1_the_guest_ends_sending_and_gets_its_reply", guest_ends),
    Test::new("g1_the_host_ends_sending_and_gets_its_reply", host_ends),
    Test::new("g2_a_guest_closes_and_a_late_host_gets_all", guest_closes),
    Test::new("a_host_closes_and_a_late_guest_gets_all", host_closes),
    Test::new("a_guest_learns_that_the_host_has_closed", host_vanishes),
    Test::new("a_host_learns_that_the_guest_has_closed", guest_vanishes),
    Test::new("a_port_is_free_again_at_once_after_a_close", port_again),
];

/// Less than any side buffers, so that it can all be under way with nobody reading.
const MESSAGE: Content = Content::Bytes(range(21, 60_000, 10_000));
const REPLY: Content = Content::Bytes(range(22, 300_000, 64 << 10));
/// More than a socket's buffer takes, and less than a socket's and the device's together.
const IN_FLIGHT: Content = Content::Bytes(range(23, 250_000, 50_000));
/// A driver whose full close is not answered gives up after eight seconds.
const GIVES_UP: Duration = Duration::from_secs(8);

fn guest_ends(machine: &mut Machine) -> anyhow::Result<Outcome> {
    guest_ends_after(machine, Options::default(), (&MESSAGE, &REPLY))
}

/// The guest's end leaves the other direction as it was, for bytes or messages.
pub(super) fn guest_ends_after(
    machine: &mut Machine,
    options: Options,
    (message, reply): (&Content, &Content),
) -> anyhow::Result<Outcome> {
    each(machine, options, |machine, _, Pair { mut host, guest }| {
        complete(machine.guest().send(guest, message)?.moved()?, message)?;
        machine.guest().finish(guest)?;
        receive_all(&mut *host.reader, message).context("the message")?;
        let received = machine.guest().receive(guest, reply.one_more())?;
        send(&mut *host.writer, reply).context("the reply")?;
        host.writer.finish()?;
        closed(received.moved()?, reply).context("the reply in the guest")?;
        Ok(host)
    })
}

fn host_ends(machine: &mut Machine) -> anyhow::Result<Outcome> {
    each(machine, Options::default(), |machine, _, mut pair| {
        let message = machine.guest().receive(pair.guest, MESSAGE.one_more())?;
        send(&mut *pair.host.writer, MESSAGE)?;
        pair.host.writer.finish()?;
        closed(message.moved()?, MESSAGE).context("the message in the guest")?;
        pair.send_to_host(machine, REPLY).context("the reply")?;
        machine.guest().finish(pair.guest)?;
        let end = ended(&mut *pair.host.reader)?;
        ensure!(end == HostEnd::Closed, "a reset instead of the end");
        Ok(pair.host)
    })
}

fn guest_closes(machine: &mut Machine) -> anyhow::Result<Outcome> {
    guest_closes_after(machine, Options::default(), &IN_FLIGHT)
}

/// The host begins to read when the driver has given up on the connection, or been told that it is
/// gone.
pub(super) fn guest_closes_after(
    machine: &mut Machine,
    options: Options,
    content: &Content,
) -> anyhow::Result<Outcome> {
    each(machine, options, |machine, opener, pair| {
        let Pair { mut host, guest } = pair;
        complete(machine.guest().send(guest, content)?.moved()?, content)?;
        machine.guest().close(guest)?;
        if opener == Opener::Guest {
            machine.guest().run(Job::Freed(guest.port))?;
        }
        receive_all(&mut *host.reader, content)
    })
}

fn host_closes(machine: &mut Machine) -> anyhow::Result<Outcome> {
    host_closes_after(machine, Options::default(), &IN_FLIGHT)
}

pub(super) fn host_closes_after(
    machine: &mut Machine,
    options: Options,
    content: &Content,
) -> anyhow::Result<Outcome> {
    each(machine, options, |machine, _, Pair { mut host, guest }| {
        send(&mut *host.writer, content)?;
        drop(host);
        let received = machine.guest().receive(guest, content.one_more())?;
        let received = received.moved()?;
        ensure!(
            received.wrong.is_none() && received.count == content.count(),
            "{received:?}"
        );
        Ok(())
    })
}

fn host_vanishes(machine: &mut Machine) -> anyhow::Result<Outcome> {
    each(machine, Options::default(), |machine, _, pair| {
        let Pair { mut host, guest } = pair;
        let endless = range(24, 1 << 30, 64 << 10);
        let sent = machine.guest().send(guest, endless)?;
        receive(&mut *host.reader, range(24, 100_000, 0))?;
        drop(host);
        let sent = sent.moved().context("the guest's sending goes on")?;
        ensure!(matches!(sent.end, End::Error(_)), "{sent:?}");
        Ok(())
    })
}

fn guest_vanishes(machine: &mut Machine) -> anyhow::Result<Outcome> {
    each(machine, Options::default(), |machine, _, pair| {
        let Pair { mut host, guest } = pair;
        machine.guest().close(guest)?;
        ended(&mut *host.reader)?;
        // The first write may still be taken by a socket; the host's own signal is an error of one.
        let more = range(25, 1 << 24, 64 << 10);
        let error = send(&mut *host.writer, more)
            .err()
            .context("writes go on")?;
        ensure!(error.kind() != std::io::ErrorKind::TimedOut, "{error}");
        Ok(())
    })
}

/// The same four numbers, again and again.
fn port_again(machine: &mut Machine) -> anyhow::Result<Outcome> {
    const TURNS: u64 = 50;
    let (there, from) = (machine.port(), machine.port());
    let listener = machine.host().listen(there)?;
    let options = Options {
        from: Some(from),
        ..Options::default()
    };
    let start = Instant::now();
    for turn in 0..TURNS {
        let guest = machine.guest().connect_with(there, options)?;
        let host = listener.accept()?;
        let mut pair = Pair { host, guest };
        pair.send_to_host(machine, range(turn, 10_000, 10_000))?;
        machine.guest().close(guest)?;
        ended(&mut *pair.host.reader)?;
        drop(pair.host);
        machine.guest().run(Job::Freed(from))?;
    }
    let took = start.elapsed();
    ensure!(took < GIVES_UP, "{TURNS} turns took {took:?}");
    Ok(Outcome::Passed)
}

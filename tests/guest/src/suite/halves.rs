// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The ends of one direction and of both, with bytes still in flight.

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
    Test::new(
        "g2_a_guest_closes_and_a_late_host_gets_all_bytes",
        guest_closes,
    ),
    Test::new("a_host_closes_and_a_late_guest_gets_all_bytes", host_closes),
    Test::new("a_guest_learns_that_the_host_has_closed", host_vanishes),
    Test::new("a_host_learns_that_the_guest_has_closed", guest_vanishes),
    Test::new("a_port_can_be_reused_immediately_after_a_close", port_again),
];

/// Less than any side buffers, so that all of it can be in flight while neither side reads.
const MESSAGE: Content = Content::Bytes(range(21, 60_000, 10_000));
const REPLY: Content = Content::Bytes(range(22, 300_000, 64 << 10));
/// More than a socket's buffer holds, and less than the buffers of a socket and the device
/// together.
const IN_FLIGHT: Content = Content::Bytes(range(23, 250_000, 50_000));
/// When a driver gives up on a full close that is not answered: after eight seconds.
const GIVES_UP: Duration = Duration::from_secs(8);

fn guest_ends(machine: &mut Machine) -> anyhow::Result<Outcome> {
    guest_ends_after(machine, Options::default(), (&MESSAGE, &REPLY))
}

/// The guest ends its direction. The other direction keeps carrying bytes or messages.
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
        ensure!(
            end == HostEnd::Closed,
            "expected a graceful end, found a reset"
        );
        Ok(pair.host)
    })
}

fn guest_closes(machine: &mut Machine) -> anyhow::Result<Outcome> {
    guest_closes_after(machine, Options::default(), &IN_FLIGHT)
}

/// The host begins to read only after the driver has given up on the connection or has learned that
/// it has ended.
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
        let sent = sent.moved().context("the guest keeps sending")?;
        ensure!(matches!(sent.end, End::Error(_)), "{sent:?}");
        Ok(())
    })
}

fn guest_vanishes(machine: &mut Machine) -> anyhow::Result<Outcome> {
    each(machine, Options::default(), |machine, _, pair| {
        let Pair { mut host, guest } = pair;
        machine.guest().close(guest)?;
        ended(&mut *host.reader)?;
        // A socket may still accept the first write. The host's own signal is also reported as an
        // error.
        let more = range(25, 1 << 24, 64 << 10);
        let error = send(&mut *host.writer, more)
            .err()
            .context("writes keep succeeding")?;
        ensure!(error.kind() != std::io::ErrorKind::TimedOut, "{error}");
        Ok(())
    })
}

/// Reuses the same pair of addresses for every connection.
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

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Seqpacket sockets, on devices that offer them.

use std::time::Duration;
use std::{iter, thread};

use anyhow::{Context, ensure};
use vsock_guest_program::job::{Content, End, Failure, Job, Kind, Messages, Options};

use super::pairs::{Opener, Pair, STREAMS_ONLY, connect, connect_with, each, host_of};
use super::{Outcome, Test, halves};
use crate::bytes::{complete, joined, range, receive, send};
use crate::device::LIMIT;
use crate::guest::HOST;
use crate::machine::Machine;

pub(super) const TESTS: &[Test] = &[
    Test::new("messages_arrive_in_order", in_order).within(120),
    Test::new("messages_as_large_as_the_buffer_arrive", large).within(120),
    Test::new("messages_and_streams_share_a_device", mixed).within(120),
    Test::new("a_message_that_is_too_long_is_never_truncated", too_long),
    Test::new("messages_after_one_side_has_ended_arrive", half_closed),
    Test::new(
        "a_guest_closes_and_a_late_host_gets_all_messages",
        guest_closes,
    ),
    Test::new(
        "a_host_closes_and_a_late_guest_gets_all_messages",
        host_closes,
    ),
    Test::new("t129_empty_messages_wait_to_be_received", |machine| {
        empty(machine, 256 << 10)
    }),
    Test::new("t129_empty_messages_wait_with_4_kib", |machine| {
        empty(machine, 4 << 10)
    }),
    Test::new("the_other_socket_type_is_refused_immediately", mismatch),
];

const MESSAGES: Options = Options {
    connect_timeout: None,
    kind: Kind::SeqPacket,
    buffer: None,
    from: None,
};

/// Sizes around the edges: the guest's buffers hold just under 4 KiB, its packets 64 KiB.
const EDGES: [u32; 14] = [
    1, 2, 63, 1000, 3700, 4052, 4096, 4097, 8192, 20_000, 61_440, 65_535, 65_536, 7,
];

/// The guest's errors for a refused socket.
const REFUSED: [i32; 3] = [
    104, // ECONNRESET
    110, // ETIMEDOUT
    111, // ECONNREFUSED
];

fn in_order(machine: &mut Machine) -> anyhow::Result<Outcome> {
    let sizes = EDGES.iter().copied().cycle().take(EDGES.len() * 4);
    // Only the host can send empty messages: the driver does not send them.
    let down = messages(32, sizes.clone().chain([0, 1, 0, 0, 9]));
    both_ways(machine, &messages(31, sizes), &down)
}

fn large(machine: &mut Machine) -> anyhow::Result<Outcome> {
    let largest = 256 * 1024;
    let all = messages(33, [largest, 1, largest, largest, 100_000, largest]);
    both_ways(machine, &all, &all)
}

fn both_ways(machine: &mut Machine, up: &Content, down: &Content) -> anyhow::Result<Outcome> {
    each(machine, MESSAGES, |machine, _, mut pair| {
        pair.send_to_host(machine, up)?;
        pair.send_to_guest(machine, down)?;
        Ok(pair.host)
    })
}

/// Both socket types at the same time, both ways, with small buffers in the guest.
fn mixed(machine: &mut Machine) -> anyhow::Result<Outcome> {
    if host_of(machine, Kind::SeqPacket).is_none() {
        return Ok(STREAMS_ONLY);
    }
    let small = Options {
        buffer: Some(16 * 1024),
        ..MESSAGES
    };
    let all = &messages(34, (0..150).map(|number| 1 + number * 104));
    let bytes = range(35, 1 << 20, 30_000);
    let mut one = connect_with(machine, Opener::Guest, small)?;
    let mut other = connect_with(machine, Opener::Host, small)?;
    let mut stream = connect(machine, Opener::Guest)?;
    let pending = [
        machine.guest().send(one.guest, all)?,
        machine.guest().receive(one.guest, all)?,
        machine.guest().send(other.guest, all)?,
        machine.guest().receive(other.guest, all)?,
    ];
    let carried = machine.guest().send(stream.guest, bytes)?;
    thread::scope(|scope| {
        let sender = scope.spawn(|| send(&mut *one.host.writer, all));
        let second = scope.spawn(|| send(&mut *other.host.writer, all));
        let reader = scope.spawn(|| receive(&mut *stream.host.reader, bytes));
        receive(&mut *one.host.reader, all)?;
        receive(&mut *other.host.reader, all)?;
        joined(sender.join())??;
        joined(second.join())??;
        joined(reader.join())?
    })?;
    for pending in pending {
        complete(pending.moved()?, all)?;
    }
    complete(carried.moved()?, bytes)?;
    Ok(Outcome::Passed)
}

fn too_long(machine: &mut Machine) -> anyhow::Result<Outcome> {
    if host_of(machine, Kind::SeqPacket).is_none() {
        return Ok(STREAMS_ONLY);
    }
    // The guest's kernel knows how much the device can hold.
    let Pair { host: idle, guest } = connect_with(machine, Opener::Guest, MESSAGES)?;
    let beyond = messages(36, [256 * 1024 + 1]);
    let sent = machine.guest().send(guest, &beyond)?.moved()?;
    ensure!(sent.count == 0, "{sent:?}");
    ensure!(
        matches!(sent.end, End::Error(error) if TOO_LONG.contains(&error)),
        "{sent:?}"
    );
    machine.guest().close(guest)?;
    drop(idle);
    // The host does not. The connection ends, and what was sent before arrives.
    let Pair { mut host, guest } = connect_with(machine, Opener::Guest, MESSAGES)?;
    let before = messages(37, [5, 4097]);
    send(&mut *host.writer, &before)?;
    send(&mut *host.writer, messages(38, [256 * 1024 + 1]))?;
    let received = machine.guest().receive(guest, before.one_more())?;
    let received = received.moved()?;
    ensure!(
        received.count == 2 && received.wrong.is_none(),
        "{received:?}"
    );
    // To a driver that is reading, a reset looks like an end.
    ensure!(received.end != End::Complete, "{received:?}");
    machine.guest().close(guest)?;
    Ok(Outcome::Passed)
}

fn half_closed(machine: &mut Machine) -> anyhow::Result<Outcome> {
    let question = messages(39, EDGES);
    let reply = messages(40, EDGES.map(|size| size + 1));
    halves::guest_ends_after(machine, MESSAGES, (&question, &reply))
}

/// Less than the buffers of the device and the host's socket together.
fn in_flight() -> Content {
    messages(41, [30_000, 1, 65_536, 4097, 40_000, 9])
}

fn guest_closes(machine: &mut Machine) -> anyhow::Result<Outcome> {
    halves::guest_closes_after(machine, MESSAGES, &in_flight())
}

fn host_closes(machine: &mut Machine) -> anyhow::Result<Outcome> {
    halves::host_closes_after(machine, MESSAGES, &in_flight())
}

/// Sends more empty messages than any guest has room for. The last message is not empty, because an
/// end would look like an empty one.
fn empty(machine: &mut Machine, buffer: u64) -> anyhow::Result<Outcome> {
    const MANY: usize = 2000;
    if host_of(machine, Kind::SeqPacket).is_none() {
        return Ok(STREAMS_ONLY);
    }
    let options = Options {
        buffer: Some(buffer),
        ..MESSAGES
    };
    let Pair { mut host, guest } = connect_with(machine, Opener::Guest, options)?;
    let from = |first: usize| messages(42, iter::repeat_n(0, MANY - first).chain([1]));
    host.writer.set_limit(Duration::from_secs(1))?;
    let mut waited = 0;
    while waited < MANY && host.writer.write(&[]).is_ok() {
        waited += 1;
    }
    ensure!(waited < MANY, "empty messages are accepted without limit");
    host.writer.set_limit(LIMIT)?;
    let received = machine.guest().receive(guest, from(0))?;
    send(&mut *host.writer, from(waited)).context("to the guest")?;
    complete(received.moved()?, from(0))?;
    machine.guest().close(guest)?;
    Ok(Outcome::Measured(format!("{waited} waited")))
}

fn mismatch(machine: &mut Machine) -> anyhow::Result<Outcome> {
    let Some(host) = host_of(machine, Kind::SeqPacket) else {
        return Ok(STREAMS_ONLY);
    };
    for (listening, options) in [(machine.host(), MESSAGES), (host, Options::default())] {
        let port = machine.port();
        let _listener = listening.listen(port)?;
        let cid = HOST;
        let connected = machine.guest().start(Job::Connect { cid, port, options })?;
        let error = connected.opened().err().context("it was not refused")?;
        let failure = error.downcast_ref::<Failure>().context("no answer")?;
        let errno = failure.errno.unwrap_or(0);
        ensure!(REFUSED.contains(&errno), "{failure}");
        let took = Duration::from_nanos(failure.nanos);
        ensure!(took < Duration::from_secs(1), "it took {took:?}");
    }
    Ok(Outcome::Passed)
}

/// The guest kernel's errors for a message that the device cannot hold.
const TOO_LONG: [i32; 2] = [
    90, // EMSGSIZE
    12, // ENOMEM, which older kernels report for every error
];

fn messages(seed: u64, sizes: impl IntoIterator<Item = u32>) -> Content {
    let sizes = sizes.into_iter().collect();
    Content::Messages(Messages { seed, sizes })
}

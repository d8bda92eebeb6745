// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Messages, where the device has them.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use vsock_guest_program::job::{End, Failure, Job, Kind, Messages, Moved, Options};
use vsock_guest_program::pattern::Pattern;

use super::pairs::{Opener, Pair, connect_by};
use super::{Outcome, Test};
use crate::bytes::{HostEnd, ended};
use crate::device::{Host, LIMIT, Reader, Writer};
use crate::guest::HOST;
use crate::machine::Machine;

pub(super) const TESTS: &[Test] = &[
    Test::new("messages_arrive_in_order", 120, in_order),
    Test::new("messages_as_large_as_the_buffer_arrive", 120, large),
    Test::new("messages_and_streams_share_the_way", 120, mixed),
    Test::new("a_message_too_long_is_never_a_shorter_one", 60, too_long),
    Test::new("messages_after_one_side_has_ended_arrive", 60, half_closed),
    Test::new(
        "a_guest_closes_and_a_late_host_gets_all_messages",
        60,
        guest_closes,
    ),
    Test::new(
        "a_host_closes_and_a_late_guest_gets_all_messages",
        60,
        host_closes,
    ),
    Test::new("t129_empty_messages_wait_to_be_received", 60, |machine| {
        empty(machine, 256 << 10)
    }),
    Test::new("t129_empty_messages_wait_with_4_kib", 60, |machine| {
        empty(machine, 4 << 10)
    }),
    Test::new("the_other_sort_of_socket_is_refused_at_once", 60, mismatch),
];

const MESSAGES: Options = Options {
    patience: None,
    kind: Kind::SeqPacket,
    buffer: None,
    from: None,
};

/// More than a host process receives at once.
const ROOM: usize = 1 << 20;

/// Sizes around which something changes: the guest's buffers have just under 4 KiB, its packets 64.
const EDGES: [u32; 14] = [
    1, 2, 63, 1000, 3700, 4052, 4096, 4097, 8192, 20_000, 61_440, 65_535, 65_536, 7,
];

/// What the guest answers where a socket was refused.
const REFUSED: [i32; 3] = [
    104, // ECONNRESET
    110, // ETIMEDOUT
    111, // ECONNREFUSED
];

/// Runs a test with a host that has messages, if the device has any.
fn offered(
    machine: &mut Machine,
    test: impl FnOnce(&mut Machine, &Arc<dyn Host>) -> anyhow::Result<()>,
) -> anyhow::Result<Outcome> {
    let Some(host) = machine.host().messages() else {
        return Ok(Outcome::NotOffered("the device has streams only"));
    };
    test(machine, &host)?;
    Ok(Outcome::Passed)
}

fn in_order(machine: &mut Machine) -> anyhow::Result<Outcome> {
    offered(machine, |machine, host| {
        let sizes = EDGES.iter().copied().cycle().take(EDGES.len() * 4);
        let up = messages(31, sizes.clone());
        // Only the host can send an empty one: the driver leaves it out.
        let down = messages(32, sizes.chain([0, 1, 0, 0, 9]));
        for opener in Opener::BOTH {
            let Pair { mut host, guest } = connect_by(&**host, machine, opener, MESSAGES)?;
            let sent = machine.guest().send_messages(guest, &up)?;
            receive(&mut *host.reader, &up).context("to the host")?;
            complete(sent.moved()?, &up)?;
            let received = machine.guest().receive_messages(guest, &down)?;
            send(&mut *host.writer, &down).context("to the guest")?;
            complete(received.moved()?, &down)?;
            machine.guest().close(guest)?;
        }
        Ok(())
    })
}

fn large(machine: &mut Machine) -> anyhow::Result<Outcome> {
    offered(machine, |machine, host| {
        let largest = 256 * 1024;
        let all = messages(33, [largest, 1, largest, largest, 100_000, largest]);
        for opener in Opener::BOTH {
            let Pair { mut host, guest } = connect_by(&**host, machine, opener, MESSAGES)?;
            let sent = machine.guest().send_messages(guest, &all)?;
            receive(&mut *host.reader, &all).context("to the host")?;
            complete(sent.moved()?, &all)?;
            let received = machine.guest().receive_messages(guest, &all)?;
            send(&mut *host.writer, &all).context("to the guest")?;
            complete(received.moved()?, &all)?;
            machine.guest().close(guest)?;
        }
        Ok(())
    })
}

/// Both sorts at a time, both ways, and small buffers in the guest.
fn mixed(machine: &mut Machine) -> anyhow::Result<Outcome> {
    offered(machine, |machine, host| {
        let streams = machine.host();
        let small = Options {
            buffer: Some(16 * 1024),
            ..MESSAGES
        };
        let all = messages(34, (0..150).map(|number| 1 + number * 104));
        let bytes = crate::bytes::range(35, 1 << 20, 30_000);
        let mut one = connect_by(&**host, machine, Opener::Guest, small)?;
        let mut other = connect_by(&**host, machine, Opener::Host, small)?;
        let mut stream = connect_by(&*streams, machine, Opener::Guest, Options::default())?;
        let pending = [
            machine.guest().send_messages(one.guest, &all)?,
            machine.guest().receive_messages(one.guest, &all)?,
            machine.guest().send_messages(other.guest, &all)?,
            machine.guest().receive_messages(other.guest, &all)?,
        ];
        let carried = machine.guest().send(stream.guest, bytes)?;
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| send(&mut *one.host.writer, &all));
            let second = scope.spawn(|| send(&mut *other.host.writer, &all));
            let reader = scope.spawn(|| crate::bytes::receive(&mut *stream.host.reader, bytes));
            receive(&mut *one.host.reader, &all)?;
            receive(&mut *other.host.reader, &all)?;
            let panicked = |_| anyhow::anyhow!("a thread has panicked");
            sender.join().map_err(panicked)??;
            second.join().map_err(panicked)??;
            reader.join().map_err(panicked)?
        })?;
        for pending in pending {
            complete(pending.moved()?, &all)?;
        }
        crate::bytes::complete(carried.moved()?, bytes)
    })
}

fn too_long(machine: &mut Machine) -> anyhow::Result<Outcome> {
    offered(machine, |machine, host| {
        // The guest's kernel knows what the device holds.
        let Pair { host: idle, guest } = connect_by(&**host, machine, Opener::Guest, MESSAGES)?;
        let beyond = messages(36, [256 * 1024 + 1]);
        let sent = machine.guest().send_messages(guest, &beyond)?.moved()?;
        ensure!(sent.count == 0, "{sent:?}");
        ensure!(
            matches!(sent.end, End::Error(error) if TOO_LONG.contains(&error)),
            "{sent:?}"
        );
        machine.guest().close(guest)?;
        drop(idle);
        // The host does not: the connection ends, and what came before arrives.
        let Pair { mut host, guest } = connect_by(&**host, machine, Opener::Guest, MESSAGES)?;
        let before = messages(37, [5, 4097]);
        send(&mut *host.writer, &before)?;
        send(&mut *host.writer, &messages(38, [256 * 1024 + 1]))?;
        let mut expected = before.clone();
        expected.sizes.push(1);
        let received = machine
            .guest()
            .receive_messages(guest, &expected)?
            .moved()?;
        ensure!(
            received.count == 2 && received.wrong.is_none(),
            "{received:?}"
        );
        // To a driver that reads, a reset looks like an end.
        ensure!(received.end != End::Complete, "{received:?}");
        machine.guest().close(guest)?;
        Ok(())
    })
}

fn half_closed(machine: &mut Machine) -> anyhow::Result<Outcome> {
    offered(machine, |machine, host| {
        let (question, reply) = (
            messages(39, EDGES),
            messages(40, EDGES.map(|size| size + 1)),
        );
        for opener in Opener::BOTH {
            let Pair { mut host, guest } = connect_by(&**host, machine, opener, MESSAGES)?;
            complete(
                machine.guest().send_messages(guest, &question)?.moved()?,
                &question,
            )?;
            machine.guest().finish(guest)?;
            receive_all(&mut *host.reader, &question).context("the question")?;
            let received = machine.guest().receive_messages(guest, &one_more(&reply))?;
            send(&mut *host.writer, &reply).context("the reply")?;
            host.writer.finish()?;
            closed(received.moved()?, &reply)?;
            machine.guest().close(guest)?;
        }
        Ok(())
    })
}

/// Less than the device and the host's socket hold together.
fn in_flight() -> Messages {
    messages(41, [30_000, 1, 65_536, 4097, 40_000, 9])
}

fn guest_closes(machine: &mut Machine) -> anyhow::Result<Outcome> {
    offered(machine, |machine, host| {
        let all = in_flight();
        for opener in Opener::BOTH {
            let Pair { mut host, guest } = connect_by(&**host, machine, opener, MESSAGES)?;
            complete(machine.guest().send_messages(guest, &all)?.moved()?, &all)?;
            machine.guest().close(guest)?;
            if opener == Opener::Guest {
                machine.guest().run(Job::Freed { port: guest.port })?;
            }
            receive_all(&mut *host.reader, &all)?;
        }
        Ok(())
    })
}

fn host_closes(machine: &mut Machine) -> anyhow::Result<Outcome> {
    offered(machine, |machine, host| {
        let all = in_flight();
        for opener in Opener::BOTH {
            let Pair { mut host, guest } = connect_by(&**host, machine, opener, MESSAGES)?;
            send(&mut *host.writer, &all)?;
            drop(host);
            let received = machine
                .guest()
                .receive_messages(guest, &one_more(&all))?
                .moved()?;
            ensure!(
                received.wrong.is_none() && received.count == all.sizes.len() as u64,
                "{received:?}"
            );
            machine.guest().close(guest)?;
        }
        Ok(())
    })
}

/// More of them than any guest has places for; the last one is not empty, which an end would look like.
fn empty(machine: &mut Machine, buffer: u64) -> anyhow::Result<Outcome> {
    let mut waited = 0;
    let result = offered(machine, |machine, host| {
        let options = Options {
            buffer: Some(buffer),
            ..MESSAGES
        };
        let Pair { mut host, guest } = connect_by(&**host, machine, Opener::Guest, options)?;
        let all = messages(42, std::iter::repeat_n(0, 2000).chain([1]));
        host.writer.set_limit(Duration::from_secs(1))?;
        while waited < 2000 && host.writer.write(&[]).is_ok() {
            waited += 1;
        }
        ensure!(waited < 2000, "they are taken without end");
        host.writer.set_limit(LIMIT)?;
        let mut rest = all.clone();
        rest.sizes.drain(..waited);
        let received = machine.guest().receive_messages(guest, &all)?;
        send(&mut *host.writer, &rest).context("to the guest")?;
        complete(received.moved()?, &all)?;
        machine.guest().close(guest)
    })?;
    Ok(match result {
        Outcome::Passed => Outcome::Measured(format!("{waited} waited")),
        other => other,
    })
}

fn mismatch(machine: &mut Machine) -> anyhow::Result<Outcome> {
    offered(machine, |machine, host| {
        let streams = machine.host();
        for (listening, options) in [(&streams, MESSAGES), (host, Options::default())] {
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
        Ok(())
    })
}

/// What the guest's kernel says of a message that the device cannot hold.
const TOO_LONG: [i32; 2] = [
    90, // EMSGSIZE
    12, // ENOMEM, before it told one error from another
];

fn messages(seed: u64, sizes: impl IntoIterator<Item = u32>) -> Messages {
    let sizes = sizes.into_iter().collect();
    Messages { seed, sizes }
}

/// The same, and room for another one that must not come.
fn one_more(messages: &Messages) -> Messages {
    let mut more = messages.clone();
    more.sizes.push(1);
    more
}

fn send(writer: &mut dyn Writer, messages: &Messages) -> io::Result<()> {
    let mut at = 0;
    for size in &messages.sizes {
        let mut message = vec![0; *size as usize];
        Pattern::new(messages.seed).fill(&mut message, at);
        at += u64::from(*size);
        if writer.write(&message)? != message.len() {
            return Err(ErrorKind::WriteZero.into());
        }
    }
    Ok(())
}

fn receive(reader: &mut dyn Reader, messages: &Messages) -> anyhow::Result<()> {
    let mut buffer = vec![0; ROOM];
    let mut at = 0;
    for (number, size) in messages.sizes.iter().enumerate() {
        let len = reader.read(&mut buffer)?;
        ensure!(
            len == *size as usize,
            "message {number} has {len} bytes, not {size}"
        );
        let wrong = Pattern::new(messages.seed).wrong(&buffer[..len], at);
        ensure!(wrong.is_none(), "message {number} is not what was sent");
        at += u64::from(*size);
    }
    Ok(())
}

/// Receives the messages, and then the end in order.
fn receive_all(reader: &mut dyn Reader, messages: &Messages) -> anyhow::Result<()> {
    receive(reader, messages)?;
    ensure!(
        ended(reader)? == HostEnd::Closed,
        "a reset instead of the end"
    );
    Ok(())
}

/// The guest's job must have moved all messages, unchanged.
fn complete(moved: Moved, messages: &Messages) -> anyhow::Result<()> {
    let all = messages.sizes.len() as u64;
    ensure!(
        moved.wrong.is_none() && moved.count == all && moved.end == End::Complete,
        "of {all} messages: {moved:?}"
    );
    Ok(())
}

/// The guest has received the messages, and then the end in order.
fn closed(moved: Moved, messages: &Messages) -> anyhow::Result<()> {
    let all = messages.sizes.len() as u64;
    ensure!(
        moved.wrong.is_none() && moved.count == all && moved.end == End::Closed,
        "of {all} messages and the end: {moved:?}"
    );
    Ok(())
}

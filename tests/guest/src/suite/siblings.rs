// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Two siblings on one device, connected to each other.

mod links;
pub(super) mod lives;

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use vsock_guest_program::job::{Answer, Content, End, Job, Kind, Messages, Options};

use self::links::{Flow, Link, Route, at_rest, each, routes};
use super::{Outcome, Test, refused};
use crate::bytes::{came_to, closed, complete, range};
use crate::machine::{Footprint, Machine};

pub(super) const TESTS: &[Test] = &[
    Test::new("siblings_see_each_others_addresses", addresses).of_siblings(),
    Test::new(
        "siblings_without_a_listener_are_reset_immediately",
        refusals,
    )
    .of_siblings(),
    Test::new("siblings_move_bulk_both_ways", bulk).of_siblings(),
    Test::new("siblings_keep_message_boundaries", messages).of_siblings(),
    Test::new("siblings_half_close_and_get_a_reply", half_close).of_siblings(),
    Test::new("siblings_have_1000_simultaneous_connections", many).of_siblings(),
    Test::new("siblings_connect_in_storms_both_ways", storms).of_siblings(),
    Test::new("siblings_that_do_not_read_block_their_writers", stalled).of_siblings(),
];

/// Bytes in each direction of a connection.
const BULK: u64 = 8 << 20;
/// Simultaneous connections.
const MANY: u32 = 1_000;
/// The limit for all of them, or for a storm.
const MANY_LIMIT: Duration = Duration::from_secs(45);
/// Jobs of each guest that connect at the same time, and how many connections each makes.
const STORMS: u32 = 2;
const TURNS: u32 = 100;
/// Stalled connections of each guest.
const STALLED: u32 = 8;
/// More than all buffers on a connection's path hold.
const MUCH: u64 = 64 << 20;
/// What a device may keep for a stalled connection, in both directions: what one guest may have
/// sent, and a pipe.
const KEPT: u64 = 1 << 20;
/// What the device's allocator may keep in addition.
const SLACK: u64 = 16 << 20;

/// Each end has the peer's CID and port.
fn addresses(machine: &mut Machine) -> anyhow::Result<Outcome> {
    each(machine, Options::default(), |Link { route, from, to }| {
        let right = from.peer == Some((route.to.cid, to.port))
            && to.peer == Some((route.from.cid, from.port));
        ensure!(right, "{from:?} and {to:?}");
        Ok(())
    })
}

fn refusals(machine: &mut Machine) -> anyhow::Result<Outcome> {
    let port = machine.port();
    for Route { from, to } in routes(machine)? {
        refused::reset_immediately(from.guest, to.cid, port)
            .context("a port without a listener")?;
        refused::reset_immediately(from.guest, to.cid + 7, port)
            .context("a CID without a guest")?;
        refused::reset_immediately(from.guest, from.cid + 7, port)
            .context("a CID without a guest")?;
    }
    works(machine)?;
    Ok(Outcome::Passed)
}

fn bulk(machine: &mut Machine) -> anyhow::Result<Outcome> {
    for piece in [64 << 10, 4_000] {
        each(machine, Options::default(), |link| {
            both_ways(link, BULK, piece)
        })?;
    }
    Ok(Outcome::Passed)
}

/// Sends bytes in both directions at the same time. Each byte depends on its position.
fn both_ways(link: Link<'_>, len: u64, piece: u32) -> anyhow::Result<()> {
    let there = Flow::start(link, range(len ^ 3, len, piece))?;
    let back = Flow::start(link.back(), range(len ^ 5, len, piece))?;
    there.complete().context("there")?;
    back.complete().context("back")
}

/// Checks that each guest reaches the other. For tests of what happens around the traffic.
fn works(machine: &mut Machine) -> anyhow::Result<()> {
    each(machine, Options::default(), |link| {
        both_ways(link, 300_000, 10_000)
    })
    .map(drop)
}

/// Message sizes go from one byte to the size of a guest's buffer.
fn messages(machine: &mut Machine) -> anyhow::Result<Outcome> {
    let options = Options {
        kind: Kind::SeqPacket,
        ..Options::default()
    };
    let small = (1..200).map(|turn| turn * turn % 9_973);
    let sizes = small.chain([1, 65_536, 4, 200_000, 262_144, 7]).collect();
    let content = Messages { seed: 71, sizes };
    each(machine, options, |link| {
        let there = Flow::start(link, content.clone())?;
        let back = Flow::start(link.back(), content.clone())?;
        there.complete().context("there")?;
        back.complete().context("back")
    })
}

fn half_close(machine: &mut Machine) -> anyhow::Result<Outcome> {
    let message: Content = range(81, 60_000, 10_000).into();
    let reply: Content = range(82, 300_000, 64 << 10).into();
    each(machine, Options::default(), |link| {
        half_closed(link, &message).context("the message")?;
        half_closed(link.back(), &reply).context("the reply")
    })
}

/// One side sends and ends its direction. The other side receives everything and then the end.
fn half_closed(link: Link<'_>, content: &Content) -> anyhow::Result<()> {
    let Route { from, to } = link.route;
    let received = to.guest.receive(link.to, content.one_more())?;
    complete(from.guest.send(link.from, content)?.moved()?, content)?;
    from.guest.finish(link.from)?;
    closed(received.moved()?, content)
}

/// Each connection carries a message there and back while all are open.
fn many(machine: &mut Machine) -> anyhow::Result<Outcome> {
    let before = Footprint::now(machine)?;
    let (port, count) = (machine.port(), MANY);
    for Route { from, to } in routes(machine)? {
        let listening = to.guest.listen(port)?;
        let (cid, listener) = (to.cid, listening.socket);
        let accepting = to.guest.start(Job::AcceptMany { listener, count })?;
        let connecting = from.guest.start(Job::ConnectMany { cid, port, count })?;
        let near = connecting.group(MANY_LIMIT)?;
        let far = accepting.group(MANY_LIMIT)?;
        let answering = to.guest.start(Job::AnswerEach(far))?;
        let asking = from.guest.start(Job::EchoEach(near))?;
        asking.wait_for(MANY_LIMIT)?;
        answering.wait_for(MANY_LIMIT)?;
        from.guest.close_all(near)?;
        to.guest.close_all(far)?;
        to.guest.close(listening)?;
    }
    before.given_back(machine, SLACK)?;
    Ok(Outcome::Passed)
}

/// Short connections, from each guest to the other.
fn storms(machine: &mut Machine) -> anyhow::Result<Outcome> {
    let (port, count, bytes) = (machine.port(), TURNS, 64);
    let routes = routes(machine)?;
    let mut services = Vec::new();
    for Route { to, .. } in routes {
        let listener = to.guest.listen(port)?;
        let service = to.guest.start(Job::Serve(listener.socket))?;
        services.push((to.guest, listener, service));
    }
    let mut storms = Vec::new();
    for Route { from, to } in routes {
        for _ in 0..STORMS {
            let cid = to.cid;
            let storm = Job::Storm {
                cid,
                port,
                count,
                bytes,
            };
            storms.push(from.guest.start(storm)?);
        }
    }
    for storm in storms {
        let moved = storm.moved_within(MANY_LIMIT)?;
        came_to(moved, TURNS.into(), End::Complete)?;
    }
    for (guest, listener, service) in services {
        guest.close(listener)?;
        let Answer::Served(served) = service.wait()? else {
            bail!("a service did not report its connections");
        };
        let expected = u64::from(STORMS * TURNS);
        ensure!(
            served == expected,
            "a guest saw {served} of {expected} connections"
        );
    }
    Ok(Outcome::Passed)
}

/// Other connections keep working, the device stays idle, and what it has accepted arrives later.
fn stalled(machine: &mut Machine) -> anyhow::Result<Outcome> {
    let before = Footprint::now(machine)?;
    let ports: Vec<u32> = (0..STALLED).map(|_| machine.port()).collect();
    let other_port = machine.port();
    let (mut links, mut writers) = (Vec::new(), Vec::new());
    for route in routes(machine)? {
        for port in &ports {
            let link = Link::open(route, *port, Options::default())?;
            let much = range(91, MUCH, 64 << 10);
            writers.push(route.from.guest.send(link.from, much)?);
            links.push(link);
        }
    }
    // Every buffer between the guests fills up, and then the writers block.
    let taken = at_rest(&links)?;
    ensure!(
        taken.iter().all(|taken| *taken < MUCH),
        "writes never block"
    );
    let kept = before.more(machine)?.bytes;
    let limit = links.len() as u64 * KEPT + SLACK;
    ensure!(kept <= limit, "the device keeps {kept} bytes");
    let burnt = machine.idle_share(Duration::from_secs(1))?;
    ensure!(burnt <= 0.05, "it uses {burnt:.2} of a core");
    for route in routes(machine)? {
        let other = Link::open(route, other_port, Options::default())?;
        both_ways(other, 1 << 20, 10_000).context("another connection")?;
        other.close()?;
    }
    for ((link, writer), taken) in links.into_iter().zip(writers).zip(taken) {
        let Route { from, to } = link.route;
        // A reader that starts late receives everything that was accepted, in order.
        let late = range(91, taken, 64 << 10);
        complete(to.guest.receive(link.to, late)?.moved()?, late).context("a late reader")?;
        to.guest.close(link.to)?;
        // The writer has more to send than its peer reads, so the peer's close is an error for it.
        let end = writer.moved().context("a writer does not end")?.end;
        ensure!(
            matches!(end, End::Error(_)),
            "expected a writer to fail, found {end:?}"
        );
        from.guest.close(link.from)?;
    }
    let figure = format!("{} KiB kept, {:.1} % of a core", kept >> 10, burnt * 100.0);
    Ok(Outcome::Measured(figure))
}

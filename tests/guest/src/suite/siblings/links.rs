// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Connections between two siblings, with both of their ends.

use anyhow::Context;
use vsock_guest_program::job::{Content, GuestSocket, Job, Options};

use crate::bytes::complete;
use crate::child::wait_until;
use crate::device::LIMIT;
use crate::guest::{Guest, Pending};
use crate::machine::Machine;
use crate::suite::Outcome;

/// One of the guests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Side<'a> {
    pub(super) guest: &'a Guest,
    pub(super) cid: u32,
}

/// The direction of a connection: the side that acts and its peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route<'a> {
    pub(super) from: Side<'a>,
    pub(super) to: Side<'a>,
}

/// Returns the route from the first guest to the second, and its reverse.
pub(super) fn routes(machine: &Machine) -> anyhow::Result<[Route<'_>; 2]> {
    let from = Side {
        guest: machine.guest(),
        cid: machine.cid(),
    };
    let to = Side {
        guest: machine.sibling()?,
        cid: machine.sibling_cid(),
    };
    let there = Route { from, to };
    Ok([there, there.back()])
}

impl Route<'_> {
    pub(super) const fn back(self) -> Self {
        let (from, to) = (self.to, self.from);
        Self { from, to }
    }
}

/// A connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link<'a> {
    pub(super) route: Route<'a>,
    /// The sockets of the two sides.
    pub(super) from: GuestSocket,
    pub(super) to: GuestSocket,
}

impl<'a> Link<'a> {
    /// Opens a connection from `route.from` to `route.to`.
    pub(super) fn open(route: Route<'a>, port: u32, options: Options) -> anyhow::Result<Self> {
        let Route { from, to } = route;
        let listener = to.guest.listen_with(port, options)?;
        let near = from.guest.connect_to(to.cid, port, options)?;
        let far = to.guest.accept(listener)?;
        to.guest.close(listener)?;
        Ok(Self {
            route,
            from: near,
            to: far,
        })
    }

    /// The connection from the peer's point of view.
    pub(super) const fn back(self) -> Self {
        Self {
            route: self.route.back(),
            from: self.to,
            to: self.from,
        }
    }

    pub(super) fn close(self) -> anyhow::Result<()> {
        self.route.from.guest.close(self.from)?;
        self.route.to.guest.close(self.to)
    }
}

/// Runs a test on a connection that the first guest opened, then on one that the second guest
/// opened.
pub(super) fn each(
    machine: &mut Machine,
    options: Options,
    mut test: impl FnMut(Link<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<Outcome> {
    let port = machine.port();
    for route in routes(machine)? {
        let link = Link::open(route, port, options)?;
        test(link).with_context(|| format!("guest {} connects", route.from.cid))?;
        link.close()?;
    }
    Ok(Outcome::Passed)
}

/// A transfer from one side to the other.
#[derive(Debug)]
pub(super) struct Flow {
    content: Content,
    pub(super) sent: Pending,
    pub(super) received: Pending,
}

impl Flow {
    pub(super) fn start(link: Link<'_>, content: impl Into<Content>) -> anyhow::Result<Self> {
        let content = content.into();
        let Route { from, to } = link.route;
        Ok(Self {
            received: to.guest.receive(link.to, &content)?,
            sent: from.guest.send(link.from, &content)?,
            content,
        })
    }

    /// Waits until everything has arrived unchanged.
    pub(super) fn complete(self) -> anyhow::Result<()> {
        complete(self.sent.moved()?, &self.content).context("sending")?;
        complete(self.received.moved()?, &self.content).context("receiving")
    }
}

/// Waits until the sending sockets accept no more bytes. Returns how many each has accepted.
pub(super) fn at_rest(links: &[Link<'_>]) -> anyhow::Result<Vec<u64>> {
    let ask = |link: &Link<'_>| link.route.from.guest.start(Job::Progress(link.from.socket));
    let (mut last, mut same) = (Vec::new(), 0);
    let taken = wait_until(LIMIT, || {
        // Ask all sockets before waiting for the first answer.
        let asked = links.iter().map(ask).collect::<anyhow::Result<Vec<_>>>()?;
        let now = asked.into_iter().map(|asked| Ok(asked.moved()?.count));
        let now = now.collect::<anyhow::Result<Vec<u64>>>()?;
        same = if now == last { same + 1 } else { 0 };
        last.clone_from(&now);
        Ok((same == 20).then_some(now))
    })?;
    taken.context("bytes are accepted without limit")
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Connections between the host and the guest, with both of their ends.

use std::sync::Arc;

use anyhow::Context;
use vsock_guest_program::job::{Content, GuestSocket, Kind, Options};

use super::Outcome;
use crate::bytes::{complete, receive, send};
use crate::device::{Host, Stream};
use crate::machine::Machine;

/// The result of a seqpacket test on a device that has streams only.
pub(super) const STREAMS_ONLY: Outcome = Outcome::NotOffered("the device has streams only");

/// The side that connects.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Opener {
    Guest,
    Host,
}

impl Opener {
    pub(crate) const BOTH: [Self; 2] = [Self::Guest, Self::Host];
}

/// Both ends of a connection.
pub(crate) struct Pair {
    pub(crate) host: Stream,
    pub(crate) guest: GuestSocket,
}

impl Pair {
    /// Sends content from the guest to the host.
    pub(crate) fn send_to_host(
        &mut self,
        machine: &Machine,
        content: impl Into<Content>,
    ) -> anyhow::Result<()> {
        let content = content.into();
        let sent = machine.guest().send(self.guest, &content)?;
        receive(&mut *self.host.reader, &content).context("to the host")?;
        complete(sent.moved()?, &content)
    }

    /// Sends content from the host to the guest.
    pub(crate) fn send_to_guest(
        &mut self,
        machine: &Machine,
        content: impl Into<Content>,
    ) -> anyhow::Result<()> {
        let content = content.into();
        let received = machine.guest().receive(self.guest, &content)?;
        send(&mut *self.host.writer, &content).context("to the guest")?;
        complete(received.moved()?, &content)
    }
}

pub(crate) fn connect(machine: &mut Machine, opener: Opener) -> anyhow::Result<Pair> {
    connect_with(machine, opener, Options::default())
}

/// Opens `count` connections, half of them from each side.
pub(super) fn open(machine: &mut Machine, count: usize) -> anyhow::Result<Vec<Pair>> {
    let openers = Opener::BOTH.into_iter().cycle().take(count);
    openers.map(|opener| connect(machine, opener)).collect()
}

/// Opens a connection on a port of its own.
pub(crate) fn connect_with(
    machine: &mut Machine,
    opener: Opener,
    options: Options,
) -> anyhow::Result<Pair> {
    let host = host_of(machine, options.kind).context("the device has streams only")?;
    let port = machine.port();
    let guest = machine.guest();
    match opener {
        Opener::Guest => {
            let listener = host.listen(port).context("cannot listen on the host")?;
            let guest = guest.connect_with(port, options)?;
            let host = listener.accept().context("the host's accept")?;
            Ok(Pair { host, guest })
        }
        Opener::Host => {
            let listener = guest.listen_with(port, options)?;
            let host = host.connect(port).context("the host cannot connect")?;
            let accepted = guest.accept(listener)?;
            guest.close(listener)?;
            let guest = accepted;
            Ok(Pair { host, guest })
        }
    }
}

/// Returns the host side for a socket type, if the device offers it.
pub(super) fn host_of(machine: &Machine, kind: Kind) -> Option<Arc<dyn Host>> {
    match kind {
        Kind::Stream => Some(machine.host()),
        Kind::SeqPacket => machine.host().messages(),
    }
}

/// Runs a test on a connection that the guest opened, then on one that the host opened. The test's
/// result is dropped only after the guest's end is closed.
pub(super) fn each<T>(
    machine: &mut Machine,
    options: Options,
    mut test: impl FnMut(&mut Machine, Opener, Pair) -> anyhow::Result<T>,
) -> anyhow::Result<Outcome> {
    if host_of(machine, options.kind).is_none() {
        return Ok(STREAMS_ONLY);
    }
    for opener in Opener::BOTH {
        let pair = connect_with(machine, opener, options)?;
        let guest = pair.guest;
        let kept = test(machine, opener, pair).with_context(|| format!("{opener:?} connects"))?;
        machine.guest().close(guest)?;
        drop(kept);
    }
    Ok(Outcome::Passed)
}

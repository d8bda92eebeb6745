// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Connections, with both of their ends.

use anyhow::Context;
use vsock_guest_program::job::Options;

use crate::device::{Host, Stream};
use crate::guest::GuestSocket;
use crate::machine::Machine;

/// Who connects to whom.
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

pub(crate) fn connect(machine: &mut Machine, opener: Opener) -> anyhow::Result<Pair> {
    connect_with(machine, opener, Options::default())
}

/// A connection over a port of its own.
pub(crate) fn connect_with(
    machine: &mut Machine,
    opener: Opener,
    options: Options,
) -> anyhow::Result<Pair> {
    let host = machine.host();
    connect_by(&*host, machine, opener, options)
}

/// As [`connect_with`], by this host, whose sort of sockets must be that of the options.
pub(crate) fn connect_by(
    host: &dyn Host,
    machine: &mut Machine,
    opener: Opener,
    options: Options,
) -> anyhow::Result<Pair> {
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

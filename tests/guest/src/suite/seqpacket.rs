// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Messages, where the device has them.

use anyhow::Context;
use vsock_guest_program::job::{Failure, Job, Kind, Options};

use super::{Outcome, Test};
use crate::bytes::{complete, range, receive, send};
use crate::guest::HOST;
use crate::machine::Machine;

pub(super) const TESTS: &[Test] = &[Test::new("messages_arrive_in_order", 60, messages)];

/// What a driver says of a sort of socket that its device does not have.
const NOT_THERE: [i32; 3] = [
    19, // ENODEV
    93, // EPROTONOSUPPORT
    94, // ESOCKTNOSUPPORT
];

fn messages(machine: &mut Machine) -> anyhow::Result<Outcome> {
    let port = machine.port();
    let listener = machine.host().listen(port)?;
    let options = Options {
        kind: Kind::SeqPacket,
        ..Options::default()
    };
    let cid = HOST;
    let connected = machine.guest().start(Job::Connect { cid, port, options })?;
    let guest = match connected.opened() {
        Ok(guest) => guest,
        Err(error) => {
            let errno = error
                .downcast_ref::<Failure>()
                .and_then(|failure| failure.errno);
            return match errno {
                Some(errno) if NOT_THERE.contains(&errno) => {
                    Ok(Outcome::NotOffered("the device has streams only"))
                }
                _ => Err(error),
            };
        }
    };
    let mut host = listener.accept()?;
    let range = range(31, 100_000, 1_000);
    let sent = machine.guest().send(guest, range)?;
    receive(&mut *host.reader, range).context("to the host")?;
    complete(sent.moved()?, range)?;
    let received = machine.guest().receive(guest, range)?;
    send(&mut *host.writer, range).context("to the guest")?;
    complete(received.moved()?, range)?;
    Ok(Outcome::Passed)
}

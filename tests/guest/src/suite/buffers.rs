// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Windows of every size, which the guest sets by its socket's buffer. Newer drivers leave no more
//! bytes unacknowledged than that, however large the device's window: credit must come in time.

use anyhow::Context;
use vsock_guest_program::job::Options;

use super::pairs::{Opener, connect_with};
use super::{Outcome, Test};
use crate::bytes::{complete, range, receive, send};
use crate::machine::Machine;

pub(super) const TESTS: &[Test] = &[
    Test::new("g4_a_guest_with_a_buffer_of_1_kib", 60, |machine| {
        bulk(machine, 1 << 10, 256 << 10)
    }),
    Test::new("g4_a_guest_with_a_buffer_of_8_kib", 60, |machine| {
        bulk(machine, 8 << 10, 1 << 20)
    }),
    Test::new("g4_a_guest_with_a_buffer_of_512_kib", 60, |machine| {
        bulk(machine, 512 << 10, 16 << 20)
    }),
    Test::new("g4_a_guest_with_a_buffer_of_8_mib", 60, |machine| {
        bulk(machine, 8 << 20, 32 << 20)
    }),
];

fn bulk(machine: &mut Machine, buffer: u64, len: u64) -> anyhow::Result<Outcome> {
    for opener in Opener::BOTH {
        let options = Options {
            buffer: Some(buffer),
            ..Options::default()
        };
        let mut pair = connect_with(machine, opener, options)?;
        let range = range(buffer, len, 64 << 10);
        let received = machine.guest().receive(pair.guest, range)?;
        send(&mut *pair.host.writer, range).context("to the guest")?;
        complete(received.moved()?, range)?;
        let sent = machine.guest().send(pair.guest, range)?;
        receive(&mut *pair.host.reader, range).context("to the host")?;
        complete(sent.moved()?, range)?;
        machine.guest().close(pair.guest)?;
    }
    Ok(Outcome::Passed)
}

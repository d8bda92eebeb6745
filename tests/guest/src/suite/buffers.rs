// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Windows of every size, as the guest sets them by its socket's buffer. Newer drivers leave no
//! more bytes unacknowledged than the buffer holds, however large the device's window is, so credit
//! updates must come in time. Drivers also reset a connection whose queued packets would use more
//! memory than the buffer allows, so a device limits packets as well as bytes.

use anyhow::Context;
use vsock_guest_program::job::{Options, Range};

use super::pairs::each;
use super::{Outcome, Test};
use crate::bytes::{complete, range, send};
use crate::machine::Machine;

pub(super) const TESTS: &[Test] = &[
    Test::new("g4_a_guest_with_a_buffer_of_1_kib", |machine| {
        bulk(machine, 1 << 10, 256 << 10)
    }),
    Test::new("g4_a_guest_with_a_buffer_of_8_kib", |machine| {
        bulk(machine, 8 << 10, 1 << 20)
    }),
    Test::new("g4_a_guest_with_a_buffer_of_512_kib", |machine| {
        bulk(machine, 512 << 10, 16 << 20)
    }),
    Test::new("g4_a_guest_with_a_buffer_of_8_mib", |machine| {
        bulk(machine, 8 << 20, 32 << 20)
    }),
    Test::new("t128_single_bytes_wake_a_reader_of_1000", |machine| {
        woken(machine, 256 << 10)
    }),
    Test::new("t128_single_bytes_wake_one_with_4_kib", |machine| {
        woken(machine, 4 << 10)
    }),
];

/// The reader's low-water mark in bytes.
const LOWAT: u32 = 1000;
/// After each of the first bytes the guest is asked for its progress, so that each byte gets a
/// packet of its own. This is more bytes than packets that can be in flight.
const SINGLE: u64 = 300;

fn bulk(machine: &mut Machine, buffer: u64, len: u64) -> anyhow::Result<Outcome> {
    each(machine, with(buffer), |machine, _, mut pair| {
        let range = range(buffer, len, 64 << 10);
        pair.send_to_guest(machine, range)?;
        pair.send_to_host(machine, range)?;
        Ok(pair.host)
    })
}

fn with(buffer: u64) -> Options {
    Options {
        buffer: Some(buffer),
        ..Options::default()
    }
}

/// The reader is not woken until it has more bytes than this many packets could carry.
fn woken(machine: &mut Machine, buffer: u64) -> anyhow::Result<Outcome> {
    each(machine, with(buffer), |machine, _, mut pair| {
        let range = range(buffer + 1, 5 * u64::from(LOWAT), 64 << 10);
        let guest = machine.guest();
        let received = guest.receive_woken_at(pair.guest, range, Some(LOWAT))?;
        for from in 0..range.len {
            let byte = Range {
                from,
                len: 1,
                piece: 1,
                ..range
            };
            send(&mut *pair.host.writer, byte).with_context(|| format!("byte {from}"))?;
            if from < SINGLE {
                guest.progress(pair.guest)?;
            }
        }
        // The last bytes are fewer than the low-water mark, so the end must wake the reader.
        pair.host.writer.finish()?;
        complete(received.moved()?, range)?;
        Ok(pair.host)
    })
}

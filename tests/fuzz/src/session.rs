// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whole sessions of a vhost-user device with front-ends that send anything: messages, descriptors,
//! rings, and a hang-up in the middle of a message. Afterwards the device must serve a well-behaved
//! front-end and stop in time, without a panic or a leaked descriptor.
//!
//! The device runs on its own threads, so its progress at each message varies between runs. The
//! checks do not depend on it.

mod descriptors;
mod device;
mod front_end;
mod guest;
mod message;

use std::fs;

use self::device::Rig;
use self::front_end::FrontEnd;
use self::guest::Guest;
use self::message::Message;
use crate::bytes::Bytes;
use crate::shifting::change::{self, Change};

/// The most front-ends of one input.
const MOST_SESSIONS: usize = 4;
/// The most messages of one session.
const MOST_STEPS: usize = 200;

/// Interprets the bytes as the actions of front-ends.
pub fn fuzz(data: &[u8]) {
    let before = open_descriptors();
    {
        let Some(mut rig) = Rig::new() else {
            return;
        };
        let mut data = Bytes(data);
        for _ in 0..MOST_SESSIONS {
            if data.is_empty() {
                break;
            }
            session(&mut data, &mut rig);
        }
        rig.serves_again();
        rig.stop();
    }
    assert_eq!(open_descriptors(), before, "descriptors");
}

fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// Runs one front-end until it ends or the bytes do.
fn session(data: &mut Bytes<'_>, rig: &mut Rig) {
    let (Some(mut front_end), Some(mut guest)) = (FrontEnd::connect(&rig.socket()), Guest::new())
    else {
        return;
    };
    let mut next = 0;
    for _ in 0..MOST_STEPS {
        let what = data.byte();
        let high = what >> 4;
        match what & 0xf {
            0..=3 => front_end.send(&hostile(data, &guest)),
            4..=6 => {
                front_end.send_all(guest.set_up().skip(next).take(1));
                next = next.saturating_add(1);
            }
            7 => {
                front_end.send_all(guest.set_up().skip(next));
                next = usize::MAX;
            }
            8 => {
                // Hang up within a message.
                let message = guest
                    .set_up()
                    .nth(next)
                    .unwrap_or_else(|| hostile(data, &guest));
                front_end.send_part(&message, data.byte().into());
                return;
            }
            9 => change::send(data, &guest.memory, &mut guest.rings[1]),
            10 => change::offer_buffers(data, &guest.memory, &mut guest.rings[0]),
            11 => Change::read(data, true).apply(&guest.memory, &mut guest.rings),
            12 => guest.kick(usize::from(high) % 3),
            13 => front_end.read_some(),
            14 => rig.component.turn(),
            _ if high < 8 => return, // the front-end dies
            _ => return front_end.finish(),
        }
        if data.is_empty() {
            break;
        }
    }
    front_end.finish();
}

/// Makes a message that is mostly well-formed.
fn hostile(data: &mut Bytes<'_>, guest: &Guest) -> Message {
    let request = u32::from(data.byte() % 46);
    let (count, kind) = (data.byte(), data.byte());
    let mut message = message::any(request, data, guest);
    message.need_reply = count & 0x80 != 0;
    if count & 0x60 == 0x60 {
        message.size = data.number();
    }
    let descriptors = match count & 0x1f {
        count @ 0..=9 => count.into(),
        10..=20 => 1, // as most messages have
        _ => usize::from(message.wants_descriptor()),
    };
    for index in 0..descriptors {
        let kind = kind.wrapping_add(u8::try_from(index).unwrap_or(0));
        message.descriptors.extend(descriptors::open(kind, guest));
    }
    message
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Code that transfers payload and panics, or returns an impossible count.

use std::panic::{AssertUnwindSafe, catch_unwind};

use vsock_proto::Phase;
use vsock_proto::{
    Body, Chunk, Config, Ending, HostAction, MessageFlags, Payload, Progress, SlicePayload,
};

use crate::rig::{RW, Rig, packet};

/// Panics when it is forwarded or copied.
struct Panicking {
    forwards: bool,
}

impl Payload for Panicking {
    fn forward(&mut self, _message: Option<MessageFlags>) -> Progress {
        assert!(self.forwards, "this payload panics on purpose");
        Progress::Done(2)
    }

    fn copy_to(&mut self, _dst: &mut [u8]) {
        panic!("this payload panics on purpose");
    }
}

/// Checks that the connection has ended as it does with a broken stream, and holds nothing.
#[track_caller]
fn has_ended(rig: &mut Rig) {
    assert_eq!(rig.conn.phase(), Phase::Resetting);
    assert_eq!(rig.conn.ending(), Some(Ending::HostReset));
    assert!(rig.conn.take_actions().contains(HostAction::Close));
    assert_eq!(rig.conn.memory(), 0);
    assert_eq!(rig.drain(), [Body::Reset]);
    assert!(rig.conn.is_closed());
}

#[test]
fn t132_a_payload_that_panics_ends_the_connection_as_a_broken_stream_does() {
    let stream = || (Rig::connected(), RW);
    let message = || {
        let whole = Body::Data(MessageFlags::END_OF_MESSAGE);
        (Rig::seqpacket(Config::default()), whole)
    };
    // An accepted message is accepted as a whole, and not copied.
    let cases = [(stream(), false), (stream(), true), (message(), false)];
    for ((mut rig, body), forwards) in cases {
        let mut packet = packet(body, 5, rig.guest);
        packet.socket_type = rig.conn.socket_type();
        let mut payload = Panicking { forwards };
        let taken = catch_unwind(AssertUnwindSafe(|| {
            rig.conn.on_packet(rig.now, &packet, &mut payload)
        }));
        drop(taken.unwrap_err());
        has_ended(&mut rig);
    }
}

#[test]
fn t132_a_write_that_panics_ends_the_connection_as_a_broken_stream_does() {
    let mut rig = Rig::connected();
    rig.host.space = 0;
    rig.data(&[0; 10_000]);
    let flushed = catch_unwind(AssertUnwindSafe(|| {
        let write = |_: &Chunk<'_>| panic!("this write panics on purpose");
        rig.conn.flush(rig.now, write);
    }));
    drop(flushed.unwrap_err());
    has_ended(&mut rig);
}

#[test]
fn t132_a_count_beyond_the_payload_is_limited_to_the_payload() {
    let mut rig = Rig::connected();
    let packet = packet(RW, 5, rig.guest);
    let mut liar = SlicePayload::new(b"hello", |_: &[u8], _| Progress::Done(usize::MAX));
    rig.conn.on_packet(rig.now, &packet, &mut liar).unwrap();
    rig.host.space = 0;
    rig.data(b"more");
    rig.conn.flush(rig.now, |_| Progress::Done(usize::MAX));
    assert_eq!(rig.conn.waiting(), 0);
    rig.host.space = usize::MAX;
    rig.data(b"and more");
    assert_eq!(rig.host.got, b"and more");
    assert_eq!(rig.conn.phase(), Phase::Connected);
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Seqpacket sockets: feature negotiation, and messages through the queues.

use std::time::Duration;

use vsock_driver::Letters;
use vsock_inner::VsockInnerBackend;
use vsock_proto::{Header, Op, SocketTypes};
use vsock_virtio::{F_VERSION_1, RestoreError, VsockDevice};

use crate::rig::{Rig, muxer, packet};

const EOM: u32 = 1;
const EOR: u32 = 3;

/// Creates an inactive device, with a backend for messages and one for streams.
fn inactive(letters: &Letters) -> Rig {
    let mut muxer = muxer(VsockInnerBackend::new().unwrap());
    muxer.add_backend(Box::new(letters.clone())).unwrap();
    let device = VsockDevice::builder(muxer).poll_budget(Duration::ZERO);
    Rig::around(device.build())
}

/// Creates a guest that has connected a seqpacket socket.
fn connected(letters: &Letters) -> Rig {
    let mut rig = inactive(letters);
    let features = F_VERSION_1 | SocketTypes::F_SEQPACKET;
    rig.device.ack_features(features).unwrap();
    rig.activate();
    rig.post(32);
    rig.send(message(Op::Request, 0), b"");
    rig.settle();
    assert_eq!(ops(&mut rig), [(Op::Response, 0)]);
    rig
}

fn message(op: Op, flags: u32) -> Header {
    Header {
        socket_type: 2,
        flags,
        ..packet(op, 1024, 80)
    }
}

fn ops(rig: &mut Rig) -> Vec<(Op, u32)> {
    let received = rig.received();
    let seen = received.iter();
    seen.map(|(header, _)| (Op::try_from(header.op).unwrap(), header.flags))
        .collect()
}

#[test]
fn t109_seqpacket_is_offered_if_a_backend_has_it_and_may_be_declined() {
    let letters = Letters::default();
    let mut rig = inactive(&letters);
    assert_ne!(rig.device.device_features() & SocketTypes::F_SEQPACKET, 0);
    rig.device.ack_features(F_VERSION_1).unwrap();
    rig.activate();
    rig.post(8);
    rig.send(message(Op::Request, 0), b"");
    rig.settle();
    assert_eq!(ops(&mut rig), [(Op::Reset, 0)], "it was not negotiated");
}

#[test]
fn t109_a_snapshot_with_seqpacket_needs_a_backend_that_has_it() {
    let state = connected(&Letters::default()).device.state();
    assert_ne!(state.acked_features & SocketTypes::F_SEQPACKET, 0);
    let mut rig = Rig::new();
    rig.device.reset(rig.now);
    let restored = rig.restore(&state);
    assert!(matches!(restored, Err(RestoreError::Features(_))));
}

#[test]
fn t111_messages_from_the_transmit_queue_keep_their_boundaries() {
    let letters = Letters::default();
    let mut rig = connected(&letters);
    rig.send(message(Op::ReadWrite, EOR), b"one packet");
    rig.send(message(Op::ReadWrite, 0), b"in ");
    rig.send(message(Op::ReadWrite, EOM), b"two");
    rig.send(message(Op::ReadWrite, EOM), b"");
    rig.settle();
    let expected = [
        (b"one packet".to_vec(), true),
        (b"in two".to_vec(), false),
        (vec![], false),
    ];
    assert_eq!(letters.post().sent, expected);
}

#[test]
fn t111_messages_are_cut_to_the_buffers_of_the_receive_queue() {
    let letters = Letters::default();
    let mut rig = connected(&letters);
    let long: Vec<u8> = (0..10_000).map(|at: u32| at.to_le_bytes()[0]).collect();
    letters.post().waiting.extend([long.clone(), vec![7]]);
    rig.settle();
    let received = rig.received();
    let flags: Vec<_> = received.iter().map(|(header, _)| header.flags).collect();
    assert_eq!(flags, [0, 0, EOM, EOM]);
    let (last, first) = received.split_last().unwrap();
    let whole: Vec<u8> = first.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
    assert!(whole == long);
    assert_eq!(last.1, [7]);
}

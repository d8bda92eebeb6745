// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A tap sees every packet that passes through the device.

use std::io::Write;
use std::mem;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use vsock_driver::{Descriptor, filled};
use vsock_inner::VsockInnerStream;
use vsock_proto::{Config, Header, Op};
use vsock_virtio::{PacketDirection, PacketTap};

use crate::rig::{Rig, connected, device, packet};

type Seen = Vec<(PacketDirection, Header, Vec<u8>)>;

/// A tap that stores a number of packets.
struct Recorder {
    seen: Arc<Mutex<Seen>>,
    payload_bytes: usize,
    most: usize,
}

impl PacketTap for Recorder {
    fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    fn packet(
        &mut self,
        direction: PacketDirection,
        header: &Header,
        payload: &[u8],
    ) -> ControlFlow<()> {
        let mut seen = self.seen.lock().unwrap();
        seen.push((direction, *header, payload.to_vec()));
        if seen.len() < self.most {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    }
}

fn tapped(payload_bytes: usize, most: usize) -> (Rig, VsockInnerStream, Arc<Mutex<Seen>>) {
    let (mut rig, host) = connected(|backend| device(backend, Config::default()), 0);
    let seen = Arc::new(Mutex::new(Seen::new()));
    let recorder = Recorder {
        seen: Arc::clone(&seen),
        payload_bytes,
        most,
    };
    assert!(rig.device.set_tap(Some(Box::new(recorder))).is_none());
    (rig, host, seen)
}

fn take(seen: &Mutex<Seen>) -> Seen {
    mem::take(&mut seen.lock().unwrap())
}

#[test]
fn a_tap_sees_packets_in_both_directions_with_the_beginning_of_their_payload() {
    let (mut rig, mut host, seen) = tapped(5, usize::MAX);
    rig.send(packet(Op::ReadWrite, 1024, 80), b"from the guest");
    rig.settle();
    let from_guest = take(&seen);
    let (direction, header, payload) = &from_guest[0];
    assert_eq!(*direction, PacketDirection::FromGuest);
    assert_eq!((header.src_port, header.len), (1024, 14));
    assert_eq!(payload, b"from ");

    rig.received();
    host.write_all(b"to the guest").unwrap();
    rig.settle();
    let expected: Seen = rig
        .received()
        .into_iter()
        .map(|(header, payload)| (PacketDirection::ToGuest, header, payload[..5].to_vec()))
        .collect();
    assert_eq!(take(&seen), expected);
    assert_eq!(expected[0].2, b"to th");
}

#[test]
fn a_tap_sees_a_packet_in_pieces_and_one_without_a_connection() {
    let (mut rig, _host, seen) = tapped(100, usize::MAX);
    let (head, addr) = rig.place();
    let header = Header {
        len: 3,
        op: 99,
        src_cid: 7,
        flags: 0xdead_beef,
        ..packet(Op::ReadWrite, 5, 6)
    };
    filled(&rig.memory, addr, &[&header.encode()[..], b"abc"].concat());
    let pieces: Vec<_> = (0..47)
        .map(|at| Descriptor::readable(addr + at, 1))
        .collect();
    rig.tx.chain(&rig.memory, head, &pieces);
    rig.tx.offer(&rig.memory, head);
    rig.settle();
    let seen = take(&seen);
    assert_eq!(
        seen[0],
        (PacketDirection::FromGuest, header, b"abc".to_vec())
    );
}

#[test]
fn a_tap_that_returns_break_is_dropped() {
    let (mut rig, _host, seen) = tapped(0, 2);
    for _ in 0..5 {
        rig.send(packet(Op::CreditUpdate, 1024, 80), b"");
    }
    rig.settle();
    assert_eq!(take(&seen).len(), 2);
    assert_eq!(Arc::strong_count(&seen), 1);
}

#[test]
fn a_tap_survives_a_reset_and_is_returned() {
    let (mut rig, _host, seen) = tapped(usize::MAX, usize::MAX);
    rig.reload();
    rig.post(8);
    rig.send(packet(Op::Request, 1024, 81), b"");
    rig.settle();
    let ops: Vec<u16> = take(&seen).iter().map(|(_, header, _)| header.op).collect();
    assert_eq!(ops, [Op::Request, Op::Reset].map(u16::from));
    assert!(rig.device.set_tap(None).is_some());
    rig.send(packet(Op::Request, 1024, 81), b"");
    rig.settle();
    assert_eq!(take(&seen).len(), 0);
}

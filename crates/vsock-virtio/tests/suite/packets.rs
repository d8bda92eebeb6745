// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use vsock_driver::{Descriptor, filled};
use vsock_proto::{Header, Op};

use crate::rig::{Rig, packet};

#[test]
fn t12_a_packet_in_pieces_of_one_byte() {
    let mut rig = Rig::new();
    rig.post(1);
    let (_, addr) = rig.place();
    filled(&rig.memory, addr, &packet(Op::Request, 1024, 80).encode());
    let pieces: Vec<_> = (0..44)
        .map(|at| Descriptor::readable(addr + at, 1))
        .collect();
    rig.tx.chain(&rig.memory, 0, &pieces);
    rig.tx.offer(&rig.memory, 0);
    let _ = rig.process();
    let (reply, _) = rig.received()[0];
    assert_eq!((reply.op, reply.dst_port), (Op::Reset.into(), 1024));
}

#[test]
fn t13_t16_t17_invalid_chains_are_returned_once_and_in_order_and_valid_ones_served() {
    let mut rig = Rig::new();
    rig.post(8);
    let data = 0x20_0000;
    let mut long = packet(Op::ReadWrite, 1024, 80);
    long.len = 100;
    filled(&rig.memory, data, &long.encode());
    let bad: [&[Descriptor]; 6] = [
        &[Descriptor::readable(data, 43)],
        &[Descriptor::readable(data, 44 + 99)],
        &[Descriptor::writable(data, 200)],
        &[Descriptor::readable(u64::MAX - 8, 44)],
        &[Descriptor::readable(data, 0)],
        &[Descriptor::table(data, 17)],
    ];
    let mut heads = Vec::new();
    for (head, pieces) in (20..).zip(bad) {
        rig.tx.chain(&rig.memory, head, pieces);
        rig.tx.offer(&rig.memory, head);
        heads.push((u32::from(head), 0));
    }
    let good = rig.send(packet(Op::Request, 1024, 80), b"");
    heads.push((u32::from(good), 0));
    let _ = rig.process();
    assert_eq!(rig.tx.used(&rig.memory), heads);
    assert_eq!(rig.device.counters().malformed_packets, 6);
    assert_eq!(rig.received().len(), 1, "the RST to the good one");
}

#[test]
fn t09_an_unknown_operation_does_not_stop_the_queue() {
    let mut rig = Rig::new();
    rig.post(8);
    for op in [0, 8, 0xffff] {
        let header = Header {
            op,
            ..packet(Op::Request, 1024, 80)
        };
        rig.send(header, b"payload");
    }
    rig.send(packet(Op::Request, 1024, 80), b"");
    let _ = rig.process();
    assert_eq!(rig.tx.used(&rig.memory).len(), 4);
    let last = rig.received().pop().unwrap().0;
    assert_eq!(last.op, u16::from(Op::Reset));
}

#[test]
fn t18_a_packet_waits_for_a_buffer_that_can_hold_it() {
    let mut rig = Rig::new();
    for (head, len) in [(40, 43), (41, 0), (42, 44)] {
        let piece = Descriptor::writable(0x90_0000 + u64::from(head) * 64, len);
        rig.rx.describe(&rig.memory, head, piece);
        rig.rx.offer(&rig.memory, head);
    }
    rig.send(packet(Op::Request, 1024, 80), b"");
    let _ = rig.process();
    assert_eq!(rig.rx.used(&rig.memory), [(40, 0), (41, 0), (42, 44)]);
}

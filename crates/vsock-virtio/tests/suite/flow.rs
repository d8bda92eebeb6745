// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::{Read, Write};

use vsock_backend_api::VsockStream;
use vsock_driver::Descriptor;
use vsock_inner::{VsockInnerBackend, VsockInnerStream};
use vsock_proto::{Config, Header, Op};
use vsock_virtio::F_EVENT_IDX;

use crate::rig::{BUFFER, RX_DATA, Rig, packet};

const PORT: u32 = 80;

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at % 253).unwrap()).collect()
}

/// Creates a guest that has connected to a listener of the host.
fn connected(features: u64) -> (Rig, VsockInnerStream) {
    let device = |backend| crate::rig::device(backend, Config::default());
    crate::rig::connected(device, features)
}

#[test]
fn bytes_pass_from_guest_to_host_by_direct_copies() {
    for features in [0, F_EVENT_IDX] {
        let (mut rig, mut host) = connected(features);
        let sent = pattern(500_000);
        let mut got = Vec::new();
        for piece in sent.chunks(60_001) {
            rig.send(packet(Op::ReadWrite, 1024, PORT), piece);
            rig.settle();
            let mut buffer = vec![0; 65_536];
            while let Ok(len) = host.read(&mut buffer) {
                got.extend_from_slice(&buffer[..len]);
            }
            rig.settle();
            rig.received();
        }
        assert!(got == sent);
        assert_eq!(rig.device.muxer().counters().bytes_from_guest, 500_000);
    }
}

#[test]
fn bytes_pass_from_host_to_guest_by_direct_copies() {
    for features in [0, F_EVENT_IDX] {
        let (mut rig, mut host) = connected(features);
        let sent = pattern(1_000_000);
        let (mut got, mut rest) = (Vec::new(), &sent[..]);
        while got.len() < sent.len() {
            if let Ok(len) = host.write(rest) {
                rest = &rest[len..];
            }
            rig.settle();
            for (header, payload) in rig.received() {
                assert_eq!(header.op, u16::from(Op::ReadWrite));
                assert_eq!(header.len as usize, payload.len());
                got.extend(payload);
            }
            let credit = Header {
                fwd_cnt: u32::try_from(got.len()).unwrap(),
                ..packet(Op::CreditUpdate, 1024, PORT)
            };
            rig.send(credit, b"");
        }
        assert!(got == sent);
    }
}

#[test]
fn a_host_that_connects_reaches_the_guest_and_gets_its_answer() {
    let backend = VsockInnerBackend::new().unwrap();
    let connector = backend.get_connector();
    let mut rig = Rig::with(backend, 0);
    rig.post(8);
    let mut host = connector.connect_stream().unwrap();
    host.write_all(b"CONNECT 52\nhello").unwrap();
    rig.settle();
    let request = rig.received()[0].0;
    assert_eq!((request.op, request.dst_port), (Op::Request.into(), 52));
    let port = request.src_port;
    rig.send(packet(Op::Response, 52, port), b"");
    rig.settle();
    assert_eq!(rig.received()[0].1, b"hello");
    rig.send(packet(Op::ReadWrite, 52, port), b"answer");
    rig.settle();
    let expected = format!("OK {port}\nanswer");
    let mut got = vec![0; expected.len()];
    host.read_exact(&mut got).unwrap();
    assert_eq!(got, expected.as_bytes());
}

#[test]
fn t19_payload_passes_a_buffer_without_room_for_it() {
    let (mut rig, mut host) = connected(0);
    // The existing buffers are used up first.
    let spare = rig.rx.available();
    for head in [60, 61, 62] {
        let len = if head == 62 { 100 } else { 44 };
        let piece = Descriptor::writable(0xa0_0000 + u64::from(head) * 128, len);
        rig.rx.describe(&rig.memory, head, piece);
        rig.rx.offer(&rig.memory, head);
    }
    let whole = pattern(usize::from(spare - 1) * 4052 + 7);
    let (first, last) = whole.split_at(whole.len() - 7);
    host.write_all(first).unwrap();
    rig.settle();
    host.write_all(last).unwrap();
    rig.settle();
    let used = rig.rx.used(&rig.memory);
    let tail = &used[used.len() - 3..];
    assert_eq!(tail, [(60, 0), (61, 0), (62, 51)]);
}

#[test]
fn t108_a_pause_has_no_effect() {
    let (mut rig, mut host) = connected(0);
    host.write_all(b"before").unwrap();
    // A paused VMM makes no calls; a snapshot only reads.
    let state = rig.device.state();
    assert!(state.active);
    rig.settle();
    assert_eq!(rig.received()[0].1, b"before");
    rig.send(packet(Op::ReadWrite, 1024, PORT), b"after");
    rig.settle();
    let mut got = [0; 5];
    host.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"after");
}

#[test]
fn t105_a_transport_reset_closes_every_connection() {
    let (mut rig, mut host) = connected(0);
    rig.post_events(1, 8);
    rig.device.transport_reset(rig.now);
    rig.settle();
    assert_eq!(rig.device.muxer().connections().count(), 0);
    assert!(is_reset(&mut host));
}

#[test]
fn t105_the_event_closes_connections_opened_before_it_is_published() {
    let backend = VsockInnerBackend::new().unwrap();
    let listener = backend.listen(PORT).unwrap();
    let mut rig = Rig::with(backend, 0);
    rig.device.transport_reset(rig.now);
    rig.post(4);
    rig.send(packet(Op::Request, 1024, PORT), b"");
    rig.settle();
    assert_eq!(
        rig.device.muxer().connections().count(),
        0,
        "the event comes first"
    );
    rig.wait_out_the_event();
    rig.settle();
    assert_eq!(rig.device.muxer().connections().count(), 1);
    let mut host = listener.accept().unwrap();
    rig.post_events(1, 8);
    rig.settle();
    assert_eq!(rig.device.muxer().connections().count(), 0);
    assert!(is_reset(&mut host));
}

#[test]
fn t133_a_device_that_stops_gives_each_rst_its_buffer() {
    for features in [0, F_EVENT_IDX] {
        let backend = VsockInnerBackend::new().unwrap();
        let listener = backend.listen(PORT).unwrap();
        let mut rig = Rig::with(backend, features);
        rig.post(16);
        for port in 0..16 {
            rig.send(packet(Op::Request, 1024 + port, PORT), b"");
        }
        rig.settle();
        assert_eq!(rig.rx.used(&rig.memory).len(), 16);
        let mut host = listener.accept().unwrap();
        host.set_nonblocking(true).unwrap();

        rig.device.farewell(rig.now);
        rig.settle();
        assert!(is_reset(&mut host));
        let mut told = Vec::new();
        for _ in 0..4 {
            assert!(rig.device.owes_farewells());
            rig.post(4);
            rig.rx.set_used_event(&rig.memory, rig.rx.seen());
            assert!(rig.process().notify_rx);
            told.extend(resets(&mut rig));
        }
        told.sort_unstable();
        assert_eq!(told, (1024..1040).collect::<Vec<_>>());
        assert!(!rig.device.owes_farewells());
        rig.send(packet(Op::Request, 2000, PORT), b"");
        rig.post(1);
        rig.rx.set_used_event(&rig.memory, rig.rx.seen());
        assert!(rig.process().notify_rx);
        assert_eq!(resets(&mut rig), [2000]);
    }
}

/// Returns the guest ports of the received RSTs, without offering their buffers again.
fn resets(rig: &mut Rig) -> Vec<u32> {
    let used = rig.rx.used(&rig.memory);
    let headers = used.iter().map(|&(head, _)| {
        let addr = RX_DATA + u64::from(head) * u64::from(BUFFER);
        let bytes = vsock_driver::bytes(&rig.memory, addr, 44);
        Header::decode(bytes.as_slice().try_into().unwrap())
    });
    headers
        .map(|header| {
            assert_eq!(header.op, u16::from(Op::Reset));
            header.dst_port
        })
        .collect()
}

#[test]
fn t23_a_fault_ends_every_connection() {
    let (mut rig, mut host) = connected(0);
    let beyond = rig.tx.available().wrapping_add(200);
    rig.tx.set_available(&rig.memory, beyond);
    rig.try_process().unwrap_err();
    rig.apply_actions();
    assert!(is_reset(&mut host));
}

fn is_reset(host: &mut VsockInnerStream) -> bool {
    host.read(&mut [0; 8])
        .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
}

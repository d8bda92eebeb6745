// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Paused drivers, and the state of the device when they continue.

use std::io::{ErrorKind, Read, Write};

use virtio_queue::QueueT;
use vsock_inner::{VsockInnerBackend, VsockInnerStream};
use vsock_proto::{Config, Op};
use vsock_virtio::{ActivateError, Outcome, QueueName, Queues};

use crate::rig::{Rig, connected, device, packet};

fn resume(rig: &mut Rig) -> Result<(), ActivateError> {
    let [rx, tx, event] = &mut rig.queues;
    let event = Some(event);
    let mut queues = Queues { rx, tx, event };
    rig.device.resume(&rig.device_memory, &mut queues)
}

fn paused() -> (Rig, VsockInnerStream) {
    let (mut rig, host) = connected(|backend| device(backend, Config::default()), 0);
    rig.device.pause();
    (rig, host)
}

#[test]
fn t108_a_pause_keeps_connections_and_bytes_written_in_it_arrive_after_it() {
    let (mut rig, mut host) = paused();
    assert!(!rig.device.is_active());
    host.write_all(b"meanwhile").unwrap();
    rig.send(packet(Op::ReadWrite, 1024, 80), b"from the guest");
    rig.settle();
    assert_eq!(rig.process(), Outcome::default());
    assert_eq!(rig.received(), []);
    let error = host.read(&mut [0; 64]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);

    resume(&mut rig).unwrap();
    let outcome = rig.process();
    assert!(
        outcome.notify_rx && outcome.notify_tx,
        "either may have been lost"
    );
    rig.settle();
    let payload: Vec<u8> = rig
        .received()
        .into_iter()
        .flat_map(|(_, bytes)| bytes)
        .collect();
    assert_eq!(payload, b"meanwhile");
    let mut bytes = [0; 64];
    let len = host.read(&mut bytes).unwrap();
    assert_eq!(&bytes[..len], b"from the guest");
}

#[test]
fn t108_a_client_that_connects_in_a_pause_waits_for_its_end() {
    for is_same_driver in [true, false] {
        let backend = VsockInnerBackend::new().unwrap();
        let connector = backend.get_connector();
        let mut rig = Rig::with(backend, 0);
        rig.device.pause();
        rig.settle();
        let _client = connector.start_connect_to(9).unwrap();
        rig.settle();
        if is_same_driver {
            resume(&mut rig).unwrap();
        } else {
            rig.reload();
        }
        rig.post(4);
        rig.settle();
        let packets = rig.received();
        assert_eq!(packets.len(), 1);
        assert_eq!(
            (packets[0].0.op, packets[0].0.dst_port),
            (u16::from(Op::Request), 9)
        );
    }
}

#[test]
fn a_device_resumes_only_with_usable_queues() {
    let (mut rig, _host) = paused();
    rig.queues[1].set_ready(false);
    let refused = resume(&mut rig);
    assert_eq!(refused, Err(ActivateError::InvalidQueue(QueueName::Tx)));
    assert!(!rig.device.is_active());
    rig.queues[1].set_ready(true);
    resume(&mut rig).unwrap();
    assert!(rig.device.is_active());
    resume(&mut rig).unwrap();
}

#[test]
fn t116_connections_cut_in_a_pause_end_by_rsts_without_an_event_buffer() {
    let (mut rig, mut host) = paused();
    rig.device.cut(rig.now);
    rig.settle();
    let end = host.read(&mut [0]).unwrap_err();
    assert_eq!(end.kind(), ErrorKind::ConnectionReset);
    resume(&mut rig).unwrap();
    rig.settle();
    rig.wait_out_the_event();
    rig.settle();
    let told = rig.received();
    assert_eq!(told.len(), 1);
    assert_eq!(
        (told[0].0.op, told[0].0.dst_port),
        (u16::from(Op::Reset), 1024)
    );
}

#[test]
fn t116_connections_cut_in_a_pause_end_by_the_event_if_there_is_a_buffer() {
    let (mut rig, _host) = paused();
    rig.device.cut(rig.now);
    rig.post_events(1, 8);
    resume(&mut rig).unwrap();
    assert!(rig.process().notify_event);
    rig.settle();
    assert_eq!(rig.received(), [], "the event is enough");
    assert_eq!(rig.device.counters().transport_resets, 1);
}

#[test]
fn t114_another_driver_gets_no_packet_for_connections_that_were_cut() {
    let (mut rig, _host) = paused();
    rig.device.cut(rig.now);
    rig.reload();
    rig.post_events(1, 8);
    rig.post(4);
    assert!(!rig.process().notify_event);
    assert_eq!(rig.received(), []);
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Inspection of a running device: its figures and connections.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::sync::mpsc;
use std::time::Duration;

use vsock_compliance::poll::Deadline;
use vsock_compliance::poll::{Stopwatch, wait_until};
use vsock_proto::{Op, Phase};
use vsock_vhost_user::{ConnectionId, Initiator, InspectError, QueueCounters, RefusalReason};

use crate::guest::GENEROUS;
use crate::host::{Host, Scripted, ScriptedStream, act};
use crate::ring::SIZE;

#[test]
fn figures_count_the_traffic() {
    let (host, mut guest) = Host::booted();
    let inspector = host.device.inspector();
    assert_eq!(u64::from(inspector.guest_cid()), host.cid);
    let listener = host.connector.listen(52).unwrap();
    let (mut socket, _) = guest.connect(4000, 52);
    let mut stream = listener.accept().unwrap();
    guest.write(&socket, &[1; 1000]);
    stream.read_exact(&mut [0; 1000]).unwrap();
    stream.write_all(&[2; 300]).unwrap();
    guest.read(&mut socket, 300);
    guest.connect(4001, 53); // refused
    guest.settle();

    let report = inspector.report().wait(GENEROUS).unwrap();
    assert!(report.is_active);
    let counts = report.connections;
    assert_eq!(
        (counts.bytes_from_guest, counts.bytes_to_guest),
        (1000, 300)
    );
    assert_eq!((counts.guest_initiated, counts.host_initiated), (2, 0));
    assert_eq!(counts.refused(RefusalReason::Backend), 1);
    assert_eq!(report.gauges.connections, 1);
    // REQUEST, data, CREDIT_UPDATE, REQUEST; RESPONSE, data, RST.
    assert_eq!((counts.packets_from_guest, counts.packets_to_guest), (4, 3));
    let queues = report.queues;
    assert_eq!((queues.tx.chains_used, queues.rx.chains_used), (4, 3));
    let told = |queue: QueueCounters| queue.notifications_sent + queue.notifications_spared;
    // One for each chain, and perhaps one for the first look at the queue.
    assert!((3..=4).contains(&told(queues.rx)), "{queues:?}");
    assert!((1..=10).contains(&report.kicks), "{}", report.kicks);
    // The driver offers each used buffer again.
    assert_eq!((report.depths.rx, report.depths.tx), (Some(SIZE), Some(0)));

    let list = inspector.connections().wait(GENEROUS).unwrap();
    let [info] = list.connections[..] else {
        panic!("{list:?}");
    };
    assert_eq!(
        (info.phase, info.initiator),
        (Phase::Connected, Initiator::Guest)
    );
    assert_eq!((info.bytes_from_guest, info.bytes_to_guest), (1000, 300));
    assert_eq!((info.waiting, info.in_flight), (0, 0));
    assert!(info.age(list.at) < GENEROUS);

    // A device that polls reports taken packets when it sleeps.
    wait_until(Deadline::after(GENEROUS), || {
        (4..=5).contains(&told(inspector.report().wait(GENEROUS).unwrap().queues.tx))
    })
    .unwrap();

    guest.vmm.stop();
    let report = inspector.report().wait(GENEROUS).unwrap();
    assert!(!report.is_active);
    assert_eq!((report.depths.rx, report.depths.tx), (None, None));
}

#[test]
fn a_connection_with_data_in_flight_is_reset_on_both_ends() {
    let (host, mut guest) = Host::booted();
    let inspector = host.device.inspector();
    let listener = host.connector.listen(52).unwrap();
    let (socket, _) = guest.connect(4000, 52);
    let (mut stream, (other, _)) = (listener.accept().unwrap(), guest.connect(4001, 52));
    let mut remains = listener.accept().unwrap();
    // Neither side reads anything.
    guest.write(&socket, &[1; 10_000]);
    stream.write_all(&[2; 10_000]).unwrap();
    guest.settle();
    let list = inspector.connections().wait(GENEROUS).unwrap();
    let mut all = list.connections.iter();
    let id = all
        .find(|info| u32::from(info.key.peer) == 4000)
        .unwrap()
        .id;
    assert_eq!(inspector.reset(id).wait(GENEROUS), Ok(true));
    let rst = loop {
        let (packet, _) = guest.packet();
        if packet.op != u16::from(Op::ReadWrite) {
            break packet;
        }
    };
    assert_eq!((rst.op, rst.dst_port), (Op::Reset.into(), 4000));
    let mut taken = Vec::new();
    let end = stream.read_to_end(&mut taken).unwrap_err().kind();
    assert_eq!(end, ErrorKind::ConnectionReset);
    assert_eq!(inspector.reset(id).wait(GENEROUS), Ok(false));
    assert_eq!(
        inspector.reset(ConnectionId::from(0)).wait(GENEROUS),
        Ok(false)
    );
    guest.write(&other, b"the other one goes on");
    remains.read_exact(&mut [0; 21]).unwrap();
}

#[test]
fn a_long_list_is_complete_while_connections_come() {
    let (host, mut guest) = Host::booted();
    let inspector = host.device.inspector();
    let listener = host.connector.listen(52).unwrap();
    let mut streams = Vec::new();
    for port in 0..4096 {
        let (_, answer) = guest.connect(10_000 + port, 52);
        assert_eq!(answer.op, u16::from(Op::Response));
        streams.push(listener.accept().unwrap());
    }
    let inquiry = inspector.connections();
    for port in 0..100 {
        guest.connect(20_000 + port, 52);
    }
    let list = inquiry.wait(GENEROUS).unwrap();
    let ports: BTreeSet<u32> = list
        .connections
        .iter()
        .map(|info| info.key.peer.into())
        .collect();
    assert_eq!(ports.len(), list.connections.len(), "each is listed once");
    assert!((10_000..14_096).all(|port| ports.contains(&port)));
}

#[test]
fn a_question_to_a_blocked_device_times_out() {
    let (lets_go, let_go) = mpsc::channel::<()>();
    let (tells, told) = mpsc::channel();
    let mut script = Some((let_go, tells));
    let on_write = act(move || {
        if let Some((let_go, tells)) = script.take() {
            tells.send(()).unwrap();
            let _gone = let_go.recv();
        }
    });
    let stream = std::sync::Mutex::new(Some(ScriptedStream {
        on_write,
        ..ScriptedStream::default()
    }));
    let host = Host::with_backend(Scripted {
        on_connect: Some(Box::new(move || {
            stream.lock().unwrap().take().unwrap_or_default()
        })),
        ..Scripted::default()
    });
    let mut guest = host.boot();
    let (socket, _) = guest.connect(2000, 7);
    guest.write(&socket, b"x");
    told.recv_timeout(GENEROUS).unwrap();
    let inspector = host.device.inspector();
    let watch = Stopwatch::start();
    let patience = Duration::from_millis(50);
    let answer = inspector.report().wait(patience);
    assert_eq!(answer.unwrap_err(), InspectError::TimedOut);
    assert!((patience..GENEROUS).contains(&watch.elapsed()));
    let list = inspector.connections().wait(patience);
    let given_up = list.unwrap_err();
    assert_eq!(given_up, InspectError::TimedOut);
    let reset_later = inspector.reset(ConnectionId::from(1)).wait(patience);
    assert_eq!(reset_later, Err(InspectError::TimedOut));
    // Two cancelled questions and another one already wait: fill up to 64.
    let waiting: Vec<_> = (0..61).map(|_| inspector.report()).collect();
    assert_eq!(
        inspector.report().wait(GENEROUS).unwrap_err(),
        InspectError::Busy
    );
    drop(lets_go);
    for inquiry in waiting {
        inquiry.wait(GENEROUS).unwrap();
    }
    // The cancelled requests were not carried out.
    let list = inspector.connections().wait(GENEROUS).unwrap();
    assert_eq!(list.connections.len(), 1);

    host.device.stop().unwrap();
    assert_eq!(
        inspector.report().wait(GENEROUS).unwrap_err(),
        InspectError::Ended
    );
}

#[test]
fn questions_do_not_delay_bytes() {
    let (host, mut guest) = Host::booted();
    let inspector = host.device.inspector();
    let listener = host.connector.listen(52).unwrap();
    let (mut socket, _) = guest.connect(4000, 52);
    let mut stream = listener.accept().unwrap();
    let asked: Vec<_> = (0..64).map(|_| inspector.connections()).collect();
    stream.write_all(b"bytes").unwrap();
    assert_eq!(guest.read(&mut socket, 5), b"bytes");
    for list in asked {
        assert_eq!(list.wait(GENEROUS).unwrap().connections.len(), 1);
    }
    // The depth is the number of chains that the device has not used.
    wait_until(Deadline::after(GENEROUS), || {
        let depths = inspector.report().wait(GENEROUS).unwrap().depths;
        (depths.rx, depths.tx) == (Some(SIZE), Some(0))
    })
    .unwrap();
}

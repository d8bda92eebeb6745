// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guests that are paused and resumed keep their connections.

use super::*;

/// Pauses the guest, while both sides write and a client connects. Neither side notices the pause.
fn pauses(monitor: &'static Monitor) {
    let host = Host::new();
    let mut machine = Machine::boot(&host, monitor);
    let (mut socket, mut stream) = connected(&host, &mut machine.guest, 1);
    let pause = monitor.pause.unwrap();
    for port in 10..13 {
        let bases = (pause.begin)(machine.vmm());
        assert!(!host.device.is_active());
        machine.drain();
        stream.write_all(b"meanwhile").unwrap();
        let client = host.connecting(port, |mut client| client.write_all(b"hello").unwrap());
        machine.guest.write(&socket, b"so far");
        stream.set_nonblocking(true).unwrap();
        let nothing = stream.read(&mut [0; 8]).unwrap_err();
        assert_eq!(
            nothing.kind(),
            ErrorKind::WouldBlock,
            "neither bytes nor an end"
        );
        stream.set_nonblocking(false).unwrap();
        assert!(machine.guest.packet_within(MOMENT).is_none());

        (pause.end)(machine.vmm(), DRIVER, bases);
        let mut bytes = [0; 6];
        stream.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"so far");
        // The idle reader and the client are served, in any order.
        let (mut read, mut accepted) = (Vec::new(), None);
        while read.len() < 9 || accepted.is_none() {
            let (header, payload) = machine.guest.packet();
            match Op::try_from(header.op).unwrap() {
                Op::Request => accepted = Some(machine.guest.respond(&header)),
                Op::ReadWrite if header.dst_port == port => {}
                op => {
                    assert_eq!((op, header.dst_port), (Op::ReadWrite, 1));
                    read.extend(payload);
                }
            }
        }
        assert_eq!(read, b"meanwhile");
        socket.take(9);
        machine.guest.say(&socket, Op::CreditUpdate, 0, &[]);
        client.join().unwrap();
        let mut client = accepted.unwrap();
        client.take(0);
        machine.guest.say(&client, Op::Reset, 0, &[]);
    }
    machine.drain();
    assert_eq!(host.device.queue_counters().transport_resets, 0);
    host.assert_serves(&mut machine.guest, 2);
}

#[test]
fn t115_qemu_stop_and_cont_keeps_connections() {
    pauses(&QEMU);
}

#[test]
fn t114_cloud_hypervisor_pause_and_resume_keeps_connections() {
    pauses(&CLOUD_HYPERVISOR);
}

#[test]
fn t115_crosvm_suspend_and_resume_keeps_connections() {
    pauses(&CROSVM);
}

/// Creates bytes that identify their positions.
fn pattern(len: usize) -> Vec<u8> {
    let byte = |at: usize| u8::try_from((at / 251 + at) % 256).unwrap();
    (0..len).map(byte).collect()
}

/// Pauses the guest repeatedly while both sides stream.
fn streams_through_pauses(monitor: &'static Monitor) {
    const LEN: usize = 1 << 20;
    /// How many bytes the guest sends before it looks for packets again.
    const PIECE: usize = 3000;
    let host = Host::new();
    let mut machine = Machine::boot(&host, monitor);
    let (mut socket, stream) = connected(&host, &mut machine.guest, 1);
    machine.count_sent(11);
    let (mut reader, mut writer) = stream.into_split();
    let writes = thread::spawn(move || writer.write_all(&pattern(LEN)).map(|()| writer));
    let reads = thread::spawn(move || {
        let mut bytes = vec![0; LEN];
        reader.read_exact(&mut bytes).map(|()| bytes)
    });
    let (mut sent, mut received, mut turn) = (0, Vec::new(), 0);
    let to_host = pattern(LEN);
    while sent < LEN || received.len() < LEN {
        turn += 1;
        let paused = (turn % 8 == 0).then(|| monitor.pause.unwrap());
        let bases = paused.map(|pause| (pause.begin)(machine.vmm()));
        let more = PIECE.min(LEN - sent);
        // Bytes that the host has not read stay within its window.
        if machine.may_send(more) {
            machine.guest.write(&socket, &to_host[sent..sent + more]);
            machine.count_sent(more);
            sent += more;
        }
        if let (Some(pause), Some(bases)) = (paused, bases) {
            (pause.end)(machine.vmm(), DRIVER, bases);
        }
        while let Some((header, payload)) = machine.guest.packet_within(Duration::from_millis(1)) {
            machine.freed = header.fwd_cnt;
            if header.op == u16::from(Op::ReadWrite) {
                socket.take(header.len);
                received.extend(payload);
                machine.guest.say(&socket, Op::CreditUpdate, 0, &[]);
            }
        }
        if sent < LEN && !machine.may_send(PIECE) {
            machine.guest.say(&socket, Op::CreditRequest, 0, &[]);
        }
    }
    assert!(received == to_host, "{}", monitor.name);
    assert!(reads.join().unwrap().unwrap() == to_host);
    drop(writes.join().unwrap().unwrap());
}

#[test]
fn t115_qemu_streams_through_pauses() {
    streams_through_pauses(&QEMU);
}

#[test]
fn t114_cloud_hypervisor_streams_through_pauses() {
    streams_through_pauses(&CLOUD_HYPERVISOR);
}

#[test]
fn t115_crosvm_streams_through_pauses() {
    streams_through_pauses(&CROSVM);
}

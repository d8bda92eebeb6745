// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `connect_to`, which asks for a port of the guest by the text handshake.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::time::Duration;

use vsock_backend_api::{VsockAddr, VsockBackend, VsockStream};
use vsock_compliance::call::Call;
use vsock_compliance::poll::{PollInterest, Stopwatch, pace, wait_ready};
use vsock_inner::{
    Capacity, VsockInnerBackend, VsockInnerConfig, VsockInnerConnector, VsockInnerStream,
};
use vsock_tests::assert_fails;

use crate::{soon, waiting};

const PORT: u32 = 52;

type Connecting = Call<io::Result<VsockInnerStream>>;

/// Returns a connecting client, and the muxer's end after the whole request has arrived.
fn asked(config: VsockInnerConfig) -> (Connecting, Box<dyn VsockStream>, VsockInnerBackend) {
    let (connecting, mut muxer, backend) = asked_out_of_band(config);
    muxer.set_nonblocking(false).unwrap();
    muxer
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut request = [0; 11];
    muxer.read_exact(&mut request).unwrap();
    assert_eq!(&request, b"CONNECT 52\n");
    (connecting, muxer, backend)
}

/// Returns a connecting client, and the device's end before any read.
fn asked_out_of_band(
    config: VsockInnerConfig,
) -> (Connecting, Box<dyn VsockStream>, VsockInnerBackend) {
    let mut backend = VsockInnerBackend::with_config(config).unwrap();
    let connector = backend.get_connector();
    let connecting = Call::start(move || connector.connect_to(PORT)).unwrap();
    wait_ready(backend.as_raw_fd(), PollInterest::Read, soon()).unwrap();
    let device = backend.accept().unwrap();
    (connecting, device, backend)
}

/// Returns the client's result for an answer.
fn answered(answer: &[u8]) -> io::Result<VsockInnerStream> {
    let (connecting, mut muxer, _backend) = asked(VsockInnerConfig::default());
    muxer.write_all(answer).unwrap();
    let connected = connecting.finish(soon()).unwrap();
    drop(muxer);
    connected
}

fn refused_with(answer: &[u8]) -> ErrorKind {
    match answered(answer) {
        Ok(_) => panic!(
            "{:?} was accepted as a confirmation",
            String::from_utf8_lossy(answer)
        ),
        Err(error) => error.kind(),
    }
}

#[test]
fn any_number_confirms() {
    for number in ["0", "1", "52", "1073741824", "4294967295", "00052"] {
        answered(format!("OK {number}\n").as_bytes()).unwrap();
    }
}

#[test]
fn the_confirmed_stream_is_blocking_and_has_no_timeout() {
    let mut timeout = Duration::from_millis(100);
    // A stall of the machine can be longer than the handshake's timeout, which is then raised.
    let (mut stream, mut muxer, _backend) = loop {
        let config = VsockInnerConfig::default().connect_timeout(timeout);
        let (connecting, mut muxer, backend) = asked(config);
        let confirmed = muxer.write_all(b"OK 1\n");
        match (connecting.finish(soon()).unwrap(), confirmed) {
            (Ok(stream), Ok(())) => break (stream, muxer, backend),
            (late, _) => assert_fails(late, ErrorKind::TimedOut),
        }
        timeout *= 4;
        assert!(timeout < Duration::from_secs(20), "the answers came late");
    };
    let reading = Call::start(move || stream.read(&mut [0; 8])).unwrap();
    pace(timeout + timeout / 4).unwrap();
    reading.asleep(soon()).unwrap();
    muxer.write_all(b"x").unwrap();
    assert_eq!(reading.finish(soon()).unwrap().unwrap(), 1);
}

#[test]
fn s19_an_answer_may_come_byte_by_byte() {
    let (connecting, mut muxer, _backend) = asked(VsockInnerConfig::default());
    for byte in b"OK 1073741824" {
        muxer.write_all(&[*byte]).unwrap();
        connecting.asleep(soon()).unwrap();
    }
    muxer.write_all(b"\n").unwrap();
    connecting.finish(soon()).unwrap().unwrap();
}

#[test]
fn bytes_after_the_confirmation_are_the_guests() {
    for (answer, rest) in [
        (&b"OK 1\nhello"[..], &b"hello"[..]),
        (b"OK 1\n\n", b"\n"),
        (b"OK 1\nOK 2\n", b"OK 2\n"),
    ] {
        let mut stream = answered(answer).unwrap();
        let mut got = vec![0; rest.len()];
        stream.read_exact(&mut got).unwrap();
        assert_eq!(got, rest);
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    }
}

#[test]
fn an_end_before_the_confirmation_is_a_refusal() {
    for answer in ["", "O", "OK", "OK 1", "OK 1073741824"] {
        for how in [None, Some(Shutdown::Write), Some(Shutdown::Both)] {
            let (connecting, mut muxer, _backend) = asked(VsockInnerConfig::default());
            muxer.write_all(answer.as_bytes()).unwrap();
            if let Some(how) = how {
                muxer.shutdown(how).unwrap();
            }
            let _kept = how.is_some().then_some(muxer);
            let refused = connecting.finish(soon()).unwrap().unwrap_err();
            assert_eq!(
                refused.kind(),
                ErrorKind::ConnectionRefused,
                "{answer:?} then {how:?}"
            );
        }
    }
}

#[test]
fn dropping_the_backend_refuses_clients_that_wait_for_a_confirmation() {
    let backend = VsockInnerBackend::new().unwrap();
    let connector = backend.get_connector();
    let connecting = waiting(move || connector.connect_to(PORT));
    drop(backend);
    assert_fails(
        connecting.finish(soon()).unwrap(),
        ErrorKind::ConnectionRefused,
    );
}

#[test]
fn any_other_answer_is_invalid_data() {
    for answer in [
        "NO\n",
        "ok 1\n",
        "OK\n",
        "OK \n",
        "OK  1\n",
        "OK -1\n",
        "OK +1\n",
        "OK 1 \n",
        "OK 1\r\n",
        "OK 4294967296\n",
        "OK 99999999999999999999\n",
        "OK one\n",
        "\n",
        "CONNECT 52\n",
        "OK 0000000000000000000000000000001\n",
    ] {
        assert_eq!(
            refused_with(answer.as_bytes()),
            ErrorKind::InvalidData,
            "{answer:?}"
        );
    }
    assert_eq!(refused_with(&[0xff; 40]), ErrorKind::InvalidData);
}

#[test]
fn a_line_of_32_bytes_confirms_and_a_longer_one_does_not() {
    let line = |len: usize| format!("OK {:0>width$}\n", 7, width = len - 4);
    assert_eq!(line(32).len(), 32);
    answered(line(32).as_bytes()).unwrap();
    assert_eq!(refused_with(line(33).as_bytes()), ErrorKind::InvalidData);
}

#[test]
fn no_answer_in_time_is_timed_out_and_never_early() {
    type Connect = fn(&VsockInnerConnector) -> io::Result<VsockInnerStream>;
    let timeout = Duration::from_millis(50);
    let ways: [(VsockInnerConfig, Connect); 2] = [
        (
            VsockInnerConfig::default().connect_timeout(timeout),
            |connector| connector.connect_to(PORT),
        ),
        (VsockInnerConfig::default(), |connector| {
            connector.connect_to_timeout(PORT, Duration::from_millis(50))
        }),
    ];
    for (config, connect) in ways {
        let backend = VsockInnerBackend::with_config(config).unwrap();
        let watch = Stopwatch::start();
        let late = connect(&backend.get_connector()).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::TimedOut);
        assert!(watch.elapsed() >= timeout);
        let message = late.to_string();
        assert!(
            message.contains("port 52") && message.contains("50ms"),
            "{message}"
        );
        let invalid = backend
            .get_connector()
            .connect_to_timeout(PORT, Duration::ZERO);
        assert_fails(invalid, ErrorKind::InvalidInput);
    }
}

/// The guest may have accepted meanwhile. It must not see a graceful end.
#[test]
fn a_client_that_gives_up_aborts_its_connection() {
    let timeout = Duration::from_millis(50);
    let config = VsockInnerConfig::default().connect_timeout(timeout);
    let (connecting, mut muxer, _backend) = asked(config);
    assert_fails(connecting.finish(soon()).unwrap(), ErrorKind::TimedOut);
    assert_fails(muxer.read(&mut [0]), ErrorKind::ConnectionReset);
}

#[test]
fn one_deadline_covers_the_whole_handshake() {
    let timeout = Duration::from_millis(100);
    let (connecting, mut muxer, _backend) =
        asked(VsockInnerConfig::default().connect_timeout(timeout));
    // Each byte of the line arrives well before the timeout, which must not restart with it.
    let line = [&b"OK "[..], &[b'0'; 27]].concat();
    let mut sent = 0;
    for byte in line.chunks(1) {
        // The client has given up and dropped its end, perhaps only now.
        if connecting.has_returned() || muxer.write_all(byte).is_err() {
            break;
        }
        sent += 1;
        pace(Duration::from_millis(50)).unwrap();
    }
    drop(muxer); // a refusal, if the client still waits
    let late = connecting.finish(soon()).unwrap().unwrap_err();
    assert_eq!(late.kind(), ErrorKind::TimedOut, "after {sent} bytes");
}

#[test]
fn a_device_that_asks_for_the_port_gets_no_text() {
    let (connecting, mut device, _backend) = asked_out_of_band(VsockInnerConfig::default());
    assert_eq!(device.requested_port(), Some(PORT));
    assert_eq!(device.requested_port(), None, "once");
    assert_fails(device.read(&mut [0; 8]), ErrorKind::WouldBlock);
    device.confirm(1 << 30).unwrap();
    assert_fails(device.confirm(1 << 30), ErrorKind::Unsupported);
    let mut stream = connecting.finish(soon()).unwrap().unwrap();
    device.write_all(b"hello").unwrap();
    let mut bytes = [0; 5];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"hello", "only the guest's bytes");
}

#[test]
fn a_device_that_drops_the_stream_after_taking_the_port_refuses() {
    let (connecting, mut device, _backend) = asked_out_of_band(VsockInnerConfig::default());
    assert_eq!(device.requested_port(), Some(PORT));
    drop(device);
    assert_fails(
        connecting.finish(soon()).unwrap(),
        ErrorKind::ConnectionRefused,
    );
}

#[test]
fn a_device_that_has_begun_to_read_gets_text() {
    let (connecting, mut device, _backend) = asked_out_of_band(VsockInnerConfig::default());
    device.read_exact(&mut [0; 8]).unwrap();
    assert_eq!(device.requested_port(), None);
    let mut rest = [0; 3];
    device.read_exact(&mut rest).unwrap();
    assert_eq!(&rest, b"52\n");
    assert_fails(device.confirm(1), ErrorKind::Unsupported);
    device.write_all(b"OK 1\n").unwrap();
    connecting.finish(soon()).unwrap().unwrap();
}

#[test]
fn after_the_command_a_similar_line_is_data_for_the_device() {
    let (connecting, mut device, _backend) = asked_out_of_band(VsockInnerConfig::default());
    let mut command = [0; 11];
    device.read_exact(&mut command).unwrap();
    device.write_all(b"OK 1\n").unwrap();
    let mut stream = connecting.finish(soon()).unwrap().unwrap();
    stream.write_all(&command).unwrap();
    assert_eq!(device.requested_port(), None);
    let mut bytes = [0; 11];
    device.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes, command, "the application's bytes");
}

#[test]
fn a_connection_smaller_than_the_handshake_still_connects() {
    for out_of_band in [false, true] {
        for (to_device, to_application) in [(10, 100), (100, 13), (1, 1)] {
            let config = VsockInnerConfig::default()
                .to_device(Capacity::Bytes(to_device))
                .to_application(Capacity::Bytes(to_application));
            let (connecting, mut device, _backend) = asked_out_of_band(config);
            if out_of_band {
                assert_eq!(device.requested_port(), Some(PORT));
                device.confirm(1).unwrap();
            } else {
                let mut command = [0; 11];
                device.read_exact(&mut command).unwrap();
                assert_eq!(&command, b"CONNECT 52\n");
                device.write_all(b"OK 1\n").unwrap();
            }
            let mut stream = connecting.finish(soon()).unwrap().unwrap();
            stream.set_nonblocking(true).unwrap();
            let room = |stream: &mut dyn VsockStream| stream.write(&[0; 200]).unwrap();
            assert_eq!(room(&mut stream), to_device, "its capacity is unchanged");
            assert_eq!(room(&mut *device), to_application);
        }
    }
}

#[test]
fn a_stream_without_a_port_is_not_asked_for_one() {
    let (mut near, mut far) = VsockInnerStream::pair().unwrap();
    near.write_all(b"CONNECT 52\n").unwrap();
    assert_eq!(far.requested_port(), None);
    assert_fails(far.confirm(1), ErrorKind::Unsupported);
    assert_eq!(far.queued_in(), 11);
}

#[test]
fn a_confirmation_gives_both_ends_its_addresses() {
    let guest = VsockAddr { cid: 3, port: PORT };
    let host = VsockAddr {
        cid: 2,
        port: 1 << 30,
    };
    for addresses in [Some((guest, host)), None] {
        let (connecting, mut device, _backend) = asked_out_of_band(VsockInnerConfig::default());
        assert_eq!(device.requested_port(), Some(PORT));
        match addresses {
            Some((guest, host)) => device.confirm_from(guest, host).unwrap(),
            None => device.confirm(host.port).unwrap(),
        }
        let stream = connecting.finish(soon()).unwrap().unwrap();
        let (guest, host) = addresses.unzip();
        assert_eq!((stream.peer(), stream.local()), (guest, host));
        assert_eq!((device.peer(), device.local()), (host, guest));
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `start_connect_to`, which returns a stream that is not connected yet.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;

use proptest::collection::vec;
use proptest::{prop_assert_eq, prop_oneof, proptest, strategy::Just, strategy::Strategy};
use vsock_backend_api::{VsockAddr, VsockBackend, VsockStream};
use vsock_compliance::poll::{PollInterest, Watch, is_readable, is_writable};
use vsock_inner::{Capacity, VsockInnerBackend, VsockInnerConfig, VsockInnerStream};
use vsock_tests::assert_fails;
use vsock_tests::inner::Inner;

use crate::{soon, waiting};

const PORT: u32 = 52;

/// Returns a stream that is still connecting, and the device's end.
fn pending(config: VsockInnerConfig) -> (VsockInnerStream, Box<dyn VsockStream>) {
    let mut backend = VsockInnerBackend::with_config(config).unwrap();
    let stream = backend.get_connector().start_connect_to(PORT).unwrap();
    (stream, backend.accept().unwrap())
}

/// Checks how a read and a write fail, and that the descriptors agree.
#[track_caller]
fn assert_both(stream: &mut VsockInnerStream, read: ErrorKind, write: ErrorKind) {
    for nonblocking in [true, false] {
        stream.set_nonblocking(nonblocking).unwrap();
        assert_eq!(stream.read(&mut [0; 8]).unwrap_err().kind(), read);
        assert_eq!(stream.peek(&mut [0; 8]).unwrap_err().kind(), read);
        assert_eq!(stream.write(b"x").unwrap_err().kind(), write);
        let readable = is_readable(stream.as_raw_fd()).unwrap();
        assert_eq!(readable, read != ErrorKind::WouldBlock);
        let writable = is_writable(stream.write_ready_fd().unwrap()).unwrap();
        assert_eq!(writable, write != ErrorKind::WouldBlock);
    }
}

/// Watches the descriptors, which have no event yet.
fn edges(stream: &VsockInnerStream) -> [Watch; 2] {
    let mut reads = Watch::edges(stream.as_raw_fd(), PollInterest::Read).unwrap();
    let mut writes = Watch::edges(stream.write_ready_fd().unwrap(), PollInterest::Write).unwrap();
    assert!(writes.now().unwrap().is_none() && reads.now().unwrap().is_none());
    [reads, writes]
}

#[track_caller]
fn assert_pending(stream: &mut VsockInnerStream) {
    assert!(!stream.is_connected());
    assert_both(stream, ErrorKind::WouldBlock, ErrorKind::WouldBlock);
}

#[track_caller]
fn assert_refused(stream: &mut VsockInnerStream) {
    assert!(!stream.is_connected());
    let refused = ErrorKind::ConnectionRefused;
    assert_both(stream, refused, refused);
}

#[track_caller]
fn assert_connected(mut stream: VsockInnerStream, mut device: Box<dyn VsockStream>) {
    assert!(stream.is_connected());
    stream.set_nonblocking(true).unwrap();
    assert!(!is_readable(stream.as_raw_fd()).unwrap());
    assert!(is_writable(stream.write_ready_fd().unwrap()).unwrap());
    let nothing = stream.read(&mut [0; 8]).unwrap_err();
    assert_eq!(
        nothing.kind(),
        ErrorKind::WouldBlock,
        "no byte of the answer is read"
    );
    assert_eq!(stream.write(b"ping").unwrap(), 4);
    let mut bytes = [0; 8];
    assert_eq!(device.read(&mut bytes).unwrap(), 4);
    assert_eq!(&bytes[..4], b"ping");
    device.write_all(b"pong").unwrap();
    assert!(is_readable(stream.as_raw_fd()).unwrap());
    assert_eq!(stream.read(&mut bytes).unwrap(), 4);
    assert_eq!(&bytes[..4], b"pong");
}

#[test]
fn a_stream_is_pending_until_the_device_confirms_out_of_band() {
    for config in [
        VsockInnerConfig::default(),
        Inner::holding(4).config,
        VsockInnerConfig::default().to_device(Capacity::Unbounded),
    ] {
        let (mut stream, mut device) = pending(config);
        assert_pending(&mut stream);
        assert_eq!(device.requested_port(), Some(PORT));
        assert_pending(&mut stream);
        device.confirm(1 << 30).unwrap();
        assert_connected(stream, device);
    }
}

#[test]
fn a_stream_is_pending_until_the_whole_line_has_arrived() {
    let (mut stream, mut device) = pending(VsockInnerConfig::default());
    let mut command = [0; 11];
    device.read_exact(&mut command).unwrap();
    assert_eq!(&command, b"CONNECT 52\n");
    for byte in b"OK 1073741824" {
        assert_eq!(device.write(&[*byte]).unwrap(), 1);
        assert_pending(&mut stream);
    }
    assert_eq!(device.write(b"\n").unwrap(), 1);
    assert_connected(stream, device);
}

#[test]
fn s19_bytes_after_the_line_in_the_same_write_are_the_guests() {
    let (mut stream, mut device) = pending(VsockInnerConfig::default());
    let parts = [&b""[..], b"OK 1\nhel", b"lo"].map(std::io::IoSlice::new);
    let written = device.write_vectored(&parts).unwrap();
    assert_eq!(
        written, 8,
        "a vectored answer continues after its first piece"
    );
    device.write_all(b"lo").unwrap();
    let mut bytes = [0; 8];
    assert_eq!(stream.read(&mut bytes).unwrap(), 5);
    assert_eq!(&bytes[..5], b"hello");
}

#[test]
fn the_confirmation_is_an_edge_for_writing() {
    let (mut stream, mut device) = pending(VsockInnerConfig::default());
    let [mut reads, mut writes] = edges(&stream);
    drop(stream.write(b"x"));
    assert_eq!(device.requested_port(), Some(PORT));
    assert!(writes.now().unwrap().is_none());
    device.confirm(1).unwrap();
    assert!(writes.now().unwrap().is_some());
    assert!(reads.now().unwrap().is_none());
}

#[test]
fn a_refusal_is_an_edge_for_both_directions_and_persists() {
    type Stream = Box<dyn VsockStream>;
    let ends: [fn(Stream) -> Option<Stream>; 4] = [
        |device| {
            drop(device);
            None
        },
        |mut device| {
            device.shutdown(Shutdown::Write).unwrap();
            Some(device)
        },
        |mut device| {
            device.shutdown(Shutdown::Both).unwrap();
            Some(device)
        },
        |mut device| {
            device.write_all(b"OK 1").unwrap();
            drop(device);
            None
        },
    ];
    for end in ends {
        let (mut stream, device) = pending(VsockInnerConfig::default());
        let [mut reads, mut writes] = edges(&stream);
        let _device = end(device);
        assert!(writes.now().unwrap().is_some() && reads.now().unwrap().is_some());
        assert_refused(&mut stream);
        assert_refused(&mut stream);
    }
}

/// A drop ends the device's directions one after the other. A loop that is called between the two
/// must not find a descriptor that is ready while the connection is pending.
#[test]
fn a_device_that_only_stops_reading_refuses() {
    let (mut stream, mut device) = pending(VsockInnerConfig::default());
    let [_, mut writes] = edges(&stream);
    assert_fails(stream.finish_connect(), ErrorKind::WouldBlock);
    device.shutdown(Shutdown::Read).unwrap();
    assert!(writes.now().unwrap().is_some());
    assert_fails(stream.finish_connect(), ErrorKind::ConnectionRefused);
    assert_fails(stream.write(b"x"), ErrorKind::ConnectionRefused);
}

#[test]
fn dropping_the_backend_refuses_pending_streams() {
    let backend = VsockInnerBackend::new().unwrap();
    let mut stream = backend.get_connector().start_connect_to(PORT).unwrap();
    drop(backend);
    assert_refused(&mut stream);
}

#[test]
fn a_wrong_answer_makes_every_later_call_invalid_data() {
    let (mut stream, mut device) = pending(VsockInnerConfig::default());
    device.write_all(b"NO\n").unwrap();
    let wrong = ErrorKind::InvalidData;
    assert_both(&mut stream, wrong, wrong);
    assert_fails(device.write(b"OK 1\n"), ErrorKind::BrokenPipe);
    drop(device);
    assert_both(&mut stream, wrong, wrong);
}

#[test]
fn a_pending_stream_obeys_its_own_shutdown() {
    let (mut stream, mut device) = pending(VsockInnerConfig::default());
    stream.shutdown(Shutdown::Write).unwrap();
    assert_both(&mut stream, ErrorKind::WouldBlock, ErrorKind::BrokenPipe);
    // The descriptor for writing is ready, so there must be a result.
    assert_fails(stream.finish_connect(), ErrorKind::BrokenPipe);
    assert_eq!(device.requested_port(), Some(PORT));
    device.confirm(1).unwrap();
    stream.finish_connect().unwrap();
    assert!(stream.is_connected());
    assert_eq!(device.read(&mut [0]).unwrap(), 0);
    device.write_all(b"hello").unwrap();
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 5);

    let (mut stream, mut device) = pending(VsockInnerConfig::default());
    stream.shutdown(Shutdown::Read).unwrap();
    assert!(is_readable(stream.as_raw_fd()).unwrap());
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
    assert_eq!(device.requested_port(), Some(PORT));
    device.confirm(1).unwrap();
    assert!(stream.is_connected());
    assert_eq!(stream.write(b"hello").unwrap(), 5);
}

#[test]
fn a_device_cannot_confirm_to_a_closed_client() {
    let (stream, mut device) = pending(VsockInnerConfig::default());
    assert_eq!(device.requested_port(), Some(PORT));
    drop(stream);
    assert!(device.peer_gone());
    device.confirm(1).unwrap_err();

    let (stream, mut device) = pending(VsockInnerConfig::default());
    drop(stream);
    device.write(b"OK 1\n").unwrap_err();
}

#[test]
fn halves_are_connected_together() {
    let (stream, mut device) = pending(VsockInnerConfig::default());
    let (mut reader, mut writer) = stream.into_split();
    assert_fails(writer.write(b"x"), ErrorKind::WouldBlock);
    assert_eq!(device.requested_port(), Some(PORT));
    let (guest, host) = (
        VsockAddr { cid: 3, port: PORT },
        VsockAddr { cid: 2, port: 9 },
    );
    device.confirm_from(guest, host).unwrap();
    writer.write_all(b"hello").unwrap();
    assert_eq!(device.read(&mut [0; 8]).unwrap(), 5);
    let reading = waiting(move || reader.read(&mut [0; 8])); // this read waits from now on
    device.write_all(b"x").unwrap();
    assert_eq!(reading.finish(soon()).unwrap().unwrap(), 1);
}

#[test]
fn a_device_can_answer_through_halves() {
    let (mut stream, device) = pending(VsockInnerConfig::default());
    let device = device.into_any().unwrap().downcast::<VsockInnerStream>();
    let (_reader, mut writer) = device.unwrap().into_split();
    writer.write_all(b"OK 1\nhello").unwrap();
    assert!(stream.is_connected());
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 5);

    let (mut stream, device) = pending(VsockInnerConfig::default());
    let device = device.into_any().unwrap().downcast::<VsockInnerStream>();
    let (_reader, writer) = device.unwrap().into_split();
    drop(writer);
    assert_refused(&mut stream);
}

#[test]
fn a_stream_without_a_request_is_connected() {
    let (near, far) = VsockInnerStream::pair().unwrap();
    assert!(near.is_connected() && far.is_connected());
    let backend = VsockInnerBackend::new().unwrap();
    assert!(
        backend
            .get_connector()
            .connect_stream()
            .unwrap()
            .is_connected()
    );
}

#[derive(Clone, Debug)]
enum Step {
    Ask,
    Confirm,
    Say(Vec<u8>),
    TakeWriteFd,
    Refuse,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Ask),
        Just(Step::Confirm),
        "(O|K| |1|OK 1|OK 1\n|\n)".prop_map(|text| Step::Say(text.into_bytes())),
        Just(Step::TakeWriteFd),
        Just(Step::Refuse),
    ]
}

#[test]
fn abandoned_requests_make_room_for_others() {
    let config = VsockInnerConfig::default().pending(4);
    let mut backend = VsockInnerBackend::with_config(config).unwrap();
    let connector = backend.get_connector();
    // The device still receives its bytes.
    connector.connect_stream().unwrap().write_all(b"a").unwrap();
    for _ in 0..10 {
        drop(connector.start_connect_to(PORT).unwrap());
    }
    let stream = connector.start_connect_to(PORT).unwrap();

    let mut first = backend.accept().unwrap();
    assert_eq!(first.requested_port(), None);
    assert_eq!(first.read(&mut [0; 8]).unwrap(), 1);
    let mut device = loop {
        let device = backend.accept().unwrap();
        if !device.peer_gone() {
            break device;
        }
    };
    assert_eq!(device.requested_port(), Some(PORT));
    device.confirm(1).unwrap();
    assert!(stream.is_connected());
    assert_fails(backend.accept(), ErrorKind::WouldBlock);
}

#[test]
fn requests_abandoned_before_a_device_exists_keep_no_descriptors() {
    let backend = VsockInnerBackend::new().unwrap();
    let connector = backend.get_connector();
    let waiting: Vec<_> = (0..100)
        .map(|_| connector.start_connect_to(PORT).unwrap())
        .collect();
    for _ in 0..3000 {
        drop(connector.start_connect_to(PORT).unwrap());
    }
    assert!(backend.counters().open <= 256, "{:?}", backend.counters());
    drop(waiting);
    for _ in 0..3000 {
        drop(connector.start_connect_to(PORT).unwrap());
    }
    assert!(backend.counters().open <= 16, "{:?}", backend.counters());
    assert!(is_readable(backend.as_raw_fd()).unwrap());
}

proptest! {
    #[test]
    fn descriptors_and_calls_agree_however_the_device_answers(steps in vec(step(), 0..12)) {
        let (mut stream, mut device) = pending(VsockInnerConfig::default());
        stream.set_nonblocking(true).unwrap();
        for step in steps {
            match step {
                Step::Ask => drop(device.requested_port()),
                Step::Confirm => drop(device.confirm(1)),
                Step::Say(text) => drop(device.write(&text)),
                Step::TakeWriteFd => drop(stream.write_ready_fd().unwrap()),
                Step::Refuse => device.shutdown(Shutdown::Write).unwrap(),
            }
            let blocks = |call: std::io::Result<usize>| {
                call.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
            };
            let readable = is_readable(stream.as_raw_fd()).unwrap();
            prop_assert_eq!(readable, !blocks(stream.peek(&mut [0; 8])));
            let write = stream.write(b"x");
            prop_assert_eq!(write.is_ok(), stream.is_connected());
            let writable = is_writable(stream.write_ready_fd().unwrap()).unwrap();
            prop_assert_eq!(writable, !blocks(write));
        }
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixListener};

use tempfile::TempDir;
use vsock_compliance::poll::{is_readable, is_writable};

use super::*;

fn pair() -> (DatagramStream, UnixDatagram, TempDir) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("notify");
    let receiver = UnixDatagram::bind(&path).unwrap();
    (DatagramStream::connect(&path).unwrap(), receiver, dir)
}

#[test]
fn a_message_of_any_length_is_one_datagram() {
    let (mut device, receiver, _dir) = pair();
    let mut buffer = vec![0; 1 << 20];
    for len in [8, 0, 300_000] {
        device.write_all(&vec![7; len]).unwrap();
        if len == 0 {
            device.send_message(&[], Record::Ends).unwrap();
        }
        device.flush().unwrap();
        assert_eq!(receiver.recv(&mut buffer).unwrap(), len);
    }
}

#[test]
fn a_message_that_fits_no_buffer_is_refused_and_the_next_one_sent() {
    let (mut device, receiver, _dir) = pair();
    let long = device.write(&vec![7; 64 << 20]).unwrap_err();
    assert_eq!(long.kind(), ErrorKind::InvalidInput);
    device.write_all(b"short").unwrap();
    assert_eq!(receiver.recv(&mut [0; 9]).unwrap(), 5);
}

#[test]
fn a_full_receiver_blocks_the_sender_and_then_wakes_it() {
    let (mut device, receiver, _dir) = pair();
    let full = loop {
        if let Err(error) = device.write(b"x") {
            break error;
        }
    };
    assert_eq!(full.kind(), ErrorKind::WouldBlock);
    assert!(!is_writable(device.as_raw_fd()).unwrap());
    receiver.set_nonblocking(true).unwrap();
    while receiver.recv(&mut [0; 9]).is_ok() {}
    assert!(is_writable(device.as_raw_fd()).unwrap());
    device.write_all(b"x").unwrap();
}

#[test]
fn after_its_last_message_a_sender_reads_the_end() {
    let (mut device, receiver, _dir) = pair();
    let nothing = device.read(&mut [0]).unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    device.write_all(b"READY=1").unwrap();
    device.shutdown(Shutdown::Read).unwrap();
    assert!(!is_readable(device.as_raw_fd()).unwrap());
    device.shutdown(Shutdown::Write).unwrap();
    assert!(is_readable(device.as_raw_fd()).unwrap());
    assert_eq!(device.receive_message(&mut [0]).unwrap(), Received::End);
    assert_eq!(device.read(&mut [0]).unwrap(), 0);
    assert_eq!(
        device.write(b"x").unwrap_err().kind(),
        ErrorKind::BrokenPipe
    );
    assert_eq!(receiver.recv(&mut [0; 9]).unwrap(), 7);
    // The receiver still gets messages of other senders.
    let other = UnixDatagram::unbound().unwrap();
    let address = receiver.local_addr().unwrap();
    other.send_to(b"x", address.as_pathname().unwrap()).unwrap();
}

#[test]
fn a_receiver_that_has_gone_is_an_error() {
    let (mut device, receiver, dir) = pair();
    drop(receiver);
    let gone = device.write(b"x").unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::ConnectionRefused);
    let path = dir.path().join("notify");
    let stale = DatagramStream::connect(&path).unwrap_err();
    assert_eq!(stale.kind(), ErrorKind::ConnectionRefused);
    let other = dir.path().join("stream");
    let _listener = UnixListener::bind(&other).unwrap();
    DatagramStream::connect(&other).unwrap_err();
}

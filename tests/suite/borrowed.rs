// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Descriptors that are borrowed, not copied as numbers.

use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd};

use vsock_backend_api::{VsockBackend, VsockStream};
use vsock_compliance::fd;
use vsock_compliance::poll::{is_readable, is_writable};
use vsock_inner::{Capacity, VsockInnerBackend, VsockInnerConfig, VsockInnerStream};
use vsock_tests::alone::alone;

#[test]
fn a_borrowed_descriptor_is_the_numbered_one_and_as_exact() {
    let config = VsockInnerConfig::default().to_device(Capacity::Bytes(4));
    let (mut near, mut far) = VsockInnerStream::pair_with(&config).unwrap();
    near.set_nonblocking(true).unwrap();
    let (reads, writes) = (
        far.as_fd().as_raw_fd(),
        near.write_ready().unwrap().as_raw_fd(),
    );
    assert!(!is_readable(reads).unwrap() && is_writable(writes).unwrap());
    near.write_all(b"full").unwrap();
    assert!(is_readable(reads).unwrap() && !is_writable(writes).unwrap());
    assert_eq!(near.write(b"x").unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(far.peek(&mut [0; 8]).unwrap(), 4);
    assert_eq!(reads, far.as_raw_fd());
    assert_eq!(writes, near.write_ready_fd().unwrap());
}

#[test]
fn what_waits_shows_at_a_borrowed_descriptor() {
    let backend = VsockInnerBackend::new().unwrap();
    let listener = backend.listen(1024).unwrap();
    let numbers = [backend.as_fd().as_raw_fd(), listener.as_fd().as_raw_fd()];
    assert_eq!(numbers, [backend.as_raw_fd(), listener.as_raw_fd()]);
    let readable = || numbers.map(|fd| is_readable(fd).unwrap());
    assert_eq!(readable(), [false; 2]);
    let _stream = backend.get_connector().connect().unwrap();
    let _device = backend.connect(1024).unwrap();
    assert_eq!(readable(), [true; 2]);
}

#[test]
fn a_borrowed_descriptor_is_closed_with_its_half() {
    alone(|| {
        let before = fd::open_count().unwrap();
        let (near, _far) = VsockInnerStream::pair().unwrap();
        let (reader, writer) = near.into_split();
        assert!(reader.as_fd().as_raw_fd() >= 0);
        assert!(writer.write_ready().is_ok() && writer.write_ready().is_ok());
        assert_eq!(
            fd::open_count().unwrap(),
            before + 3,
            "two ends, one for writing"
        );
        drop(writer);
        assert_eq!(fd::open_count().unwrap(), before + 2);
        drop(reader);
        assert_eq!(
            fd::open_count().unwrap(),
            before + 1,
            "while the peer lives"
        );
    });
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How many descriptors a connection has, and when.

use std::os::fd::AsRawFd;

use vsock_backend_api::{VsockBackend, VsockStream};
use vsock_compliance::fd::open_count;
use vsock_inner::{VsockInnerBackend, VsockInnerStream};
use vsock_tests::alone::alone;

#[test]
fn a_connection_has_two_descriptors_and_one_for_each_write_fd_taken() {
    alone(|| {
        let before = open_count().unwrap();
        let (near, far) = VsockInnerStream::pair().unwrap();
        assert_eq!(open_count().unwrap(), before + 2);
        let _fds = [near.as_raw_fd(), far.as_raw_fd(), near.as_raw_fd()];
        assert_eq!(open_count().unwrap(), before + 2, "as_raw_fd creates none");
        near.write_ready_fd().unwrap();
        assert_eq!(open_count().unwrap(), before + 3);
        near.write_ready_fd().unwrap();
        assert_eq!(open_count().unwrap(), before + 3, "it is created once");
        far.write_ready_fd().unwrap();
        assert_eq!(open_count().unwrap(), before + 4);
        drop(near);
        assert_eq!(
            open_count().unwrap(),
            before + 2,
            "an end closes its descriptors"
        );
        drop(far);
        assert_eq!(open_count().unwrap(), before);
    });
}

#[test]
fn backend_and_listener_have_one_descriptor_each() {
    alone(|| {
        let before = open_count().unwrap();
        let mut backend = VsockInnerBackend::new().unwrap();
        assert_eq!(open_count().unwrap(), before + 1);
        let listener = backend.listen(1).unwrap();
        assert_eq!(open_count().unwrap(), before + 2);
        let client = backend.get_connector().connect().unwrap();
        let device = backend.connect(1).unwrap();
        assert_eq!(open_count().unwrap(), before + 6);
        drop((client, device));
        assert_eq!(
            open_count().unwrap(),
            before + 4,
            "the waiting ends have descriptors of their own"
        );
        backend.accept().unwrap();
        listener.accept().unwrap();
        drop((backend, listener));
        assert_eq!(open_count().unwrap(), before);
    });
}

#[test]
fn a_refusal_leaves_no_descriptor_behind() {
    alone(|| {
        let config = vsock_inner::VsockInnerConfig::default().pending(0);
        let backend = VsockInnerBackend::with_config(config).unwrap();
        let _listener = backend.listen(1).unwrap();
        let before = open_count().unwrap();
        for _ in 0..10 {
            backend.get_connector().connect().map(drop).unwrap_err();
            backend.connect(1).map(drop).unwrap_err();
            backend.connect(2).map(drop).unwrap_err();
            backend.listen(1).unwrap_err();
        }
        assert_eq!(open_count().unwrap(), before);
    });
}

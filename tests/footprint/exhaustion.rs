// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Without a free descriptor, a call that needs one fails. Everything else keeps working.

use std::fmt::Debug;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use vsock_backend_api::{VsockBackend, VsockStream};
use vsock_compliance::fd::open_count;
use vsock_compliance::poll::{PollInterest, Watch};
use vsock_inner::{VsockInnerBackend, VsockInnerStream};
use vsock_tests::alone::alone;
use vsock_tests::assert_fails;

use crate::{allow_fds, fill_gaps, highest_fd};

/// Checks that the error, or one of its sources, is a lack of descriptors.
fn out_of_descriptors<T: Debug>(what: &str, result: io::Result<T>) {
    let error = match result {
        Ok(done) => panic!("{what} worked without a descriptor: {done:?}"),
        Err(error) => error,
    };
    assert_eq!(
        error.raw_os_error(),
        Some(Errno::EMFILE as i32),
        "{what}: {error:?}"
    );
}

fn exchange(near: &mut dyn VsockStream, far: &mut dyn VsockStream) {
    carries(near, far);
    carries(far, near);
}

fn carries(from: &mut dyn VsockStream, to: &mut dyn VsockStream) {
    from.write_all(b"still here").unwrap();
    let mut got = [0; 10];
    to.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"still here");
}

#[test]
fn without_descriptors_only_the_calls_that_need_one_fail() {
    alone(|| {
        let _gaps = fill_gaps();
        let mut backend = VsockInnerBackend::new().unwrap();
        let connector = backend.get_connector();
        let listener = backend.listen(7).unwrap();
        let (mut near, mut far) = VsockInnerStream::pair().unwrap();
        let waiting = connector.connect_stream().unwrap();
        let open = open_count().unwrap();
        let counters = backend.counters();
        let before = allow_fds(20_000);

        let highest = highest_fd();
        allow_fds(highest + 1);
        out_of_descriptors("a pair", VsockInnerStream::pair());
        out_of_descriptors("a backend", VsockInnerBackend::new());
        out_of_descriptors("a listener", backend.listen(8));
        out_of_descriptors("a connect", connector.connect_stream());
        out_of_descriptors("a connect", connector.connect().map(drop));
        out_of_descriptors("a connect to a port", connector.connect_to(1));
        out_of_descriptors("a connect by the guest", backend.connect(7).map(drop));
        out_of_descriptors("a write fd", near.write_ready_fd());
        assert_eq!(
            backend.counters(),
            counters,
            "a failed call is not counted as open or refused"
        );
        let _fd = near.as_raw_fd();
        exchange(&mut near, &mut far);
        let mut accepted = backend.accept().unwrap();
        accepted.write_all(b"x").unwrap();

        // One free descriptor: a connection needs two, and must not keep the one that it got.
        allow_fds(highest + 2);
        for _ in 0..3 {
            out_of_descriptors("half a connection", connector.connect_stream());
            out_of_descriptors("half a connection", backend.connect(7).map(drop));
        }
        let listener_of_the_last = backend.listen(8).unwrap();
        drop(listener_of_the_last);

        allow_fds(before);
        assert_eq!(open_count().unwrap(), open, "no descriptor was leaked");
        drop((waiting, accepted));
        listener.set_nonblocking(true).unwrap();
        assert_fails(listener.accept(), ErrorKind::WouldBlock);
        exchange(&mut near, &mut far);
        let mut client = connector.connect_stream().unwrap();
        exchange(&mut client, &mut *backend.accept().unwrap());
        let mut device = backend.connect(7).unwrap();
        exchange(&mut *device, &mut listener.accept().unwrap());
    });
}

#[test]
fn without_descriptors_a_failed_listen_reports_the_cause() {
    alone(|| {
        let _gaps = fill_gaps();
        let backend = VsockInnerBackend::new().unwrap();
        let connector = backend.get_connector();
        let gone = VsockInnerBackend::new().unwrap().get_connector();
        let _listener = backend.listen(7).unwrap();
        allow_fds(highest_fd() + 1);
        out_of_descriptors("a listener", connector.listen(8));
        for (connector, port, kind) in [
            (&connector, 7, ErrorKind::AddrInUse),
            (&connector, 0, ErrorKind::InvalidInput),
            (&connector, u32::MAX, ErrorKind::InvalidInput),
            (&gone, 8, ErrorKind::ConnectionRefused),
        ] {
            let refused = connector.listen(port).unwrap_err();
            assert_eq!(refused.kind(), kind, "port {port}: {refused}");
        }
    });
}

#[test]
fn a_write_fd_that_failed_once_is_correct_when_taken_later() {
    alone(|| {
        let _gaps = fill_gaps();
        let (mut near, mut far) = VsockInnerStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let before = allow_fds(20_000);
        allow_fds(highest_fd() + 1);
        out_of_descriptors("a write fd", near.write_ready_fd());
        while near.write(&[0; 4096]).is_ok() {}
        out_of_descriptors("a write fd", near.write_ready_fd());
        allow_fds(before);
        let mut edges = Watch::edges(near.write_ready_fd().unwrap(), PollInterest::Write).unwrap();
        assert!(
            edges.now().unwrap().is_none(),
            "reported writable although full"
        );
        far.read_exact(&mut vec![0; 256 * 1024]).unwrap();
        assert!(
            edges.now().unwrap().is_some(),
            "not reported writable although empty"
        );
    });
}

#[test]
fn connecting_until_descriptors_run_out_ends_with_an_error() {
    alone(|| {
        let _gaps = fill_gaps();
        let mut backend = VsockInnerBackend::new().unwrap();
        let connector = backend.get_connector();
        allow_fds(highest_fd() + 101);
        let mut pairs = Vec::new();
        let error = loop {
            match connector.connect_stream() {
                Ok(client) => pairs.push((client, backend.accept().unwrap())),
                Err(error) => break error,
            }
        };
        assert_eq!(pairs.len(), 50, "two descriptors each");
        out_of_descriptors("the last connect", Err::<(), _>(error));
        for (near, far) in &mut pairs {
            exchange(near, &mut **far);
        }
        pairs.pop();
        connector.connect_stream().unwrap();
    });
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A drop is a close: code that writes to a stream and drops it has ended it gracefully.

use std::io::{self, BufWriter, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use vsock_compliance::call::Call;
use vsock_inner::{VsockInnerListener, VsockInnerStream};
use vsock_tests::assert_fails;

use crate::soon;

fn pair() -> (VsockInnerStream, VsockInnerStream) {
    VsockInnerStream::pair().unwrap()
}

/// Reads everything up to the end.
fn read_all(mut stream: impl Read) -> io::Result<String> {
    let mut text = String::new();
    stream.read_to_string(&mut text).map(|_| text)
}

#[test]
fn every_kind_of_writer_that_is_dropped_ends_gracefully() {
    let writers: [fn(VsockInnerStream); 3] = [
        |near| write!(BufWriter::new(near), "port {} it is", 7).unwrap(),
        |near| {
            let mut near = near;
            write!(near, "port 7 it is").unwrap();
        },
        |mut near| {
            let copied = io::copy(&mut &b"port 7 it is"[..], &mut near);
            assert_eq!(copied.unwrap(), 12);
        },
    ];
    for write in writers {
        let (near, far) = pair();
        let writing = Call::start(move || write(near)).unwrap();
        assert_eq!(read_all(far).unwrap(), "port 7 it is");
        writing.finish(soon()).unwrap();
    }
}

#[test]
fn a_copy_between_halves_ends_gracefully_both_ways() {
    let (near, mut far) = pair();
    let (mut reader, mut writer) = near.into_split();
    let echoing = Call::start(move || io::copy(&mut reader, &mut writer).unwrap()).unwrap();
    far.write_all(b"echo").unwrap();
    far.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut far).unwrap(), "echo");
    assert_eq!(echoing.finish(soon()).unwrap(), 4);
}

#[test]
fn a_half_that_goes_out_of_scope_ends_gracefully() {
    let (near, far) = pair();
    let (reader, writer) = near.into_split();
    let (mut far_reader, mut far_writer) = far.into_split();
    write!(BufWriter::new(writer), "half").unwrap();
    assert_eq!(read_all(&mut far_reader).unwrap(), "half");
    far_writer.write_all(b"read").unwrap();
    {
        let mut reader = reader;
        reader.read_exact(&mut [0; 4]).unwrap();
    }
    assert_fails(far_writer.write(b"x"), ErrorKind::BrokenPipe);
}

#[test]
fn a_server_that_answers_and_drops_its_stream_ends_gracefully() {
    let backend = vsock_inner::VsockInnerBackend::new().unwrap();
    let listener = backend.listen(7).unwrap();
    let serve = |listener: &VsockInnerListener| {
        let mut stream = listener.accept().unwrap();
        let mut question = [0; 4];
        stream.read_exact(&mut question).unwrap();
        stream.write_all(b"fine").unwrap();
    };
    let mut guest = vsock_inner::VsockBackend::connect(&backend, 7).unwrap();
    guest.write_all(b"how?").unwrap();
    serve(&listener);
    assert_eq!(read_all(guest).unwrap(), "fine");
}

#[test]
fn a_writer_that_panics_midway_does_not_end_gracefully() {
    let (near, mut far) = pair();
    let unwound = catch_unwind(AssertUnwindSafe(move || {
        let mut near = near;
        near.write_all(b"half of").unwrap();
        resume_unwind(Box::new("the rest is lost"));
    }));
    drop(unwound);
    let mut got = [0; 16];
    assert_eq!(far.read(&mut got).unwrap(), 7, "queued bytes come first");
    let ends = [far.read(&mut got), far.write(b"x")];
    for end in ends {
        assert_fails(end, ErrorKind::ConnectionReset);
    }
}

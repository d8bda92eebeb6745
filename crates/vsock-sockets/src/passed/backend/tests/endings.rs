// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How streams over passed descriptors end: by closes, half-closes, aborts and resets.

use super::*;

#[test]
fn the_stream_ends_if_the_pipes_reader_leaves() {
    let (_dir, mut backend) = usual();
    let (reader, writer) = pipe().unwrap();
    let device = stream(&mut backend, "52\n", &writer);
    assert!(!device.peer_gone());
    drop(reader);
    wait_until(soon(), || device.peer_gone()).unwrap();
}

#[test]
fn half_closes_pass_both_ways_over_a_socket() {
    let (_dir, mut backend) = usual();
    for unix in [true, false] {
        let (near, far): (OwnedFd, OwnedFd) = if unix {
            let (near, far) = UnixStream::pair().unwrap();
            (near.into(), far.into())
        } else {
            let (near, far) = tcp();
            (near.into(), far.into())
        };
        let mut device = stream(&mut backend, "5\n", &near);
        drop(near);
        let mut far = File::from(far);
        device.write_all(b"question").unwrap();
        device.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        far.read_to_string(&mut text).unwrap();
        assert_eq!(text, "question");
        far.write_all(b"answer").unwrap();
        drop(far);
        text.clear();
        device.read_to_string(&mut text).unwrap();
        assert_eq!(text, "answer");
    }
}

#[test]
fn tcp_resets_pass_both_ways_and_an_end_is_not_a_reset() {
    let (_dir, mut backend) = usual();
    assert_endings(|near| stream(&mut backend, "5\n", &near));
    let (near, far) = tcp();
    let mut device = stream(&mut backend, "5\n", &near);
    sockopt::set_socket_linger(&far, Some(Duration::ZERO)).unwrap();
    drop(far);
    let broken = device.read(&mut [0]).unwrap_err();
    assert_eq!(broken.kind(), ErrorKind::ConnectionReset);
    let broken = device
        .read_vectored(&mut [IoSliceMut::new(&mut [0])])
        .unwrap_err();
    assert_eq!(broken.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn an_abort_ends_a_unix_socket_even_if_its_sender_keeps_it() {
    let (_dir, mut backend) = usual();
    let (near, mut far) = UnixStream::pair().unwrap();
    let mut device = stream(&mut backend, "5\n", &near);
    device.set_nonblocking(true).unwrap();
    let full = || device.write(&[7; 65_536]).is_err();
    wait_until(soon(), full).unwrap();
    device.abort();
    let mut got = Vec::new();
    far.set_read_timeout(Some(SOON)).unwrap();
    far.read_to_end(&mut got).unwrap();
    assert!(got.iter().all(|byte| *byte == 7));
}

#[test]
fn an_abort_resets_a_tcp_socket_even_if_its_sender_keeps_it() {
    let (_dir, mut backend) = usual();
    let (near, mut far) = tcp();
    stream(&mut backend, "5\n", &near).abort();
    let end = far.read(&mut [0]).unwrap_err();
    assert_eq!(end.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn an_abort_after_a_half_close_discards_waiting_bytes() {
    let (_dir, mut backend) = usual();
    let (mut reader, writer) = pipe().unwrap();
    let mut device = stream(&mut backend, "5\n", &writer);
    drop(writer);
    // More than the pipe holds, and no more than the socket pair holds in addition.
    device.write_all(&[7; 100_000]).unwrap();
    device.shutdown(Shutdown::Write).unwrap();
    // The guest is slow, so the thread has seen the half-close and waits for room.
    pace(Duration::from_millis(100)).unwrap();
    device.abort();
    let register = Arc::clone(&backend.register);
    wait_until(soon(), || register.enter(1).is_some()).unwrap();
    let mut got = Vec::new();
    reader.read_to_end(&mut got).unwrap();
    assert!(got.len() < 100_000, "{}", got.len());
}

#[test]
fn bytes_of_a_closed_stream_are_delivered_even_if_the_pipe_was_full() {
    let (_dir, mut backend) = usual();
    let (mut reader, writer) = pipe().unwrap();
    let mut device = stream(&mut backend, "5\n", &writer);
    drop(writer);
    device.set_nonblocking(true).unwrap();
    let mut sent = 0;
    while let Ok(len) = device.write(&[7; 10_000]) {
        sent += len;
    }
    drop(device);
    let mut got = Vec::new();
    reader.read_to_end(&mut got).unwrap();
    assert!(got.len() >= sent, "{} of {sent}", got.len());
}

#[test]
fn a_dropped_backend_waits_for_the_last_bytes_but_not_indefinitely() {
    let (_dir, mut backend) = usual();
    let (mut reader, writer) = pipe().unwrap();
    let mut device = stream(&mut backend, "5\n", &writer);
    drop(writer);
    device.write_all(&[7; 150_000]).unwrap();
    drop(device);
    let register = Arc::clone(&backend.register);
    let reads = std::thread::spawn(move || {
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        got.len()
    });
    let watch = Stopwatch::start();
    drop(backend);
    assert!(!register.is_owing() || watch.elapsed() >= LAST_BYTES);
    assert_eq!(reads.join().unwrap(), 150_000);
}

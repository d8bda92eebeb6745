// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Streams over passed descriptors, and the threads that pump their bytes.

use super::*;

#[test]
fn a_reading_end_of_a_pipe_can_only_be_read() {
    let (mut backend, _dir) = usual();
    let (reader, mut writer) = pipe().unwrap();
    let mut device = stream(&mut backend, "52\n", &reader);
    assert_eq!(device.requested_port(), Some(52));
    assert_eq!(device.backend_type(), VsockBackendType::HybridStream);
    let refused = || {
        device
            .write(b"x")
            .is_err_and(|error| error.kind() == ErrorKind::BrokenPipe)
    };
    wait_until(soon(), refused).unwrap();
    writer.write_all(b"hello").unwrap();
    drop(writer);
    let mut text = String::new();
    device.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    wait_until(soon(), || device.peer_gone()).unwrap();
}

#[test]
fn a_writing_end_of_a_pipe_can_only_be_written() {
    let (mut backend, _dir) = usual();
    let (mut reader, writer) = pipe().unwrap();
    let mut device = stream(&mut backend, "52", &writer);
    drop(writer);
    assert_eq!(device.read(&mut [0]).unwrap(), 0);
    let sent: Vec<u8> = (0..300_000_u32).map(|at| at.to_le_bytes()[0]).collect();
    let expected = sent.clone();
    let reads = std::thread::spawn(move || {
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        got
    });
    device.write_all(&sent).unwrap();
    drop(device);
    assert!(reads.join().unwrap() == expected);
}

#[test]
fn the_stream_ends_if_the_pipes_reader_leaves() {
    let (mut backend, _dir) = usual();
    let (reader, writer) = pipe().unwrap();
    let device = stream(&mut backend, "52\n", &writer);
    assert!(!device.peer_gone());
    drop(reader);
    wait_until(soon(), || device.peer_gone()).unwrap();
}

#[test]
fn a_file_is_read_and_written_at_its_offset() {
    let (mut backend, dir) = usual();
    let path = dir.path().join("file");
    fs::write(&path, "skipped, hello").unwrap();
    let mut file = File::open(&path).unwrap();
    file.seek(io::SeekFrom::Start(9)).unwrap();
    for keep in ["", " keep"] {
        file.seek(io::SeekFrom::Start(9)).unwrap();
        let mut device = stream(&mut backend, &format!("5{keep}\n"), &file);
        let mut text = String::new();
        device.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }
    let file = OpenOptions::new().append(true).open(&path).unwrap();
    let mut device = stream(&mut backend, "5\n", &file);
    device.write_all(b" and more").unwrap();
    drop(device);
    let written = || fs::read_to_string(&path).unwrap() == "skipped, hello and more";
    wait_until(soon(), written).unwrap();
}

#[test]
fn half_closes_pass_both_ways_over_a_socket() {
    let (mut backend, _dir) = usual();
    for unix in [true, false] {
        let (near, far): (OwnedFd, OwnedFd) = if unix {
            let (near, far) = UnixStream::pair().unwrap();
            (near.into(), far.into())
        } else {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            (near.into(), listener.accept().unwrap().0.into())
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
    let (mut backend, _dir) = usual();
    for abort in [true, false] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        let device = stream(&mut backend, "5\n", &near);
        drop(near);
        if abort {
            device.abort();
        } else {
            drop(device);
        }
        let end = far.read(&mut [0]).map_err(|error| error.kind());
        let expected = if abort {
            Err(ErrorKind::ConnectionReset)
        } else {
            Ok(0)
        };
        assert_eq!(end, expected);
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
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
    let (mut backend, _dir) = usual();
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

/// Returns both ends of a TCP connection.
fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    far.set_read_timeout(Some(SOON)).unwrap();
    (near, far)
}

#[test]
fn an_abort_resets_a_tcp_socket_even_if_its_sender_keeps_it() {
    let (mut backend, _dir) = usual();
    let (near, mut far) = tcp();
    stream(&mut backend, "5\n", &near).abort();
    let end = far.read(&mut [0]).unwrap_err();
    assert_eq!(end.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn an_abort_after_a_half_close_discards_waiting_bytes() {
    let (mut backend, _dir) = usual();
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
fn t119_messages_in_the_error_queue_of_a_tcp_socket_do_not_affect_the_stream() {
    let (mut backend, _dir) = usual();
    let (mut near, mut far) = tcp();
    let mut device = stream(&mut backend, "5\n", &near);
    // Request a software time stamp for each byte that is sent.
    let wanted = libc::SOF_TIMESTAMPING_TX_SOFTWARE | libc::SOF_TIMESTAMPING_SOFTWARE;
    let wanted = i32::try_from(wanted).unwrap();
    assert!(set_option(near.as_fd(), libc::SO_TIMESTAMPING, wanted));
    near.write_all(b"noted").unwrap();
    far.read_exact(&mut [0; 5]).unwrap();
    let settled = || {
        let mut fds = [PollFd::new(&near, PollFlags::empty())];
        poll(&mut fds, Some(&Timespec::default())).unwrap() == 0
    };
    wait_until(soon(), settled).unwrap();
    device.write_all(b"question").unwrap();
    let mut text = [0; 8];
    far.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"question");
    far.write_all(b"answer").unwrap();
    drop((near, far));
    let mut text = String::new();
    device.read_to_string(&mut text).unwrap();
    assert_eq!(text, "answer");
}

#[test]
fn bytes_of_a_closed_stream_are_delivered_even_if_the_pipe_was_full() {
    let (mut backend, _dir) = usual();
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
fn t124_neither_an_empty_nor_a_full_pipe_blocks_a_drop() {
    let (mut backend, _dir) = usual();
    let (empty, _writes) = pipe().unwrap();
    let (_reads, full) = pipe().unwrap();
    let quiet = stream(&mut backend, "5\n", &empty);
    let mut stuck = stream(&mut backend, "6\n", &full);
    stuck.set_nonblocking(true).unwrap();
    wait_until(soon(), || stuck.write(&[7; 65_536]).is_err()).unwrap();
    let watch = Stopwatch::start();
    drop(quiet);
    drop(stuck);
    drop(backend);
    assert!(
        watch.elapsed() < Duration::from_secs(5),
        "{:?}",
        watch.elapsed()
    );
}

#[test]
fn a_dropped_backend_waits_for_the_last_bytes_but_not_indefinitely() {
    let (mut backend, _dir) = usual();
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

#[test]
fn with_keep_a_fifo_can_have_one_reader_after_another() {
    let (mut backend, dir) = usual();
    let path = fifo(&dir);
    let first = open_fifo(&path, false);
    let writer = open_fifo(&path, true);
    let mut device = stream(&mut backend, "5 keep\n", &writer);
    drop(writer);
    let mut got = [0; 3];
    device.write_all(b"one").unwrap();
    wait_ready(first.as_raw_fd(), PollInterest::Read, soon()).unwrap();
    (&first).read_exact(&mut got).unwrap();
    drop(first);
    // The pump itself is a reader, so the FIFO can be opened for writing.
    drop(open_fifo(&path, true));
    // More than the FIFO holds.
    let sent = vec![7; 100_000];
    device.write_all(&sent).unwrap();
    assert!(!device.peer_gone());
    let mut second = open_fifo(&path, false);
    drop(device);
    let mut bytes = Vec::new();
    let all = || {
        let mut piece = [0; 4096];
        match second.read(&mut piece) {
            Ok(0) => true,
            Ok(len) => {
                bytes.extend_from_slice(&piece[..len]);
                false
            }
            Err(_) => false,
        }
    };
    wait_until(soon(), all).unwrap();
    assert!(bytes == sent);
}

#[test]
fn with_keep_a_fifo_can_have_one_writer_after_another() {
    let (mut backend, dir) = usual();
    let path = fifo(&dir);
    let reader = open_fifo(&path, false);
    let mut device = stream(&mut backend, "5 keep", &reader);
    drop(reader);
    let mut got = [0; 3];
    for text in [b"one", b"two"] {
        open_fifo(&path, true).write_all(text).unwrap();
        device.read_exact(&mut got).unwrap();
        assert_eq!(&got, text);
    }
    device.set_nonblocking(true).unwrap();
    let open = device.read(&mut got).unwrap_err();
    assert_eq!(open.kind(), ErrorKind::WouldBlock);
    drop(device);
    let pump_ended = || {
        OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&path)
            .is_err()
    };
    wait_until(soon(), pump_ended).unwrap();
}

#[test]
fn without_keep_a_fifo_ends_with_its_writer() {
    let (mut backend, dir) = usual();
    let path = fifo(&dir);
    let reader = open_fifo(&path, false);
    let writer = open_fifo(&path, true);
    let mut device = stream(&mut backend, "5\n", &reader);
    drop(writer);
    assert_eq!(device.read(&mut [0]).unwrap(), 0);
}

#[test]
fn t119_the_sender_can_change_the_flags_of_a_passed_descriptor() {
    let (mut backend, _dir) = usual();
    let (reader, writer) = pipe().unwrap();
    let flags = || rustix::fs::fcntl_getfl(&writer).unwrap();
    let before = flags();
    let mut device = stream(&mut backend, "5\n", &writer);
    assert_eq!(flags(), before);
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    // The pipe is full, and its sender makes it blocking while the thread waits.
    device.set_nonblocking(true).unwrap();
    wait_until(soon(), || device.write(&[7; 65_536]).is_err()).unwrap();
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    let mut reader = reader;
    let mut piece = [0; 65_536];
    for _ in 0..4 {
        reader.read_exact(&mut piece).unwrap();
        assert!(piece.iter().all(|byte| *byte == 7));
    }
    assert!(!flags().contains(OFlags::NONBLOCK));
}

#[test]
fn many_descriptors_in_turn_leave_no_thread_or_entry_behind() {
    let (mut backend, _dir) = usual();
    for number in 0..300_u32 {
        let (reader, mut writer) = pipe().unwrap();
        let mut device = stream(&mut backend, "5\n", &reader);
        writer.write_all(&number.to_le_bytes()).unwrap();
        let mut got = [0; 4];
        device.read_exact(&mut got).unwrap();
        assert_eq!(u32::from_le_bytes(got), number);
    }
    wait_until(soon(), || backend.register.enter(1).is_some()).unwrap();
}

#[test]
fn pumps_start_even_if_signals_are_already_blocked() {
    for signal in [libc::SIGPIPE, libc::SIGXFSZ] {
        vmm_sys_util::signal::block_signal(signal).unwrap();
    }
    let (mut backend, _dir) = usual();
    let (reader, writer) = pipe().unwrap();
    let device = stream(&mut backend, "5\n", &writer);
    drop(reader);
    wait_until(soon(), || device.peer_gone()).unwrap();
}

#[test]
fn the_first_step_precedes_all_descriptors_and_its_error_is_returned() {
    let (backend, _dir) = usual();
    let (tell, told) = std::sync::mpsc::channel();
    let first = move || {
        let name = std::thread::current().name().map(str::to_owned);
        tell.send(name).map_err(io::Error::other)
    };
    let mut backend = backend.on_thread_start(first).unwrap();
    let name = told.try_recv().unwrap();
    assert_eq!(name.as_deref(), Some("vsock-starter"));
    let (reader, mut writer) = pipe().unwrap();
    let mut device = stream(&mut backend, "5\n", &reader);
    writer.write_all(b"7").unwrap();
    device.read_exact(&mut [0]).unwrap();

    let refused = backend.on_thread_start(|| Err(ErrorKind::PermissionDenied.into()));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::PermissionDenied);
}

/// Returns a socket whose close blocks, and its peer.
fn lingering() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (peer, _) = listener.accept().unwrap();
    sockopt::set_socket_linger(&socket, Some(Duration::from_secs(30))).unwrap();
    socket.set_nonblocking(true).unwrap();
    while socket.write(&[0; 65_536]).is_ok() {}
    (socket, peer)
}

#[test]
fn t124_a_descriptor_whose_close_blocks_delays_nothing() {
    let (mut backend, _dir) = usual();
    let watch = Stopwatch::start();
    let (taken, _peer) = lingering();
    let device = stream(&mut backend, "5\n", &taken);
    drop(taken);
    drop(device);
    for (text, keep) in [("5\n", true), ("port\n", false)] {
        let (refused, _peer) = lingering();
        let other = File::open("/dev/null").unwrap();
        let client = connect(&backend);
        (&client).write_all(b"passfd\n").unwrap();
        let both: [&dyn AsFd; 2] = [&refused, &other];
        send_with(
            &client,
            text.as_bytes(),
            if keep { &both } else { &both[..1] },
        );
        drop(refused);
        assert_refused(&mut backend, &client);
    }
    assert!(
        watch.elapsed() < Duration::from_secs(10),
        "{:?}",
        watch.elapsed()
    );
}

#[test]
fn a_stream_supports_vectored_calls_and_downcasts() {
    let (mut backend, _dir) = usual();
    let (near, mut far) = UnixStream::pair().unwrap();
    let mut device = stream(&mut backend, "5\n", &near);
    let written = device.write_vectored(&[IoSlice::new(b"ab"), IoSlice::new(b"cd")]);
    assert_eq!(written.unwrap(), 4);
    device.flush().unwrap();
    let mut got = [0; 4];
    far.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"abcd");
    far.shutdown(Shutdown::Write).unwrap();
    assert_eq!(device.read(&mut []).unwrap(), 0);
    assert_eq!(device.read_vectored(&mut []).unwrap(), 0);
    assert_eq!(device.read(&mut got).unwrap(), 0, "an orderly end");
    assert_eq!(
        device.write_ready().unwrap().as_raw_fd(),
        device.as_raw_fd()
    );
    assert!(device.confirm(1).is_err(), "the client has been answered");
    assert!(device.as_any().is::<PassedStream>());
    assert!(device.as_any_mut().is_some());
    assert!(device.into_any().unwrap().is::<PassedStream>());
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which bytes pass through each kind of descriptor.

use super::*;

#[test]
fn a_reading_end_of_a_pipe_can_only_be_read() {
    let (_dir, mut backend) = usual();
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
    let (_dir, mut backend) = usual();
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
fn a_file_is_read_and_written_at_its_offset() {
    let (dir, mut backend) = usual();
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
fn t119_messages_in_the_error_queue_of_a_tcp_socket_do_not_affect_the_stream() {
    let (_dir, mut backend) = usual();
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
fn with_keep_a_fifo_can_have_one_reader_after_another() {
    let (dir, mut backend) = usual();
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
    let (dir, mut backend) = usual();
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
    let (dir, mut backend) = usual();
    let path = fifo(&dir);
    let reader = open_fifo(&path, false);
    let writer = open_fifo(&path, true);
    let mut device = stream(&mut backend, "5\n", &reader);
    drop(writer);
    assert_eq!(device.read(&mut [0]).unwrap(), 0);
}

#[test]
fn t119_the_sender_can_change_the_flags_of_a_passed_descriptor() {
    let (_dir, mut backend) = usual();
    let (reader, writer) = pipe().unwrap();
    let flags = || rustix::fs::fcntl_getfl(&writer).unwrap();
    let before = flags();
    let mut device = stream(&mut backend, "5\n", &writer);
    assert_eq!(flags(), before);
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    // The pipe is full, and its sender makes it blocking while the thread waits.
    device.set_nonblocking(true).unwrap();
    let mut sent = 0;
    let is_full = || match device.write(&[7; 65_536]) {
        Ok(len) => {
            sent += len;
            false
        }
        Err(_) => !is_writable(writer.as_raw_fd()).unwrap(),
    };
    wait_until(soon(), is_full).unwrap();
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    let mut reader = reader;
    let mut got = vec![0; sent];
    reader.read_exact(&mut got).unwrap();
    assert!(got.iter().all(|byte| *byte == 7));
    assert!(!flags().contains(OFlags::NONBLOCK));
}

#[test]
fn a_stream_supports_vectored_calls_and_downcasts() {
    let (_dir, mut backend) = usual();
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

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

use rustix::event::epoll::CreateFlags;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg, sockopt};
use tempfile::TempDir;
use vsock_compliance::poll::{Deadline, PollInterest, Stopwatch, pace, wait_ready, wait_until};

use super::*;
use crate::unix::guarded_socket::set_option;

const SOON: Duration = Duration::from_secs(20);

fn soon() -> Deadline {
    Deadline::after(SOON)
}

fn backend(config: PassFdConfig) -> (PassFdBackend, TempDir) {
    let dir = TempDir::new().unwrap();
    let backend = PassFdBackend::bind(dir.path().join("vm"), config).unwrap();
    (backend, dir)
}

fn usual() -> (PassFdBackend, TempDir) {
    backend(PassFdConfig::default())
}

fn connect(backend: &PassFdBackend) -> UnixStream {
    let client = UnixStream::connect(backend.path()).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    client
}

/// Returns the reading and the writing end of a pipe.
fn pipe() -> io::Result<(File, File)> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    Ok((reader.into(), writer.into()))
}

/// Sends bytes together with descriptors.
fn send_with(socket: &UnixStream, bytes: &[u8], files: &[&dyn AsFd]) {
    let files: Vec<_> = files.iter().map(|file| file.as_fd()).collect();
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
    let mut extras = SendAncillaryBuffer::new(&mut space);
    assert!(files.is_empty() || extras.push(SendAncillaryMessage::ScmRights(&files)));
    sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut extras,
        SendFlags::empty(),
    )
    .unwrap();
}

/// Connects a client and passes a descriptor.
fn pass(backend: &PassFdBackend, command: &str, file: &dyn AsFd) -> UnixStream {
    let mut client = connect(backend);
    client.write_all(b"passfd\n").unwrap();
    send_with(&client, command.as_bytes(), &[file]);
    client
}

/// Waits for the next stream.
fn accept(backend: &mut PassFdBackend) -> Box<dyn VsockStream> {
    loop {
        wait_ready(backend.as_raw_fd(), PollInterest::Read, soon()).unwrap();
        match backend.accept() {
            Ok(stream) => return stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Returns a confirmed stream over a passed descriptor.
fn stream(backend: &mut PassFdBackend, command: &str, file: &dyn AsFd) -> Box<dyn VsockStream> {
    let mut client = pass(backend, command, file);
    let mut device = accept(backend);
    device.confirm(1 << 30).unwrap();
    let mut line = String::new();
    client.read_to_string(&mut line).unwrap();
    assert_eq!(line, "OK 1073741824\n");
    device.set_nonblocking(false).unwrap();
    device.set_read_timeout(Some(SOON)).unwrap();
    device.set_write_timeout(Some(SOON)).unwrap();
    device
}

/// Checks that the client reads the end and that there is no stream.
fn assert_refused(backend: &mut PassFdBackend, mut client: &UnixStream) {
    client.set_nonblocking(true).unwrap();
    let refused = || {
        let accepted = backend.accept().map(drop).unwrap_err();
        assert_eq!(accepted.kind(), ErrorKind::WouldBlock);
        match client.read(&mut [0]) {
            Ok(len) => len == 0,
            // A reset, because bytes from the client were not read.
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    };
    wait_until(soon(), refused).unwrap();
}

fn fifo(dir: &TempDir) -> PathBuf {
    let path = dir.path().join("fifo");
    let name = CString::new(path.to_str().unwrap()).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &name,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    path
}

/// Opens one end of a FIFO without waiting for the other one.
fn open_fifo(path: &Path, write: bool) -> File {
    OpenOptions::new()
        .read(!write)
        .write(write)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .unwrap()
}

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
fn an_unsupported_descriptor_is_refused_and_the_client_reads_the_end() {
    let (mut backend, dir) = usual();
    let path = fifo(&dir);
    let both = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let place = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(&path)
        .unwrap();
    let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
    let inotify = rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::CLOEXEC).unwrap();
    let unconnected = rustix::net::socket(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::STREAM,
        None,
    )
    .unwrap();
    let refused: [&dyn AsFd; 9] = [
        &File::open(dir.path()).unwrap(),
        &File::open("/dev/null").unwrap(),
        &both,
        &place,
        &event,
        &inotify,
        &epoll::create(CreateFlags::CLOEXEC).unwrap(),
        &UnixListener::bind(dir.path().join("listener")).unwrap(),
        &UnixDatagram::pair().unwrap().0,
    ];
    for file in refused.into_iter().chain([&unconnected as &dyn AsFd]) {
        let client = pass(&backend, "5\n", file);
        assert_refused(&mut backend, &client);
    }
    let client = pass(&backend, "5 keep\n", &UnixStream::pair().unwrap().0);
    assert_refused(&mut backend, &client);
}

#[test]
fn t100_an_invalid_command_is_refused_and_its_descriptors_are_closed() {
    let (mut backend, _dir) = usual();
    for (parts, descriptors) in [
        (&["passfd\n", "port"][..], 1),
        (&["passfd\n", "4294967295\n"], 1),
        (&["passfd\n", "5 kept\n"], 1),
        (&["passfd\n", "5\n"], 2),
        (&["passfd\n", "5\n"], 64),
        (&["passfd\n", "5\nmore"], 1),
        (&["passfd\n", "5\n"], 0),
        (&["passfd\n", "55555555555555555555555555555555555555"], 0),
        // The descriptor must come with the port, not before it.
        (&["passfd\n"], 1),
    ] {
        let (mut reader, writer) = pipe().unwrap();
        let mut client = connect(&backend);
        let (last, first) = parts.split_last().unwrap();
        for part in first {
            client.write_all(part.as_bytes()).unwrap();
        }
        let files: Vec<&dyn AsFd> = vec![&writer; descriptors];
        send_with(&client, last.as_bytes(), &files);
        drop(files);
        drop(writer);
        assert_refused(&mut backend, &client);
        assert_eq!(reader.read(&mut [0]).unwrap(), 0, "{parts:?}");
    }
}

#[test]
fn t100_a_client_that_leaves_during_the_handshake_leaves_nothing_behind() {
    let (mut backend, _dir) = usual();
    let (mut reader, writer) = pipe().unwrap();
    let mut client = connect(&backend);
    client.write_all(b"passfd\n").unwrap();
    assert_eq!(
        backend.accept().err().unwrap().kind(),
        ErrorKind::WouldBlock
    );
    client.shutdown(Shutdown::Write).unwrap();
    assert_refused(&mut backend, &client);
    // A client that has passed a descriptor and does not wait for the answer.
    drop(pass(&backend, "5\n", &writer));
    drop(writer);
    let mut device = accept(&mut backend);
    assert!(device.peer_gone());
    device.confirm(1 << 30).unwrap_err();
    drop(device);
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    assert!(backend.clients.is_empty());
}

#[test]
fn a_command_can_arrive_in_pieces() {
    let (mut backend, _dir) = usual();
    let (_reader, writer) = pipe().unwrap();
    let mut client = connect(&backend);
    for part in ["PASS", "fd\n", "10", "24 ke"] {
        client.write_all(part.as_bytes()).unwrap();
        assert_eq!(
            backend.accept().err().unwrap().kind(),
            ErrorKind::WouldBlock
        );
    }
    send_with(&client, b"ep", &[&writer]);
    assert_eq!(accept(&mut backend).requested_port(), Some(1024));
    // Or all together.
    let client = connect(&backend);
    send_with(&client, b"passfd\n7\n", &[&writer]);
    assert_eq!(accept(&mut backend).requested_port(), Some(7));
}

#[test]
fn a_client_without_passfd_is_served_as_usual() {
    let (mut backend, _dir) = usual();
    for text in ["CONNECT 5\nhello", "p", "passport\n", ""] {
        let mut client = connect(&backend);
        client.write_all(text.as_bytes()).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut device = accept(&mut backend);
        assert_eq!(device.requested_port(), None);
        assert_eq!(device.backend_type(), VsockBackendType::UnixStream);
        let mut got = String::new();
        device.set_nonblocking(false).unwrap();
        device.read_to_string(&mut got).unwrap();
        assert_eq!(got, text);
    }
    let service = UnixListener::bind(backend.service_path(9)).unwrap();
    assert!(backend.listener(9).is_some());
    backend.connect(9).unwrap();
    service.accept().unwrap();
    assert!(backend.as_any().is::<PassFdBackend>());
    assert_eq!(backend.r#type(), VsockBackendType::HybridStream);
    backend.file_remover().remove();
    assert!(!backend.path().exists());
}

#[test]
fn t124_a_client_without_passfd_cannot_send_files() {
    let (mut backend, _dir) = usual();
    let mut client = connect(&backend);
    client.write_all(b"CONNECT 5\n").unwrap();
    let _device = accept(&mut backend);
    let (_reader, writer) = pipe().unwrap();
    let files = [writer.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut extras = SendAncillaryBuffer::new(&mut space);
    extras.push(SendAncillaryMessage::ScmRights(&files));
    let sent = sendmsg(
        &client,
        &[IoSlice::new(b"x")],
        &mut extras,
        SendFlags::empty(),
    );
    // Linux 6.16. On older kernels, a separate thread closes the files.
    if sockopt_knows_files() {
        assert_eq!(sent.unwrap_err(), Errno::PERM);
    }
}

fn sockopt_knows_files() -> bool {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = text
        .split('.')
        .map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(16))
}

#[test]
fn a_silent_client_is_refused_after_the_timeout_and_delays_no_other() {
    let timeout = Duration::from_millis(50);
    let (mut backend, _dir) = backend(PassFdConfig::default().command_timeout(timeout));
    let silent = connect(&backend);
    let mut slow = connect(&backend);
    slow.write_all(b"passfd\n1").unwrap();
    let (_reader, writer) = pipe().unwrap();
    let _passed = pass(&backend, "5\n", &writer);
    accept(&mut backend);
    for client in [&silent, &slow] {
        assert_refused(&mut backend, client);
    }
    assert!(backend.clients.is_empty());
    // The timer is set again for the next client.
    let late = connect(&backend);
    assert_refused(&mut backend, &late);
}

#[test]
fn the_oldest_silent_client_makes_room() {
    let (mut backend, _dir) = backend(PassFdConfig::default().max_waiting(2));
    let clients = [(); 3].map(|()| connect(&backend));
    assert_refused(&mut backend, &clients[0]);
    assert_eq!(backend.clients.len(), 2);
    let (_reader, writer) = pipe().unwrap();
    let _passed = pass(&backend, "5\n", &writer);
    accept(&mut backend);
}

#[test]
fn a_descriptor_beyond_the_limit_is_refused() {
    let (mut backend, _dir) = backend(PassFdConfig::default().max_streams(1));
    let (_reader, writer) = pipe().unwrap();
    let (mut other_reader, other) = pipe().unwrap();
    let device = stream(&mut backend, "5\n", &writer);
    let client = pass(&backend, "6\n", &other);
    drop(other);
    assert_refused(&mut backend, &client);
    assert_eq!(other_reader.read(&mut [0]).unwrap(), 0);
    drop(device);
    let free = || backend.register.enter(1).is_some();
    wait_until(soon(), free).unwrap();
    stream(&mut backend, "5\n", &writer);
}

#[test]
fn a_field_out_of_range_is_refused() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("vm");
    let refused = PassFdBackend::bind(&path, PassFdConfig::default().max_streams(0));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert!(!path.exists());
}

#[test]
fn a_client_can_pass_its_own_socket() {
    let (mut backend, _dir) = usual();
    let client = connect(&backend);
    (&client).write_all(b"passfd\n").unwrap();
    send_with(&client, b"5\n", &[&client]);
    let mut device = accept(&mut backend);
    device.confirm(1 << 30).unwrap();
    device.set_nonblocking(false).unwrap();
    device.set_read_timeout(Some(SOON)).unwrap();
    let mut text = String::new();
    device.read_to_string(&mut text).unwrap();
    assert_eq!(text, "OK 1073741824\n", "the client reads the answer");
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

#[test]
fn clients_of_a_passed_listener_can_pass_descriptors() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("vm");
    let manager = UnixListener::bind(&path).unwrap();
    let socket = manager.try_clone().unwrap().into();
    let config = PassFdConfig::default();
    let mut backend = PassFdBackend::from_socket(socket, &path, config).unwrap();
    let (reader, mut writer) = pipe().unwrap();
    let mut device = stream(&mut backend, "5\n", &reader);
    writer.write_all(b"7").unwrap();
    device.read_exact(&mut [0]).unwrap();
    drop(backend);
    assert!(path.exists());
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

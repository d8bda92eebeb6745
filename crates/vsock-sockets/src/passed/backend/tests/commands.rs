// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Commands with descriptors: what is accepted, what is refused, and when a client is closed.

use super::*;

#[test]
fn an_unsupported_descriptor_is_refused_and_the_client_reads_the_end() {
    let (dir, mut backend) = usual();
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
    let (_dir, mut backend) = usual();
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
    let (_dir, mut backend) = usual();
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
    let (_dir, mut backend) = usual();
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
    let (_dir, mut backend) = usual();
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
    let (_dir, mut backend) = usual();
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
    let (_dir, mut backend) = backend(PassFdConfig::default().command_timeout(timeout));
    let silent = connect(&backend);
    let mut slow = connect(&backend);
    slow.write_all(b"passfd\n1").unwrap();
    let none = backend.accept().map(drop).unwrap_err();
    assert_eq!(none.kind(), ErrorKind::WouldBlock);
    // On a busy machine, the other client may need longer.
    backend.config.command_timeout = SOON;
    let (_reader, writer) = pipe().unwrap();
    let _passed = pass(&backend, "5\n", &writer);
    accept(&mut backend);
    for client in [&silent, &slow] {
        assert_refused(&mut backend, client);
    }
    assert!(backend.clients.is_empty());
    // The timer is set again for the next client.
    backend.config.command_timeout = timeout;
    let late = connect(&backend);
    assert_refused(&mut backend, &late);
}

#[test]
fn t108_a_command_that_came_before_the_refusal_is_served_even_if_it_is_read_late() {
    let (_dir, mut backend) = usual();
    let silent = connect(&backend);
    let mut passing = connect(&backend);
    passing.write_all(b"passfd\n").unwrap();
    let mut plain = connect(&backend);
    plain.write_all(b"pass").unwrap();
    let none = backend.accept().map(drop).unwrap_err();
    assert_eq!(none.kind(), ErrorKind::WouldBlock);
    assert_eq!(backend.clients.len(), 3);
    // The guest is paused, so the device accepts no client, and meanwhile the timer fires.
    for client in backend.clients.values_mut() {
        client.until = Some(Instant::now());
    }
    backend.timer.has_fired();
    backend.set_timer();
    wait_ready(backend.as_raw_fd(), PollInterest::Read, soon()).unwrap();
    let (_reader, writer) = pipe().unwrap();
    send_with(&passing, b"5\n", &[&writer]);
    plain.write_all(b"\n").unwrap();
    let mut ports = [(); 2].map(|()| accept(&mut backend).requested_port());
    ports.sort_unstable();
    assert_eq!(ports, [None, Some(5)]);
    assert_refused(&mut backend, &silent);
    assert!(backend.clients.is_empty());
}

#[test]
fn the_oldest_silent_client_makes_room() {
    let (_dir, mut backend) = backend(PassFdConfig::default().max_waiting(2));
    let clients = [(); 3].map(|()| connect(&backend));
    assert_refused(&mut backend, &clients[0]);
    assert_eq!(backend.clients.len(), 2);
    let (_reader, writer) = pipe().unwrap();
    let _passed = pass(&backend, "5\n", &writer);
    accept(&mut backend);
}

#[test]
fn t108_a_command_that_has_arrived_but_was_not_read_does_not_make_room() {
    for command in ["passfd\n", "pass 5\n"] {
        let (_dir, mut backend) = backend(PassFdConfig::default().max_waiting(1));
        let mut first = connect(&backend);
        let (part, rest) = command.split_at(3);
        first.write_all(part.as_bytes()).unwrap();
        let none = backend.accept().map(drop).unwrap_err();
        assert_eq!(none.kind(), ErrorKind::WouldBlock);
        // The device accepts no client while its guest is paused.
        let second = connect(&backend);
        first.write_all(rest.as_bytes()).unwrap();
        let (_reader, writer) = pipe().unwrap();
        if command == "passfd\n" {
            send_with(&first, b"5\n", &[&writer]);
        }
        accept(&mut backend);
        assert_eq!(backend.clients.len(), 1, "{second:?} still waits");
    }
}

#[test]
fn a_client_that_has_sent_its_command_does_not_make_room() {
    let (_dir, mut backend) = backend(PassFdConfig::default().max_waiting(1));
    let held = backend.starter.hold();
    let (_reader, writer) = pipe().unwrap();
    let _passed = pass(&backend, "5\n", &writer);
    let silent = [(); 3].map(|()| connect(&backend));
    for client in &silent[..2] {
        assert_refused(&mut backend, client);
    }
    assert_eq!(backend.clients.len(), 2);
    drop(held);
    accept(&mut backend);
}

#[test]
fn a_descriptor_beyond_the_limit_is_refused() {
    let (_dir, mut backend) = backend(PassFdConfig::default().max_streams(1));
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
    let (_dir, mut backend) = usual();
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

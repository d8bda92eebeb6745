// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::cell::Cell;
use std::io::{IoSlice, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, socketpair};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;
use vm_memory::VolatileSlice;
use vsock_backend_api::{
    Received, Record, VsockBackend, VsockMessages, VsockStream, VsockVolatileStream,
};
use vsock_compliance::poll::Stopwatch;
use vsock_driver::lingering;

use super::*;
use crate::{UnixBackend, UnixSeqpacketBackend, UnixSeqpacketStream, UnixVsockStream};

thread_local! {
    static OLD: Cell<bool> = const { Cell::new(false) };
}

/// Returns whether this thread simulates a kernel that cannot refuse files.
pub(super) fn is_old() -> bool {
    OLD.get()
}

/// Makes this thread simulate a kernel that cannot refuse files.
fn age() {
    OLD.set(true);
}

/// Returns the version of the kernel.
fn kernel() -> (u32, u32) {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = text.split('.').map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// How long a close blocks if the peer does not read.
const LINGER: Duration = Duration::from_secs(30);
/// A call that does not block takes less than this, even on the slowest machine.
const SOON: Duration = Duration::from_secs(5);

/// Sends bytes together with a file.
pub(in crate::unix) fn pass(
    socket: &impl AsFd,
    bytes: &[u8],
    file: &impl AsFd,
    how: SendFlags,
) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut extras = SendAncillaryBuffer::new(&mut space);
    let files = [file.as_fd()];
    assert!(extras.push(SendAncillaryMessage::ScmRights(&files)));
    net::sendmsg(socket, &[IoSlice::new(bytes)], &mut extras, how).map(drop)
}

/// Sends bytes together with a socket whose close blocks, and keeps no other descriptor of that
/// socket. Returns its peer.
fn pass_lingering(socket: &impl AsFd, bytes: &[u8]) -> TcpStream {
    let (file, peer) = lingering(LINGER);
    pass(socket, bytes, &file, SendFlags::empty()).unwrap();
    peer
}

fn pair(socket_type: SocketType) -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::CLOEXEC;
    socketpair(AddressFamily::UNIX, socket_type, flags, None).unwrap()
}

fn streams() -> (UnixVsockStream, UnixStream) {
    let (near, far) = pair(SocketType::STREAM);
    (UnixVsockStream::new(near.into()), far.into())
}

fn messages() -> (UnixSeqpacketStream, OwnedFd) {
    let (near, far) = pair(SocketType::SEQPACKET);
    (UnixSeqpacketStream::new(near).unwrap(), far)
}

fn send(socket: &impl AsFd, message: &[u8]) {
    net::send(socket, message, SendFlags::empty()).unwrap();
}

/// Returns a file whose close does not block.
fn file() -> UnixStream {
    UnixStream::pair().unwrap().0
}

/// Does `work`, which must not block, and checks that another connection is read soon after.
fn without_delay<T>(work: impl FnOnce() -> T) -> T {
    let (mut other, sender) = streams();
    send(&sender, b"x");
    let started = Stopwatch::start();
    let done = work();
    assert_eq!(other.read(&mut [0]).unwrap(), 1);
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    done
}

fn unconnected(socket_type: SocketType) -> OwnedFd {
    net::socket_with(AddressFamily::UNIX, socket_type, SocketFlags::CLOEXEC, None).unwrap()
}

fn connected(path: &Path, socket_type: SocketType) -> OwnedFd {
    let client = unconnected(socket_type);
    net::connect(&client, &SocketAddrUnix::new(path).unwrap()).unwrap();
    client
}

#[track_caller]
fn assert_reset(read: io::Result<usize>) {
    assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

type Backend = Box<dyn VsockBackend>;

/// Returns both backends at a path, each with a client.
fn backends(dir: &TempDir) -> [(Backend, OwnedFd); 2] {
    let path = dir.path().join("vm");
    let streams = UnixBackend::bind(&path).unwrap();
    let messages = UnixSeqpacketBackend::bind(&path).unwrap();
    let first = connected(streams.path(), SocketType::STREAM);
    let second = connected(messages.path(), SocketType::SEQPACKET);
    [(Box::new(streams), first), (Box::new(messages), second)]
}

#[test]
fn t124_the_kernel_refuses_files_on_all_sockets() {
    let dir = TempDir::new().unwrap();
    let expected = if kernel() < (6, 16) {
        Ok(())
    } else {
        Err(Errno::PERM)
    };
    let refused = |socket: &dyn AsFd| {
        let socket = socket.as_fd();
        let sent = pass(&socket, b"x", &socket, SendFlags::empty());
        assert_eq!(sent, expected);
    };
    for (mut backend, client) in backends(&dir) {
        refused(&client);
        let _accepted = backend.accept().unwrap();
        refused(&client);
    }
    for socket_type in [SocketType::STREAM, SocketType::SEQPACKET] {
        let path = dir.path().join("service");
        let service = unconnected(socket_type);
        net::bind(&service, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        net::listen(&service, 1).unwrap();
        let _dialled = GuardedSocket::connect(&path, socket_type).unwrap();
        refused(&net::accept(&service).unwrap());
        std::fs::remove_file(path).unwrap();
    }
    let (_stream, far) = streams();
    refused(&far);
    let (_messages, far) = messages();
    refused(&far);
}

#[test]
fn t124_reading_bytes_with_a_file_does_not_block() {
    age();
    type ReadOne = fn(&mut UnixVsockStream, &mut [u8; 2]) -> usize;
    let plain: ReadOne = |stream, buffer| stream.read(buffer).unwrap();
    let vectored: ReadOne = |stream, buffer| {
        let (one, two) = buffer.split_at_mut(1);
        let mut both = [IoSliceMut::new(one), IoSliceMut::new(two)];
        stream.read_vectored(&mut both).unwrap()
    };
    let volatile: ReadOne = |stream, buffer| {
        let place = VolatileSlice::from(&mut buffer[..]);
        stream.read_volatile_vectored(&[place]).unwrap()
    };
    for read in [plain, vectored, volatile] {
        let (mut near, far) = streams();
        let peer = pass_lingering(&far, b"ab");
        let mut got = [0; 2];
        assert_eq!(without_delay(|| read(&mut near, &mut got)), 2);
        assert_eq!(&got, b"ab");
        drop(peer);
    }
}

#[test]
fn t124_receiving_a_message_with_a_file_does_not_block() {
    age();
    let (mut near, far) = messages();
    for message in [&b"ab"[..], b""] {
        let peer = pass_lingering(&far, message);
        let mut buffer = [0; 8];
        let got = without_delay(|| near.receive_message(&mut buffer).unwrap());
        let expected = Received::Message {
            len: message.len(),
            record: Record::Continues,
        };
        assert_eq!(got, expected);
        drop(peer);
    }
    drop(far);
    assert_eq!(near.receive_message(&mut [0]).unwrap(), Received::End);
}

#[test]
fn t124_a_file_with_an_out_of_band_byte_does_not_block() {
    age();
    let (mut near, far) = streams();
    near.set_read_timeout(Some(2 * SOON)).unwrap();
    let (file, peer) = lingering(LINGER);
    pass(&far, b"a", &file, SendFlags::OOB).unwrap();
    drop(file);
    (&far).write_all(b"b").unwrap();
    let mut got = [0; 2];
    without_delay(|| near.read_exact(&mut got).unwrap());
    assert_eq!(&got, b"ab");
    drop(peer);
}

#[test]
fn t124_no_more_files_are_received_while_too_many_wait() {
    age();
    let (mut near, far) = streams();
    let _peer = pass_lingering(&far, b"x");
    let file = file();
    while !closer::is_busy() {
        assert_eq!(near.read(&mut [0]).unwrap(), 1);
        pass(&far, b"x", &file, SendFlags::empty()).unwrap();
    }
    let mut got = [0; 8];
    // Bytes without files are received, and no byte that comes with a file.
    let (mut near, far) = streams();
    send(&far, b"abc");
    assert_eq!(near.read(&mut got).unwrap(), 3);
    pass(&far, b"d", &file, SendFlags::empty()).unwrap();
    assert_reset(near.read(&mut got));
    let (mut near, far) = messages();
    send(&far, b"abc");
    pass(&far, b"d", &file, SendFlags::empty()).unwrap();
    assert_eq!(near.read(&mut got).unwrap(), 3);
    assert_reset(near.read(&mut got));
    // A peer that leaves without reading does not take back what it has sent.
    let (mut near, far) = messages();
    near.write_all(b"unread").unwrap();
    send(&far, b"abc");
    drop(far);
    assert_eq!(near.read(&mut got).unwrap(), 3);
    assert_reset(near.read(&mut got));
}

#[test]
fn t124_connections_with_unread_files_use_up_no_descriptors() {
    age();
    // More than the usual limit are needed. A higher limit has no effect on other tests.
    let limit = getrlimit(Resource::Nofile);
    let current = limit.maximum;
    setrlimit(Resource::Nofile, Rlimit { current, ..limit }).unwrap();
    let dir = TempDir::new().unwrap();
    let mut backend = UnixBackend::bind(dir.path().join("vm")).unwrap();
    let _service = UnixListener::bind(backend.service_path(1)).unwrap();
    let (near, far) = streams();
    let _peer = pass_lingering(&far, b"x");
    drop(near);
    let file = file();
    let refused = (0..2 * closer::MOST).find_map(|_| {
        let client = connected(backend.path(), SocketType::STREAM);
        pass(&client, b"x", &file, SendFlags::empty()).unwrap();
        backend.accept().map(drop).err()
    });
    let refused = refused
        .expect("every connection has used a descriptor")
        .raw_os_error();
    assert_eq!(refused, Some(Errno::NOBUFS.raw_os_error()));
    let refused = backend.connect(1).map(drop).unwrap_err().raw_os_error();
    assert_eq!(refused, Some(Errno::NOBUFS.raw_os_error()));
    // Existing connections still work.
    without_delay(|| ());
}

#[test]
fn t124_received_files_are_closed() {
    age();
    let (mut near, far) = streams();
    let (mut passed, end) = UnixStream::pair().unwrap();
    let ends = [(); 3].map(|()| end.try_clone().unwrap());
    for end in ends {
        pass(&far, b"x", &end, SendFlags::empty()).unwrap();
        assert_eq!(near.read(&mut [0; 8]).unwrap(), 1);
    }
    drop(end);
    assert_eq!(passed.read(&mut [0]).unwrap(), 0, "all copies are closed");
}

#[test]
fn t124_dropping_a_stream_with_a_file_in_its_queue_does_not_block() {
    age();
    let (near, far) = streams();
    let peer = pass_lingering(&far, b"x");
    without_delay(|| drop(near));
    // The end, or a reset if the other thread has already begun to close the socket.
    let end = (&far).read(&mut [0]).map_err(|error| error.kind());
    assert!(
        matches!(end, Ok(0) | Err(ErrorKind::ConnectionReset)),
        "{end:?}"
    );
    let late = (&far).write(b"x").unwrap_err();
    assert_eq!(late.kind(), ErrorKind::BrokenPipe);
    drop(peer);
    let (near, far) = messages();
    // The kernel does not count messages without bytes as readable.
    let peer = pass_lingering(&far, b"");
    without_delay(|| drop(near));
    drop(peer);
}

#[test]
fn t124_dropping_a_stream_without_files_closes_it_immediately() {
    age();
    for bytes in [0, 1, 3 * LOOK / 2] {
        let (near, mut far) = streams();
        far.write_all(&vec![7; bytes]).unwrap();
        drop(near);
        let end = far.read(&mut [0]);
        if bytes == 0 {
            assert_eq!(end.unwrap(), 0);
        } else {
            assert_reset(end);
        }
    }
    let (near, far) = messages();
    let mut far = UnixSeqpacketStream::new(far).unwrap();
    for message in [&b""[..], b"a", b"", b""] {
        let message = [IoSlice::new(message)];
        far.send_message(&message, Record::Ends).unwrap();
    }
    drop(near);
    assert_reset(far.read(&mut [0]));
}

#[test]
fn t124_after_the_check_for_files_no_more_bytes_arrive() {
    age();
    let (near, mut far) = UnixStream::pair().unwrap();
    let near = GuardedSocket::given(near.into());
    assert!(!near.holds_files());
    let late = far.write(b"x").unwrap_err();
    assert_eq!(late.kind(), ErrorKind::BrokenPipe);
    far.set_nonblocking(true).unwrap();
    let open = far.read(&mut [0]).unwrap_err();
    assert_eq!(open.kind(), ErrorKind::WouldBlock);
}

#[test]
fn t124_a_file_is_found_anywhere_in_the_queue() {
    age();
    for (before, after) in [(0, 0), (1, 0), (3 * LOOK / 2, 1)] {
        let (near, mut far) = UnixStream::pair().unwrap();
        far.write_all(&vec![7; before]).unwrap();
        pass(&far, b"x", &file(), SendFlags::empty()).unwrap();
        far.write_all(&vec![7; after]).unwrap();
        assert!(GuardedSocket::given(near.into()).holds_files(), "{before}");
    }
    for before in [&[][..], &[&b""[..], b""], &[b"a", b"", b"b"]] {
        let (near, far) = pair(SocketType::SEQPACKET);
        sockopt::set_socket_passcred(&near, true).unwrap();
        for message in before {
            send(&far, message);
        }
        pass(&far, b"", &file(), SendFlags::empty()).unwrap();
        assert!(GuardedSocket::given(near).holds_files(), "{before:?}");
    }
}

#[test]
fn t124_a_file_sent_before_the_stream_was_created_does_not_block_it() {
    let (near, far) = pair(SocketType::STREAM);
    let peers = [(); 2].map(|()| pass_lingering(&far, b"x"));
    let mut near = UnixVsockStream::new(near.into());
    without_delay(|| assert_eq!(near.read(&mut [0]).unwrap(), 1));
    without_delay(|| drop(near));
    drop(peers);
}

#[test]
fn t124_dropping_a_backend_with_waiting_clients_does_not_block() {
    age();
    let dir = TempDir::new().unwrap();
    for (backend, client) in backends(&dir) {
        let peer = pass_lingering(&client, b"x");
        without_delay(|| drop(backend));
        drop(peer);
    }
    drop(UnixBackend::bind(dir.path().join("vm")).unwrap());
}

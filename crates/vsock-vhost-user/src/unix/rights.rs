// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Sockets that accept no files (`SCM_RIGHTS`), and what becomes of files that come nevertheless.
//!
//! A file that comes with a message is closed by the thread that takes the message, or that closes the
//! socket while the message is in its queue. A close may wait, for as long as the sender of the file likes. On
//! the thread that moves the bytes of a guest that would be the end of its traffic.
//!
//! Since 6.16 Linux can refuse files: then the sender gets an error (`EPERM`). Where it cannot,
//! messages are received with room for files, and files, and sockets with files in their queue, are
//! closed on a [thread of their own](crate::closer). If too many wait for it, a connection that brings more
//! is reset, and its files stay in its queue; if far too many do, no other connection is taken in. Without a
//! descriptor left there is no room: the system then closes the file while the message is received, and that
//! may wait.

#![expect(
    unsafe_code,
    reason = "no safe wrapper knows the option, or finds files for pieces of guest memory"
)]

use std::io::{self, ErrorKind, IoSliceMut};
use std::mem::{ManuallyDrop, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::slice;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    self, AddressFamily, RecvAncillaryBuffer, RecvFlags, ReturnFlags, Shutdown, SocketAddrUnix,
    SocketFlags, SocketType, sockopt,
};

use crate::closer;

/// Whether a socket takes files (Linux 6.16).
const SO_PASSRIGHTS: libc::c_int = 83;

/// Bytes of a queue that one look covers.
const LOOK: usize = 64 * 1024;

/// Looks at a queue at most. A socket with more messages is left to the thread that closes.
const LOOKS: usize = 1024;

/// Bytes for all the files that a message can have (253), and for the credentials before them.
const LEN: u16 = 1088;
pub(super) const ROOM: usize = LEN as usize;
const _: () = assert!(rustix::cmsg_space!(ScmCredentials(1), ScmRights(253)) <= ROOM);

/// Which files may be in a socket's queue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Files {
    /// None: the system has refused them from the socket's first moment on.
    Refused,
    /// Those that came before the socket was handed over. The system refuses others.
    Earlier,
    /// Whatever a peer sends.
    Any,
}

/// A socket whose close does not wait, whatever its peer has sent to it.
#[derive(Debug)]
pub(crate) struct Guarded {
    socket: ManuallyDrop<OwnedFd>,
    files: Files,
}

impl Guarded {
    /// A socket that is not connected yet. It does not block if `flags` say so.
    pub(crate) fn new(socket_type: SocketType, flags: SocketFlags) -> Result<Self, Errno> {
        let flags = flags | SocketFlags::CLOEXEC;
        let socket = net::socket_with(AddressFamily::UNIX, socket_type, flags, None)?;
        let files = if refuse(socket.as_fd()) {
            Files::Refused
        } else {
            Files::Any
        };
        Ok(Self::with(socket, files))
    }

    /// A socket that somebody else has made, to which messages may have been sent.
    pub(super) fn given(socket: OwnedFd) -> Self {
        let files = if !refuse(socket.as_fd()) {
            Files::Any
        } else if has_come(&socket) {
            Files::Earlier
        } else {
            Files::Refused
        };
        Self::with(socket, files)
    }

    /// A listener whose connections are to bring files.
    pub(crate) fn listener(socket: OwnedFd) -> Self {
        let (socket, files) = (ManuallyDrop::new(socket), Files::Any);
        Self { socket, files }
    }

    fn with(socket: OwnedFd, files: Files) -> Self {
        if files != Files::Refused {
            // A byte out of band, and the file with it, would be dropped by the read that steps over it. What
            // has no such bytes does not know the option.
            let _unknown = sockopt::set_socket_oobinline(&socket, true);
        }
        let socket = ManuallyDrop::new(socket);
        Self { socket, files }
    }

    /// Connects without waiting: `AGAIN` if the backlog of the listener is full.
    pub(crate) fn connect(path: &Path, socket_type: SocketType) -> Result<Self, Errno> {
        let address = SocketAddrUnix::new(path)?;
        let socket = Self::new(socket_type, SocketFlags::NONBLOCK)?;
        loop {
            match net::connect(&socket, &address) {
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
                Ok(()) => return Ok(socket),
            }
        }
    }

    /// As [`connect`](Self::connect), for a guest: `NOBUFS` if too many sockets wait to be closed.
    pub(super) fn dial(path: &Path, socket_type: SocketType) -> Result<Self, Errno> {
        check_room()?;
        Self::connect(path, socket_type)
    }

    /// Accepts without waiting, from a listener: what this one refuses, its connections do. `NOBUFS` if too
    /// many sockets wait to be closed.
    pub(super) fn accept(&self) -> Result<Self, Errno> {
        check_room()?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = net::accept_with(self, flags)?;
        Ok(Self::with(socket, self.files))
    }

    /// Whether a message may come with files, which its receiver then hands to [`closer`].
    pub(super) fn may_bring_files(&self) -> bool {
        self.files != Files::Refused
    }

    /// Whether a close may close files that lie in the queue.
    fn holds_files(&self) -> bool {
        if self.files == Files::Refused {
            return false;
        }
        if self.files == Files::Any {
            // From here on nothing else comes. The peer does not see an end yet: where bytes are unread, the
            // close is a reset. (A socket without a peer cannot be shut down, and need not be.)
            let _alone = net::shutdown(self, Shutdown::Read);
        }
        if sockopt::socket_acceptconn(self) != Ok(false) {
            return self.holds_sockets();
        }
        if !look_from_the_front(self.as_fd()) {
            return true;
        }
        let mut buffer = vec![0; LOOK];
        for _ in 0..LOOKS {
            match self.look(&mut buffer, RecvFlags::DONTWAIT) {
                Ok(seen) if seen.files => return true,
                // An empty message has credentials, the end has none.
                Ok(seen) if seen.bytes == 0 && !seen.credentials => return false,
                // A reset is told once, before what is in the queue.
                Ok(_) | Err(Errno::CONNRESET) => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// Whether sockets wait in the queue of a listener that was shut down, each with a queue of its own. That
    /// is seen by taking one.
    fn holds_sockets(&self) -> bool {
        match net::accept_with(self, SocketFlags::CLOEXEC) {
            Ok(first) => {
                drop(Self::with(first, Files::Any));
                true
            }
            Err(error) => error != Errno::INVAL,
        }
    }

    /// How many bytes, of so many at most, can be read before files come.
    ///
    /// # Errors
    ///
    /// Those of a read, and `ConnectionReset`: there are files in the queue. (A look may see those of later
    /// bytes, too.)
    pub(super) fn bytes_without_files(&self, most: usize) -> io::Result<usize> {
        let seen = self.look(&mut vec![0; most.min(LOOK)], RecvFlags::empty())?;
        if seen.files {
            let message = "files have come, and too many wait to be closed already";
            return Err(io::Error::new(ErrorKind::ConnectionReset, message));
        }
        Ok(seen.bytes)
    }

    /// Looks at what is next, and takes nothing.
    fn look(&self, buffer: &mut [u8], flags: RecvFlags) -> Result<Seen, Errno> {
        // Room for credentials, if there are any, and none for files: they are cut off.
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
        let room = match sockopt::socket_passcred(self) {
            Ok(true) => &mut room[..],
            _ => &mut [],
        };
        let mut credentials = RecvAncillaryBuffer::new(room);
        let mut buffers = [IoSliceMut::new(buffer)];
        let flags = flags | RecvFlags::PEEK;
        let message = net::recvmsg(self, &mut buffers, &mut credentials, flags)?;
        Ok(Seen {
            bytes: message.bytes,
            files: message.flags.contains(ReturnFlags::CTRUNC),
            credentials: credentials.drain().count() > 0,
        })
    }
}

/// Whether another socket may come to wait for the thread that closes.
fn check_room() -> Result<(), Errno> {
    if closer::is_full() {
        return Err(Errno::NOBUFS);
    }
    Ok(())
}

/// What is next in a queue.
struct Seen {
    bytes: usize,
    files: bool,
    credentials: bool,
}

/// Whether anything may be in the queue of a socket that refuses files by now.
fn has_come(socket: &OwnedFd) -> bool {
    // A sender that was not refused has put its message into the queue before it gives the socket's lock back:
    // to ask for the peer takes it.
    let _peer = net::getpeername(socket);
    let mut fds = [PollFd::new(socket, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())) != Ok(0)
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let wait = self.holds_files();
        // SAFETY: it is taken once, here, and not used after that.
        let socket = unsafe { ManuallyDrop::take(&mut self.socket) };
        if wait {
            // The peer need not wait for the end.
            let _alone = net::shutdown(&socket, Shutdown::Both);
            closer::close(socket);
        }
    }
}

impl AsFd for Guarded {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Guarded {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Lets the system refuse files that are sent to the socket from now on. Whether it does.
fn refuse(socket: BorrowedFd<'_>) -> bool {
    #[cfg(test)]
    if tests::is_old() {
        return false;
    }
    set_option(socket, SO_PASSRIGHTS, 0)
}

/// Lets each look begin where the last one ended. Whether it does.
fn look_from_the_front(socket: BorrowedFd<'_>) -> bool {
    set_option(socket, libc::SO_PEEK_OFF, 0)
}

fn set_option(socket: BorrowedFd<'_>, option: libc::c_int, value: libc::c_int) -> bool {
    let len = libc::socklen_t::from(4_u8);
    let value = (&raw const value).cast();
    // SAFETY: the value is an int, of this length, and lives until the call returns.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, value, len) };
    set == 0
}

/// Room for what comes with the bytes of a message, aligned for its headers.
pub(super) struct Room([MaybeUninit<u64>; ROOM / size_of::<u64>()]);

impl Room {
    pub(super) const fn new() -> Self {
        Self([MaybeUninit::uninit(); ROOM / size_of::<u64>()])
    }

    /// Lets the next `recvmsg` put files here. The room must live, and stay where it is, until
    /// [`take_files`].
    pub(super) fn offer(&mut self, message: &mut libc::msghdr) {
        message.msg_control = self.0.as_mut_ptr().cast();
        // The C libraries differ in the type, and a `u16` becomes either.
        message.msg_controllen = LEN.into();
    }
}

/// The files that came with a message.
///
/// # Safety
///
/// A `recvmsg` has filled the message, its [`Room`] still exists, and the files are taken only once.
pub(super) unsafe fn take_files(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut files = Vec::new();
    // SAFETY: the caller's room has whole headers, as the kernel has written them.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: null, or a header in the caller's room, which is aligned for it.
    while let Some(header) = unsafe { next.as_ref() } {
        if (header.cmsg_level, header.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: arithmetic.
            let before = unsafe { libc::CMSG_LEN(0) };
            let len = number(header.cmsg_len).saturating_sub(number(before));
            // SAFETY: the data follows the header.
            let start = unsafe { libc::CMSG_DATA(next) };
            // SAFETY: the kernel has written as many bytes as the header's length says.
            let bytes = unsafe { slice::from_raw_parts(start, len) };
            for bytes in bytes.as_chunks().0 {
                let number = RawFd::from_ne_bytes(*bytes);
                // SAFETY: the kernel has just made it for us, and the caller takes it once.
                files.push(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
        // SAFETY: as above.
        next = unsafe { libc::CMSG_NXTHDR(message, next) };
    }
    files
}

/// A length, whose type differs from one C library to the other.
fn number(length: impl TryInto<usize>) -> usize {
    length.try_into().unwrap_or(0)
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;
    use std::env;
    use std::io::{IoSlice, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::process::Command;
    use std::time::Duration;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, socketpair};
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    use tempfile::TempDir;
    use vm_memory::VolatileSlice;
    use vsock_backend_api::{
        Received, VsockBackend, VsockMessages, VsockStream, VsockVolatileStream,
    };
    use vsock_compliance::poll::Stopwatch;

    use super::*;
    use crate::{UnixBackend, UnixSeqpacketBackend, UnixSeqpacketStream, UnixVsockStream};

    thread_local! {
        static OLD: Cell<bool> = const { Cell::new(false) };
    }

    /// Whether the system of this thread is one that cannot refuse files.
    pub(super) fn is_old() -> bool {
        OLD.get()
    }

    /// From now on the system of this thread cannot refuse files.
    pub(in crate::unix) fn age() {
        OLD.set(true);
    }

    /// The system's version.
    fn kernel() -> (u32, u32) {
        let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let mut numbers = text.split('.').map(|number| number.parse().unwrap());
        (numbers.next().unwrap(), numbers.next().unwrap())
    }

    /// Runs a test in a process of its own, of which it may use up what all share. True in that process; in
    /// the first one, the test has passed there.
    pub(in crate::unix) fn alone(test: &str) -> bool {
        const MARK: &str = "VSOCK_TEST_ALONE";
        if env::var_os(MARK).is_some() {
            return true;
        }
        let name = format!("unix::{test}");
        let status = Command::new(env::current_exe().unwrap())
            .args(["--exact", &name])
            .env(MARK, "1")
            .status();
        assert!(status.unwrap().success());
        false
    }

    /// So long a close waits for a peer that does not read.
    const LINGER: Duration = Duration::from_secs(30);
    /// What does not wait takes less, on the slowest machine.
    pub(in crate::unix) const SOON: Duration = Duration::from_secs(5);

    /// A socket whose close waits, and its peer, whose end is the end of the wait.
    fn lingering() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (peer, _) = listener.accept().unwrap();
        sockopt::set_socket_linger(&socket, Some(LINGER)).unwrap();
        socket.set_nonblocking(true).unwrap();
        while socket.write(&[0; 65_536]).is_ok() {}
        (socket, peer)
    }

    /// Sends bytes, and a file with them.
    fn pass(
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

    /// Sends bytes and a socket whose close waits, of which only the message is left. Returns its peer.
    pub(in crate::unix) fn pass_lingering(socket: &impl AsFd, bytes: &[u8]) -> TcpStream {
        let (file, peer) = lingering();
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

    /// Does what must not wait, and sees that another connection's bytes follow soon.
    fn without_delay<T>(work: impl FnOnce() -> T) -> T {
        let (mut other, mut sender) = streams();
        sender.write_all(b"x").unwrap();
        let started = Stopwatch::start();
        let done = work();
        assert_eq!(other.read(&mut [0]).unwrap(), 1);
        assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
        done
    }

    fn connected(path: &Path, socket_type: SocketType) -> OwnedFd {
        let (family, flags) = (AddressFamily::UNIX, SocketFlags::CLOEXEC);
        let client = net::socket_with(family, socket_type, flags, None).unwrap();
        net::connect(&client, &SocketAddrUnix::new(path).unwrap()).unwrap();
        client
    }

    type Backend = Box<dyn VsockBackend>;

    /// Both backends at a path, with the socket that leads to each.
    fn backends(dir: &TempDir) -> [(Backend, OwnedFd); 2] {
        let path = dir.path().join("vm");
        let streams = UnixBackend::bind(&path).unwrap();
        let messages = UnixSeqpacketBackend::bind(&path).unwrap();
        let clients = [
            connected(streams.path(), SocketType::STREAM),
            connected(messages.path(), SocketType::SEQPACKET),
        ];
        let [first, second] = clients;
        [(Box::new(streams), first), (Box::new(messages), second)]
    }

    #[test]
    fn t124_files_are_refused_by_the_system_wherever_they_are_sent() {
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
            let (family, flags) = (AddressFamily::UNIX, SocketFlags::CLOEXEC);
            let service = net::socket_with(family, socket_type, flags, None).unwrap();
            net::bind(&service, &SocketAddrUnix::new(&path).unwrap()).unwrap();
            net::listen(&service, 1).unwrap();
            let _dialled = Guarded::connect(&path, socket_type).unwrap();
            refused(&net::accept(&service).unwrap());
            std::fs::remove_file(path).unwrap();
        }
        let (_stream, far) = streams();
        refused(&far);
        let (near, far) = pair(SocketType::SEQPACKET);
        let _stream = UnixSeqpacketStream::new(near).unwrap();
        refused(&far);
    }

    #[test]
    fn t124_a_read_of_bytes_that_a_file_comes_with_does_not_wait() {
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
    fn t124_a_message_that_a_file_comes_with_does_not_wait() {
        age();
        let (near, far) = pair(SocketType::SEQPACKET);
        let mut near = UnixSeqpacketStream::new(near).unwrap();
        for message in [&b"ab"[..], b""] {
            let peer = pass_lingering(&far, message);
            let mut buffer = [0; 8];
            let got = without_delay(|| near.receive_message(&mut buffer).unwrap());
            let expected = Received::Message {
                len: message.len(),
                end_of_record: false,
            };
            assert_eq!(got, expected);
            drop(peer);
        }
        drop(far);
        assert_eq!(near.receive_message(&mut [0]).unwrap(), Received::End);
    }

    #[test]
    fn t124_a_byte_out_of_band_brings_no_file_in_unseen() {
        age();
        let (mut near, far) = streams();
        near.set_read_timeout(Some(2 * SOON)).unwrap();
        let (file, peer) = lingering();
        pass(&far, b"a", &file, SendFlags::OOB).unwrap();
        drop(file);
        (&far).write_all(b"b").unwrap();
        let mut got = [0; 2];
        without_delay(|| near.read_exact(&mut got).unwrap());
        assert_eq!(&got, b"ab");
        drop(peer);
    }

    #[test]
    fn t124_while_too_many_files_wait_no_other_is_received() {
        if !alone("rights::tests::t124_while_too_many_files_wait_no_other_is_received") {
            return;
        }
        age();
        let (mut near, far) = streams();
        let _peer = pass_lingering(&far, b"x");
        let file = UnixStream::pair().unwrap().0;
        while !closer::is_busy() {
            assert_eq!(near.read(&mut [0]).unwrap(), 1);
            pass(&far, b"x", &file, SendFlags::empty()).unwrap();
        }
        let (mut near, far) = streams();
        let (messages, sender) = pair(SocketType::SEQPACKET);
        let mut messages = UnixSeqpacketStream::new(messages).unwrap();
        // What comes without files is received, and no byte of what comes with them.
        (&far).write_all(b"abc").unwrap();
        let mut got = [0; 8];
        assert_eq!(near.read(&mut got).unwrap(), 3);
        pass(&far, b"d", &file, SendFlags::empty()).unwrap();
        let reset = near.read(&mut got).unwrap_err();
        assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
        net::send(&sender, b"abc", SendFlags::empty()).unwrap();
        pass(&sender, b"d", &file, SendFlags::empty()).unwrap();
        assert_eq!(messages.read(&mut got).unwrap(), 3);
        let reset = messages.read(&mut got).unwrap_err();
        assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
        // A peer that leaves without reading takes nothing back of what it has sent.
        let (messages, sender) = pair(SocketType::SEQPACKET);
        let mut messages = UnixSeqpacketStream::new(messages).unwrap();
        messages.write_all(b"unread").unwrap();
        net::send(&sender, b"abc", SendFlags::empty()).unwrap();
        drop(sender);
        assert_eq!(messages.read(&mut got).unwrap(), 3);
        let reset = messages.read(&mut got).unwrap_err();
        assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
    }

    #[test]
    fn t124_connections_that_leave_files_behind_use_up_no_descriptors() {
        if !alone("rights::tests::t124_connections_that_leave_files_behind_use_up_no_descriptors") {
            return;
        }
        age();
        let limit = getrlimit(Resource::Nofile);
        let current = limit.maximum;
        setrlimit(Resource::Nofile, Rlimit { current, ..limit }).unwrap();
        let dir = TempDir::new().unwrap();
        let mut backend = UnixBackend::bind(dir.path().join("vm")).unwrap();
        let _service = UnixListener::bind(backend.service_path(1)).unwrap();
        let (near, far) = streams();
        let _peer = pass_lingering(&far, b"x");
        drop(near);
        let file = UnixStream::pair().unwrap().0;
        let refused = (0..2 * closer::MOST).find_map(|_| {
            let client = connected(backend.path(), SocketType::STREAM);
            pass(&client, b"x", &file, SendFlags::empty()).unwrap();
            backend.accept().map(drop).err()
        });
        let refused = refused.expect("each has taken a descriptor").raw_os_error();
        assert_eq!(refused, Some(Errno::NOBUFS.raw_os_error()));
        let refused = backend.connect(1).map(drop).unwrap_err().raw_os_error();
        assert_eq!(refused, Some(Errno::NOBUFS.raw_os_error()));
        // Who is connected goes on.
        without_delay(|| ());
    }

    #[test]
    fn t124_the_files_that_came_are_closed() {
        age();
        let (mut near, far) = streams();
        let (mut passed, end) = UnixStream::pair().unwrap();
        let ends = [(); 3].map(|()| end.try_clone().unwrap());
        for end in ends {
            pass(&far, b"x", &end, SendFlags::empty()).unwrap();
            assert_eq!(near.read(&mut [0; 8]).unwrap(), 1);
        }
        drop(end);
        assert_eq!(passed.read(&mut [0]).unwrap(), 0, "the end is closed");
    }

    #[test]
    fn t124_a_stream_that_is_dropped_with_a_file_in_its_queue_does_not_wait() {
        age();
        let (near, far) = streams();
        let peer = pass_lingering(&far, b"x");
        without_delay(|| drop(near));
        // The end, or a reset if the other thread has begun to close it.
        let end = (&far).read(&mut [0]).map_err(|error| error.kind());
        assert!(
            matches!(end, Ok(0) | Err(ErrorKind::ConnectionReset)),
            "{end:?}"
        );
        let late = (&far).write(b"x").unwrap_err();
        assert_eq!(late.kind(), ErrorKind::BrokenPipe);
        drop(peer);
        let (near, far) = pair(SocketType::SEQPACKET);
        let near = UnixSeqpacketStream::new(near).unwrap();
        // Messages without bytes are not counted by the system.
        let peer = pass_lingering(&far, b"");
        without_delay(|| drop(near));
        drop(peer);
    }

    #[test]
    fn t124_a_stream_without_files_is_closed_by_its_drop() {
        age();
        for bytes in [0, 1, 3 * LOOK / 2] {
            let (near, mut far) = streams();
            far.write_all(&vec![7; bytes]).unwrap();
            drop(near);
            let end = far.read(&mut [0]).map_err(|error| error.kind());
            let expected = if bytes == 0 {
                Ok(0)
            } else {
                Err(ErrorKind::ConnectionReset)
            };
            assert_eq!(end, expected, "{bytes}");
        }
        let (near, far) = pair(SocketType::SEQPACKET);
        let near = UnixSeqpacketStream::new(near).unwrap();
        let mut far = UnixSeqpacketStream::new(far).unwrap();
        for message in [&b""[..], b"a", b"", b""] {
            far.send_message(&[IoSlice::new(message)], true).unwrap();
        }
        drop(near);
        let end = far.receive_message(&mut [0]).unwrap_err();
        assert_eq!(end.kind(), ErrorKind::ConnectionReset);
    }

    #[test]
    fn t124_after_the_look_before_a_close_nothing_comes_and_the_end_is_not_seen_yet() {
        age();
        let (near, mut far) = UnixStream::pair().unwrap();
        let near = Guarded::given(near.into());
        assert!(!near.holds_files());
        let late = far.write(b"x").unwrap_err();
        assert_eq!(late.kind(), ErrorKind::BrokenPipe);
        far.set_nonblocking(true).unwrap();
        let open = far.read(&mut [0]).unwrap_err();
        assert_eq!(open.kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn t124_a_file_is_found_wherever_it_is_in_the_queue() {
        age();
        for (before, after) in [(0, 0), (1, 0), (3 * LOOK / 2, 1)] {
            let (near, mut far) = UnixStream::pair().unwrap();
            far.write_all(&vec![7; before]).unwrap();
            let file = UnixStream::pair().unwrap().0;
            pass(&far, b"x", &file, SendFlags::empty()).unwrap();
            far.write_all(&vec![7; after]).unwrap();
            assert!(Guarded::given(near.into()).holds_files(), "{before}");
        }
        for before in [&[][..], &[&b""[..], b""], &[b"a", b"", b"b"]] {
            let (near, far) = pair(SocketType::SEQPACKET);
            sockopt::set_socket_passcred(&near, true).unwrap();
            for message in before {
                net::send(&far, message, SendFlags::empty()).unwrap();
            }
            let file = UnixStream::pair().unwrap().0;
            pass(&far, b"", &file, SendFlags::empty()).unwrap();
            assert!(Guarded::given(near).holds_files(), "{before:?}");
        }
    }

    #[test]
    fn t124_a_file_that_was_sent_before_the_stream_was_made_does_not_make_it_wait() {
        let (near, far) = pair(SocketType::STREAM);
        let peers = [(); 2].map(|()| pass_lingering(&far, b"x"));
        let mut near = UnixVsockStream::new(near.into());
        without_delay(|| assert_eq!(near.read(&mut [0]).unwrap(), 1));
        without_delay(|| drop(near));
        drop(peers);
    }

    #[test]
    fn t124_a_backend_that_is_dropped_with_clients_in_its_backlog_does_not_wait() {
        age();
        let dir = TempDir::new().unwrap();
        for (backend, client) in backends(&dir) {
            let peer = pass_lingering(&client, b"x");
            without_delay(|| drop(backend));
            drop(peer);
        }
        drop(UnixBackend::bind(dir.path().join("vm")).unwrap());
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Other streams, through their descriptors.

use std::any::Any;
use std::io::{self, BufWriter, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::thread;

use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::select;
use tokio::task::yield_now;
use vsock_inner::{VsockBackend, VsockBackendType, VsockInnerStream, VsockStream};
use vsock_tokio::AsyncFdStream;

use crate::guest::{GUEST, Guest, HOST};
use crate::streams::pattern;
use crate::{assert_fails, on_both, one_thread, soon};

type Pair = (Box<dyn VsockStream>, Box<dyn VsockStream>);

fn unix() -> Pair {
    let (near, far) = UnixStream::pair().unwrap();
    (Box::new(near), Box::new(far))
}

fn tcp() -> Pair {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (Box::new(near), Box::new(listener.accept().unwrap().0))
}

/// With two descriptors to poll.
fn inner() -> Pair {
    let (near, far) = VsockInnerStream::pair().unwrap();
    (Box::new(near), Box::new(far))
}

const PAIRS: [fn() -> Pair; 3] = [unix, tcp, inner];

fn open((near, far): Pair) -> (AsyncFdStream, AsyncFdStream) {
    (
        AsyncFdStream::new(near).unwrap(),
        AsyncFdStream::new(far).unwrap(),
    )
}

#[test]
fn bytes_arrive_in_both_directions_and_so_do_the_ends() {
    fn traits<T: std::fmt::Debug + Send + Sync + Unpin>() {}
    traits::<AsyncFdStream>();
    for pair in PAIRS {
        on_both(async || {
            let (near, far) = open(pair());
            let sent = pattern(3 << 20); // more than any of them can hold
            let ends = [near, far].map(|end| {
                let sent = sent.clone();
                let (mut reader, mut writer) = split(end);
                let reading = tokio::spawn(async move {
                    let mut got = Vec::new();
                    reader.read_to_end(&mut got).await.unwrap();
                    got
                });
                tokio::spawn(async move {
                    writer.write_all(&sent).await.unwrap();
                    writer.flush().await.unwrap();
                    writer.shutdown().await.unwrap();
                });
                reading
            });
            for end in ends {
                assert!(end.await.unwrap() == sent);
            }
        });
    }
}

#[test]
fn vectored_writes_reach_the_stream_as_such() {
    for pair in PAIRS {
        one_thread().block_on(soon(async {
            let (mut near, mut far) = open(pair());
            assert!(near.is_write_vectored());
            let pieces = [b"one ".as_slice(), b"two"].map(IoSlice::new);
            assert_eq!(near.write_vectored(&pieces).await.unwrap(), 7);
            let mut text = [0; 7];
            far.read_exact(&mut text).await.unwrap();
            assert_eq!(&text, b"one two");
        }));
    }
}

#[test]
fn a_dropped_call_has_transferred_nothing() {
    for pair in PAIRS {
        one_thread().block_on(soon(async {
            let (mut near, mut far) = open(pair());
            let mut buf = [0; 8];
            for _ in 0..10 {
                select! {
                    biased;
                    _ = far.read(&mut buf) => panic!("nothing was written"),
                    () = yield_now() => {}
                }
            }
            near.write_all(b"all").await.unwrap();
            assert_eq!(far.read(&mut buf).await.unwrap(), 3);
        }));
    }
}

#[test]
fn a_device_can_be_served_by_tasks() {
    one_thread().block_on(soon(async {
        let guest = Guest::new();
        let listener = guest.listener();
        let device = guest.backend.connect_from(GUEST, HOST).unwrap();
        let mut device = AsyncFdStream::new(device).unwrap();
        assert_eq!(
            (device.peer_addr().unwrap(), device.local_addr().unwrap()),
            (HOST, GUEST)
        );
        let (mut host, _) = listener.accept().await.unwrap();
        host.write_all(b"hello").await.unwrap();
        let mut text = [0; 5];
        device.read_exact(&mut text).await.unwrap();
        device.abort();
        assert_fails(host.read(&mut text).await, ErrorKind::ConnectionReset);
    }));
}

#[test]
fn the_stream_is_returned_and_can_be_registered_again() {
    one_thread().block_on(soon(async {
        let (near, mut far) = unix();
        let mut near = AsyncFdStream::new(near).unwrap();
        assert_fails(near.peer_addr(), ErrorKind::AddrNotAvailable);
        assert!(format!("{near:?}").starts_with("AsyncFdStream"));
        for round in 0..3 {
            far.write_all(&[round]).unwrap();
            assert_eq!(near.read_u8().await.unwrap(), round);
            let stream = near.into_inner();
            assert!(stream.as_any().is::<UnixStream>());
            near = AsyncFdStream::new(stream).unwrap();
        }
    }));
}

/// A stream with only one mode, which misbehaves.
struct Odd {
    stream: UnixStream,
    /// Added to each count.
    lie: usize,
    set_nonblocking: io::Result<()>,
}

impl Odd {
    fn new(stream: UnixStream) -> Self {
        let (lie, set_nonblocking) = (0, Err(ErrorKind::Unsupported.into()));
        stream.set_nonblocking(true).unwrap();
        Self {
            stream,
            lie,
            set_nonblocking,
        }
    }
}

impl Read for Odd {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buf).map(|read| read + self.lie)
    }
}

impl Write for Odd {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stream.write(buf).map(|written| written + self.lie)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsRawFd for Odd {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

impl VsockStream for Odd {
    fn backend_type(&self) -> VsockBackendType {
        VsockBackendType::Other("odd")
    }
    fn set_nonblocking(&mut self, _: bool) -> io::Result<()> {
        std::mem::replace(&mut self.set_nonblocking, Ok(()))
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[test]
fn a_custom_stream_needs_only_the_required_methods() {
    one_thread().block_on(soon(async {
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut near = AsyncFdStream::new(Box::new(Odd::new(near))).unwrap();
        near.write_all(b"ab").await.unwrap();
        let mut text = [0; 2];
        far.read_exact(&mut text).unwrap();
        assert_fails(near.shutdown().await, ErrorKind::Unsupported);
        far.shutdown(Shutdown::Write).unwrap();
        assert_eq!(near.read(&mut text).await.unwrap(), 0);
    }));
}

#[test]
fn impossible_counts_are_errors_and_never_panic() {
    one_thread().block_on(soon(async {
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut odd = Odd::new(near);
        odd.lie = 10;
        let mut near = AsyncFdStream::new(Box::new(odd)).unwrap();
        far.write_all(b"abc").unwrap();
        assert_fails(near.read(&mut [0; 8]).await, ErrorKind::InvalidData);
        assert_fails(near.write(b"abc").await, ErrorKind::InvalidData);
    }));
}

#[test]
fn a_descriptor_that_cannot_be_polled_is_an_error() {
    one_thread().block_on(soon(async {
        let mut odd = Odd::new(UnixStream::pair().unwrap().0);
        odd.set_nonblocking = Err(ErrorKind::PermissionDenied.into());
        let refused = AsyncFdStream::new(Box::new(odd));
        assert_fails(refused, ErrorKind::PermissionDenied);
    }));
}

#[test]
fn a_full_stream_can_be_flushed_and_accepts_nothing_immediately() {
    for pair in PAIRS {
        one_thread().block_on(soon(async {
            let (mut near, _far) = open(pair());
            loop {
                select! {
                    biased;
                    written = near.write(&[0; 65_536]) => drop(written.unwrap()),
                    // Enough for the runtime to poll its descriptors.
                    () = async { for _ in 0..100 { yield_now().await } } => break,
                }
            }
            near.flush().await.unwrap();
            assert_eq!(near.write(&[]).await.unwrap(), 0);
            assert_eq!(near.read(&mut []).await.unwrap(), 0);
        }));
    }
}

/// A stream that keeps written data until it is flushed.
struct Late(BufWriter<UnixStream>);

impl Read for Late {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.get_mut().read(buf)
    }
}

impl Write for Late {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl AsRawFd for Late {
    fn as_raw_fd(&self) -> RawFd {
        self.0.get_ref().as_raw_fd()
    }
}

impl VsockStream for Late {
    fn backend_type(&self) -> VsockBackendType {
        VsockBackendType::Other("late")
    }
    fn set_nonblocking(&mut self, nonblocking: bool) -> io::Result<()> {
        self.0.get_ref().set_nonblocking(nonblocking)
    }
    fn shutdown(&mut self, how: Shutdown) -> io::Result<()> {
        self.0.get_ref().shutdown(how)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[test]
fn a_shutdown_flushes_first() {
    one_thread().block_on(soon(async {
        let sent = pattern(2 << 20); // more than the socket takes without waiting
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut near =
            AsyncFdStream::new(Box::new(Late(BufWriter::with_capacity(2 << 20, near)))).unwrap();
        let reading = thread::spawn(move || {
            let mut got = Vec::new();
            far.read_to_end(&mut got).map(|_| got)
        });
        near.write_all(&sent[1..]).await.unwrap();
        near.shutdown().await.unwrap();
        assert!(reading.join().unwrap().unwrap() == sent[1..]);
    }));
}

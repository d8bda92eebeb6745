// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Serving a backend: batches, errors, and a lack of descriptors.

use std::any::Any;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::io::{Errno, dup2};
use vsock_backend_api::{VsockBackend, VsockBackendType, VsockListener, VsockStream};
use vsock_compliance::poll::{PollInterest, Stopwatch, is_readable, wait_ready};
use vsock_epoll::services::Echo;
use vsock_epoll::{
    AcceptHandler, AcceptLimits, BackendSubscriber, ListenerSubscriber, LoopError, More,
    StreamLimits, StreamSubscriber,
};
use vsock_inner::{VsockInnerBackend, VsockInnerStream};
use vsock_tests::assert_fails;

use crate::{read_all, rest, soon};

/// A backend that answers accepts by a script. Its descriptor is always readable.
struct Scripted {
    answers: VecDeque<Option<io::Error>>,
    readable: (VsockInnerStream, VsockInnerStream),
    peers: Vec<VsockInnerStream>,
    /// Replaces that descriptor, if set.
    shown: Option<RawFd>,
}

impl Scripted {
    fn new(answers: impl IntoIterator<Item = Option<io::Error>>) -> Box<Self> {
        let (mut one, two) = VsockInnerStream::pair().unwrap();
        one.write_all(b"x").unwrap();
        Box::new(Self {
            answers: answers.into_iter().collect(),
            readable: (one, two),
            peers: Vec::new(),
            shown: None,
        })
    }
}

impl AsRawFd for Scripted {
    fn as_raw_fd(&self) -> RawFd {
        let readable = &self.readable.1;
        self.shown.unwrap_or_else(|| readable.as_raw_fd())
    }
}

impl VsockBackend for Scripted {
    fn accept(&mut self) -> io::Result<Box<dyn VsockStream>> {
        match self.answers.pop_front() {
            None => Err(io::ErrorKind::WouldBlock.into()),
            Some(Some(error)) => Err(error),
            Some(None) => {
                let (peer, device) = VsockInnerStream::pair()?;
                self.peers.push(peer);
                Ok(Box::new(device))
            }
        }
    }
    fn connect(&self, _port: u32) -> io::Result<Box<dyn VsockStream>> {
        Err(io::ErrorKind::ConnectionRefused.into())
    }
    fn r#type(&self) -> VsockBackendType {
        VsockBackendType::Other("scripted")
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Keeps streams and errors, and reports when it has no room for more.
#[derive(Default)]
struct Keeper {
    streams: Vec<Box<dyn VsockStream>>,
    errors: Vec<io::Error>,
    most: Option<usize>,
}

impl AcceptHandler for Keeper {
    fn accepted(&mut self, stream: Box<dyn VsockStream>) -> More {
        self.streams.push(stream);
        match self.most {
            Some(most) if self.streams.len() >= most => More::Later,
            _ => More::Accept,
        }
    }
    fn failed(&mut self, error: io::Error) {
        self.errors.push(error);
    }
}

fn keeper(backend: Box<dyn VsockBackend>, limits: AcceptLimits) -> BackendSubscriber<Keeper> {
    BackendSubscriber::new(backend, Keeper::default(), limits).unwrap()
}

#[test]
fn a_wakeup_accepts_no_more_than_its_batch() {
    let backend = VsockInnerBackend::new().unwrap();
    let connector = backend.get_connector();
    let mut subscriber = keeper(Box::new(backend), AcceptLimits::default().batch(4));
    let _hosts: Vec<_> = (0..10).map(|_| connector.connect().unwrap()).collect();
    for accepted in [4, 4, 2] {
        assert!(is_readable(subscriber.as_raw_fd()).unwrap());
        assert_eq!(subscriber.dispatch().unwrap(), accepted);
    }
    assert!(!is_readable(subscriber.as_raw_fd()).unwrap());
    assert_eq!(subscriber.counters().accepts, 10);
}

#[test]
fn the_next_one_is_accepted_after_an_error() {
    let aborted = || Some(io::ErrorKind::ConnectionAborted.into());
    let interrupted = Some(io::ErrorKind::Interrupted.into());
    let script = Scripted::new([aborted(), None, interrupted, aborted(), None]);
    let mut subscriber = keeper(script, AcceptLimits::default());
    assert_eq!(subscriber.dispatch().unwrap(), 2);
    assert_eq!(subscriber.handler().errors.len(), 2);
    assert_eq!(subscriber.counters().errors, 2);
}

/// Too long for a machine that stalls.
const LONG_PAUSE: Duration = Duration::from_secs(3600);
const SHORT_PAUSE: Duration = Duration::from_millis(50);

/// Returns a subscriber whose backend fails once and then has a connection.
fn fails_once(error: io::Error, pause: Duration) -> BackendSubscriber<Keeper> {
    let script = Scripted::new([Some(error), None]);
    keeper(script, AcceptLimits::default().pause(pause))
}

#[test]
fn t69_a_lack_of_descriptors_pauses_accepting_instead_of_spinning() {
    fn lack() -> io::Error {
        Errno::MFILE.into()
    }
    let errors: [fn() -> io::Error; 2] = [lack, || io::Error::other(lack())];
    for error in errors {
        let mut subscriber = fails_once(error(), LONG_PAUSE);
        assert_eq!(subscriber.dispatch().unwrap(), 0);
        assert!(!is_readable(subscriber.as_raw_fd()).unwrap());
        assert_eq!(subscriber.dispatch().unwrap(), 0); // a spurious call, which is harmless
        assert_eq!(subscriber.counters().timers, 0);

        let mut subscriber = fails_once(error(), SHORT_PAUSE);
        let watch = Stopwatch::start();
        assert_eq!(subscriber.dispatch().unwrap(), 0);
        wait_ready(subscriber.as_raw_fd(), PollInterest::Read, soon()).unwrap();
        assert!(watch.elapsed() >= SHORT_PAUSE);
        assert_eq!(subscriber.dispatch().unwrap(), 1);
        assert_eq!(subscriber.counters().timers, 1);
    }
}

#[test]
fn a_backend_that_always_fails_is_called_a_batch_at_a_time() {
    // An interrupted call is not reported as a failure. A backend that is always interrupted must
    // not block the loop either.
    for (kind, told) in [
        (io::ErrorKind::NotConnected, 5),
        (io::ErrorKind::Interrupted, 0),
    ] {
        let broken = (0..100).map(|_| Some(kind.into()));
        let limits = AcceptLimits::default().batch(5).pause(LONG_PAUSE);
        let mut subscriber = keeper(Scripted::new(broken), limits);
        assert_eq!(subscriber.dispatch().unwrap(), 0);
        assert_eq!(subscriber.handler().errors.len(), told);
        assert!(!is_readable(subscriber.as_raw_fd()).unwrap(), "{kind}");
    }
}

#[test]
fn a_source_that_the_kernel_refuses_after_a_pause_is_offered_again() {
    let mut script = Scripted::new([None, None]);
    // No epoll accepts /dev/null. This stands for a kernel that cannot watch one more descriptor.
    let refused = OwnedFd::from(File::open("/dev/null").unwrap());
    let good = script.readable.1.as_fd().try_clone_to_owned().unwrap();
    let mut shown = good.try_clone().unwrap();
    script.shown = Some(shown.as_raw_fd());
    let mut subscriber = keeper(script, AcceptLimits::default());
    subscriber.handler().most = Some(1);
    assert_eq!(subscriber.dispatch().unwrap(), 1);

    dup2(&refused, &mut shown).unwrap();
    wait_ready(subscriber.as_raw_fd(), PollInterest::Read, soon()).unwrap();
    let error = subscriber.dispatch().unwrap_err();
    assert!(matches!(error, LoopError::Watch { .. }), "{error:?}");
    dup2(&good, &mut shown).unwrap();
    wait_ready(subscriber.as_raw_fd(), PollInterest::Read, soon()).unwrap();
    assert_eq!(subscriber.dispatch().unwrap(), 1);
}

#[test]
fn a_handler_without_room_is_called_later() {
    let backend = VsockInnerBackend::new().unwrap();
    let connector = backend.get_connector();
    let mut subscriber = keeper(Box::new(backend), AcceptLimits::default());
    subscriber.handler().most = Some(1);
    let _hosts = [connector.connect().unwrap(), connector.connect().unwrap()];
    assert_eq!(subscriber.dispatch().unwrap(), 1);
    assert!(!is_readable(subscriber.as_raw_fd()).unwrap());
    wait_ready(subscriber.as_raw_fd(), PollInterest::Read, soon()).unwrap();
    assert_eq!(subscriber.dispatch().unwrap(), 1);
    assert!(format!("{subscriber:?}").contains("Paused"));
    assert_eq!(subscriber.backend().r#type(), VsockBackendType::Inner);
}

#[test]
fn a_pause_may_be_longer_than_any_clock() {
    let backend = Scripted::new([None]);
    let limits = AcceptLimits::default().pause(Duration::MAX);
    let mut subscriber = keeper(backend, limits);
    subscriber.handler().most = Some(0);
    assert_eq!(subscriber.dispatch().unwrap(), 1);
    assert!(!is_readable(subscriber.as_raw_fd()).unwrap());
    assert_eq!(subscriber.dispatch().unwrap(), 0);
}

/// Checks that a listener's subscriber gets two connections.
fn serves<L: VsockListener + 'static>(listener: L, connect: impl Fn(&L) -> Box<dyn VsockStream>) {
    let mut peers = [connect(&listener), connect(&listener)];
    let keeper = Keeper {
        most: Some(1),
        ..Keeper::default()
    };
    let mut subscriber =
        ListenerSubscriber::new(listener, keeper, AcceptLimits::default()).unwrap();
    wait_ready(subscriber.as_raw_fd(), PollInterest::Read, soon()).unwrap();
    assert_eq!(
        subscriber.dispatch().unwrap(),
        1,
        "there is no room for two"
    );
    wait_ready(subscriber.as_raw_fd(), PollInterest::Read, soon()).unwrap();
    assert_eq!(
        subscriber.dispatch().unwrap(),
        1,
        "there is room after a pause"
    );
    subscriber.handler().most = None;
    wait_ready(subscriber.as_raw_fd(), PollInterest::Read, soon()).unwrap();
    assert_eq!(subscriber.dispatch().unwrap(), 0, "it does not wait");
    assert!(!is_readable(subscriber.as_raw_fd()).unwrap());
    assert!(!subscriber.is_finished());
    for (peer, stream) in peers.iter_mut().zip(&mut subscriber.handler().streams) {
        peer.write_all(b"x").unwrap();
        stream.read_exact(&mut [0]).unwrap(); // the stream is in blocking mode
    }
}

#[test]
fn listeners_of_every_kind_are_served() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    serves(UnixListener::bind(path).unwrap(), |listener| {
        let address = listener.local_addr().unwrap();
        Box::new(UnixStream::connect_addr(&address).unwrap())
    });
    serves(TcpListener::bind(("127.0.0.1", 0)).unwrap(), |listener| {
        Box::new(TcpStream::connect(listener.local_addr().unwrap()).unwrap())
    });
    let backend = VsockInnerBackend::new().unwrap();
    serves(backend.listen(1024).unwrap(), |_| {
        backend.connect(1024).unwrap()
    });
}

#[test]
fn the_end_of_a_listeners_backend_is_reported_once() {
    let backend = VsockInnerBackend::new().unwrap();
    let listener = backend.listen(1024).unwrap();
    let limits = AcceptLimits::default();
    let mut subscriber = ListenerSubscriber::new(listener, Keeper::default(), limits).unwrap();
    drop(backend);
    wait_ready(subscriber.as_raw_fd(), PollInterest::Read, soon()).unwrap();
    for _ in 0..2 {
        assert_eq!(subscriber.dispatch().unwrap(), 0);
        assert!(subscriber.is_finished());
        assert!(!is_readable(subscriber.as_raw_fd()).unwrap());
        assert_eq!(subscriber.handler().errors.len(), 1);
    }
    let kind = subscriber.handler().errors[0].kind();
    assert_eq!(kind, io::ErrorKind::NotConnected);
}

#[test]
fn shared_streams_serve_a_backends_connections() {
    let backend = VsockInnerBackend::new().unwrap();
    let connector = backend.get_connector();
    let limits = StreamLimits::default().streams(1);
    let streams = StreamSubscriber::new(Echo::new(), limits).unwrap();
    let streams = Arc::new(Mutex::new(streams));
    let handler = Arc::clone(&streams);
    let limits = AcceptLimits::default();
    let mut acceptor = BackendSubscriber::new(Box::new(backend), handler, limits).unwrap();
    let mut host = connector.connect().unwrap();
    let mut refused = connector.connect().unwrap();
    assert_eq!(acceptor.dispatch().unwrap(), 2);
    host.set_nonblocking(true).unwrap();
    host.write_all(b"ping").unwrap();
    rest(&mut streams.lock().unwrap());
    assert_eq!(read_all(&mut *host).0, b"ping");
    refused.set_nonblocking(true).unwrap();
    assert_fails(refused.read(&mut [0]), io::ErrorKind::ConnectionReset);
    assert_eq!(streams.lock().unwrap().counters().refused, 1);
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The names and signatures of `dbs-virtio-devices` 0.3 that its users compile against, and our
//! own.

use std::any::Any;
use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::task::{Context, Poll};
use std::time::Duration;

use vsock_inner::{
    BackendCounters, Canceller, Capacity, VsockAddr, VsockBackend, VsockBackendType,
    VsockInnerBackend, VsockInnerConfig, VsockInnerConnector, VsockInnerListener, VsockInnerReader,
    VsockInnerStream, VsockInnerWriter, VsockStream,
};
use vsock_sockets::{UnixBackend, UnixSeqpacketBackend, UnixSeqpacketStream, UnixVsockStream};
use vsock_tests::assert_fails;

type ReceiveFd<S> = fn(&S, &mut [u8], &mut [RawFd]) -> io::Result<(usize, usize)>;
type PollReadWith<S> = fn(&mut S, &mut Context<'_>, usize, fn(&[u8])) -> Poll<io::Result<usize>>;
type BoxedStream = io::Result<Box<dyn VsockStream>>;

#[test]
fn the_backend_type_has_its_names_and_traits() {
    fn traits<T: Clone + Copy + Debug + Eq + PartialEq + Hash + Display>(_: T) {}
    for known in [
        VsockBackendType::UnixStream,
        VsockBackendType::Tcp,
        VsockBackendType::Inner,
        VsockBackendType::HybridStream,
        VsockBackendType::Other("mine"),
    ] {
        traits(known);
    }
}

#[test]
fn the_backend_trait_has_its_signatures() {
    fn signatures<B: VsockBackend + AsRawFd + Send>() {
        let _: fn(&mut B) -> BoxedStream = B::accept;
        let _: fn(&B, u32) -> BoxedStream = B::connect;
        let _: fn(&B, VsockAddr, VsockAddr) -> BoxedStream = B::connect_from;
        let _: fn(&B, VsockAddr, VsockAddr) -> BoxedStream = B::connect_seqpacket_from;
        let _: fn(&B) -> VsockBackendType = B::r#type;
        let _: fn(&B) -> &dyn Any = B::as_any;
    }
    signatures::<VsockInnerBackend>();
    let _: fn(Box<dyn VsockBackend>) = drop;
}

#[test]
fn the_stream_trait_has_its_signatures() {
    fn signatures<S: VsockStream + Read + Write + AsRawFd + Send + 'static>() {
        let _: fn(&S) -> VsockBackendType = S::backend_type;
        let _: fn(&mut S, bool) -> io::Result<()> = S::set_nonblocking;
        let _: fn(&mut S, Option<Duration>) -> io::Result<()> = S::set_read_timeout;
        let _: fn(&mut S, Option<Duration>) -> io::Result<()> = S::set_write_timeout;
        let _: ReceiveFd<S> = S::recv_data_fd;
        let _: fn(&S) -> &dyn Any = S::as_any;
        let _: fn(&mut S, Shutdown) -> io::Result<()> = S::shutdown;
        let _: fn(&S) -> io::Result<RawFd> = S::write_ready_fd;
        let _: for<'s> fn(&'s S) -> io::Result<BorrowedFd<'s>> = S::write_ready;
        let _: fn(&S) -> bool = S::peer_gone;
        let _: fn(&mut S) -> Option<u32> = S::requested_port;
        let _: fn(&mut S, u32) -> io::Result<()> = S::confirm;
        let _: fn(&mut S, VsockAddr, VsockAddr) -> io::Result<()> = S::confirm_from;
        let _: fn(&S) -> Option<VsockAddr> = S::peer;
        let _: fn(&S) -> Option<VsockAddr> = S::local;
        let _: fn(&mut S) -> Option<&mut dyn Any> = S::as_any_mut;
        let _: fn(Box<S>) -> Option<Box<dyn Any>> = S::into_any;
    }
    signatures::<VsockInnerStream>();
    let _: fn(Box<dyn VsockStream>) = drop;
}

#[test]
fn the_inner_backend_and_connector_have_their_signatures() {
    fn connector<C: Clone + Debug + Send + Sync>() {}
    connector::<VsockInnerConnector>();
    type Backend = VsockInnerBackend;
    type Connector = VsockInnerConnector;
    let _: fn() -> io::Result<Backend> = Backend::new;
    let _: fn(VsockInnerConfig) -> io::Result<Backend> = Backend::with_config;
    let _: fn(&Backend) -> Connector = Backend::get_connector;
    let _: fn(&Backend, u32) -> io::Result<VsockInnerListener> = Backend::listen;
    let _: fn(&Backend) -> BackendCounters = Backend::counters;
    let _: fn(&Connector) -> BoxedStream = Connector::connect;
    let _: fn(&Connector) -> io::Result<VsockInnerStream> = Connector::connect_stream;
    let _: fn(&Connector, u32) -> io::Result<VsockInnerListener> = Connector::listen;
    let _: fn(&Connector, u32) -> io::Result<VsockInnerStream> = Connector::connect_to;
    let _: fn(&Connector, u32, Duration) -> io::Result<VsockInnerStream> =
        Connector::connect_to_timeout;
    let _: fn(&Connector, u32) -> io::Result<VsockInnerStream> = Connector::start_connect_to;
    let _: fn(&Connector) -> BackendCounters = Connector::counters;
}

#[test]
fn the_inner_stream_has_its_signatures() {
    fn traits<S: Read + Write + AsRawFd + VsockStream + Debug + Send>() {}
    traits::<VsockInnerStream>();
    type Stream = VsockInnerStream;
    let _: fn() -> io::Result<(Stream, Stream)> = Stream::pair;
    let _: fn(&VsockInnerConfig) -> io::Result<(Stream, Stream)> = Stream::pair_with;
    let _: fn(&mut Stream, &mut [u8]) -> io::Result<usize> = Stream::peek;
    let _: fn(&mut Stream, Shutdown) -> io::Result<()> = Stream::shutdown;
    let _: fn(Stream) -> (VsockInnerReader, VsockInnerWriter) = Stream::into_split;
    let _: fn(&Stream) -> bool = Stream::is_connected;
    let _: fn(&Stream) -> Canceller = Stream::canceller;
    let _: fn(&Stream) -> Option<VsockAddr> = Stream::peer;
    let _: fn(&Stream) -> Option<VsockAddr> = Stream::local;
    let _: fn(&mut Stream, &mut Context<'_>, &mut [u8]) -> Poll<io::Result<usize>> =
        Stream::poll_read;
    let _: fn(&mut Stream, &mut Context<'_>, &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> =
        Stream::poll_read_vectored;
    let _: PollReadWith<Stream> = Stream::poll_read_with;
    let _: fn(&mut Stream, &mut Context<'_>, &[u8]) -> Poll<io::Result<usize>> = Stream::poll_write;
    let _: fn(&mut Stream, &mut Context<'_>, &[IoSlice<'_>]) -> Poll<io::Result<usize>> =
        Stream::poll_write_vectored;
    let _: fn(&mut Stream, &mut Context<'_>) -> Poll<io::Result<()>> = Stream::poll_shutdown;
    let _: fn(&mut Stream, &mut Context<'_>) -> Poll<io::Result<()>> = Stream::poll_connected;
    let _: fn(&Stream) -> u64 = Stream::queued_in;
    let _: fn(&Stream) -> u64 = Stream::queued_out;
}

#[test]
fn the_halves_have_their_signatures() {
    fn reader<R: Read + AsRawFd + Send + Debug>() {}
    fn writer<W: Write + Send + Debug>() {}
    reader::<VsockInnerReader>();
    writer::<VsockInnerWriter>();
    type Reader = VsockInnerReader;
    type Writer = VsockInnerWriter;
    let _: fn(&mut Reader, &mut [u8]) -> io::Result<usize> = Reader::peek;
    let _: fn(&mut Reader, &mut Context<'_>, &mut [u8]) -> Poll<io::Result<usize>> =
        Reader::poll_read;
    let _: fn(&mut Reader, &mut Context<'_>, &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>> =
        Reader::poll_read_vectored;
    let _: PollReadWith<Reader> = Reader::poll_read_with;
    let _: fn(&mut Writer, &mut Context<'_>, &[u8]) -> Poll<io::Result<usize>> = Writer::poll_write;
    let _: fn(&mut Writer, &mut Context<'_>, &[IoSlice<'_>]) -> Poll<io::Result<usize>> =
        Writer::poll_write_vectored;
    let _: fn(&mut Writer, &mut Context<'_>) -> Poll<io::Result<()>> = Writer::poll_shutdown;
    let _: fn(&Reader) -> Canceller = Reader::canceller;
    let _: fn(&Writer) -> Canceller = Writer::canceller;
    let _: fn(&mut Reader, bool) -> io::Result<()> = Reader::set_nonblocking;
    let _: fn(&mut Reader, Option<Duration>) -> io::Result<()> = Reader::set_timeout;
    let _: fn(&mut Reader) -> io::Result<()> = Reader::shutdown;
    let _: fn(&Writer) -> io::Result<RawFd> = Writer::write_ready_fd;
    let _: fn(&mut Writer, bool) -> io::Result<()> = Writer::set_nonblocking;
    let _: fn(&mut Writer, Option<Duration>) -> io::Result<()> = Writer::set_timeout;
    let _: fn(&mut Writer) -> io::Result<()> = Writer::shutdown;
}

#[test]
fn the_listener_and_the_configuration_have_their_signatures() {
    fn listener<L: AsRawFd + Debug + Send + Sync>() {}
    listener::<VsockInnerListener>();
    type Listener = VsockInnerListener;
    let _: fn(&Listener) -> io::Result<VsockInnerStream> = Listener::accept;
    let _: fn(&Listener, Duration) -> io::Result<VsockInnerStream> = Listener::accept_timeout;
    let _: fn(&Listener, &mut Context<'_>) -> Poll<io::Result<VsockInnerStream>> =
        Listener::poll_accept;
    let _: fn(&Listener) -> Canceller = Listener::canceller;
    let _: fn(&Listener, bool) -> io::Result<()> = Listener::set_nonblocking;

    let config = VsockInnerConfig::default();
    assert_eq!(config.to_device, Capacity::Bytes(256 * 1024));
    assert_eq!(config.to_application, Capacity::Bytes(256 * 1024));
    assert_eq!(config.pending, 1024);
    assert_eq!(config.connect_timeout, Duration::from_secs(5));
}

/// The code of a user of the older crate, with only the `use` lines changed.
#[test]
fn code_for_the_older_backend_compiles_and_works() {
    let mut vsock_backend = VsockInnerBackend::new().unwrap();
    let connector = vsock_backend.get_connector();
    let mut stream_connect = connector.connect().unwrap();
    stream_connect.set_nonblocking(true).unwrap();
    let mut stream_backend = vsock_backend.accept().unwrap();
    assert!(
        vsock_backend
            .as_any()
            .downcast_ref::<VsockInnerBackend>()
            .is_some()
    );
    assert_eq!(vsock_backend.r#type(), VsockBackendType::Inner);
    assert_eq!(stream_backend.backend_type(), VsockBackendType::Inner);
    assert!(
        stream_backend
            .as_any()
            .downcast_ref::<VsockInnerStream>()
            .is_some()
    );

    let mut reader_buf = [0; 5];
    assert_fails(
        stream_backend.read(&mut reader_buf),
        io::ErrorKind::WouldBlock,
    );
    stream_connect.write_all(b"hello").unwrap();
    stream_backend.read_exact(&mut reader_buf).unwrap();
    assert_eq!(&reader_buf, b"hello");
    stream_backend.set_nonblocking(false).unwrap();
    stream_backend
        .set_read_timeout(Some(Duration::from_millis(1)))
        .unwrap();
    assert_fails(
        stream_backend.read(&mut reader_buf),
        io::ErrorKind::TimedOut,
    );
}

#[test]
fn a_boxed_stream_gives_back_its_concrete_type() {
    let backend = VsockInnerBackend::new().unwrap();
    let mut boxed = backend.get_connector().connect().unwrap();
    assert!(
        boxed
            .as_any_mut()
            .is_some_and(|any| any.is::<VsockInnerStream>())
    );
    let any = boxed.into_any().unwrap();
    assert!(any.is::<VsockInnerStream>());
}

#[test]
fn an_inner_stream_passes_no_descriptors() {
    let (stream, _peer) = VsockInnerStream::pair().unwrap();
    assert_fails(
        stream.recv_data_fd(&mut [0], &mut [0]),
        io::ErrorKind::Unsupported,
    );
}

#[test]
fn a_borrowed_descriptor_is_the_numbered_one() {
    let (near, _far) = VsockInnerStream::pair().unwrap();
    let by_number = [near.as_raw_fd(), near.write_ready_fd().unwrap()];
    let borrowed = [near.as_fd(), near.write_ready().unwrap()];
    assert_eq!(borrowed.map(|fd| fd.as_raw_fd()), by_number);
    let (reader, writer) = near.into_split();
    let borrowed = [reader.as_fd(), writer.write_ready().unwrap()];
    assert_eq!(borrowed.map(|fd| fd.as_raw_fd()), by_number);
    let backend = VsockInnerBackend::new().unwrap();
    let listener = backend.listen(1024).unwrap();
    assert_eq!(backend.as_fd().as_raw_fd(), backend.as_raw_fd());
    assert_eq!(listener.as_fd().as_raw_fd(), listener.as_raw_fd());
}

#[test]
fn every_type_with_a_descriptor_can_lend_it() {
    fn traits<T: AsRawFd + AsFd>() {}
    traits::<VsockInnerBackend>();
    traits::<VsockInnerListener>();
    traits::<VsockInnerStream>();
    traits::<VsockInnerReader>();
    traits::<UnixBackend>();
    traits::<UnixVsockStream>();
    traits::<UnixSeqpacketBackend>();
    traits::<UnixSeqpacketStream>();
    type Writer = VsockInnerWriter;
    let _: for<'w> fn(&'w Writer) -> io::Result<BorrowedFd<'w>> = Writer::write_ready;
}

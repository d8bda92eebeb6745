// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The service and its clients over Unix sockets, without a guest. A failure here cannot be a
//! device's fault.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Builder;
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnixListenerStream;
use vsock_guest_rpc::counts::{Counts, Seen};
use vsock_guest_rpc::serve::serve;
use vsock_guest_rpc::task::Protocol;
use vsock_guest_rpc::transport::{Connection, Incoming, Later, Transport};
use vsock_guest_rpc::work::{Work, call};

/// A transport whose ports are files in a directory.
struct Loopback(TempDir);

impl Loopback {
    fn path(&self, port: u32) -> PathBuf {
        self.0.path().join(port.to_string())
    }
}

impl Transport for Loopback {
    fn connect(&self, port: u32) -> Later<io::Result<Connection>> {
        let path = self.path(port);
        Box::pin(async { Ok(Connection::new(UnixStream::connect(path).await?)) })
    }

    fn listen(&self, port: u32) -> io::Result<Incoming> {
        let streams = UnixListenerStream::new(UnixListener::bind(self.path(port))?);
        Ok(Box::pin(streams.map(|stream| stream.map(Connection::new))))
    }
}

const PORT: u32 = 1;
const LIMIT: Duration = Duration::from_secs(60);

fn both(protocol: Protocol, work: Work) -> (Seen, Counts) {
    let done = try_both(protocol, work);
    done.unwrap_or_else(|error| panic!("{protocol:?}: {error:#}"))
}

fn try_both(protocol: Protocol, work: Work) -> anyhow::Result<(Seen, Counts)> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let loopback = Arc::new(Loopback(tempfile::tempdir()?));
    runtime.block_on(async {
        let service = serve(&*loopback, protocol, PORT)?;
        let seen = timeout(LIMIT, call(loopback, protocol, PORT, work)).await??;
        Ok((seen, service.end().await?))
    })
}

const PROTOCOLS: [Protocol; 4] = [
    Protocol::Grpc,
    Protocol::Ttrpc,
    Protocol::Http1,
    Protocol::Http2,
];

#[test]
fn each_call_is_answered() {
    for protocol in PROTOCOLS {
        let (seen, counts) = both(protocol, Work::Calls(200));
        assert_eq!((seen.answered, counts.finished), (200, 200), "{protocol:?}");
    }
}

#[test]
fn streams_arrive_whole() {
    for protocol in PROTOCOLS {
        let (bytes, piece) = (3_000_001, 100_000);
        let (seen, counts) = both(protocol, Work::Streams { bytes, piece });
        assert_eq!(
            (seen.bytes, counts.finished),
            (2 * bytes, 2),
            "{protocol:?}"
        );
    }
}

#[test]
fn both_sides_take_turns_in_a_stream() {
    for protocol in PROTOCOLS {
        let (_, counts) = both(protocol, Work::Chat(50));
        assert_eq!((counts.finished, counts.cancelled), (1, 0), "{protocol:?}");
    }
}

#[test]
fn deadlines_end_calls() {
    for protocol in PROTOCOLS {
        let (seen, counts) = both(protocol, Work::Deadlines);
        // On a slow machine, a deadline can pass before the service receives the call.
        assert_eq!((seen.cancelled, counts.finished), (10, seen.answered));
        assert_eq!(
            counts.finished + counts.cancelled,
            counts.begun,
            "{protocol:?}"
        );
    }
}

#[test]
fn refusals_return_their_codes() {
    for protocol in PROTOCOLS {
        let (_, counts) = both(protocol, Work::Refusals);
        assert_eq!(counts.cancelled, 0, "{protocol:?}");
    }
}

#[test]
fn cancelled_calls_leave_nothing_behind() {
    for protocol in PROTOCOLS {
        let (calls, seed) = (200, 7);
        let (seen, counts) = both(protocol, Work::Storm { calls, seed });
        assert_eq!(seen.answered + seen.cancelled, 200, "{protocol:?}");
        assert!(counts.cancelled > 0, "{protocol:?}");
    }
}

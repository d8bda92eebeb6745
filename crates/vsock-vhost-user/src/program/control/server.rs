// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The server of the control socket.
//!
//! Each client can send one request, with a limited header and in a limited time. When there are
//! too many clients, the oldest is disconnected, so clients that only hold a connection cannot lock
//! others out. A separate thread serves all clients and never blocks on a device thread.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::task::{self, AbortHandle};
use tokio::time::{Instant, interval_at, timeout};
use vsock_sockets::journal::say;
use vsock_vhost_user::{NamedListener, SocketAccess};

use super::answers::answer;
use super::controlled::Controlled;
use crate::program::thread;

/// The permissions of the socket: only this user can connect.
const MODE: u32 = 0o600;

/// The maximum number of clients at one time.
const MAX_CLIENTS: usize = 16;

/// The maximum size of a request's header, in bytes and in lines.
const MAX_HEADER: usize = 8192;
const MAX_HEADER_LINES: usize = 32;

/// How long a client can take to send its header, and for the whole request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the end of the program waits for the thread. On kernels that cannot refuse files
/// (before Linux 6.16), closing a file that a client has sent can block the thread.
const GRACE: Duration = Duration::from_millis(500);

/// The pause after a client could not be accepted, for example because no descriptor is left.
const PAUSE: Duration = Duration::from_millis(100);

/// The control socket and the thread that serves it. Dropping it removes the socket and ends the
/// thread.
#[derive(Debug)]
pub(crate) struct Control {
    _listener: NamedListener,
    /// Dropping the sender ends the thread.
    stop: Option<oneshot::Sender<()>>,
    /// Returns an error when the thread has ended.
    ended: mpsc::Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// Listens on `path`, to which only this user can connect. The thread that serves the socket
    /// runs `begin` first.
    ///
    /// # Errors
    ///
    /// The socket cannot be created, the thread cannot be started, or `begin` fails.
    pub(crate) fn start(
        path: &Path,
        controlled: Controlled,
        begin: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        let access = SocketAccess::default().mode(MODE);
        let listener = NamedListener::bind_without_files(path, access)?;
        let socket = net::UnixListener::from(listener.handle().as_fd().try_clone_to_owned()?);
        socket.set_nonblocking(true)?;
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()?;
        let socket = {
            let _runtime = runtime.enter();
            UnixListener::from_std(socket)?
        };
        let (stop, stopped) = oneshot::channel();
        let (running, ended) = mpsc::channel();
        let thread = thread::start("control", begin, move || {
            let _running: mpsc::Sender<()> = running;
            runtime.block_on(async {
                task::spawn(serve(socket, Arc::new(controlled)));
                // Nothing is ever sent: this returns an error once the sender is dropped.
                let _dropped = stopped.await;
            });
            // Closing the clients' sockets can block too.
            drop(runtime);
        })?;
        Ok(Self {
            _listener: listener,
            stop: Some(stop),
            ended,
            thread: Some(thread),
        })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        drop(self.stop.take());
        if self.ended.recv_timeout(GRACE) == Err(RecvTimeoutError::Timeout) {
            log::warn!(
                "ending without the thread of the control socket, which is blocked by a file that \
                 a client has sent"
            );
            return;
        }
        let joined = self.thread.take().map(JoinHandle::join);
        if matches!(joined, Some(Err(_))) {
            log::error!("the thread of the control socket panicked; please report this defect");
        }
    }
}

/// Accepts and serves clients for as long as the thread runs.
async fn serve(socket: UnixListener, controlled: Arc<Controlled>) {
    let mut clients: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        match socket.accept().await {
            Ok((stream, _)) => {
                clients.retain(|client| !client.is_finished());
                // Abort the oldest client to make room for the new one.
                if clients.len() >= MAX_CLIENTS {
                    if let Some(first) = clients.pop_front() {
                        first.abort();
                    }
                }
                let client = task::spawn(serve_client(stream, Arc::clone(&controlled)));
                clients.push_back(client.abort_handle());
            }
            // The client stays in the backlog, so without a pause this loop would spin.
            Err(error) => {
                say!(
                    controlled.journal,
                    Debug,
                    "cannot accept a client of the control socket: {error}"
                );
                interval_at(Instant::now() + PAUSE, PAUSE).tick().await;
            }
        }
    }
}

async fn serve_client(stream: UnixStream, controlled: Arc<Controlled>) {
    let journal = &controlled.journal;
    let service = service_fn(|request| answer(Arc::clone(&controlled), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER)
        .max_headers(MAX_HEADER_LINES)
        .keep_alive(false)
        // A client can shut down its writing side after the request.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CLIENT_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => say!(
            journal,
            Debug,
            "connection of a control client failed: {error}"
        ),
        Err(_) => say!(
            journal,
            Debug,
            "disconnected a control client that took too long"
        ),
    }
}

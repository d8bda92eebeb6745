// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The control socket: who may have it, how many clients, and for how long.
//!
//! Each client has one request, a bounded header and a bounded time. When too many are there, the
//! one that came first makes room, so clients that only hold their connection keep no other out.
//! All of them are served on a thread of their own, which waits for no device's.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net;
use std::path::Path;
use std::sync::Arc;
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
use vsock_vhost_user::{NamedListener, SocketAccess};

use super::answers::answer;
use super::controlled::Controlled;
use crate::program::thread;

/// The permissions of the socket: this user's alone.
const MODE: u32 = 0o600;

/// Clients at a time.
const MAX_CLIENTS: usize = 16;

/// Bytes of a request's header, of which there may be this many lines.
const MAX_HEADER: usize = 8192;
const MAX_HEADER_LINES: usize = 32;

/// How long a client has for its header, and for the request as a whole.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait after a client that could not be accepted, as when no descriptor is left.
const PAUSE: Duration = Duration::from_millis(100);

/// The control socket, and the thread that serves it. Dropping it ends both.
#[derive(Debug)]
pub(crate) struct Control {
    _listener: NamedListener,
    /// Dropping it ends the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// Listens on `path`, for this user alone. The thread that serves it begins with `begin`.
    ///
    /// # Errors
    ///
    /// The socket cannot be made, or no thread can be started, or the one of `begin`.
    pub(crate) fn start(
        path: &Path,
        controlled: Controlled,
        begin: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        let access = SocketAccess::default().mode(MODE);
        let listener = NamedListener::bind_with(path, access)?;
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
        let thread = thread::start("control", begin, move || {
            runtime.block_on(async {
                task::spawn(serve(socket, Arc::new(controlled)));
                // It ends by an error: nothing is ever sent.
                let _dropped = stopped.await;
            });
        })?;
        Ok(Self {
            _listener: listener,
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        drop(self.stop.take());
        let joined = self.thread.take().map(JoinHandle::join);
        if matches!(joined, Some(Err(_))) {
            log::error!(
                "the thread of the control socket has panicked, this is a defect to report"
            );
        }
    }
}

/// Serves clients for as long as the thread runs.
async fn serve(socket: UnixListener, controlled: Arc<Controlled>) {
    let mut clients: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        match socket.accept().await {
            Ok((stream, _)) => {
                clients.retain(|client| !client.is_finished());
                if clients.len() >= MAX_CLIENTS {
                    if let Some(first) = clients.pop_front() {
                        first.abort();
                    }
                }
                let client = task::spawn(serve_client(stream, Arc::clone(&controlled)));
                clients.push_back(client.abort_handle());
            }
            Err(error) => {
                log::debug!("cannot accept a client of the control socket: {error}");
                interval_at(Instant::now() + PAUSE, PAUSE).tick().await;
            }
        }
    }
}

async fn serve_client(stream: UnixStream, controlled: Arc<Controlled>) {
    let service = service_fn(move |request| answer(Arc::clone(&controlled), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER)
        .max_headers(MAX_HEADER_LINES)
        .keep_alive(false)
        // A client may end its sending with its request.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CLIENT_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => log::debug!("a client of the control socket: {error}"),
        Err(_) => log::debug!("a client of the control socket took too long"),
    }
}

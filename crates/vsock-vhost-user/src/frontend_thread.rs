// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The thread that waits for front-ends, one after another, and answers their requests.

use std::error::Error;
use std::fmt::{self, Write};
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use vhost::vhost_user::message::FrontendReq;
use vhost::vhost_user::{BackendReqHandler, Error as ProtocolError};

use crate::error::VhostUserError;
use crate::frontend::{self, Frontend};
use crate::journal::{Journal, say};
use crate::log_fd;
use crate::panics::catch;
use crate::shared::Shared;
use crate::stopper::{StopStage, Stopper};
use crate::vmms::Vmms;

/// How long to wait before a retry if the operating system lacks a resource.
const RECOVERY: Duration = Duration::from_millis(200);

/// Waits for front-ends and serves them, until it is stopped.
pub(crate) struct FrontendThread {
    pub(crate) shared: Arc<Shared>,
    pub(crate) vmms: Vmms,
    pub(crate) stopper: Stopper,
    pub(crate) io_thread: JoinHandle<Result<(), VhostUserError>>,
}

impl FrontendThread {
    /// Serves front-ends until the device is stopped or its only VMM has disconnected. Then, even
    /// after a panic, releases the backends, so that no thread waits for a guest that cannot
    /// answer.
    pub(crate) fn run(self) -> Result<(), VhostUserError> {
        let Self {
            shared,
            mut vmms,
            stopper,
            io_thread,
        } = self;
        // The shared state remains usable after a panic; see `Shared::worker`.
        let served = catch(|| serve_all(&shared, &mut vmms, &stopper));
        // The device thread is the only other user of the backends: wait for its end.
        stopper.stop();
        let moved = io_thread.join().unwrap_or(Err(VhostUserError::Panicked));
        // If a stream panics while it is dropped, the first call leaves the rest of the front-end's
        // files, and the second call drops them here, where blocking does no harm.
        let ended = catch(|| shared.end()).or_else(|error| catch(|| shared.end()).and(Err(error)));
        stopper.advance(StopStage::Releasing);
        let released = shared.release();
        served.and(moved).and(ended).and(released)
    }
}

fn serve_all(shared: &Arc<Shared>, vmms: &mut Vmms, stopper: &Stopper) {
    let journal = &shared.journal;
    stopper.wait_for_release();
    while let Some(Some(socket)) = retry(journal, stopper, || vmms.next()) {
        let Some(other) = retry(journal, stopper, || socket.try_clone()) else {
            break;
        };
        Session::new(shared, socket, other).serve(shared, stopper);
    }
}

/// Repeats an attempt until it succeeds or the device is stopped.
fn retry<T>(
    journal: &Journal,
    stopper: &Stopper,
    mut attempt: impl FnMut() -> io::Result<T>,
) -> Option<T> {
    while !stopper.is_stopped() {
        match attempt() {
            Ok(done) => return Some(done),
            Err(_) if stopper.is_stopped() => {}
            Err(error) => {
                say!(journal, Error, "cannot serve a VMM, retrying: {error}");
                stopper.wait(RECOVERY);
            }
        }
    }
    None
}

/// The connection of a front-end.
struct Session {
    socket: Arc<UnixStream>,
    requests: BackendReqHandler<Mutex<Frontend>>,
}

/// The request that ended a front-end's connection, and why.
struct Refused {
    request: Request,
    reason: ProtocolError,
}

/// The kind of a request.
#[derive(Clone, Copy)]
enum Request {
    Known(FrontendReq),
    /// A request with a number that the protocol does not define.
    Unknown(u32),
    /// A request that arrives in pieces, so its number cannot be read in advance.
    InPieces,
}

impl Session {
    /// Creates the session of the front-end at `socket`. `other` is another descriptor of it.
    fn new(shared: &Arc<Shared>, socket: UnixStream, other: UnixStream) -> Self {
        let frontend = Mutex::new(Frontend::new(Arc::clone(shared)));
        Self {
            socket: Arc::new(other),
            requests: BackendReqHandler::from_stream(socket, Arc::new(frontend)),
        }
    }

    fn serve(mut self, shared: &Shared, stopper: &Stopper) {
        let journal = &shared.journal;
        say!(journal, Info, "a VMM has connected");
        // While it is set, a stop can hang up on the front-end and so end every wait below.
        stopper.set_session(Some(Arc::clone(&self.socket)));
        let served = self.answer_all();
        stopper.set_session(None);
        match served {
            Err(Refused { request, reason }) if !stopper.is_stopped() => {
                // Only this front-end is affected: the thread serves the next one.
                say!(
                    journal,
                    Warn,
                    "closing the VMM's connection after its request ({request}): {error}",
                    error = reasons(&reason)
                );
            }
            _ => say!(journal, Info, "the VMM has disconnected"),
        }
        // On a stop, the front-end's queues must stay until the guest has its RSTs; `run` ends it.
        if !stopper.is_stopped() {
            shared.end();
        }
    }

    /// Answers requests until the front-end disconnects or sends an invalid request.
    fn answer_all(&mut self) -> Result<(), Refused> {
        while let Some(request) = self.next() {
            if matches!(request, Request::Known(request) if !frontend::serves(request)) {
                let reason = ProtocolError::InvalidOperation("the request was not offered");
                return Err(Refused { request, reason });
            }
            let answered = match request {
                Request::Known(FrontendReq::SET_LOG_FD) => log_fd::take(&self.socket),
                _ => self.requests.handle_request(),
            };
            match answered {
                Ok(()) => {}
                Err(
                    ProtocolError::Disconnected
                    | ProtocolError::PartialMessage
                    | ProtocolError::SocketBroken(_),
                ) => break,
                Err(reason) => return Err(Refused { request, reason }),
            }
        }
        Ok(())
    }

    /// Waits for a request and returns its kind without reading it, or `None` if the front-end has
    /// disconnected.
    fn next(&self) -> Option<Request> {
        let mut code = [0; 4];
        loop {
            match recv(&self.socket, &mut code, RecvFlags::PEEK) {
                Err(Errno::INTR) => {}
                Err(_) | Ok((0, _)) => return None,
                // Waiting here for the rest would need a second read; the handler does that.
                Ok((len, _)) if len < code.len() => return Some(Request::InPieces),
                Ok(_) => {
                    let number = u32::from_ne_bytes(code);
                    let request = FrontendReq::try_from(number);
                    return Some(request.map_or(Request::Unknown(number), Request::Known));
                }
            }
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(request) => write!(f, "{request:?}"),
            Self::Unknown(number) => write!(f, "number {number}, unknown to vhost-user"),
            Self::InPieces => f.write_str("received in pieces"),
        }
    }
}

/// Formats an error with all its causes.
fn reasons(error: &ProtocolError) -> String {
    // This variant wraps the reason for our own refusal, which is more specific than its text.
    let error: &dyn Error = match error {
        ProtocolError::ReqHandlerError(error) => error,
        error => error,
    };
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _written = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

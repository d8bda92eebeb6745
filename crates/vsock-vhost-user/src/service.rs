// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One front-end after the other: the thread that waits for them, and for their requests.

use std::error::Error;
use std::fmt::Write;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SocketFlags, accept_with, recv};
use vhost::vhost_user::message::FrontendReq;
use vhost::vhost_user::{BackendReqHandler, Error as ProtocolError};

use crate::caught::caught;
use crate::frontend::{self, Frontend};
use crate::journal::{Journal, say};
use crate::shared::Shared;
use crate::stop::Progress;
use crate::unix::Guarded;
use crate::{DeviceError, Stopper};

/// How long to leave the operating system alone that lacks something.
const RECOVERY: Duration = Duration::from_millis(200);

/// Waits for front-ends and serves them, until it is stopped.
pub(crate) struct Service {
    shared: Arc<Shared>,
    listener: Guarded,
    stopper: Stopper,
    mover: JoinHandle<Result<(), DeviceError>>,
}

impl Service {
    pub(crate) fn new(
        shared: Arc<Shared>,
        listener: Guarded,
        stopper: Stopper,
        mover: JoinHandle<Result<(), DeviceError>>,
    ) -> Self {
        Self {
            shared,
            listener,
            stopper,
            mover,
        }
    }

    /// Serves until it is stopped, and lets the backends go, so that nobody waits for a guest that
    /// cannot answer: also after a panic.
    pub(crate) fn run(self) -> Result<(), DeviceError> {
        let Self {
            shared,
            listener,
            stopper,
            mover,
        } = self;
        // What is shared is used after a panic as well; see `Shared::worker`.
        let served = caught(|| serve_all(&shared, &listener, &stopper));
        stopper.stop();
        let moved = mover.join().unwrap_or(Err(DeviceError::Panicked));
        // If a stream's drop panics, what the front-end has left is still there, and is dropped here: it may take
        // its time.
        let ended =
            caught(|| shared.end()).or_else(|error| caught(|| shared.end()).and(Err(error)));
        stopper.advance(Progress::Releasing);
        let released = shared.release();
        served.and(moved).and(ended).and(released)
    }
}

fn serve_all(shared: &Arc<Shared>, listener: &Guarded, stopper: &Stopper) {
    let journal = shared.journal();
    let accept = || {
        Ok(retry_on_intr(|| {
            accept_with(listener, SocketFlags::CLOEXEC)
        })?)
    };
    while let Some(socket) = patiently(journal, stopper, accept).map(UnixStream::from)
        && let Some(other) = patiently(journal, stopper, || socket.try_clone())
    {
        Session::new(shared, socket, other).serve(shared, stopper);
    }
}

/// Tries until it can be done, or the device is stopped.
fn patiently<T>(
    journal: &Journal,
    stopper: &Stopper,
    mut attempt: impl FnMut() -> io::Result<T>,
) -> Option<T> {
    while !stopper.is_stopped() {
        match attempt() {
            Ok(done) => return Some(done),
            Err(_) if stopper.is_stopped() => {}
            Err(error) => {
                say!(journal, Error, "cannot serve a VMM, trying again: {error}");
                stopper.wait(RECOVERY);
            }
        }
    }
    None
}

/// A front-end, from its connection to its end.
struct Session {
    socket: Arc<UnixStream>,
    requests: BackendReqHandler<Mutex<Frontend>>,
}

/// How a front-end has gone, if it was not as it should be.
type Refused = (Option<FrontendReq>, ProtocolError);

impl Session {
    /// For the front-end at this socket, and another descriptor of it.
    fn new(shared: &Arc<Shared>, socket: UnixStream, other: UnixStream) -> Self {
        let frontend = Mutex::new(Frontend::new(Arc::clone(shared)));
        Self {
            socket: Arc::new(other),
            requests: BackendReqHandler::from_stream(socket, Arc::new(frontend)),
        }
    }

    fn serve(mut self, shared: &Shared, stopper: &Stopper) {
        let journal = shared.journal();
        say!(journal, Info, "a VMM has connected");
        stopper.set_session(Some(Arc::clone(&self.socket)));
        let served = self.answer_all();
        stopper.set_session(None);
        match served {
            Err((request, error)) if !stopper.is_stopped() => {
                // It is the front-end's mistake, or its kind of goodbye: the next one may do better.
                say!(
                    journal,
                    Warn,
                    "a request of the VMM ({request}) ends its connection: {error}",
                    request = name(request),
                    error = reasons(&error)
                );
            }
            _ => say!(journal, Info, "the VMM has gone"),
        }
        if !stopper.is_stopped() {
            shared.end();
        }
    }

    /// Answers one request after the other, until the front-end has gone or asks for what it must not.
    fn answer_all(&mut self) -> Result<(), Refused> {
        while let Some(request) = self.next() {
            if request.is_some_and(|request| !frontend::serves(request)) {
                return Err((
                    request,
                    ProtocolError::InvalidOperation("it was not offered"),
                ));
            }
            match self.requests.handle_request() {
                Ok(()) => {}
                Err(
                    ProtocolError::Disconnected
                    | ProtocolError::PartialMessage
                    | ProtocolError::SocketBroken(_),
                ) => break,
                Err(error) => return Err((request, error)),
            }
        }
        Ok(())
    }

    /// Waits for a request, and looks which one it is; `None` if none comes.
    fn next(&self) -> Option<Option<FrontendReq>> {
        let mut code = [0; 4];
        loop {
            match recv(&self.socket, &mut code, RecvFlags::PEEK) {
                Err(Errno::INTR) => {}
                Err(_) | Ok((0, _)) => return None,
                // One that comes in pieces is told by what it asks for, not by its name.
                Ok((len, _)) if len < code.len() => return Some(None),
                Ok(_) => return Some(FrontendReq::try_from(u32::from_ne_bytes(code)).ok()),
            }
        }
    }
}

fn name(request: Option<FrontendReq>) -> String {
    request.map_or_else(
        || "of an unknown kind".to_owned(),
        |request| format!("{request:?}"),
    )
}

/// An error, and why, down to the cause.
fn reasons(error: &ProtocolError) -> String {
    // What a request of ours was refused for is in there, and says it better.
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

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A Unix socket for a service in this process, so that other programs on the host can use it:
//!
//! ```sh
//! cargo run -p vsock-epoll --example unix_proxy -- /tmp/service.sock &
//! echo hello | socat - UNIX-CONNECT:/tmp/service.sock
//! ```
//!
//! It runs until it is killed. With a number after the path, it ends after that many connections.

#![expect(clippy::print_stdout, reason = "an example for people")]

use std::error::Error;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::{env, fs};

use event_manager::{EventManager, MutEventSubscriber, SubscriberOps};
use vsock_backend_api::VsockStream;
use vsock_epoll::services::{Echo, Proxy};
use vsock_epoll::{
    AcceptLimits, BackendSubscriber, ListenerSubscriber, More, StreamLimits, StreamSubscriber,
};
use vsock_inner::{VsockInnerBackend, VsockInnerConnector};

/// Connects each client to the service, by opening another connection to the backend.
fn join(
    proxy: &Mutex<StreamSubscriber<Proxy>>,
    connector: &VsockInnerConnector,
    client: Box<dyn VsockStream>,
) -> Result<(), Box<dyn Error>> {
    let service = connector.connect()?;
    let mut proxy = proxy.lock().unwrap_or_else(PoisonError::into_inner);
    Proxy::join(proxy.streams(), client, service)?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args_os().skip(1);
    let path = arguments.next().ok_or("expected the path of the socket")?;
    let connections: Option<u64> = match arguments.next() {
        Some(number) => Some(number.to_string_lossy().parse()?),
        None => None,
    };
    let listener = UnixListener::bind(&path)?;

    let backend = VsockInnerBackend::new()?;
    let connector = backend.get_connector();
    let echo = StreamSubscriber::new(Echo::new(), StreamLimits::default())?;
    let echo = Arc::new(Mutex::new(echo));
    let limits = AcceptLimits::default();
    let service = BackendSubscriber::new(Box::new(backend), Arc::clone(&echo), limits)?;

    let proxy = StreamSubscriber::new(Proxy::new(), StreamLimits::default())?;
    let proxy = Arc::new(Mutex::new(proxy));
    let joined = Arc::clone(&proxy);
    let accepted = move |client| match join(&joined, &connector, client) {
        Ok(()) => More::Accept,
        Err(error) => {
            println!("client refused: {error}");
            More::Later
        }
    };
    let front = ListenerSubscriber::new(listener, accepted, limits)?;

    let mut manager: EventManager<Box<dyn MutEventSubscriber>> = EventManager::new()?;
    manager.add_subscriber(Box::new(service));
    manager.add_subscriber(Box::new(echo));
    manager.add_subscriber(Box::new(front));
    manager.add_subscriber(Box::new(Arc::clone(&proxy)));
    println!("echo service listening on {}", path.to_string_lossy());
    let closes = || {
        proxy
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .counters()
            .closes
    };
    while connections.is_none_or(|connections| closes() < 2 * connections) {
        manager.run()?;
    }
    fs::remove_file(path)?;
    Ok(())
}

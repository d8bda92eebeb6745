// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! An echo service on a backend, on an event manager with boxed subscribers, as a VMM has it.
//!
//! `cargo run -p vsock-epoll --example echo`

#![expect(clippy::print_stdout, reason = "an example for people")]

use std::error::Error;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use event_manager::{EventManager, MutEventSubscriber, SubscriberOps};
use vsock_epoll::services::Echo;
use vsock_epoll::{AcceptLimits, BackendSubscriber, StreamLimits, StreamSubscriber};
use vsock_inner::VsockInnerBackend;

fn main() -> Result<(), Box<dyn Error>> {
    let backend = VsockInnerBackend::new()?;
    let connector = backend.get_connector();

    // The loop of the VMM: one subscriber accepts, the other one serves what was accepted.
    let echo = StreamSubscriber::new(Echo::new(), StreamLimits::default())?;
    let streams = Arc::new(Mutex::new(echo));
    let acceptor = BackendSubscriber::new(
        Box::new(backend),
        Arc::clone(&streams),
        AcceptLimits::default(),
    )?;
    let mut manager: EventManager<Box<dyn MutEventSubscriber>> = EventManager::new()?;
    manager.add_subscriber(Box::new(acceptor));
    manager.add_subscriber(Box::new(Arc::clone(&streams)));
    let lock = || streams.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = lock().take_error() {
        return Err(error.into());
    }

    // A host component, in a thread of its own.
    let host = thread::spawn(move || -> std::io::Result<String> {
        let mut stream = connector.connect_stream()?;
        stream.write_all(b"hello, guest")?;
        stream.shutdown(Shutdown::Write)?;
        let mut back = String::new();
        stream.read_to_string(&mut back)?;
        Ok(back)
    });

    while lock().counters().closes == 0 {
        manager.run()?;
    }
    let back = host.join().map_err(|_| "the host component panicked")??;
    println!("came back: {back}");
    println!("the loop:  {:?}", lock().counters());
    Ok(())
}

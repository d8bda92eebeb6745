// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use event_manager::{MutEventSubscriber, RemoteEndpoint, SubscriberId};
use thiserror::Error;

use crate::{StreamHandler, StreamSubscriber, Streams};

/// Why a call from another thread failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// The event manager is gone, or has no such subscriber.
    #[error("cannot reach the subscriber through the event manager")]
    Manager(#[from] event_manager::Error),
    /// The subscriber is not a [`StreamSubscriber`].
    #[error("the subscriber is not a `StreamSubscriber` of this handler")]
    OtherSubscriber,
}

/// Finds the streams in the event manager's type of subscriber.
type Find<S, H> = fn(&mut S) -> Option<&mut StreamSubscriber<H>>;

/// Controls a [`StreamSubscriber`] from other threads, through the event manager that runs it.
///
/// Every call waits for the loop's next turn. So **do not** call it on the loop's own thread, where
/// it would wait for itself. It also waits if the event manager exists but its loop is no longer
/// run.
///
/// If the event manager's subscribers are boxed and cannot be told apart, share the subscriber
/// instead. An `Arc<Mutex<StreamSubscriber<H>>>` is a subscriber too, and any thread that holds the
/// lock may use its streams. The loop is woken when necessary.
///
/// ```
/// use std::thread;
/// use std::io::{Read, Write};
/// use std::time::Duration;
/// use event_manager::{EventManager, SubscriberOps};
/// use vsock_epoll::services::Echo;
/// use vsock_epoll::{StreamLimits, RemoteHandle, StreamSubscriber};
/// use vsock_inner::VsockInnerStream;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut manager = EventManager::new()?;
/// let id = manager.add_subscriber(StreamSubscriber::new(Echo::new(), StreamLimits::default())?);
/// let remote = RemoteHandle::new(manager.remote_endpoint(), id, |subscriber| Some(subscriber));
/// let looping = thread::spawn(move || -> Result<(), event_manager::Error> {
///     while !manager.subscriber_mut(id)?.streams().is_finished() {
///         manager.run()?;
///     }
///     Ok(())
/// });
///
/// let (mut host, device) = VsockInnerStream::pair()?;
/// remote.call(|streams| streams.add(Box::new(device), ()))??;
/// host.write_all(b"hello")?;
/// let mut back = [0; 5];
/// host.read_exact(&mut back)?;
/// assert_eq!(&back, b"hello");
///
/// remote.call(|streams| streams.drain(Some(Duration::from_secs(5))))?;
/// looping.join().expect("the loop has not panicked")?;
/// # Ok(())
/// # }
/// ```
pub struct RemoteHandle<S, H: StreamHandler> {
    endpoint: RemoteEndpoint<S>,
    subscriber: SubscriberId,
    find: Find<S, H>,
}

impl<S, H> RemoteHandle<S, H>
where
    S: MutEventSubscriber + 'static,
    H: StreamHandler + 'static,
    H::State: Send,
{
    /// Creates a handle for the subscriber with this id. `find` finds the streams in an `S`: in an
    /// `EventManager<StreamSubscriber<H>>` it returns `Some`, and with an enum of subscribers it
    /// matches the variant.
    #[must_use]
    pub fn new(endpoint: RemoteEndpoint<S>, subscriber: SubscriberId, find: Find<S, H>) -> Self {
        Self {
            endpoint,
            subscriber,
            find,
        }
    }

    /// Runs `what` with the streams on the loop's thread, and returns its result. If it panics, the
    /// loop continues, and the panic is resumed in the caller.
    ///
    /// # Errors
    ///
    /// [`RemoteError`], if the subscriber cannot be reached.
    pub fn call<R: Send + 'static>(
        &self,
        what: impl FnOnce(&mut Streams<H::State>) -> R + Send + 'static,
    ) -> Result<R, RemoteError> {
        let (id, find) = (self.subscriber, self.find);
        let called = self.endpoint.call_blocking(move |manager| {
            // A panic in a call from another thread must not end the loop.
            Ok::<_, RemoteError>(catch_unwind(AssertUnwindSafe(|| {
                let subscriber = manager.subscriber_mut(id)?;
                let found = find(subscriber).ok_or(RemoteError::OtherSubscriber)?;
                Ok(what(found.streams()))
            })))
        })?;
        called.unwrap_or_else(|panic| resume_unwind(panic))
    }
}

impl<S, H: StreamHandler> Clone for RemoteHandle<S, H> {
    fn clone(&self) -> Self {
        Self {
            endpoint: self.endpoint.clone(),
            subscriber: self.subscriber,
            find: self.find,
        }
    }
}

impl<S, H: StreamHandler> fmt::Debug for RemoteHandle<S, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteHandle")
            .field("subscriber", &self.subscriber)
            .finish_non_exhaustive()
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The constructors of the backend.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use super::{FIRST_CLIENT, LISTENER, PassFdBackend, TIMER};
use crate::passed::config::PassFdConfig;
use crate::passed::starter::Starter;
use crate::passed::timer::Timer;
use crate::unix::backend::UnixBackend;
use crate::unix::socket_access::SocketAccess;

impl PassFdBackend {
    /// Listens on `path`, as [`UnixBackend::bind`] does.
    ///
    /// # Errors
    ///
    /// - `InvalidInput`: a field of `config` is out of range. The message names the field.
    /// - As for [`UnixBackend::bind`].
    pub fn bind(path: impl AsRef<Path>, config: PassFdConfig) -> io::Result<Self> {
        Self::bind_with(path, SocketAccess::default(), config)
    }

    /// Like [`bind`](Self::bind), with these permissions for the socket's file.
    ///
    /// # Errors
    ///
    /// As for [`bind`](Self::bind) and [`UnixBackend::bind_with`].
    pub fn bind_with(
        path: impl AsRef<Path>,
        access: SocketAccess,
        config: PassFdConfig,
    ) -> io::Result<Self> {
        config.check()?;
        let backend = UnixBackend::bind_for_files(path.as_ref(), access)?;
        Self::over(backend, config)
    }

    /// Takes over a socket that already listens on `path`, as [`UnixBackend::from_socket`] does.
    ///
    /// # Errors
    ///
    /// - `InvalidInput`: a field of `config` is out of range. The message names the field.
    /// - As for [`UnixBackend::from_socket`].
    pub fn from_socket(
        socket: OwnedFd,
        path: impl AsRef<Path>,
        config: PassFdConfig,
    ) -> io::Result<Self> {
        config.check()?;
        let backend = UnixBackend::from_socket_for_files(socket, path.as_ref())?;
        Self::over(backend, config)
    }

    fn over(backend: UnixBackend, config: PassFdConfig) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let timer = Timer::new()?;
        epoll::add(
            &epoll,
            &backend,
            EventData::new_u64(LISTENER),
            EventFlags::IN,
        )?;
        // The timer is never read, so it must be edge-triggered.
        let edge = EventFlags::IN | EventFlags::ET;
        epoll::add(&epoll, &timer, EventData::new_u64(TIMER), edge)?;
        Ok(Self {
            backend,
            config,
            epoll,
            timer,
            clients: BTreeMap::new(),
            next: FIRST_CLIENT,
            register: Arc::default(),
            starter: Starter::new()?,
        })
    }

    /// Runs `first` on the thread that starts the threads of passed descriptors, and waits for it.
    ///
    /// This is for programs that confine their threads. The threads of passed descriptors inherit
    /// the confinement of the thread that starts them. They start other threads, open
    /// `/proc/self/fd/N` for `keep`, and read, write and close passed descriptors.
    ///
    /// ```
    /// use vsock_sockets::{PassFdBackend, PassFdConfig};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// # let directory = std::env::temp_dir().join(format!("vsock-first-{}", std::process::id()));
    /// # std::fs::create_dir_all(&directory)?;
    /// # let path = directory.join("vm.vsock");
    /// let backend = PassFdBackend::bind(&path, PassFdConfig::default())?;
    /// let backend = backend.on_thread_start(|| Ok(()))?;
    /// # drop(backend);
    /// # std::fs::remove_dir_all(&directory)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The error of `first`. The backend is dropped then.
    pub fn on_thread_start(
        self,
        first: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        self.starter.first(first)?;
        Ok(self)
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How a backend starts.

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
    /// - `InvalidInput`: a field of `config` is out of its range, which the text names.
    /// - Others are those of [`UnixBackend::bind`].
    pub fn bind(path: impl AsRef<Path>, config: PassFdConfig) -> io::Result<Self> {
        Self::bind_with(path, SocketAccess::default(), config)
    }

    /// As [`bind`](Self::bind), with these permissions of the socket's file.
    ///
    /// # Errors
    ///
    /// Those of [`bind`](Self::bind), and of [`UnixBackend::bind_with`].
    pub fn bind_with(
        path: impl AsRef<Path>,
        access: SocketAccess,
        config: PassFdConfig,
    ) -> io::Result<Self> {
        config.check()?;
        let backend = UnixBackend::bind_for_files(path.as_ref(), access)?;
        Self::over(backend, config)
    }

    /// As [`UnixBackend::from_socket`]: takes over a socket that listens on `path` already.
    ///
    /// # Errors
    ///
    /// - `InvalidInput`: a field of `config` is out of its range, which the text names.
    /// - Others are those of [`UnixBackend::from_socket`].
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

    /// Lets the thread that starts those of passed descriptors do this first, for a program that
    /// confines its threads: what that thread has done to itself, they inherit. They start others,
    /// open `/proc/self/fd/N` for `keep`, and read, write and close what was passed.
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
    /// The error of `first`, with which the backend is dropped.
    pub fn on_thread_start(
        self,
        first: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        self.starter.first(first)?;
        Ok(self)
    }
}

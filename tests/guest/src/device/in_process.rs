// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A device in this process: host components have streams that never leave it.

use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vsock_inner::{
    VsockInnerConnector, VsockInnerListener, VsockInnerReader, VsockInnerStream, VsockInnerWriter,
};
use vsock_vhost_user::{VhostUserVsock, VhostUserVsockBuilder};

use super::{Device, Host, LIMIT, Listener, Reader, Stream, Writer};
use crate::child::Child;
use crate::usage::{self, Usage};

/// Whether a thread of this name belongs to the library's device for this guest.
#[must_use]
pub fn is_its_thread(cid: u32, name: &str) -> bool {
    name == format!("vsock-{cid}") || name == format!("vmm-{cid}")
}

/// The library's device, on its own threads.
#[derive(Debug)]
pub struct InProcess {
    _device: VhostUserVsock,
    connector: VsockInnerConnector,
    socket: PathBuf,
    cid: u32,
}

impl InProcess {
    /// Starts it with its socket in a directory. It looks for work for `poll_budget` before it sleeps, or as
    /// long as it does by default.
    ///
    /// # Errors
    ///
    /// Those of the device.
    pub fn start(
        cid: u32,
        directory: &Path,
        poll_budget: Option<Duration>,
    ) -> anyhow::Result<Self> {
        let socket = directory.join("vhu.sock");
        let mut builder = VhostUserVsockBuilder::new(cid.into(), &socket);
        if let Some(budget) = poll_budget {
            builder = builder.poll_budget(budget);
        }
        let (builder, connector) = builder.in_process()?;
        Ok(Self {
            _device: builder.spawn()?,
            connector,
            socket,
            cid,
        })
    }
}

impl Device for InProcess {
    fn socket(&self) -> &Path {
        &self.socket
    }

    fn host(&self) -> Arc<dyn Host> {
        Arc::new(Connector(self.connector.clone()))
    }

    fn usage(&self) -> anyhow::Result<Usage> {
        Usage::of_threads(std::process::id(), |name| is_its_thread(self.cid, name))
    }

    fn host_usage(&self) -> anyhow::Result<Usage> {
        Ok(Usage::of_this_process()? - self.usage()?)
    }

    fn anonymous_bytes(&self) -> anyhow::Result<u64> {
        usage::anonymous_bytes(std::process::id())
    }

    fn descriptors(&self) -> anyhow::Result<usize> {
        usage::descriptors(std::process::id())
    }

    fn process(&self) -> Option<&Child> {
        None
    }
}

struct Connector(VsockInnerConnector);

impl Host for Connector {
    fn connect(&self, port: u32) -> io::Result<Stream> {
        stream(self.0.connect_to(port)?)
    }

    fn listen(&self, port: u32) -> io::Result<Box<dyn Listener>> {
        let listener = self.0.listen(port)?;
        listener.set_nonblocking(true)?;
        let epoll = Epoll::new()?;
        let event = EpollEvent::new(EventSet::IN, 0);
        epoll.ctl(ControlOperation::Add, listener.as_raw_fd(), event)?;
        Ok(Box::new(Port { listener, epoll }))
    }
}

/// A listener, and what waits for it.
struct Port {
    listener: VsockInnerListener,
    epoll: Epoll,
}

impl Listener for Port {
    fn accept(&self) -> io::Result<Stream> {
        loop {
            match self.listener.accept() {
                Ok(accepted) => return stream(accepted),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait()?,
                Err(error) => return Err(error),
            }
        }
    }
}

impl Port {
    fn wait(&self) -> io::Result<()> {
        let millis = i32::try_from(LIMIT.as_millis()).unwrap_or(i32::MAX);
        match self.epoll.wait(millis, &mut [EpollEvent::default()]) {
            Ok(0) => Err(ErrorKind::TimedOut.into()),
            Err(error) if error.kind() != ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }
}

fn stream(stream: VsockInnerStream) -> io::Result<Stream> {
    let (mut reader, mut writer) = stream.into_split();
    reader.set_timeout(Some(LIMIT))?;
    writer.set_timeout(Some(LIMIT))?;
    Ok(Stream {
        reader: Box::new(reader),
        writer: Box::new(writer),
    })
}

impl Reader for VsockInnerReader {}

impl Writer for VsockInnerWriter {
    fn set_limit(&mut self, limit: Duration) -> io::Result<()> {
        self.set_timeout(Some(limit))
    }

    fn finish(&mut self) -> io::Result<()> {
        self.shutdown()
    }
}

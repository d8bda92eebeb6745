// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A device in this process: host components have streams that never leave it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use vsock_inner::{VsockInnerConnector, VsockInnerListener, VsockInnerStream, VsockInnerWriter};
use vsock_vhost_user::{VhostUserVsock, VhostUserVsockBuilder};

use super::{Device, Ends, Host, LIMIT, Listener, Stream, Writer};
use crate::usage::Usage;

/// Whether a thread of this name belongs to the library's device for this guest.
#[must_use]
pub fn is_its_thread(cid: u32, name: &str) -> bool {
    name == format!("vsock-{cid}") || name == format!("vmm-{cid}")
}

/// The library's device, on its own threads.
#[derive(Debug)]
pub struct InProcess {
    device: VhostUserVsock,
    connector: VsockInnerConnector,
    socket: PathBuf,
    cid: u32,
}

impl InProcess {
    /// Starts it with its socket in a directory. It looks for work for `poll_budget` before it sleeps, or as
    /// long as it does by default.
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
            device: builder.spawn()?,
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

    fn ends(&self) -> Ends {
        Ends::InProcess(self.connector.clone())
    }

    fn connections(&self) -> Option<u64> {
        let counters = self.device.counters();
        let begun = counters.guest_initiated + counters.host_initiated;
        begun.checked_sub(counters.endings.total())
    }

    fn usage(&self) -> anyhow::Result<Usage> {
        Usage::of_threads(std::process::id(), |name| is_its_thread(self.cid, name))
    }

    fn host_usage(&self) -> anyhow::Result<Usage> {
        Ok(Usage::of_this_process()? - self.usage()?)
    }
}

struct Connector(VsockInnerConnector);

impl Host for Connector {
    fn connect(&self, port: u32) -> io::Result<Stream> {
        stream(self.0.connect_to(port)?)
    }

    fn listen(&self, port: u32) -> io::Result<Box<dyn Listener>> {
        Ok(Box::new(self.0.listen(port)?))
    }
}

impl Listener for VsockInnerListener {
    fn accept_within(&self, limit: Duration) -> io::Result<Stream> {
        stream(self.accept_timeout(limit)?)
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

impl Writer for VsockInnerWriter {
    fn set_limit(&mut self, limit: Duration) -> io::Result<()> {
        self.set_timeout(Some(limit))
    }

    fn finish(&mut self) -> io::Result<()> {
        self.shutdown()
    }
}

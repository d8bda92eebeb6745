// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A device in this process, whose host components use in-process streams.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use vsock_inner::{VsockInnerConnector, VsockInnerListener, VsockInnerStream, VsockInnerWriter};
use vsock_vhost_user::{Siblings, VhostUserVsock, VhostUserVsockBuilder};

use super::{Device, Ends, Host, LIMIT, Listener, Stream, Writer};
use crate::usage::Usage;

/// Returns whether a thread of this name belongs to the library's device for this guest.
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
    sibling: Option<Sibling>,
}

/// The device of a sibling.
#[derive(Debug)]
struct Sibling {
    cid: u32,
    socket: PathBuf,
    _device: VhostUserVsock,
}

/// The group that both guests join.
const GROUP: &str = "siblings";

impl InProcess {
    /// Starts a device with its socket in a directory. The device polls for `poll_budget` before it
    /// sleeps, or for its default budget.
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
            sibling: None,
        })
    }

    /// Starts devices for two siblings in one group. The host side is the first guest's.
    pub fn start_siblings(cids: [u32; 2], directory: &Path) -> anyhow::Result<Self> {
        let siblings = Siblings::new();
        let builder = |cid: u32, socket: &Path| {
            let backend = siblings.join(cid.into(), GROUP.parse()?)?;
            let builder = VhostUserVsockBuilder::new(cid.into(), socket);
            anyhow::Ok(builder.sibling_backend(Box::new(backend)))
        };
        let [first, second] = cids;
        let socket = directory.join("vhu.sock");
        let (device, connector) = builder(first, &socket)?.in_process()?;
        let sibling = directory.join("sibling-vhu.sock");
        Ok(Self {
            device: device.spawn()?,
            connector,
            socket,
            cid: first,
            sibling: Some(Sibling {
                cid: second,
                _device: builder(second, &sibling)?.spawn()?,
                socket: sibling,
            }),
        })
    }
}

impl Device for InProcess {
    fn socket(&self) -> &Path {
        &self.socket
    }

    fn sibling_socket(&self) -> Option<&Path> {
        self.sibling.as_ref().map(|sibling| &*sibling.socket)
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
        let sibling = self.sibling.as_ref().map(|sibling| sibling.cid);
        Usage::of_threads(std::process::id(), |name| {
            is_its_thread(self.cid, name) || sibling.is_some_and(|cid| is_its_thread(cid, name))
        })
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

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A device in its own directory, with in-process streams, and backends that a test can script.

use std::any::Any;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tempfile::TempDir;
use vsock_compliance::poll::Stopwatch;
use vsock_proto::Op;
use vsock_vhost_user::{
    Siblings, VhostUserVsock, VhostUserVsockBuilder, VsockBackend, VsockBackendType,
    VsockInnerConnector, VsockInnerStream, VsockStream,
};

use crate::guest::Guest;
use crate::vmm::Vmm;

/// How long a device may take to stop.
pub(crate) const STOP: Duration = Duration::from_secs(2);

pub(crate) struct Host {
    pub(crate) device: VhostUserVsock,
    pub(crate) connector: VsockInnerConnector,
    pub(crate) cid: u64,
    pub(crate) dir: TempDir,
}

/// Returns a CID that no other test uses. Each belongs to only one device of a process.
pub(crate) fn next_cid() -> u64 {
    static CID: AtomicU64 = AtomicU64::new(0x1234_0000);
    // ORDER: Relaxed; partner: none, each call only needs a different number.
    CID.fetch_add(1, Ordering::Relaxed)
}

impl Host {
    pub(crate) fn new() -> Self {
        Self::with(|_, builder| builder)
    }

    /// Creates a device with the additions of `add` for a path in the directory. Its backends
    /// precede the in-process one.
    pub(crate) fn with(
        add: impl FnOnce(&Path, VhostUserVsockBuilder) -> VhostUserVsockBuilder,
    ) -> Self {
        Self::with_cid(next_cid(), add)
    }

    /// Creates a device whose guest is one of these siblings.
    pub(crate) fn sibling(siblings: &Siblings, groups: &str) -> Self {
        let cid = next_cid();
        let backend = siblings.join(cid, groups.parse().unwrap()).unwrap();
        Self::with_cid(cid, |_, builder| builder.sibling_backend(Box::new(backend)))
    }

    fn with_cid(
        cid: u64,
        add: impl FnOnce(&Path, VhostUserVsockBuilder) -> VhostUserVsockBuilder,
    ) -> Self {
        let dir = TempDir::new().unwrap();
        let builder = VhostUserVsockBuilder::new(cid, dir.path().join("vhost.sock"));
        let builder = add(&dir.path().join("vm.vsock"), builder);
        let (builder, connector) = builder.in_process().unwrap();
        Self {
            device: builder.spawn().unwrap(),
            dir,
            cid,
            connector,
        }
    }

    pub(crate) fn with_backend(backend: Scripted) -> Self {
        Self::with(|_, builder| builder.backend(Box::new(backend)))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The path of the VMM's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.path("vhost.sock")
    }

    pub(crate) fn vmm(&self) -> Vmm {
        Vmm::connect(&self.socket())
    }

    pub(crate) fn boot(&self) -> Guest {
        Guest::boot(&self.socket(), self.cid)
    }

    /// Creates a device whose guest is up.
    pub(crate) fn booted() -> (Self, Guest) {
        let host = Self::new();
        let guest = host.boot();
        (host, guest)
    }

    /// Starts a thread that connects to a port of the guest and then runs `body`.
    pub(crate) fn connecting<T: Send + 'static>(
        &self,
        port: u32,
        body: impl FnOnce(VsockInnerStream) -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let connector = self.connector.clone();
        thread::spawn(move || body(connector.connect_to(port).unwrap()))
    }

    /// Checks that bytes pass from the guest to the host and back on a new connection.
    #[track_caller]
    pub(crate) fn assert_serves(&self, guest: &mut Guest, port: u32) {
        let listener = self.connector.listen(port).unwrap();
        let (mut socket, answer) = guest.connect(port, port);
        assert_eq!(answer.op, u16::from(Op::Response));
        let mut stream = listener.accept().unwrap();
        guest.write(&socket, b"question");
        let mut question = [0; 8];
        stream.read_exact(&mut question).unwrap();
        stream.write_all(&question).unwrap();
        assert_eq!(guest.read(&mut socket, 8), b"question");
        // No further packet belongs to it.
        guest.say(&socket, Op::Reset, 0, &[]);
        let end = stream.read(&mut [0]).unwrap_err().kind();
        assert_eq!(end, ErrorKind::ConnectionReset);
    }

    /// Checks that the device stops in time.
    #[track_caller]
    pub(crate) fn assert_stops(self) {
        let watch = Stopwatch::start();
        self.device.stop().unwrap();
        assert!(watch.elapsed() < STOP, "{:?}", watch.elapsed());
    }
}

type Act = Box<dyn FnMut() + Send>;

/// A backend that runs scripts in its calls. It has no clients. Without streams, it refuses the
/// guest's connections.
#[derive(Default)]
pub(crate) struct Scripted {
    pub(crate) watched: Option<UnixStream>,
    pub(crate) on_accept: Option<Act>,
    pub(crate) on_connect: Option<Box<dyn Fn() -> ScriptedStream + Send>>,
    #[expect(dead_code, reason = "its drop acts")]
    pub(crate) on_drop: OnDrop,
}

/// A stream that runs scripts in its calls. It has no data, and takes everything.
#[derive(Default)]
pub(crate) struct ScriptedStream {
    pub(crate) on_write: Option<Act>,
    #[expect(dead_code, reason = "its drop acts")]
    pub(crate) on_drop: OnDrop,
}

/// A script that runs when this is dropped.
#[derive(Default)]
pub(crate) struct OnDrop(Option<Act>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        perform(&mut self.0);
    }
}

pub(crate) fn on_drop(act: impl FnMut() + Send + 'static) -> OnDrop {
    OnDrop(Some(Box::new(act)))
}

/// Creates a script.
#[expect(clippy::unnecessary_wraps, reason = "as a script has it")]
pub(crate) fn act(act: impl FnMut() + Send + 'static) -> Option<Act> {
    Some(Box::new(act))
}

fn perform(script: &mut Option<Act>) {
    if let Some(act) = script {
        act();
    }
}

impl AsRawFd for Scripted {
    fn as_raw_fd(&self) -> RawFd {
        self.watched.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }
}

impl VsockBackend for Scripted {
    fn accept(&mut self) -> io::Result<Box<dyn VsockStream>> {
        perform(&mut self.on_accept);
        Err(ErrorKind::WouldBlock.into())
    }

    fn connect(&self, _port: u32) -> io::Result<Box<dyn VsockStream>> {
        let connect = self.on_connect.as_ref();
        let connect = connect.ok_or(ErrorKind::ConnectionRefused)?;
        Ok(Box::new(connect()))
    }

    fn r#type(&self) -> VsockBackendType {
        VsockBackendType::Other("scripted")
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Read for ScriptedStream {
    fn read(&mut self, _buf: &mut [u8]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }
}

impl Write for ScriptedStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        perform(&mut self.on_write);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsRawFd for ScriptedStream {
    fn as_raw_fd(&self) -> RawFd {
        -1
    }
}

impl VsockStream for ScriptedStream {
    fn backend_type(&self) -> VsockBackendType {
        VsockBackendType::Other("scripted")
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

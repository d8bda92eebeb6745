// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Packets of guests in a file that Wireshark and tshark read.

mod clock;
mod config;
mod error;
mod pcapng;
mod queue;
mod sink;
#[cfg(test)]
mod tests;
mod vsockmon;
mod writer;

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::Signal;
use vmm_sys_util::signal::block_signal;
use vsock_proto::{GuestCid, Header};
use vsock_virtio::{PacketDirection, PacketTap};

pub use config::CaptureConfig;
pub use error::CaptureError;

use pcapng::Packet;
use queue::Queue;
use sink::{Existing, Sink};
use writer::Writer;

/// How long the end of a capture waits until everything is written.
const GRACE: Duration = Duration::from_secs(2);

/// What a capture has counted, of all its devices.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct CaptureCounters {
    /// Packets that passed.
    pub packets: u64,
    /// Those of them that are not in the file: the queue was full, the file could not be written,
    /// or had reached its limit.
    pub dropped: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
}

/// Writes the packets of devices to a file: pcapng, with the link type and the headers of Linux's
/// vsockmon (`LINKTYPE_VSOCK`), which Wireshark and tshark dissect.
///
/// Each device that [is captured](crate::VhostUserVsock::start_capture) is an interface in the
/// file. A thread of its own writes, and devices never wait for it: a packet for which there is no
/// room in the queue is counted instead. How many are missing stands before the next packet
/// (`epb_dropcount`) and in the statistics of the interface (`isb_ifdrop`).
///
/// The capture ends by [`stop`](Self::stop) or when it is dropped; by itself, when it cannot be
/// written, as on a full disk, or has [as many bytes](CaptureConfig::file_bytes) as it may have.
/// The devices go on.
///
/// ```
/// use vsock_vhost_user::{Capture, CaptureConfig, VhostUserVsockBuilder};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = std::env::temp_dir().join(format!("vsock-capture-{}", std::process::id()));
/// # std::fs::create_dir_all(&directory)?;
/// let builder = VhostUserVsockBuilder::new(77, directory.join("vhost.sock"));
/// let (builder, _connector) = builder.in_process()?;
/// let device = builder.spawn()?;
///
/// let capture = Capture::create(&directory.join("packets.pcapng"), CaptureConfig::default())?;
/// device.start_capture(&capture);
/// // ...
/// device.stop_capture();
/// let counters = capture.stop()?;
/// assert_eq!(counters.dropped, 0);
/// # device.stop()?;
/// # std::fs::remove_dir_all(&directory)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "dropping it ends the capture"]
pub struct Capture {
    queue: Arc<Queue>,
    config: CaptureConfig,
    /// `None` once it was waited for.
    writer: Option<JoinHandle<Result<(), CaptureError>>>,
}

impl Capture {
    /// Begins a capture into a file, which only its owner can read: a guest's data is in it. What
    /// was in a file of this name is overwritten, and its permissions stay.
    ///
    /// The file may be a FIFO with a reader, such as `wireshark -k -i FIFO`.
    ///
    /// # Errors
    ///
    /// [`CaptureError::Limit`], [`CaptureError::Open`], [`CaptureError::Thread`].
    pub fn create(path: &Path, config: CaptureConfig) -> Result<Self, CaptureError> {
        Self::create_with(path, config, || Ok(()))
    }

    /// As [`create`](Self::create). The thread that writes does `first`, after the file was opened:
    /// a program can confine it.
    ///
    /// # Errors
    ///
    /// Those of [`create`](Self::create); [`CaptureError::Thread`] also with the error of `first`.
    pub fn create_with(
        path: &Path,
        config: CaptureConfig,
        first: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Result<Self, CaptureError> {
        Self::open(path, Existing::Overwritten, config, first)
    }

    /// As [`create_with`](Self::create_with), but only into a file that is not there yet. Neither a
    /// symbolic link nor a FIFO is taken for one.
    ///
    /// # Errors
    ///
    /// Those of [`create_with`](Self::create_with); if there is something of this name, the source
    /// of [`CaptureError::Open`] is [`AlreadyExists`](io::ErrorKind::AlreadyExists).
    pub fn create_new_with(
        path: &Path,
        config: CaptureConfig,
        first: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Result<Self, CaptureError> {
        Self::open(path, Existing::Kept, config, first)
    }

    fn open(
        path: &Path,
        existing: Existing,
        config: CaptureConfig,
        first: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Result<Self, CaptureError> {
        config.check()?;
        let sink = Sink::open(path, existing).map_err(|source| CaptureError::Open {
            path: path.to_owned(),
            source,
        })?;
        Self::start(sink, path.display().to_string(), config, first)
    }

    /// Begins a capture into any writer, which may wait.
    ///
    /// # Errors
    ///
    /// [`CaptureError::Limit`], [`CaptureError::Thread`].
    pub fn to_writer(
        writer: impl Write + Send + 'static,
        config: CaptureConfig,
    ) -> Result<Self, CaptureError> {
        config.check()?;
        let sink = Sink::to(writer);
        Self::start(sink, "of packets".to_owned(), config, || Ok(()))
    }

    fn start(
        sink: Sink,
        name: String,
        config: CaptureConfig,
        first: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Result<Self, CaptureError> {
        let queue = Arc::new(Queue::new(config.queue_bytes));
        queue.begin(concat!("vsock-vhost-user ", env!("CARGO_PKG_VERSION")));
        let limit = config.file_bytes;
        let writer = Writer { sink, limit, name };
        let taken = Arc::clone(&queue);
        let (tell, begun) = mpsc::sync_channel(1);
        let body = move || {
            // A FIFO whose reader has gone, and a file that has reached the limit of the process
            // (RLIMIT_FSIZE), are errors, and do not end the process.
            for signal in [Signal::PIPE, Signal::XFSZ] {
                if let Err(error) = block_signal(signal.as_raw()) {
                    log::debug!("signal {} is not blocked: {error:?}", signal.as_raw());
                }
            }
            let result = first();
            let may_run = result.is_ok();
            // The one that waits for it is there.
            let _told = tell.send(result);
            if !may_run {
                return Ok(());
            }
            writer.run(&taken)
        };
        let thread = thread::Builder::new().name("capture".to_owned());
        let writer = Some(thread.spawn(body).map_err(CaptureError::Thread)?);
        let begun = begun.recv().map_err(|_| CaptureError::Panicked)?;
        begun.map_err(CaptureError::Thread)?;
        Ok(Self {
            queue,
            config,
            writer,
        })
    }

    /// What shows the packets of a device to this capture.
    pub(crate) fn tap(&self, guest: GuestCid) -> impl PacketTap + use<> {
        let (name, description) = (format!("guest-{guest}"), format!("vsock of guest {guest}"));
        let snap_len = self.config.snap_len();
        Tap {
            interface: self.queue.add_interface(&name, &description, snap_len),
            queue: Arc::clone(&self.queue),
            payload_bytes: self.config.payload_bytes,
        }
    }

    /// Whether packets are taken: it has not ended by itself.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.queue.is_open()
    }

    /// What has been counted.
    #[must_use]
    pub fn counters(&self) -> CaptureCounters {
        let sums = self.queue.sums();
        CaptureCounters {
            packets: sums.passed,
            dropped: sums.dropped,
            file_bytes: sums.file_bytes,
        }
    }

    /// Ends the capture when everything is written. It waits for that for two seconds at most.
    ///
    /// # Errors
    ///
    /// - [`CaptureError::Write`], [`CaptureError::FileLimit`]: it had ended before.
    /// - [`CaptureError::NotEnded`]: the file takes nothing.
    pub fn stop(mut self) -> Result<CaptureCounters, CaptureError> {
        self.end()?;
        Ok(self.counters())
    }

    fn end(&mut self) -> Result<(), CaptureError> {
        let Some(writer) = self.writer.take() else {
            return Ok(());
        };
        self.queue.close();
        // A thread that has panicked does not say that it has ended.
        if !writer.is_finished() && !self.queue.wait_until_ended(GRACE) {
            return Err(CaptureError::NotEnded);
        }
        writer.join().unwrap_or(Err(CaptureError::Panicked))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            log::debug!("the capture: {error}");
        }
    }
}

/// Takes the packets of one device.
struct Tap {
    queue: Arc<Queue>,
    interface: u32,
    payload_bytes: u32,
}

impl PacketTap for Tap {
    fn payload_bytes(&self) -> usize {
        usize::try_from(self.payload_bytes).unwrap_or(usize::MAX)
    }

    fn packet(
        &mut self,
        direction: PacketDirection,
        header: &Header,
        payload: &[u8],
    ) -> ControlFlow<()> {
        let seen = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        self.queue.push(Packet {
            interface: self.interface,
            time: clock::now(),
            direction,
            dropped: 0,
            headers: &vsockmon::headers(header),
            payload,
            cut: header.len.saturating_sub(seen),
        })
    }
}

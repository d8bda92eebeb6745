// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Captures packets of guests in a file for Wireshark and tshark.
//!
//! A [`Tap`] in each captured device appends packets to a bounded [`Queue`], in the format of the
//! file. A [`Writer`] thread takes all of them at once and writes them to the [`Sink`]. Devices
//! never wait for the thread or the file.

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

use crate::journal::{CAPTURES, say};

/// How long the end of a capture waits until everything is written.
const GRACE: Duration = Duration::from_secs(2);

/// Counters of a capture, over all its devices.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct CaptureCounters {
    /// All packets of the captured devices.
    pub packets: u64,
    /// Packets that are not in the file, because the queue was full, the file could not be written,
    /// or it had reached its limit.
    pub dropped: u64,
    /// The size of the file in bytes.
    pub file_bytes: u64,
}

/// A capture of the packets of devices in a pcapng file. The file has the link type and the headers
/// of Linux's vsockmon (`LINKTYPE_VSOCK`), which Wireshark and tshark dissect.
///
/// Each [captured device](crate::VhostUserVsock::start_capture) is an interface in the file. A
/// separate thread writes the file, and devices never wait for it: a packet that finds no room in
/// the queue is dropped and counted. The file contains the number of missing packets with the next
/// packet (`epb_dropcount`) and in the statistics of the interface (`isb_ifdrop`).
///
/// [`stop`](Self::stop) or dropping the capture ends it. It also ends if the file cannot be
/// written, for example because the disk is full, or reaches its
/// [limit](CaptureConfig::file_bytes). The devices continue.
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
    /// The writer thread; `None` after it was joined.
    writer: Option<JoinHandle<Result<(), CaptureError>>>,
}

impl Capture {
    /// Starts a capture into a file. Only the owner can read a new file, because it contains the
    /// guest's data. An existing file is overwritten, and keeps its permissions.
    ///
    /// The file may be a FIFO with a reader, such as `wireshark -k -i FIFO`.
    ///
    /// # Errors
    ///
    /// Returns [`CaptureError::Limit`], [`CaptureError::Open`] or [`CaptureError::Thread`].
    pub fn create(path: &Path, config: CaptureConfig) -> Result<Self, CaptureError> {
        Self::create_with(path, config, || Ok(()))
    }

    /// Like [`create`](Self::create), but the writer thread calls `first` after the file was
    /// opened, for example to confine itself.
    ///
    /// # Errors
    ///
    /// As for [`create`](Self::create). [`CaptureError::Thread`] may contain the error of `first`.
    pub fn create_with(
        path: &Path,
        config: CaptureConfig,
        first: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Result<Self, CaptureError> {
        Self::open(path, Existing::Overwritten, config, first)
    }

    /// Like [`create_with`](Self::create_with), but only into a new file. An existing file,
    /// symbolic link or FIFO is an error.
    ///
    /// # Errors
    ///
    /// As for [`create_with`](Self::create_with). If the path exists, the source of
    /// [`CaptureError::Open`] is [`AlreadyExists`](io::ErrorKind::AlreadyExists).
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

    /// Starts a capture into any writer, which may block.
    ///
    /// # Errors
    ///
    /// Returns [`CaptureError::Limit`] or [`CaptureError::Thread`].
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
            // A FIFO whose reader has gone, or a file at the process's size limit (RLIMIT_FSIZE),
            // must be an error, not a signal that ends the process.
            for signal in [Signal::PIPE, Signal::XFSZ] {
                if let Err(error) = block_signal(signal.as_raw()) {
                    say!(CAPTURES, Debug, "cannot block a signal: {error:?}");
                }
            }
            let result = first();
            let may_run = result.is_ok();
            // The receiver waits below, so this does not fail.
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

    /// Creates a tap that adds the packets of a device to this capture.
    pub(crate) fn tap(&self, guest: GuestCid) -> impl PacketTap + use<> {
        let (name, description) = (format!("guest-{guest}"), format!("vsock of guest {guest}"));
        let snap_len = self.config.snap_len();
        Tap {
            interface: self.queue.add_interface(&name, &description, snap_len),
            queue: Arc::clone(&self.queue),
            payload_bytes: self.config.payload_bytes,
        }
    }

    /// Returns whether the capture still takes packets. Returns `false` if it has ended by itself.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.queue.is_open()
    }

    /// Returns the capture's counters.
    #[must_use]
    pub fn counters(&self) -> CaptureCounters {
        let sums = self.queue.sums();
        CaptureCounters {
            packets: sums.passed,
            dropped: sums.dropped,
            file_bytes: sums.file_bytes,
        }
    }

    /// Ends the capture after everything is written. Waits for that for at most two seconds.
    ///
    /// # Errors
    ///
    /// - [`CaptureError::Write`] or [`CaptureError::FileLimit`]: the capture had already ended.
    /// - [`CaptureError::NotEnded`]: writing to the file blocks.
    /// - [`CaptureError::Panicked`]: the writer thread has panicked.
    pub fn stop(mut self) -> Result<CaptureCounters, CaptureError> {
        self.end()?;
        Ok(self.counters())
    }

    fn end(&mut self) -> Result<(), CaptureError> {
        let Some(writer) = self.writer.take() else {
            return Ok(());
        };
        self.queue.close();
        // A thread that has panicked does not set this state.
        // If the wait ends without it, leave the thread alone: joining it could block indefinitely.
        if !writer.is_finished() && !self.queue.wait_until_ended(GRACE) {
            return Err(CaptureError::NotEnded);
        }
        writer.join().unwrap_or(Err(CaptureError::Panicked))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            say!(
                CAPTURES,
                Debug,
                "the capture did not end completely: {error}"
            );
        }
    }
}

/// The tap of one device.
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

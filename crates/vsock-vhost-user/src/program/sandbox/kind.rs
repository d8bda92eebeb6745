// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Kinds of threads.

use vsock_vhost_user::DeviceThread;

/// A kind of thread: those of one kind may do the same.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ThreadKind {
    /// Waits for signals and for devices to end, and removes sockets.
    Main,
    /// Moves a guest's bytes.
    Data,
    /// Answers a VMM.
    Requests,
    /// Writes the log.
    Log,
    /// Closes what host processes have passed.
    Closer,
    /// Answers those that watch the program.
    Control,
    /// Writes reports to the log.
    Report,
    /// Writes packets to a file.
    Capture,
    /// Reads and writes what host processes have passed, and starts the threads that do.
    Passed,
}

impl ThreadKind {
    pub(super) const ALL: [Self; 9] = [
        Self::Main,
        Self::Data,
        Self::Requests,
        Self::Log,
        Self::Closer,
        Self::Control,
        Self::Report,
        Self::Capture,
        Self::Passed,
    ];

    /// What a person calls it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Data => "data",
            Self::Requests => "requests",
            Self::Log => "log",
            Self::Closer => "closer",
            Self::Control => "control",
            Self::Report => "report",
            Self::Capture => "capture",
            Self::Passed => "passed",
        }
    }
}

impl From<DeviceThread> for ThreadKind {
    fn from(thread: DeviceThread) -> Self {
        match thread {
            DeviceThread::Data => Self::Data,
            // A kind that this program does not know yet drops backends, too, as far as it knows.
            _ => Self::Requests,
        }
    }
}

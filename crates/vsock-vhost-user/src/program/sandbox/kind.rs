// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The kinds of threads in the program.

use vsock_vhost_user::ThreadRole;

/// A kind of thread. All threads of one kind have the same rights.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ThreadKind {
    /// Waits for signals and for devices to end, and removes sockets.
    Main,
    /// Moves bytes between a guest and the host.
    Device,
    /// Answers a VMM's requests.
    FrontEnd,
    /// Writes the log.
    Log,
    /// Closes descriptors that host processes have passed.
    Closer,
    /// Serves the control socket.
    Control,
    /// Writes reports to the log.
    Report,
    /// Writes packets to a file.
    Capture,
    /// Reads and writes descriptors that host processes have passed, and starts threads that do.
    Passed,
}

impl ThreadKind {
    pub(super) const ALL: [Self; 9] = [
        Self::Main,
        Self::Device,
        Self::FrontEnd,
        Self::Log,
        Self::Closer,
        Self::Control,
        Self::Report,
        Self::Capture,
        Self::Passed,
    ];

    /// Returns the name of this kind for messages.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Device => "device",
            Self::FrontEnd => "front-end",
            Self::Log => "log",
            Self::Closer => "closer",
            Self::Control => "control",
            Self::Report => "report",
            Self::Capture => "capture",
            Self::Passed => "passed",
        }
    }
}

impl From<ThreadRole> for ThreadKind {
    fn from(role: ThreadRole) -> Self {
        match role {
            ThreadRole::Device => Self::Device,
            // The enum is not exhaustive. A kind that is added later gets the rights of this one,
            // which include dropping backends.
            _ => Self::FrontEnd,
        }
    }
}

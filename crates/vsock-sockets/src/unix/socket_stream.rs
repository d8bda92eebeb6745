// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Methods that all streams over a socket share.

/// Implements `AsFd` and `AsRawFd` with a field.
macro_rules! as_fd_of {
    ($(#[$doc:meta])* $type:ty, $($field:ident).+) => {
        impl std::os::fd::AsFd for $type {
            $(#[$doc])*
            fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
                self.$($field).+.as_fd()
            }
        }

        impl std::os::fd::AsRawFd for $type {
            $(#[$doc])*
            fn as_raw_fd(&self) -> std::os::fd::RawFd {
                std::os::fd::AsFd::as_fd(self).as_raw_fd()
            }
        }
    };
}

/// Implements those methods of `VsockStream` that only depend on the socket in this field.
macro_rules! socket_methods {
    ($($socket:ident).+, $carrier:expr) => {
        fn write_ready(&self) -> io::Result<BorrowedFd<'_>> {
            Ok(self.as_fd())
        }

        fn backend_type(&self) -> VsockBackendType {
            $carrier
        }

        fn set_nonblocking(&mut self, nonblocking: bool) -> io::Result<()> {
            Ok(ioctl_fionbio(&self.$($socket).+, nonblocking)?)
        }

        fn set_read_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
            self.$($socket).+.set_timeout(Timeout::Recv, timeout)
        }

        fn set_write_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
            self.$($socket).+.set_timeout(Timeout::Send, timeout)
        }

        /// Corresponds to `EPOLLHUP`: also true if both directions were shut down, by either side.
        fn peer_gone(&self) -> bool {
            self.$($socket).+.is_left()
        }

        fn as_any(&self) -> &dyn Any {
            self
        }

        fn as_any_mut(&mut self) -> Option<&mut dyn Any> {
            Some(self)
        }

        fn into_any(self: Box<Self>) -> Option<Box<dyn Any>> {
            Some(self)
        }
    };
}

pub(crate) use {as_fd_of, socket_methods};

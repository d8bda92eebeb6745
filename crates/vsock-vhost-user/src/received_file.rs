// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Files that a front-end has passed.

use std::fs::File;
use std::os::fd::AsRawFd;

use rustix::fs::{FileType, fstat};
use rustix::io::{FdFlags, fcntl_setfd};

/// Marks files close-on-exec. The `vhost` crate receives them without this flag, so every program
/// that the process starts would inherit the guest's memory.
pub(crate) fn close_on_exec<'f>(files: impl IntoIterator<Item = &'f File>) {
    for file in files {
        // This cannot fail, because the descriptor is open.
        let _marked = fcntl_setfd(file, FdFlags::CLOEXEC);
    }
}

/// Whether a file can be a kick: an eventfd or a pipe, of which the kernel alone decides whether it
/// is readable. A socket could contain the front-end's own end of its connection, and keep that
/// open when the front-end has gone.
pub(crate) fn is_kick(file: &File) -> bool {
    let file_type = fstat(file).map(|stat| FileType::from_raw_mode(stat.st_mode));
    file_type == Ok(FileType::Fifo) || is_eventfd(file)
}

pub(crate) fn is_eventfd(file: &File) -> bool {
    let file_type = fstat(file).map(|stat| FileType::from_raw_mode(stat.st_mode));
    // An eventfd has no file type. Some files that can refer to any other file, such as an epoll
    // instance, have none either. Without /proc, this function cannot tell them apart.
    file_type == Ok(FileType::Unknown) && {
        let link = format!("/proc/self/fd/{}", file.as_raw_fd());
        std::fs::read_link(link).map_or(true, |name| name.ends_with("anon_inode:[eventfd]"))
    }
}

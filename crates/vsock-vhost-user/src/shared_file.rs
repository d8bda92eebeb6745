// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A part of a file that a front-end shares.
//!
//! A process that accesses a mapped page that is missing in the file is killed. The checks here
//! ensure that all pages exist when the part is mapped and, with [`SealedMemory::Required`], that
//! they cannot disappear later.

use std::fs::File;
use std::io;

use rustix::fs::{SealFlags, fcntl_get_seals, fstat, fstatfs};
use rustix::io::Errno;
use thiserror::Error;
use vm_memory::bitmap::Bitmap;
use vm_memory::mmap::{MmapRegionBuilder, MmapRegionError};
use vm_memory::{FileOffset, MmapRegion};

/// Why a part of a file cannot be mapped.
#[derive(Debug, Error)]
pub(crate) enum FileError {
    #[error(
        "the shared part ends at byte {end} of a file of {len} bytes; the VMM must make the file \
         at least that long"
    )]
    Short { end: u64, len: u64 },
    #[error(
        "the file may shrink, but the device requires sealed memory; the VMM must share memory \
         with F_SEAL_SHRINK (QEMU: -object memory-backend-memfd,seal=on)"
    )]
    Unsealed,
    #[error(
        "the file has huge pages, which the system may run out of, but the device requires sealed \
         memory; the VMM must share memory in normal pages"
    )]
    Huge,
    #[error("the shared part ends within a huge page: expected a multiple of {0} bytes")]
    PartOfPage(u64),
    #[error("cannot query the properties of the file")]
    Unknown(#[source] io::Error),
    #[error("cannot map the file at offset {offset:#x}, which must be a multiple of the page size")]
    Unmappable {
        offset: u64,
        source: MmapRegionError,
    },
    #[error("the end of the shared part is too large for an address")]
    Beyond,
}

/// Whether the guest's memory and a migration's log must be sealed against shrinking
/// (`F_SEAL_SHRINK` of a memfd).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum SealedMemory {
    /// The device refuses a VMM that shares memory that can shrink.
    Required,
    /// The device accepts memory of any kind.
    #[default]
    NotRequired,
}

/// A part of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

impl Part {
    /// Checks that every byte of the part is in the file and, if seals are required, remains there.
    pub(crate) fn check(self, file: &File, sealed: SealedMemory) -> Result<(), FileError> {
        // Check the seal first: a sealed file keeps the length that is checked next.
        let required = sealed == SealedMemory::Required;
        let shrinks =
            || !fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SealFlags::SHRINK));
        if required && shrinks() {
            return Err(FileError::Unsealed);
        }
        let unknown = |error: Errno| FileError::Unknown(error.into());
        if let Some(page) = huge_page(file).map_err(unknown)? {
            // The VMM can punch a hole even in a sealed file. The next access then needs a new huge
            // page, and the system may have none left.
            if required {
                return Err(FileError::Huge);
            }
            // The kernel would map the whole last page, and refuse to unmap a part of it.
            if self.len % page != 0 {
                return Err(FileError::PartOfPage(page));
            }
        }
        let stat = fstat(file).map_err(unknown)?;
        let len = u64::try_from(stat.st_size).unwrap_or(0);
        let end = self.offset.checked_add(self.len).ok_or(FileError::Beyond)?;
        if end > len {
            return Err(FileError::Short { end, len });
        }
        Ok(())
    }

    /// Maps the checked part for reading and writing.
    ///
    /// The mapping is without `MAP_NORESERVE`, so it fails if there are not enough huge pages.
    pub(crate) fn map<B: Bitmap>(self, file: File, bitmap: B) -> Result<MmapRegion<B>, FileError> {
        let size = usize::try_from(self.len).map_err(|_| FileError::Beyond)?;
        let mapped = MmapRegionBuilder::new_with_bitmap(size, bitmap)
            .with_file_offset(FileOffset::new(file, self.offset))
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_SHARED)
            .build();
        mapped.map_err(|source| FileError::Unmappable {
            offset: self.offset,
            source,
        })
    }
}

/// Returns the size of a file's pages if they are huge. Huge pages come from a pool of the system,
/// and a process that accesses one when none is left is killed.
fn huge_page(file: &File) -> Result<Option<u64>, Errno> {
    let system = fstatfs(file)?;
    let is_huge = system.f_type == libc::HUGETLBFS_MAGIC;
    Ok(is_huge.then(|| u64::try_from(system.f_bsize).unwrap_or(0)))
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest's memory, as a front-end shares it: files, of which nothing is mapped before they were
//! looked at.

use std::fs::File;
use std::io;
use std::sync::Arc;

use rustix::fs::{SealFlags, fcntl_get_seals, fstat, fstatfs};
use rustix::io::Errno;
use thiserror::Error;
use vhost::vhost_user::message::VhostUserMemoryRegion;
use vm_memory::mmap::{MmapRegionBuilder, MmapRegionError};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

/// Why memory cannot be used. Regions are counted from 0, as they come in the message.
#[derive(Debug, Error)]
pub(crate) enum MemoryError {
    #[error(
        "memory region {index} at guest address {address:#x} ends at byte {end} of a file of {len} bytes: \
         the VMM must make the file as long as what it shares"
    )]
    Short {
        index: usize,
        address: u64,
        end: u64,
        len: u64,
    },
    #[error(
        "the file of memory region {0} may shrink, which the device was told not to accept: the VMM must \
         share memory that is sealed (F_SEAL_SHRINK; QEMU: -object memory-backend-memfd,seal=on)"
    )]
    Unsealed(usize),
    #[error(
        "memory region {0} is in huge pages, of which the system may have too few at any time, and the device \
         was told not to accept that: the VMM must share memory in usual pages"
    )]
    Huge(usize),
    #[error("memory region {index} has a part of a huge page of {page} bytes")]
    PartOfPage { index: usize, page: u64 },
    #[error("cannot ask for the length of the file of memory region {index}")]
    Unknown { index: usize, source: io::Error },
    #[error(
        "cannot map memory region {index}, at offset {offset:#x} of its file, which must be a multiple of \
         the page size"
    )]
    Unmappable {
        index: usize,
        offset: u64,
        source: MmapRegionError,
    },
    #[error("memory region {0} is beyond what an address can say")]
    Beyond(usize),
    #[error("the memory regions do not go together")]
    Regions(#[source] vm_memory::GuestRegionCollectionError),
}

/// Whether the guest's memory must be sealed against shrinking (`F_SEAL_SHRINK` of a memfd).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum SealedMemory {
    /// A VMM that shares memory which may shrink is refused.
    Required,
    /// Memory of any kind is accepted.
    #[default]
    NotRequired,
}

/// Where a region is in the front-end, which names queues by its own addresses, and in the guest.
#[derive(Clone, Copy, Debug)]
struct RegionAddresses {
    frontend: u64,
    guest: u64,
    len: u64,
}

/// A guest's memory.
pub(crate) struct Memory {
    mapped: Arc<GuestMemoryMmap>,
    regions: Vec<RegionAddresses>,
}

impl Memory {
    /// Maps what a front-end shares.
    ///
    /// This may wait for the owner of a file.
    pub(crate) fn map(
        table: &[VhostUserMemoryRegion],
        files: Vec<File>,
        sealed: SealedMemory,
    ) -> Result<Self, MemoryError> {
        for (index, (region, file)) in table.iter().zip(&files).enumerate() {
            check(index, region, file, sealed)?;
        }
        let regions = table
            .iter()
            .zip(files)
            .enumerate()
            .map(|(index, (region, file))| map(index, region, file))
            .collect::<Result<Vec<_>, _>>()?;
        let mapped = GuestMemoryMmap::from_regions(regions).map_err(MemoryError::Regions)?;
        let addresses = |region: &VhostUserMemoryRegion| RegionAddresses {
            frontend: region.user_addr,
            guest: region.guest_phys_addr,
            len: region.memory_size,
        };
        Ok(Self {
            mapped: Arc::new(mapped),
            regions: table.iter().map(addresses).collect(),
        })
    }

    pub(crate) fn mapped(&self) -> &Arc<GuestMemoryMmap> {
        &self.mapped
    }

    /// The guest's address of what the front-end has at this one of its own.
    pub(crate) fn guest_address(&self, frontend: u64) -> Option<u64> {
        self.regions.iter().find_map(|region| {
            let offset = frontend.checked_sub(region.frontend)?;
            (offset < region.len).then(|| region.guest.checked_add(offset))?
        })
    }
}

/// Whether every byte of a region has one in its file.
fn check(
    index: usize,
    region: &VhostUserMemoryRegion,
    file: &File,
    sealed: SealedMemory,
) -> Result<(), MemoryError> {
    // First this: what is sealed keeps the length that is asked for next.
    let required = sealed == SealedMemory::Required;
    let shrinks = || !fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SealFlags::SHRINK));
    if required && shrinks() {
        return Err(MemoryError::Unsealed(index));
    }
    let unknown = |error: Errno| MemoryError::Unknown {
        index,
        source: error.into(),
    };
    if let Some(page) = huge_page(file).map_err(unknown)? {
        // A hole that is made in them later is filled with what the system has left: nothing, perhaps.
        if required {
            return Err(MemoryError::Huge(index));
        }
        // The kernel would map all of the last page, and refuse to unmap a part of it.
        if !region.memory_size.is_multiple_of(page) {
            return Err(MemoryError::PartOfPage { index, page });
        }
    }
    let stat = fstat(file).map_err(unknown)?;
    let len = u64::try_from(stat.st_size).unwrap_or(0);
    let (offset, size) = (region.mmap_offset, region.memory_size);
    let end = offset.checked_add(size).ok_or(MemoryError::Beyond(index))?;
    if end > len {
        let address = region.guest_phys_addr;
        return Err(MemoryError::Short {
            index,
            address,
            end,
            len,
        });
    }
    Ok(())
}

/// How large the pages of a file are, if they are huge ones: these come from a pool of the system, and a
/// process that touches one when none is left is killed.
fn huge_page(file: &File) -> Result<Option<u64>, Errno> {
    let system = fstatfs(file)?;
    let is_huge = system.f_type == libc::HUGETLBFS_MAGIC;
    Ok(is_huge.then(|| u64::try_from(system.f_bsize).unwrap_or(0)))
}

fn map(
    index: usize,
    region: &VhostUserMemoryRegion,
    file: File,
) -> Result<GuestRegionMmap, MemoryError> {
    let offset = region.mmap_offset;
    let size = usize::try_from(region.memory_size).map_err(|_| MemoryError::Beyond(index))?;
    let mapped = map_file(FileOffset::new(file, offset), size).map_err(|source| {
        MemoryError::Unmappable {
            index,
            offset,
            source,
        }
    })?;
    let address = GuestAddress(region.guest_phys_addr);
    GuestRegionMmap::new(mapped, address).ok_or(MemoryError::Beyond(index))
}

/// Without `MAP_NORESERVE`: what is in huge pages is mapped only if there are as many.
fn map_file(file: FileOffset, size: usize) -> Result<MmapRegion, MmapRegionError> {
    MmapRegionBuilder::new(size)
        .with_file_offset(file)
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(libc::MAP_SHARED)
        .build()
}

#[cfg(test)]
mod tests {
    use rustix::fs::{MemfdFlags, fcntl_add_seals, ftruncate, memfd_create};

    use super::SealedMemory::{NotRequired, Required};
    use super::*;

    const PAGE: u64 = 4096;

    fn file(len: u64) -> File {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = memfd_create("memory", flags).unwrap();
        ftruncate(&file, len).unwrap();
        file.into()
    }

    fn region(guest: u64, size: u64, frontend: u64, offset: u64) -> VhostUserMemoryRegion {
        VhostUserMemoryRegion::new(guest, size, frontend, offset)
    }

    /// Maps regions, each of a file.
    fn map(
        table: &[VhostUserMemoryRegion],
        files: impl Into<Vec<File>>,
        sealed: SealedMemory,
    ) -> Result<Memory, MemoryError> {
        Memory::map(table, files.into(), sealed)
    }

    /// Why one region is refused.
    fn refused(region: VhostUserMemoryRegion, file: File, sealed: SealedMemory) -> MemoryError {
        map(&[region], [file], sealed).err().unwrap()
    }

    #[test]
    fn t120_a_region_that_is_longer_than_its_file_is_refused() {
        for (len, offset, size) in [
            (PAGE, 0, PAGE + 1),
            (PAGE, PAGE, 1),
            (0, 0, 1),
            (PAGE, u64::MAX, 2),
            (PAGE, 0, u64::MAX),
        ] {
            let refused = refused(region(0, size, 0, offset), file(len), NotRequired);
            assert!(
                matches!(
                    refused,
                    MemoryError::Short { index: 0, .. } | MemoryError::Beyond(0)
                ),
                "{refused}"
            );
        }
        map(&[region(0, PAGE, 0, PAGE)], [file(2 * PAGE)], NotRequired).unwrap();
        let zero = File::options().read(true).write(true).open("/dev/zero");
        let refused = refused(region(0, PAGE, 0, 0), zero.unwrap(), NotRequired);
        let no_length = matches!(refused, MemoryError::Short { len: 0, .. });
        assert!(no_length, "{refused}");
    }

    #[test]
    fn t120_a_short_file_is_named_and_nothing_of_its_table_is_mapped() {
        let table = [region(0, PAGE, 0, 0), region(PAGE, 2 * PAGE, PAGE, 0)];
        let refused = map(&table, [file(PAGE), file(PAGE)], NotRequired);
        let text = refused.err().unwrap().to_string();
        let expected = "memory region 1 at guest address 0x1000 ends at byte 8192";
        assert!(text.starts_with(expected), "{text}");
    }

    #[test]
    fn t120_an_offset_within_a_page_is_refused() {
        let refused = refused(region(0, PAGE, 0, 1), file(2 * PAGE), NotRequired);
        let unmappable = matches!(refused, MemoryError::Unmappable { offset: 1, .. });
        assert!(unmappable, "{refused}");
    }

    #[test]
    fn t120_a_file_that_may_shrink_is_refused_where_sealed_ones_are_demanded() {
        let (open, sealed) = (file(PAGE), file(PAGE));
        fcntl_add_seals(&sealed, SealFlags::SHRINK).unwrap();
        // Files of a file system have no seals.
        let plain = tempfile::tempfile().unwrap();
        plain.set_len(PAGE).unwrap();
        for file in [open, plain] {
            let refused = refused(region(0, PAGE, 0, 0), file, Required);
            assert!(matches!(refused, MemoryError::Unsealed(0)), "{refused}");
            assert!(refused.to_string().contains("seal=on"), "{refused}");
        }
        map(&[region(0, PAGE, 0, 0)], [sealed], Required).unwrap();
    }

    #[test]
    fn addresses_of_the_front_end_are_found_in_their_regions_alone() {
        let table = [
            region(0, PAGE, 0x7000_0000, 0),
            region(0x10_0000, PAGE, 0x7000_1000, 0),
        ];
        let memory = map(&table, [file(PAGE), file(PAGE)], NotRequired).unwrap();
        for (frontend, guest) in [
            (0x7000_0000, Some(0)),
            (0x7000_0FFF, Some(0xFFF)),
            (0x7000_1000, Some(0x10_0000)),
            (0x7000_1FFF, Some(0x10_0FFF)),
            (0x7000_2000, None),
            (0x6FFF_FFFF, None),
            (u64::MAX, None),
        ] {
            assert_eq!(memory.guest_address(frontend), guest, "{frontend:#x}");
        }
    }

    const HUGE_PAGE: u64 = 2 << 20;

    /// One in huge pages, of which the system need not have any; `None` where it does not know them.
    fn huge_file(len: u64) -> Option<File> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGE_2MB;
        let file = memfd_create("huge", flags | MemfdFlags::HUGETLB).ok()?;
        ftruncate(&file, len).unwrap();
        Some(file.into())
    }

    #[test]
    fn t120_huge_pages_are_refused_where_they_may_be_missing_or_are_not_whole() {
        type Check = fn(&MemoryError) -> bool;
        // More than any system has.
        const TOO_MANY: u64 = 1 << 46;
        let cases: [(u64, u64, SealedMemory, Check); 3] = [
            (HUGE_PAGE, HUGE_PAGE, Required, |error| {
                matches!(error, MemoryError::Huge(0))
            }),
            (TOO_MANY, TOO_MANY, NotRequired, |error| {
                matches!(error, MemoryError::Unmappable { .. })
            }),
            // The kernel maps the whole page, and does not take back a part of it.
            (HUGE_PAGE, PAGE, NotRequired, |error| {
                matches!(
                    error,
                    MemoryError::PartOfPage {
                        index: 0,
                        page: HUGE_PAGE
                    }
                )
            }),
        ];
        for (len, size, sealed, is_expected) in cases {
            let Some(file) = huge_file(len) else {
                return;
            };
            fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
            let refused = refused(region(0, size, 0, 0), file, sealed);
            assert!(is_expected(&refused), "{refused}");
        }
    }

    #[test]
    fn regions_that_overlap_are_refused() {
        let table = [region(0, PAGE, 0, 0), region(0, PAGE, PAGE, 0)];
        let refused = map(&table, [file(PAGE), file(PAGE)], NotRequired);
        assert!(matches!(refused, Err(MemoryError::Regions(_))));
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest memory that a front-end shares: regions, each a part of a file.
//!
//! A [`Memory`] is immutable: each request creates a new one from the previous one. The front-end
//! thread checks and maps files, which may block, before the device thread sees the result.

use std::fs::File;
use std::sync::Arc;

use thiserror::Error;
use vhost::vhost_user::message::VhostUserMemoryRegion;
use virtio_queue::{Queue, QueueT};
use vm_memory::{
    GuestAddress, GuestMemory, GuestMemoryMmap, GuestMemoryRegion, GuestRegionCollectionError,
    GuestRegionMmap, Permissions,
};

use crate::dirty_log::{DirtyLog, RegionLog};
use crate::shared_file::{FileError, Part, SealedMemory};

/// The maximum number of regions: as many as other devices accept and VMMs have slots for.
pub(crate) const MAX_REGIONS: usize = 509;

/// Mapped guest memory that marks all writes in the dirty log.
pub(crate) type MappedMemory = GuestMemoryMmap<RegionLog>;

/// Why memory cannot be used. The index of a region counts from 0, in the order of the message.
#[derive(Debug, Error)]
pub(crate) enum MemoryError {
    #[error("memory region {index} at guest address {address:#x} cannot be used")]
    File {
        index: usize,
        address: u64,
        source: FileError,
    },
    #[error("memory region {index} at guest address {address:#x} is empty")]
    Empty { index: usize, address: u64 },
    #[error("the memory regions cannot be used together: expected regions that do not overlap")]
    Regions(#[source] GuestRegionCollectionError),
    #[error(
        "the limit of {MAX_REGIONS} memory regions is reached: remove one before adding another"
    )]
    TooMany,
    #[error(
        "cannot remove a memory region: expected one of {len:#x} bytes at guest address \
         {guest:#x} and VMM address {frontend:#x}"
    )]
    NoRegion { guest: u64, frontend: u64, len: u64 },
}

/// A region's addresses in the front-end, which uses its own addresses for queues, and in the
/// guest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct RegionAddresses {
    frontend: u64,
    guest: u64,
    len: u64,
}

impl RegionAddresses {
    const fn of(region: &VhostUserMemoryRegion) -> Self {
        Self {
            frontend: region.user_addr,
            guest: region.guest_phys_addr,
            len: region.memory_size,
        }
    }
}

/// A guest's memory.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    mapped: Arc<MappedMemory>,
    regions: Vec<RegionAddresses>,
}

impl Memory {
    /// Maps the regions that a front-end shares, after checking all of them.
    ///
    /// This may block until the owner of a file responds.
    pub(crate) fn map(
        table: &[VhostUserMemoryRegion],
        files: Vec<File>,
        sealed: SealedMemory,
        log: &Arc<DirtyLog>,
    ) -> Result<Self, MemoryError> {
        // Check all regions before mapping the first, so that an invalid table maps nothing.
        for (index, (region, file)) in table.iter().zip(&files).enumerate() {
            check(index, region, file, sealed)?;
        }
        let mut regions = table
            .iter()
            .zip(files)
            .enumerate()
            .map(|(index, (region, file))| map(index, region, file, log).map(Arc::new))
            .collect::<Result<Vec<_>, _>>()?;
        // A front-end may send the regions in any order, but the collection needs them sorted.
        regions.sort_by_key(|region| region.start_addr());
        let mapped = MappedMemory::from_arc_regions(regions).map_err(MemoryError::Regions)?;
        Ok(Self {
            mapped: Arc::new(mapped),
            regions: table.iter().map(RegionAddresses::of).collect(),
        })
    }

    /// Returns this memory with another region, which must not overlap any other. The mappings of
    /// the other regions do not change.
    ///
    /// This may block until the owner of the file responds.
    pub(crate) fn with(
        &self,
        region: &VhostUserMemoryRegion,
        file: File,
        sealed: SealedMemory,
        log: &Arc<DirtyLog>,
    ) -> Result<Self, MemoryError> {
        if self.regions.len() >= MAX_REGIONS {
            return Err(MemoryError::TooMany);
        }
        let index = self.regions.len();
        check(index, region, &file, sealed)?;
        let added = map(index, region, file, log)?;
        // The new collection shares the other regions with the old one. It refuses an overlap.
        let mapped = self.mapped.insert_region(Arc::new(added));
        let mut regions = self.regions.clone();
        regions.push(RegionAddresses::of(region));
        Ok(Self {
            mapped: Arc::new(mapped.map_err(MemoryError::Regions)?),
            regions,
        })
    }

    /// Returns this memory without one of its regions. Both addresses and the length must match.
    pub(crate) fn without(&self, region: &VhostUserMemoryRegion) -> Result<Self, MemoryError> {
        let addresses = RegionAddresses::of(region);
        let RegionAddresses {
            frontend,
            guest,
            len,
        } = addresses;
        let none = MemoryError::NoRegion {
            guest,
            frontend,
            len,
        };
        // All three numbers must match, so a mistaken request does not remove another region.
        let Some(index) = self.regions.iter().position(|known| *known == addresses) else {
            return Err(none);
        };
        let rest = self.mapped.remove_region(GuestAddress(guest), len);
        let (mapped, _removed) = rest.map_err(MemoryError::Regions)?;
        let mut regions = self.regions.clone();
        regions.remove(index);
        Ok(Self {
            mapped: Arc::new(mapped),
            regions,
        })
    }

    pub(crate) const fn mapped(&self) -> &Arc<MappedMemory> {
        &self.mapped
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.regions.is_empty()
    }

    /// The first guest address after all regions.
    pub(crate) fn end(&self) -> u64 {
        let ends = self
            .regions
            .iter()
            .map(|region| region.guest.saturating_add(region.len));
        ends.max().unwrap_or(0)
    }

    /// Translates a front-end address to a guest address.
    pub(crate) fn guest_address(&self, frontend: u64) -> Option<u64> {
        // The front-end chooses all numbers, so the sum of two of them may overflow.
        self.regions.iter().find_map(|region| {
            let offset = frontend.checked_sub(region.frontend)?;
            (offset < region.len).then(|| region.guest.checked_add(offset))?
        })
    }
}

/// Whether all three parts of a queue are in memory.
pub(crate) fn holds_queue(memory: &MappedMemory, queue: &Queue) -> bool {
    // The sizes of virtio 1.3, 2.7, including the fields of `VIRTIO_F_EVENT_IDX`.
    let size = usize::from(queue.size());
    let parts = [
        (queue.desc_table(), 16 * size, Permissions::Read),
        (queue.avail_ring(), 6 + 2 * size, Permissions::Read),
        (queue.used_ring(), 6 + 8 * size, Permissions::Write),
    ];
    parts
        .into_iter()
        .all(|(start, len, access)| memory.check_range(GuestAddress(start), len, access))
}

const fn part(region: &VhostUserMemoryRegion) -> Part {
    Part {
        offset: region.mmap_offset,
        len: region.memory_size,
    }
}

/// Checks that the whole region is in its file.
fn check(
    index: usize,
    region: &VhostUserMemoryRegion,
    file: &File,
    sealed: SealedMemory,
) -> Result<(), MemoryError> {
    let address = region.guest_phys_addr;
    if region.memory_size == 0 {
        return Err(MemoryError::Empty { index, address });
    }
    let checked = part(region).check(file, sealed);
    checked.map_err(|source| MemoryError::File {
        index,
        address,
        source,
    })
}

fn map(
    index: usize,
    region: &VhostUserMemoryRegion,
    file: File,
    log: &Arc<DirtyLog>,
) -> Result<GuestRegionMmap<RegionLog>, MemoryError> {
    let address = region.guest_phys_addr;
    let failed = |source| MemoryError::File {
        index,
        address,
        source,
    };
    let bitmap = RegionLog::new(Arc::clone(log), address);
    let mapped = part(region).map(file, bitmap).map_err(failed)?;
    GuestRegionMmap::new(mapped, GuestAddress(address)).ok_or_else(|| failed(FileError::Beyond))
}

#[cfg(test)]
pub(crate) mod testing {
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    use super::*;

    /// Creates memory of this many bytes, from address 0 on.
    pub(crate) fn mapped(len: u64) -> Arc<MappedMemory> {
        let file = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, len).unwrap();
        let table = [VhostUserMemoryRegion::new(0, len, 0, 0)];
        let (sealed, log) = (SealedMemory::NotRequired, Arc::default());
        let memory = Memory::map(&table, vec![file.into()], sealed, &log).unwrap();
        Arc::clone(memory.mapped())
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

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

    /// Maps regions of these files.
    fn map(
        table: &[VhostUserMemoryRegion],
        files: impl Into<Vec<File>>,
        sealed: SealedMemory,
    ) -> Result<Memory, MemoryError> {
        Memory::map(table, files.into(), sealed, &Arc::default())
    }

    /// Returns why one region is refused.
    fn refused(region: VhostUserMemoryRegion, file: File, sealed: SealedMemory) -> FileError {
        match map(&[region], [file], sealed) {
            Err(MemoryError::File { source, .. }) => source,
            other => panic!("{other:?}"),
        }
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
                matches!(refused, FileError::Short { .. } | FileError::Beyond),
                "{refused}"
            );
        }
        map(&[region(0, PAGE, 0, PAGE)], [file(2 * PAGE)], NotRequired).unwrap();
        let zero = File::options().read(true).write(true).open("/dev/zero");
        let refused = refused(region(0, PAGE, 0, 0), zero.unwrap(), NotRequired);
        let no_length = matches!(refused, FileError::Short { len: 0, .. });
        assert!(no_length, "{refused}");
    }

    #[test]
    fn t120_a_short_file_is_named_and_no_region_of_its_table_is_mapped() {
        let table = [region(0, PAGE, 0, 0), region(PAGE, 2 * PAGE, PAGE, 0)];
        let refused = map(&table, [file(PAGE), file(PAGE)], NotRequired);
        let refused = refused.err().unwrap();
        let text = "memory region 1 at guest address 0x1000 cannot be used";
        assert_eq!(refused.to_string(), text);
        let why = std::error::Error::source(&refused).unwrap().to_string();
        assert!(why.contains("ends at byte 8192"), "{why}");
    }

    #[test]
    fn t120_an_offset_within_a_page_is_refused() {
        let refused = refused(region(0, PAGE, 0, 1), file(2 * PAGE), NotRequired);
        let unmappable = matches!(refused, FileError::Unmappable { offset: 1, .. });
        assert!(unmappable, "{refused}");
    }

    #[test]
    fn t120_a_file_that_may_shrink_is_refused_if_sealed_files_are_required() {
        let (open, sealed) = (file(PAGE), file(PAGE));
        fcntl_add_seals(&sealed, SealFlags::SHRINK).unwrap();
        // Regular files have no seals.
        let plain = tempfile::tempfile().unwrap();
        plain.set_len(PAGE).unwrap();
        for file in [open, plain] {
            let refused = refused(region(0, PAGE, 0, 0), file, Required);
            assert!(matches!(refused, FileError::Unsealed), "{refused}");
            assert!(refused.to_string().contains("seal=on"), "{refused}");
        }
        map(&[region(0, PAGE, 0, 0)], [sealed], Required).unwrap();
    }

    #[test]
    fn front_end_addresses_are_translated_by_their_regions() {
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

    /// Creates a file in huge pages, of which the system need not have any. Returns `None` if the
    /// system does not support huge pages.
    fn huge_file(len: u64) -> Option<File> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGE_2MB;
        let file = memfd_create("huge", flags | MemfdFlags::HUGETLB).ok()?;
        ftruncate(&file, len).unwrap();
        Some(file.into())
    }

    #[test]
    fn t120_huge_pages_that_may_be_missing_or_partial_are_refused() {
        type Check = fn(&FileError) -> bool;
        // More memory than any system has.
        const TOO_MANY: u64 = 1 << 46;
        let cases: [(u64, u64, SealedMemory, Check); 3] = [
            (HUGE_PAGE, HUGE_PAGE, Required, |error| {
                matches!(error, FileError::Huge)
            }),
            (TOO_MANY, TOO_MANY, NotRequired, |error| {
                matches!(error, FileError::Unmappable { .. })
            }),
            // The kernel would map the whole page, and refuse to unmap a part of it.
            (HUGE_PAGE, PAGE, NotRequired, |error| {
                matches!(error, FileError::PartOfPage(HUGE_PAGE))
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

    fn add(memory: &Memory, region: VhostUserMemoryRegion) -> Result<Memory, MemoryError> {
        let file = file(region.mmap_offset + region.memory_size);
        memory.with(&region, file, NotRequired, &Arc::default())
    }

    #[test]
    fn t121_regions_are_added_and_removed_one_by_one() {
        let mut memory = Memory::default();
        assert_eq!((memory.end(), memory.is_empty()), (0, true));
        // Not in order; two of them are adjacent.
        for at in [5, 1, 2] {
            memory = add(&memory, region(at * PAGE, PAGE, at << 32, PAGE)).unwrap();
        }
        assert_eq!(memory.end(), 6 * PAGE);
        assert_eq!(memory.guest_address(2 << 32), Some(2 * PAGE));
        // Regions that overlap others.
        for (guest, size) in [(PAGE, PAGE), (0, 2 * PAGE), (5 * PAGE, 2 * PAGE)] {
            let refused = add(&memory, region(guest, size, 9 << 32, 0)).unwrap_err();
            assert!(matches!(refused, MemoryError::Regions(_)), "{refused}");
        }
        let empty = add(&memory, region(8 * PAGE, 0, 9 << 32, 0)).unwrap_err();
        assert!(matches!(empty, MemoryError::Empty { .. }), "{empty}");
        // The addresses and the length must match; the offset in the file does not matter.
        for (guest, size, frontend) in [
            (3 * PAGE, PAGE, 3 << 32),
            (PAGE, 2 * PAGE, 1 << 32),
            (PAGE, PAGE, 2 << 32),
        ] {
            let refused = memory.without(&region(guest, size, frontend, PAGE));
            assert!(matches!(refused, Err(MemoryError::NoRegion { .. })));
        }
        for at in [2, 5, 1] {
            assert!(memory.guest_address(at << 32).is_some());
            memory = memory
                .without(&region(at * PAGE, PAGE, at << 32, 0))
                .unwrap();
            assert_eq!(memory.guest_address(at << 32), None);
        }
        assert!(memory.is_empty());
        add(&memory, region(0, PAGE, 0, 0)).unwrap();
    }

    #[test]
    fn t121_the_number_of_regions_is_limited() {
        let mut memory = Memory::default();
        for at in 0..MAX_REGIONS as u64 {
            memory = add(&memory, region(at * PAGE, PAGE, at * PAGE, 0)).unwrap();
        }
        let beyond = region(memory.end(), PAGE, memory.end(), 0);
        let refused = add(&memory, beyond).unwrap_err();
        assert!(matches!(refused, MemoryError::TooMany), "{refused}");
        let less = memory.without(&region(PAGE, PAGE, PAGE, 0)).unwrap();
        add(&less, beyond).unwrap();
    }

    #[test]
    fn a_table_need_not_be_sorted_by_address() {
        let table = [region(PAGE, PAGE, 0, 0), region(0, PAGE, PAGE, 0)];
        let memory = map(&table, [file(PAGE), file(PAGE)], NotRequired).unwrap();
        assert_eq!(memory.guest_address(PAGE), Some(0));
    }
}

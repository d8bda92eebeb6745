// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Memory in which each access is looked up separately.

use vm_memory::bitmap::BS;
use vm_memory::guest_memory::GuestMemorySliceIterator;
use vm_memory::{GuestAddress, GuestMemory, GuestMemoryError, Permissions};
use vsock_driver::Memory;

type Look = dyn Fn(GuestAddress, Permissions) -> Result<GuestAddress, GuestMemoryError>;

/// The test decides where each access goes.
pub(crate) struct LookedUp {
    memory: Memory,
    look: Box<Look>,
}

impl LookedUp {
    pub(crate) fn new<F>(memory: &Memory, look: F) -> Self
    where
        F: Fn(GuestAddress, Permissions) -> Result<GuestAddress, GuestMemoryError> + 'static,
    {
        Self {
            memory: memory.clone(),
            look: Box::new(look),
        }
    }
}

impl GuestMemory for LookedUp {
    type PhysicalMemory = Memory;
    type Bitmap = ();

    fn check_range(&self, addr: GuestAddress, len: usize, access: Permissions) -> bool {
        self.get_slices(addr, len, access).is_ok()
    }

    fn get_slices<'a>(
        &'a self,
        addr: GuestAddress,
        len: usize,
        access: Permissions,
    ) -> Result<impl GuestMemorySliceIterator<'a, BS<'a, ()>>, GuestMemoryError> {
        let addr = (self.look)(addr, access)?;
        GuestMemory::get_slices(&self.memory, addr, len, access)
    }
}

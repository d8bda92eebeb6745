// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Streams that copy to and from guest memory by themselves.

use std::any::TypeId;
use std::fmt;
use std::io;

use vm_memory::bitmap::BS;
use vm_memory::{GuestMemory, VolatileSlice};
use vsock_backend_api::{VsockStream, VsockVolatileStream};

use crate::scatter::Slice;

/// How to move bytes between a stream and pieces of guest memory, one way or the other.
pub(crate) type Transfer<M> = for<'s, 'm> fn(
    &'s mut dyn VsockStream,
    &'s [VolatileSlice<'m, BS<'m, <M as GuestMemory>::Bitmap>>],
) -> io::Result<usize>;

/// A type of streams.
pub(crate) struct Direct<M: GuestMemory> {
    stream: TypeId,
    /// Bytes of a piece from which a call of its own is cheaper than gathering pieces.
    pub(crate) least: usize,
    pub(crate) read: Transfer<M>,
    pub(crate) write: Transfer<M>,
    /// How many bytes a read may find.
    pub(crate) readable: fn(&mut dyn VsockStream) -> usize,
}

impl<M: GuestMemory> fmt::Debug for Direct<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Direct")
            .field("stream", &self.stream)
            .field("least", &self.least)
            .finish_non_exhaustive()
    }
}

/// The types that were registered: few, so looking through them beats a map.
#[derive(Debug)]
pub(crate) struct DirectTypes<M: GuestMemory>(Vec<Direct<M>>);

impl<M: GuestMemory> DirectTypes<M> {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn add<S>(&mut self, least: usize)
    where
        S: VsockVolatileStream + 'static,
    {
        let stream = TypeId::of::<S>();
        self.0.retain(|known| known.stream != stream);
        self.0.push(Direct {
            stream,
            least,
            read: read_into::<S, M>,
            write: write_from::<S, M>,
            readable: readable::<S>,
        });
    }

    /// What is known of the stream's type, if it lets itself be seen as what it is.
    pub(crate) fn of(&self, stream: &mut dyn VsockStream) -> Option<&Direct<M>> {
        if self.0.is_empty() {
            return None;
        }
        let id = (*stream.as_any_mut()?).type_id();
        self.0.iter().find(|known| known.stream == id)
    }
}

fn read_into<S, M>(stream: &mut dyn VsockStream, pieces: &[Slice<'_, M>]) -> io::Result<usize>
where
    S: VsockVolatileStream + 'static,
    M: GuestMemory,
{
    concrete::<S>(stream)?.read_volatile_vectored(pieces)
}

fn write_from<S, M>(stream: &mut dyn VsockStream, pieces: &[Slice<'_, M>]) -> io::Result<usize>
where
    S: VsockVolatileStream + 'static,
    M: GuestMemory,
{
    concrete::<S>(stream)?.write_volatile_vectored(pieces)
}

fn readable<S: VsockVolatileStream + 'static>(stream: &mut dyn VsockStream) -> usize {
    concrete::<S>(stream).map_or(usize::MAX, |stream| stream.readable_bytes())
}

fn concrete<S: 'static>(stream: &mut dyn VsockStream) -> io::Result<&mut S> {
    stream
        .as_any_mut()
        .and_then(|any| any.downcast_mut())
        .ok_or_else(|| io::ErrorKind::Unsupported.into())
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Streams that copy to and from guest memory directly.
//!
//! A backend's streams reach the device as trait objects. The VMM registers the concrete types that
//! implement [`VsockVolatileStream`], and the device finds the right functions by the [`TypeId`] of
//! the stream.

use std::any::TypeId;
use std::fmt;
use std::io;

use vm_memory::bitmap::BS;
use vm_memory::{GuestMemory, VolatileSlice};
use vsock_backend_api::{VsockStream, VsockVolatileStream};

use crate::scatter::Slice;

/// A function that moves bytes between a stream and pieces of guest memory, in either direction.
pub(crate) type Transfer<M> = for<'s, 'm> fn(
    &'s mut dyn VsockStream,
    &'s [VolatileSlice<'m, BS<'m, <M as GuestMemory>::Bitmap>>],
) -> io::Result<usize>;

/// A registered type of stream.
pub(crate) struct Direct<M: GuestMemory> {
    stream: TypeId,
    /// From this piece size on, in bytes, a call for each piece is cheaper than gathering them.
    pub(crate) least: usize,
    pub(crate) read: Transfer<M>,
    pub(crate) write: Transfer<M>,
    /// How many bytes a read can find, at most.
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

/// The registered types: a list, because there are too few for a map to be faster.
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
        // Registering a type again replaces its `least`.
        self.0.retain(|known| known.stream != stream);
        self.0.push(Direct {
            stream,
            least,
            read: read_into::<S, M>,
            write: write_from::<S, M>,
            readable: readable::<S>,
        });
    }

    /// Finds the functions for the stream's type, if the type is registered and the stream
    /// implements [`VsockStream::as_any_mut`].
    pub(crate) fn of(&self, stream: &mut dyn VsockStream) -> Option<&Direct<M>> {
        if self.0.is_empty() {
            return None;
        }
        // The id of the value, not of the `dyn Any` reference.
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

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Streams that copy to and from guest memory by themselves.

use std::any::TypeId;
use std::fmt;
use std::io;

use vm_memory::bitmap::BS;
use vm_memory::{GuestMemory, ReadVolatile, VolatileMemoryError, VolatileSlice, WriteVolatile};
use vsock_backend_api::VsockStream;

use crate::scatter::Slice;

/// How to read from a stream into a piece of guest memory.
pub(crate) type ReadInto<M> = for<'s, 'm> fn(
    &'s mut dyn VsockStream,
    &'s mut VolatileSlice<'m, BS<'m, <M as GuestMemory>::Bitmap>>,
) -> io::Result<usize>;

/// How to write a piece of guest memory to a stream.
pub(crate) type WriteFrom<M> = for<'s, 'm> fn(
    &'s mut dyn VsockStream,
    &'s VolatileSlice<'m, BS<'m, <M as GuestMemory>::Bitmap>>,
) -> io::Result<usize>;

/// A type of streams.
pub(crate) struct Direct<M: GuestMemory> {
    stream: TypeId,
    /// Bytes of a piece from which a call of its own is cheaper than gathering pieces.
    pub(crate) least: usize,
    pub(crate) read: ReadInto<M>,
    pub(crate) write: WriteFrom<M>,
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
        S: VsockStream + ReadVolatile + WriteVolatile + 'static,
    {
        let stream = TypeId::of::<S>();
        self.0.retain(|known| known.stream != stream);
        self.0.push(Direct {
            stream,
            least,
            read: read_into::<S, M>,
            write: write_from::<S, M>,
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

fn read_into<S, M>(stream: &mut dyn VsockStream, piece: &mut Slice<'_, M>) -> io::Result<usize>
where
    S: VsockStream + ReadVolatile + 'static,
    M: GuestMemory,
{
    concrete::<S>(stream)?
        .read_volatile(piece)
        .map_err(into_io_error)
}

fn write_from<S, M>(stream: &mut dyn VsockStream, piece: &Slice<'_, M>) -> io::Result<usize>
where
    S: VsockStream + WriteVolatile + 'static,
    M: GuestMemory,
{
    concrete::<S>(stream)?
        .write_volatile(piece)
        .map_err(into_io_error)
}

fn concrete<S: 'static>(stream: &mut dyn VsockStream) -> io::Result<&mut S> {
    stream
        .as_any_mut()
        .and_then(|any| any.downcast_mut())
        .ok_or_else(|| io::ErrorKind::Unsupported.into())
}

fn into_io_error(error: VolatileMemoryError) -> io::Error {
    match error {
        VolatileMemoryError::IOError(error) => error,
        other => io::Error::other(other),
    }
}

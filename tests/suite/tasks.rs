// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Async tasks that read, write, connect and accept.

use std::fmt::Debug;

use vsock_inner::{VsockInnerListener, VsockInnerReader, VsockInnerStream, VsockInnerWriter};

#[test]
fn async_types_can_be_made_of_streams_halves_and_listeners() {
    fn traits<T: Debug + Send + Sync + Unpin + 'static>() {}
    traits::<VsockInnerStream>();
    traits::<VsockInnerReader>();
    traits::<VsockInnerWriter>();
    traits::<VsockInnerListener>();
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The code in the pages and in each crate's README. `cargo test --doc` compiles and runs it from
//! here, so that a published crate includes no file from outside its package.

#![forbid(unsafe_code)]

/// Attaches pages to an item for the doctests.
#[cfg(doctest)]
macro_rules! pages {
    ($($name:ident: $path:literal,)*) => {$(
        #[doc = include_str!(concat!("../../../", $path))]
        pub struct $name;
    )*};
}

#[cfg(doctest)]
pages! {
    FrontPage: "README.md",
    Async: "docs/async.md",
    Embedding: "docs/embedding.md",
    EventLoop: "docs/event-loop.md",
    BackendApi: "crates/vsock-backend-api/README.md",
    Compliance: "crates/vsock-compliance/README.md",
    Epoll: "crates/vsock-epoll/README.md",
    Inner: "crates/vsock-inner/README.md",
    Muxer: "crates/vsock-muxer/README.md",
    MuxerHarness: "crates/vsock-muxer-harness/README.md",
    Proto: "crates/vsock-proto/README.md",
    Siblings: "crates/vsock-siblings/README.md",
    Sockets: "crates/vsock-sockets/README.md",
    Tokio: "crates/vsock-tokio/README.md",
    VhostUser: "crates/vsock-vhost-user/README.md",
    Virtio: "crates/vsock-virtio/README.md",
}

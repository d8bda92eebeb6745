// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The parts of the interface by which a backend and its guests are described.

use std::os::fd::{AsFd, AsRawFd};

use vsock_siblings::{Siblings, VsockBackend};

#[test]
fn a_backend_is_of_the_in_process_type_and_has_one_descriptor() {
    let backend = Siblings::new().join(3, "a".parse().unwrap()).unwrap();
    assert_eq!(backend.r#type().to_string(), "inner");
    assert_eq!(backend.as_fd().as_raw_fd(), backend.as_raw_fd());
    assert!(backend.as_any().is::<vsock_siblings::SiblingBackend>());
}

#[test]
fn the_debug_format_shows_the_guests() {
    let siblings = Siblings::new();
    let backend = siblings.join(3, "a+b".parse().unwrap()).unwrap();
    let text = format!("{backend:?}");
    assert!(text.contains("cid: 3") && text.contains("\"b\""), "{text}");
    assert!(format!("{siblings:?}").contains("guests: 1"));
    drop(backend);
    assert!(format!("{siblings:?}").contains("guests: 0"));
}

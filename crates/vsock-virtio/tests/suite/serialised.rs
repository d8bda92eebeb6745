// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The serialised state: how it is written, read and refused.

use proptest::collection::vec;
use proptest::prelude::any;
use proptest::sample::Index;
use proptest::{prop_assert_eq, proptest};
use vsock_virtio::{DeviceState, F_EVENT_IDX, F_VERSION_1};

use crate::rig::Rig;
use crate::snapshot::{inactive, state};

/// A state that version 1 wrote. Never change it: another format needs a new version.
const VERSION_1: &str = concat!(
    r#"{"version":1,"acked_features":4831838208,"active":true,"#,
    r#""muxer":{"version":1,"next_host_port":1073741824,"connections":0}}"#,
);

#[test]
fn version_1_is_written_unchanged_and_read() {
    let state = Rig::event_idx().device.state();
    assert_eq!(state.acked_features, F_VERSION_1 | F_EVENT_IDX);
    assert_eq!(serde_json::to_string(&state).unwrap(), VERSION_1);
    let read: DeviceState = serde_json::from_str(VERSION_1).unwrap();
    assert_eq!(read, state);
    inactive().restore(&read).unwrap();
}

#[test]
fn another_version_is_refused_regardless_of_its_other_fields() {
    let others = [
        concat!(
            r#"{"version":2,"acked_features":1,"active":true,"#,
            r#""muxer":{"version":1,"next_host_port":1,"connections":0}}"#,
        ),
        r#"{"version":2,"features":[1,2,3]}"#,
        r#"{"features":[1,2,3],"version":2}"#,
        r#"{"version":2}"#,
        r#"[2]"#,
        r#"[2,"something",[{}]]"#,
        r#"{"version":1,"acked_features":1,"active":true,"muxer":{"version":2}}"#,
    ];
    for other in others {
        let error = serde_json::from_str::<DeviceState>(other).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("version 2, expected 1"), "{other}: {text}");
    }
    let older = VERSION_1.replace(r#""version":1"#, r#""version":0"#);
    let error = serde_json::from_str::<DeviceState>(&older).unwrap_err();
    assert!(error.to_string().contains("version 0"), "{error}");
}

#[test]
fn a_state_without_a_version_or_with_a_part_missing_is_refused() {
    for part in ["version", "acked_features", "active", "muxer"] {
        let mut value: serde_json::Value = serde_json::from_str(VERSION_1).unwrap();
        value.as_object_mut().unwrap().remove(part);
        let error = serde_json::from_value::<DeviceState>(value).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
}

proptest! {
    #[test]
    fn a_written_state_is_read_back_unchanged(state in state()) {
        let text = serde_json::to_string(&state).unwrap();
        prop_assert_eq!(serde_json::from_str::<DeviceState>(&text).unwrap(), state);
        // With field names in any order, and without names.
        let value = serde_json::to_value(state).unwrap();
        prop_assert_eq!(serde_json::from_value::<DeviceState>(value).unwrap(), state);
        let muxer = (state.muxer.version, state.muxer.next_host_port, state.muxer.connections);
        let bare = serde_json::to_vec(&(state.version, state.acked_features, state.active, muxer));
        prop_assert_eq!(serde_json::from_slice::<DeviceState>(&bare.unwrap()).unwrap(), state);
    }

    #[test]
    fn bytes_that_were_damaged_are_refused_or_restored(
        changes in vec((any::<Index>(), any::<u8>()), 1..4),
        cut in any::<Index>(),
    ) {
        let mut bytes = VERSION_1.as_bytes().to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        for bytes in [&bytes[..], &bytes[..cut.index(bytes.len())]] {
            if let Ok(state) = serde_json::from_slice::<DeviceState>(bytes) {
                let mut rig = inactive();
                if rig.restore(&state).is_ok() {
                    let _ = rig.try_process();
                }
            }
        }
    }

    #[test]
    fn any_bytes_are_refused(bytes in vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(serde_json::from_slice::<DeviceState>(&bytes).ok(), None);
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Random operations on a real connection and on a model of it.

use proptest::proptest;
use proptest::test_runner::TestCaseError;
use vsock_compliance::PairSource;
use vsock_inner::{Capacity, VsockInnerConfig};
use vsock_muxer_harness::lockstep::Lockstep;
use vsock_muxer_harness::strategy::{PairStep, steps};
use vsock_tests::inner::{Inner, Way};

fn drive(source: &dyn PairSource, steps: &[PairStep]) -> Result<(), TestCaseError> {
    let mut pair = Lockstep::new(source)?;
    for (at, step) in steps.iter().enumerate() {
        pair.step(step)
            .map_err(|why| TestCaseError::fail(format!("at step {at}: {why}")))?;
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_pair_of_three_bytes_behaves_like_the_model(list in steps(3, 120)) {
        drive(&Inner::holding(3), &list)?;
    }

    #[test]
    fn a_pair_of_one_byte_behaves_like_the_model(list in steps(1, 80)) {
        drive(&Inner::holding(1), &list)?;
    }

    #[test]
    fn an_accepted_pair_behaves_like_the_model(list in steps(100, 120)) {
        drive(&Inner::holding(100).made_by(Way::BackendAccepts), &list)?;
    }

    #[test]
    fn a_served_pair_behaves_like_the_model(list in steps(100, 120)) {
        drive(&Inner::holding(100).made_by(Way::ListenerAccepts), &list)?;
    }

    #[test]
    fn halves_behave_like_the_model(list in steps(4096, 120)) {
        drive(&Inner::holding(4096).made_by(Way::Split), &list)?;
    }

    #[test]
    fn tasks_at_a_pair_of_three_bytes_behave_like_the_model(list in steps(3, 120)) {
        drive(&Inner::holding(3).made_by(Way::Tasks), &list)?;
    }

    #[test]
    fn tasks_at_a_pair_of_a_page_behave_like_the_model(list in steps(4096, 120)) {
        drive(&Inner::holding(4096).made_by(Way::Tasks), &list)?;
    }

    #[test]
    fn a_pair_of_the_default_capacity_behaves_like_the_model(list in steps(256 * 1024, 60)) {
        drive(&Inner::by(Way::Pair), &list)?;
    }

    #[test]
    fn an_unbounded_pair_behaves_like_the_model(list in steps(50_000, 100)) {
        let config = VsockInnerConfig::default()
            .to_device(Capacity::Unbounded)
            .to_application(Capacity::Bytes(20_000));
        drive(&Inner::with(config), &list)?;
    }
}

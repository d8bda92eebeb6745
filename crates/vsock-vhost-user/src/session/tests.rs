// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, prop_oneof, proptest};
use vsock_properties::cases;

use super::*;

/// `VIRTIO_F_VERSION_1`, and a bit that the front-end adds.
const FEATURES: u64 = 1 << 32 | 1 << 30;
const FRESH: Start = Start::Reset {
    owes_transport_reset: false,
};
const LIVING: Start = Start::Reset {
    owes_transport_reset: true,
};

fn layout(at: u64) -> Layout {
    Layout {
        size: 64,
        descriptors: at,
        available: at + 0x1000,
        used: at + 0x2000,
    }
}

/// The rings of a guest, and the session of its front-end.
struct Rig {
    session: Session,
    rings: [Ring; PACKET_QUEUES],
}

impl Rig {
    /// Creates a driver that has not used its rings.
    fn new() -> Self {
        let mut session = Session::new();
        session.accept_features(FEATURES);
        let rings = [0, 0x1_0000].map(|at| Ring {
            layout: layout(at),
            used_index: 0,
        });
        Self { session, rings }
    }

    /// Creates a driver whose rings the device has used.
    fn served() -> Self {
        let mut rig = Self::new();
        assert_eq!(rig.start(), FRESH);
        rig.move_on(5, 7);
        rig
    }

    fn start(&mut self) -> Start {
        let beginning = self.session.beginning().unwrap();
        let start = self.session.start(beginning, self.rings);
        assert!(self.session.serves());
        start
    }

    fn interrupt(&mut self, by: Interruption) -> Effect {
        self.session
            .interrupt(by, self.rings.map(|ring| ring.used_index))
    }

    /// Lets the device use this many buffers.
    fn move_on(&mut self, rx: u16, tx: u16) {
        for (ring, by) in self.rings.iter_mut().zip([rx, tx]) {
            ring.used_index = ring.used_index.wrapping_add(by);
        }
    }

    fn set_bases(&mut self, bases: [u16; PACKET_QUEUES]) {
        for (ring, base) in bases.into_iter().enumerate() {
            self.session.set_base(ring, base);
        }
    }

    /// Lets a driver set up its rings from the beginning.
    fn empty(&mut self) {
        for ring in &mut self.rings {
            ring.used_index = 0;
        }
    }
}

#[test]
fn t115_qemu_stop_and_cont_is_a_pause() {
    let mut rig = Rig::served();
    // GET_VRING_BASE of each queue; the first one stops the device.
    assert_eq!(rig.interrupt(Interruption::Pause), Effect::Pause);
    assert_eq!(rig.interrupt(Interruption::Pause), Effect::Nothing);
    rig.session.accept_features(FEATURES);
    rig.set_bases([5, 7]);
    assert_eq!(rig.start(), Start::GoOn);
}

#[test]
fn t115_qemu_reboot_starts_at_zero_and_is_a_reset() {
    let mut rig = Rig::served();
    rig.interrupt(Interruption::Pause);
    rig.empty();
    rig.set_bases([0, 0]);
    assert_eq!(rig.start(), FRESH);
}

#[test]
fn t115_qemu_reboot_through_reset_device_ends_connections_first() {
    let mut rig = Rig::served();
    rig.interrupt(Interruption::Pause);
    assert_eq!(rig.interrupt(Interruption::Reset), Effect::Cut);
    assert_eq!(rig.interrupt(Interruption::Reset), Effect::Nothing);
    rig.session.forget_set_up();
    rig.empty();
    rig.session.accept_features(FEATURES);
    rig.set_bases([0, 0]);
    assert_eq!(rig.start(), FRESH);
}

#[test]
fn t113_cloud_hypervisor_passes_the_available_index() {
    let mut rig = Rig::new();
    rig.set_bases([64, 0]);
    assert_eq!(rig.start(), FRESH);
    assert_eq!(rig.session.base(0), None, "the ring has used it");
}

#[test]
fn t114_cloud_hypervisor_pauses_by_disabling() {
    let mut rig = Rig::served();
    assert_eq!(rig.interrupt(Interruption::Pause), Effect::Pause);
    assert_eq!(rig.start(), Start::GoOn);
}

#[test]
fn t116_cloud_hypervisor_reconnects_under_a_running_guest() {
    let mut rig = Rig::served();
    assert_eq!(rig.interrupt(Interruption::Reset), Effect::Cut);
    rig.session.forget_set_up();
    rig.session.accept_features(FEATURES);
    // The available indices, not the device's positions.
    rig.set_bases([69, 7]);
    assert_eq!(rig.start(), Start::Cut);
    rig.move_on(1, 0);
    assert_eq!(rig.interrupt(Interruption::Pause), Effect::Pause);
    assert_eq!(rig.start(), Start::GoOn, "it is served as before");
}

#[test]
fn t116_a_program_that_starts_under_a_running_guest_sends_a_transport_reset() {
    for (rx, tx) in [(5, 7), (1, 0), (0, 1)] {
        let mut rig = Rig::new();
        rig.move_on(rx, tx);
        rig.set_bases([69, 7]);
        assert_eq!(rig.start(), LIVING);
    }
}

#[test]
fn t116_a_driver_that_has_used_no_ring_needs_no_transport_reset_whatever_its_predecessor_used() {
    for (before, after, expected) in [
        ([0, 0], [0, 0], FRESH),
        ([1, 0], [1, 0], Start::Cut),
        ([0, 1], [0, 1], Start::Cut),
        ([1, 0], [0, 0], FRESH),
        ([0, 0], [0, 1], LIVING),
    ] {
        let mut rig = Rig::new();
        rig.start();
        rig.move_on(before[0], before[1]);
        assert_eq!(rig.interrupt(Interruption::Reset), Effect::Cut);
        rig.session.forget_set_up();
        rig.session.accept_features(FEATURES);
        rig.empty();
        rig.move_on(after[0], after[1]);
        rig.set_bases([64, 0]);
        assert_eq!(rig.start(), expected, "{before:?} {after:?}");
    }
}

#[test]
fn t114_crosvm_resets_a_driver_by_stopping_its_rings() {
    let mut rig = Rig::served();
    rig.interrupt(Interruption::Pause);
    // crosvm sends the features in parts, as the driver writes them.
    rig.session.accept_features(1 << 30);
    rig.session.accept_features(FEATURES);
    rig.empty();
    rig.set_bases([0, 0]);
    assert_eq!(rig.start(), FRESH);
}

#[test]
fn t114_libkrun_resets_a_driver_by_disabling_its_rings() {
    let mut rig = Rig::served();
    rig.interrupt(Interruption::Pause);
    for (index, ring) in rig.rings.iter_mut().enumerate() {
        ring.layout = layout(0x10_0000 * (index as u64 + 1));
    }
    rig.empty();
    rig.set_bases([0, 0]);
    assert_eq!(rig.start(), FRESH);
}

#[test]
fn t114_each_sign_of_another_driver_suffices() {
    type Sign = fn(&mut Rig);
    let signs: [Sign; 7] = [
        |rig| rig.rings[0].layout.size = 32,
        |rig| rig.rings[1].layout.descriptors += 16,
        |rig| rig.rings[0].layout.available += 2,
        |rig| rig.rings[1].layout.used += 4,
        |rig| rig.rings[0].used_index = 0,
        |rig| rig.session.set_base(1, 0),
        |rig| rig.session.accept_features(FEATURES | 1 << 29),
    ];
    for sign in signs {
        let mut rig = Rig::served();
        rig.interrupt(Interruption::Pause);
        sign(&mut rig);
        assert!(matches!(rig.start(), Start::Reset { .. }));
    }
}

#[test]
fn t123_a_change_that_only_the_front_end_sees_does_not_indicate_another_driver() {
    let mut rig = Rig::served();
    rig.session.accept_features(FEATURES | 1 << 26);
    rig.interrupt(Interruption::Pause);
    assert_eq!(rig.start(), Start::GoOn);
    rig.interrupt(Interruption::Pause);
    rig.session.accept_features(1 << 32);
    assert_eq!(rig.start(), Start::GoOn);
}

#[test]
fn broken_rings_start_with_a_reset() {
    let mut rig = Rig::served();
    rig.session.broken();
    assert!(!rig.session.serves() && rig.session.beginning().is_none());
    assert_eq!(rig.interrupt(Interruption::Pause), Effect::Nothing);
    assert!(rig.session.beginning().is_some());
    assert_eq!(rig.start(), LIVING);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Features(u64),
    Base(usize, u16),
    Interrupt(Interruption),
    ForgetSetUp,
    Broken,
    /// The rings run. Has no effect if they already did.
    Start,
    /// The device uses buffers, if it serves the rings.
    Move(u16, u16),
    /// The guest's driver starts again, with its rings at this place.
    NewDriver(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        prop_oneof![Just(FEATURES), Just(FEATURES | 1 << 29), Just(1 << 32)]
            .prop_map(Step::Features),
        (0..PACKET_QUEUES, 0..4_u16).prop_map(|(ring, base)| Step::Base(ring, base)),
        Just(Step::Interrupt(Interruption::Pause)),
        Just(Step::Interrupt(Interruption::Reset)),
        Just(Step::ForgetSetUp),
        Just(Step::Broken),
        Just(Step::Start),
        Just(Step::Start),
        (0..3_u16, 1..3_u16).prop_map(|(rx, tx)| Step::Move(rx, tx)),
        (0..2_u64).prop_map(|place| Step::NewDriver(place << 20)),
    ]
}

/// The true state of the guest, which the session can only infer.
#[derive(Default)]
struct Truth {
    /// The driver has started again since its rings last ran.
    is_new: bool,
    /// There was a reset or a fault since the rings last ran.
    is_cut: bool,
    /// The features when the rings last ran.
    features: Option<u64>,
    on_rings: bool,
    is_broken: bool,
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn connections_continue_only_with_their_driver_in_any_order(steps in vec(step(), 1..40)) {
        let mut rig = Rig::new();
        let mut truth = Truth::default();
        for step in steps {
            match step {
                Step::Features(features) => rig.session.accept_features(features),
                Step::Base(ring, base) => rig.session.set_base(ring, base),
                Step::ForgetSetUp => rig.session.forget_set_up(),
                Step::Broken => {
                    rig.session.broken();
                    truth = Truth { is_broken: true, is_new: true, ..Truth::default() };
                }
                Step::Interrupt(by) => {
                    let effect = rig.interrupt(by);
                    truth.is_broken = false;
                    let known = truth.features.is_some() && !truth.is_cut;
                    let expected = match by {
                        Interruption::Pause if truth.on_rings => Effect::Pause,
                        Interruption::Reset if known => Effect::Cut,
                        _ => Effect::Nothing,
                    };
                    assert_eq!(effect, expected);
                    truth.on_rings = false;
                    truth.is_cut |= by == Interruption::Reset;
                }
                Step::Move(rx, tx) if truth.on_rings => rig.move_on(rx, tx),
                Step::Move(..) => {}
                Step::NewDriver(place) if !truth.on_rings => {
                    // A new driver is indistinguishable from the previous one only if the device
                    // moved nothing for that one.
                    truth.is_new |= rig.rings.iter().any(|ring| ring.used_index != 0);
                    rig.empty();
                    for (index, ring) in rig.rings.iter_mut().enumerate() {
                        ring.layout = layout(place + 0x1_0000 * index as u64);
                    }
                }
                Step::NewDriver(_) => {}
                Step::Start if rig.session.beginning().is_some() => {
                    let (new, cut) = (truth.is_new, truth.is_cut);
                    let features = rig.session.features() & !FRONT_END_FEATURES;
                    let same = truth.features == Some(features);
                    let living = rig.rings.iter().any(|ring| ring.used_index != 0);
                    match rig.start() {
                        Start::GoOn => assert!(same && !new && !cut),
                        Start::Cut => assert!(same && !new && cut && living),
                        Start::Reset { owes_transport_reset } => {
                            assert_eq!(owes_transport_reset, living);
                        }
                    }
                    truth = Truth { features: Some(features), on_rings: true, ..Truth::default() };
                }
                Step::Start => {}
            }
            assert_eq!(rig.session.serves(), truth.on_rings);
            let may_begin = rig.session.beginning().is_some();
            assert_eq!(may_begin, !truth.on_rings && !truth.is_broken);
        }
    }

    /// Pauses any number of times, at any ring positions, with and without a repeated set-up.
    #[test]
    fn pauses_keep_everything(moves in vec((0..u16::MAX, 0..u16::MAX, 0..4_u8), 1..20)) {
        let mut rig = Rig::served();
        for (rx, tx, said) in moves {
            rig.move_on(rx, tx);
            assert_eq!(rig.interrupt(Interruption::Pause), Effect::Pause);
            if said & 1 != 0 {
                rig.session.accept_features(FEATURES);
            }
            if said & 2 != 0 {
                rig.set_bases(rig.rings.map(|ring| ring.used_index));
            }
            assert_eq!(rig.start(), Start::GoOn);
        }
    }
}

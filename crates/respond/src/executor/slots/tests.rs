use super::*;

const ROOM: Room = Room { slots: 8, parked: 16, memory: 1 << 30 };

fn name(text: &str) -> Arc<str> {
    text.into()
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn resting(ran: u64) -> Option<Resting> {
    Some(Resting { ran: millis(ran), memory: 1 << 10 })
}

fn take(slots: &mut Slots, now: Duration) -> Vec<i64> {
    let mut taken = Vec::new();
    while let Some(id) = slots.next(now) {
        // As if it were started at once.
        slots.process(id).store(u32::try_from(id).unwrap() + 1, Ordering::SeqCst);
        taken.push(id);
    }
    taken
}

#[test]
fn lanes_take_turns_and_one_file_never_gets_all_slots() {
    let mut slots = Slots::new(ROOM);
    let (busy, other) = (name("busy"), name("other"));
    (0..100).for_each(|id| slots.wait(&busy, id));
    assert_eq!(take(&mut slots, millis(0)), [0, 1, 2, 3, 4, 5], "two slots are for others");
    (100..103).for_each(|id| slots.wait(&other, id));
    assert_eq!(take(&mut slots, millis(0)), [100, 101]);
    slots.free(0);
    assert_eq!(take(&mut slots, millis(0)), [6], "it waited longer");
    slots.free(1);
    assert_eq!(take(&mut slots, millis(0)), [102], "its turn, although the busy one may run");
    assert_eq!((slots.busy(), slots.waiting()), (8, 93));
}

#[test]
fn a_file_that_rests_gives_its_slot_away_at_the_second_look_and_one_that_works_keeps_it() {
    let mut slots = Slots::new(ROOM);
    let program = name("tool");
    (0..8).for_each(|id| slots.wait(&program, id));
    assert_eq!(take(&mut slots, millis(0)).len(), 6);
    // 0 and 1 rest, the others work.
    let look = |number: u32| if number <= 2 { resting(7) } else { None };
    slots.make_room(millis(19), look);
    assert_eq!(slots.next_look(), Some(millis(20)));
    slots.make_room(millis(20), look);
    assert!(take(&mut slots, millis(20)).is_empty(), "it may have slept for an instant");
    slots.make_room(millis(30), look);
    assert_eq!(take(&mut slots, millis(30)), [6, 7]);
    // A look that finds progress begins anew.
    for (at, ran) in [(60, 8), (120, 9)] {
        slots.make_room(millis(at), |_| resting(ran));
    }
    assert_eq!(slots.parked.len(), 2);
    (0..8).for_each(|id| slots.free(id));
    assert_eq!((slots.busy(), slots.memory, slots.lanes.len()), (0, 0, 0));
}

#[test]
fn nobody_is_looked_at_while_nobody_waits() {
    let mut slots = Slots::new(ROOM);
    slots.wait(&name("tool"), 1);
    assert_eq!(take(&mut slots, millis(0)), [1]);
    assert_eq!(slots.next_look(), None);
    slots.make_room(millis(900), |_| panic!("no reason to look"));
}

#[test]
fn a_file_that_takes_long_is_parked_although_it_works() {
    let mut slots = Slots::new(ROOM);
    let program = name("tool");
    (0..7).for_each(|id| slots.wait(&program, id));
    take(&mut slots, millis(0));
    slots.make_room(millis(499), |_| None);
    assert!(take(&mut slots, millis(499)).is_empty());
    slots.make_room(millis(1_000), |_| None);
    assert_eq!(take(&mut slots, millis(1_000)), [6]);
}

#[test]
fn what_hangs_beyond_all_bounds_leaves_slots_and_places_to_others() {
    let mut slots = Slots::new(ROOM);
    let (hangs, other) = (name("hangs"), name("other"));
    (0..1_000).for_each(|id| slots.wait(&hangs, id));
    let mut now = millis(0);
    for _ in 0..50 {
        take(&mut slots, now);
        now += millis(300);
        slots.make_room(now, |_| resting(1));
    }
    assert_eq!((slots.parked.len(), slots.running.len()), (12, 6), "three quarters of each");
    for id in 2_000..2_100 {
        slots.wait(&other, id);
        assert_eq!(take(&mut slots, now), [id], "as if nothing hung");
        slots.free(id);
    }
}

#[test]
fn memory_bounds_what_is_parked() {
    let mut slots = Slots::new(Room { memory: 3 << 20, ..ROOM });
    let program = name("large");
    (0..20).for_each(|id| slots.wait(&program, id));
    for at in 0..10 {
        take(&mut slots, millis(at * 1_000));
        slots.make_room(millis(at * 1_000 + 900), |_| Some(Resting { ran: millis(1), memory: 1 << 20 }));
    }
    assert_eq!(slots.parked.len(), 2);
    assert!(slots.memory <= 3 << 20);
}

#[derive(Debug, Clone)]
enum Deed {
    Wait(u8, i64),
    Take,
    Free(i64),
    Forget(i64),
    Look(u64),
}

fn deed() -> impl proptest::strategy::Strategy<Value = Deed> {
    use proptest::prelude::*;
    prop_oneof![
        (0_u8..4, 0_i64..60).prop_map(|(program, id)| Deed::Wait(program, id)),
        Just(Deed::Take),
        (0_i64..60).prop_map(Deed::Free),
        (0_i64..60).prop_map(Deed::Forget),
        (1_u64..700).prop_map(Deed::Look),
    ]
}

proptest::proptest! {
    #[test]
    fn bounds_hold_nothing_is_lost_and_nothing_stays_behind(
        deeds in proptest::collection::vec(deed(), 0..200)
    ) {
        let mut slots = Slots::new(ROOM);
        let mut now = millis(0);
        let mut queued = HashSet::new();
        let mut runs = HashSet::new();
        for deed in deeds {
            match deed {
                // An order waits once and is not begun again while it runs.
                Deed::Wait(program, id) if !runs.contains(&id) => {
                    slots.wait(&name(["a", "b", "c", "d"][usize::from(program)]), id);
                    queued.insert(id);
                }
                Deed::Wait(..) => {}
                Deed::Take => {
                    for id in take(&mut slots, now) {
                        proptest::prop_assert!(queued.remove(&id));
                        runs.insert(id);
                    }
                }
                Deed::Free(id) => {
                    slots.free(id);
                    runs.remove(&id);
                }
                Deed::Forget(id) => {
                    slots.forget(|one| one == id);
                    queued.remove(&id);
                }
                Deed::Look(later) => {
                    now += millis(later);
                    slots.make_room(now, |number| (number % 2 == 0).then(|| resting(3)).flatten());
                }
            }
            proptest::prop_assert_eq!(slots.waiting(), queued.len());
            proptest::prop_assert_eq!(slots.busy(), runs.len());
            proptest::prop_assert!(slots.running.len() <= ROOM.slots && slots.parked.len() <= ROOM.parked);
            for lane in slots.lanes.values() {
                proptest::prop_assert!(lane.running <= 6 && lane.parked <= 12 && !lane.is_empty());
            }
            let counted: usize = slots.lanes.values().map(|lane| lane.waiting.len()).sum();
            proptest::prop_assert_eq!(counted, queued.len());
        }
        // Whoever waits is served once there is room.
        while !runs.is_empty() || !queued.is_empty() {
            for id in take(&mut slots, now) {
                queued.remove(&id);
                runs.insert(id);
            }
            let Some(id) = runs.iter().next().copied() else { break };
            runs.remove(&id);
            slots.free(id);
        }
        proptest::prop_assert!(queued.is_empty());
        proptest::prop_assert!(slots.lanes.is_empty() && slots.turn.is_empty() && slots.memory == 0);
    }
}

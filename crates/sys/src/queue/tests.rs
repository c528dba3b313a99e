use std::thread;

use proptest::prelude::*;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn queue(items: usize, bytes: usize) -> (Sender<Vec<u8>>, Receiver<Vec<u8>>) {
    bounded(Limits { items, bytes }, Vec::len)
}

/// Returns when `what` holds for the queue.
fn await_load(sender: &Sender<Vec<u8>>, what: impl Fn(Load) -> bool) {
    for _ in 0..20_000 {
        if what(sender.load()) {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("{:?}", sender.load());
}

#[test]
fn bytes_fill_a_queue_long_before_its_count_does() {
    let (sender, receiver) = queue(1000, 100);
    for _ in 0..4 {
        sender.try_send(vec![0; 25]).unwrap();
    }
    assert!(matches!(sender.try_send(vec![0; 1]), Err(Refused::Full(back)) if back.len() == 1));
    assert_eq!(receiver.try_recv().unwrap().len(), 25);
    sender.try_send(vec![0; 25]).unwrap();
    let load = sender.load();
    assert_eq!((load.items, load.bytes, load.passed, load.full, load.peak_bytes), (4, 100, 5, 1, 100));
}

#[test]
fn the_count_holds_for_items_without_weight() {
    let (sender, _receiver) = queue(2, 100);
    sender.try_send(vec![]).unwrap();
    sender.try_send(vec![]).unwrap();
    assert!(matches!(sender.try_send(vec![]), Err(Refused::Full(_))));
}

#[test]
fn an_item_above_the_limit_passes_alone() {
    let (sender, receiver) = queue(10, 100);
    sender.try_send(vec![0; 500]).unwrap();
    assert!(matches!(sender.send_timeout(vec![0; 1], Duration::from_millis(5)), Err(Refused::Full(_))));
    assert_eq!(receiver.recv().unwrap().len(), 500);
    sender.try_send(vec![0; 1]).unwrap();
    assert!(matches!(sender.try_send(vec![0; 500]), Err(Refused::Full(_))));
}

#[test]
fn a_sender_waits_for_room_and_is_woken() {
    let (sender, receiver) = queue(10, 10);
    sender.send(vec![1; 10]).unwrap();
    let other = sender.clone();
    let waiting = thread::spawn(move || other.send(vec![2; 10]));
    await_load(&sender, |load| load.full == 1);
    assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), vec![1; 10]);
    assert_eq!(receiver.recv_timeout(PATIENCE).unwrap(), vec![2; 10]);
    waiting.join().unwrap().unwrap();
}

#[test]
fn whoever_waits_for_a_receiver_that_goes_gets_the_item_back() {
    let (sender, receiver) = queue(1, 10);
    sender.send(vec![1]).unwrap();
    let other = sender.clone();
    let waiting = thread::spawn(move || other.send(vec![2]));
    await_load(&sender, |load| load.full == 1);
    drop(receiver);
    assert!(matches!(waiting.join().unwrap(), Err(Refused::Closed(back)) if back == [2]));
    assert!(matches!(sender.try_send(vec![3]), Err(Refused::Closed(_))));
}

#[test]
fn the_rest_is_received_after_the_last_sender_went() {
    let (sender, receiver) = queue(10, 10);
    sender.send(vec![1]).unwrap();
    drop(sender);
    assert_eq!(receiver.recv().unwrap(), [1]);
    assert_eq!(receiver.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
}

#[test]
fn a_receiver_that_waits_hears_of_the_last_senders_end() {
    let (sender, receiver) = queue(10, 10);
    let waiting = thread::spawn(move || receiver.recv_timeout(PATIENCE));
    thread::yield_now();
    drop(sender);
    assert_eq!(waiting.join().unwrap(), Err(RecvTimeoutError::Disconnected));
}

#[test]
fn an_empty_queue_is_left_after_the_patience() {
    let (_sender, receiver) = queue(10, 10);
    assert_eq!(receiver.recv_timeout(Duration::from_millis(5)), Err(RecvTimeoutError::Timeout));
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn nothing_is_lost_reordered_or_held_above_the_limits(
        lists in prop::collection::vec(prop::collection::vec(0_usize..40, 0..200), 1..4),
        items in 1_usize..20,
        bytes in 1_usize..100,
    ) {
        let (sender, receiver) = queue(items, bytes);
        let threads: Vec<_> = lists.iter().cloned().enumerate().map(|(number, weights)| {
            let sender = sender.clone();
            thread::spawn(move || for weight in weights {
                sender.send(vec![u8::try_from(number).unwrap(); weight + 1]).unwrap();
            })
        }).collect();
        drop(sender);
        let mut got = vec![Vec::new(); lists.len()];
        for item in receiver.iter() {
            got[usize::from(item[0])].push(item.len() - 1);
        }
        for thread in threads {
            thread.join().unwrap();
        }
        prop_assert_eq!(&got, &lists);
        let load = receiver.load();
        prop_assert!(load.peak_bytes <= bytes.max(41), "{load:?}");
        prop_assert_eq!((load.items, load.bytes), (0, 0));
    }
}

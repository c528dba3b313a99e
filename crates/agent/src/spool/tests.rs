use std::sync::Arc;

use proptest::prelude::*;

use super::*;

fn open(directory: &Path) -> Arc<Spool> {
    Arc::new(Spool::open(directory, 1 << 30).unwrap())
}

fn put(spool: &Spool, texts: &[&str]) {
    let events: Vec<_> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    assert!(spool.append(&events, &AtomicBool::new(false)).unwrap());
}

fn rest(tail: &mut Tail) -> Vec<String> {
    let mut found = Vec::new();
    while let Some((_, event)) = tail.take().unwrap() {
        found.push(String::from_utf8(event).unwrap());
    }
    found
}

fn files(directory: &Path) -> usize {
    segment::find(directory).unwrap().len()
}

#[test]
fn what_was_not_taken_by_the_manager_comes_again_after_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let spool = open(home.path());
    put(&spool, &["a", "b", "c"]);
    let mut tail = Tail::new(Arc::clone(&spool));
    assert_eq!(rest(&mut tail), ["a", "b", "c"]);
    spool.release(1);
    spool.note().unwrap();
    put(&spool, &["d"]);
    drop((spool, tail));
    let spool = open(home.path());
    let mut tail = Tail::new(Arc::clone(&spool));
    assert_eq!(rest(&mut tail), ["b", "c", "d"]);
    spool.release(spool.head());
    spool.note().unwrap();
    drop((spool, tail));
    let spool = open(home.path());
    assert_eq!((spool.head(), spool.done()), (4, 4));
    assert_eq!(files(home.path()), 1);
}

#[test]
fn a_torn_end_is_cut_off_and_writing_goes_on_behind_it() {
    let home = tempfile::tempdir().unwrap();
    let spool = open(home.path());
    put(&spool, &["a", "b"]);
    let path = spool.segment_of(0).unwrap().0;
    drop(spool);
    let whole = std::fs::metadata(&path).unwrap().len();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(whole - 1).unwrap();
    let spool = open(home.path());
    put(&spool, &["c"]);
    assert_eq!(rest(&mut Tail::new(Arc::clone(&spool))), ["a", "c"]);
}

#[test]
fn a_full_spool_makes_the_writer_wait_until_there_is_room_or_it_should_stop() {
    let home = tempfile::tempdir().unwrap();
    let spool = Arc::new(Spool::open(home.path(), 0).unwrap());
    let big = vec![vec![b'x'; 1 << 16]; 64];
    let go = AtomicBool::new(false);
    for _ in 0..3 {
        assert!(spool.append(&big, &go).unwrap());
    }
    assert!(!spool.append(&big, &AtomicBool::new(true)).unwrap());
    let other = Arc::clone(&spool);
    let waiting = std::thread::spawn(move || other.append(&big, &AtomicBool::new(false)).unwrap());
    spool.release(spool.head());
    assert!(waiting.join().unwrap());
    assert!(spool.bytes() <= SEGMENT * 2);
}

#[test]
fn a_reader_goes_back_over_segments() {
    let home = tempfile::tempdir().unwrap();
    let spool = open(home.path());
    let big = vec![vec![b'x'; 1 << 16]; 64];
    for _ in 0..5 {
        spool.append(&big, &AtomicBool::new(false)).unwrap();
    }
    assert!(files(home.path()) > 1);
    let mut tail = Tail::new(Arc::clone(&spool));
    while tail.take().unwrap().is_some() {}
    assert_eq!((tail.position(), tail.take_lost()), (320, 0));
    tail.seek(70);
    assert_eq!(tail.take().unwrap().unwrap().0, 70);
}

#[test]
fn damage_inside_costs_the_rest_of_its_segment_and_is_counted() {
    let home = tempfile::tempdir().unwrap();
    let spool = open(home.path());
    put(&spool, &["a", "b", "c"]);
    let path = spool.segment_of(0).unwrap().0;
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[HEAD_OF_B] ^= 1;
    durable::replace(&path, &bytes, 0o640).unwrap();
    let mut tail = Tail::new(Arc::clone(&spool));
    assert_eq!(rest(&mut tail), ["a"]);
    assert_eq!(tail.take_lost(), 2);
}

// Behind the record of one byte: the text of the second.
const HEAD_OF_B: usize = segment::HEAD + 1 + segment::HEAD;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_bytes_in_the_last_file_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..40) {
        let home = tempfile::tempdir().unwrap();
        let spool = open(home.path());
        put(&spool, &["first", "second"]);
        let path = spool.segment_of(0).unwrap().0;
        drop(spool);
        let mut text = std::fs::read(&path).unwrap();
        text.truncate(text.len().saturating_sub(cut));
        text.extend_from_slice(&bytes);
        durable::replace(&path, &text, 0o640).unwrap();
        let spool = open(home.path());
        put(&spool, &["last"]);
        let found = rest(&mut Tail::new(Arc::clone(&spool)));
        prop_assert_eq!(found.last().map(String::as_str), Some("last"));
    }
}

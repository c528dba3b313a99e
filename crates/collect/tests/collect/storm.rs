//! Many lines while files change their names, are emptied, and the collector restarts: none lost, none doubled.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common::{Home, Running, block};

const LINES: usize = 100_000;

fn write_numbers(path: &Path, from: usize, to: usize, rotate_every: Option<usize>) {
    let open = || OpenOptions::new().append(true).create(true).open(path).unwrap();
    let mut file = open();
    for number in from..to {
        if rotate_every.is_some_and(|every| number > from && number % every == 0) {
            std::fs::rename(path, format!("{}.{number}", path.display())).unwrap();
            // The old descriptor is written to until the new one is there, as by a daemon that awaits its signal.
            writeln!(file, "{number}").unwrap();
            file = open();
            continue;
        }
        // Torn on purpose: a line in two writes.
        if number % 7 == 0 {
            let text = format!("{number}\n");
            let (head, tail) = text.split_at(1);
            file.write_all(head.as_bytes()).unwrap();
            file.write_all(tail.as_bytes()).unwrap();
        } else {
            writeln!(file, "{number}").unwrap();
        }
    }
}

fn number(text: &[u8]) -> Option<usize> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn collect(running: &Running, seen: &mut Vec<usize>, until: usize) {
    while seen.len() < until {
        seen.extend(number(&running.next().text));
    }
}

#[test]
fn no_line_is_lost_or_doubled_over_twenty_renames() {
    let home = Home::new();
    home.append("a.log", b"");
    let running = home.start(&[block("a.log", "syslog")]);
    let path = home.path("a.log");
    let writer = std::thread::spawn(move || write_numbers(&path, 0, LINES, Some(LINES / 20)));
    let mut seen = Vec::new();
    collect(&running, &mut seen, LINES);
    writer.join().unwrap();
    assert!(seen.iter().copied().eq(0..LINES), "order broken, lost or doubled");
    assert!(running.stop().is_empty());
}

#[test]
fn no_line_is_lost_or_doubled_when_the_file_is_copied_and_emptied() {
    let home = Home::new();
    home.append("a.log", b"");
    let running = home.start(&[block("a.log", "syslog")]);
    let mut seen = Vec::new();
    for part in 0..10 {
        let (from, to) = (part * LINES / 10, (part + 1) * LINES / 10);
        let path = home.path("a.log");
        let writer = std::thread::spawn(move || write_numbers(&path, from, to, None));
        collect(&running, &mut seen, to);
        writer.join().unwrap();
        std::fs::copy(home.path("a.log"), home.path("a.log.1")).unwrap();
        OpenOptions::new().write(true).truncate(true).open(home.path("a.log")).unwrap();
    }
    assert!(seen.iter().copied().eq(0..LINES));
}

#[test]
fn no_line_is_lost_or_doubled_over_restarts_while_rotating() {
    let home = Home::new();
    home.append("a.log", b"");
    let blocks = [block("a.log", "syslog")];
    let mut running = home.start(&blocks);
    let path = home.path("a.log");
    let done = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&done);
    let writer = std::thread::spawn(move || {
        for part in 0..10 {
            write_numbers(&path, part * 2000, (part + 1) * 2000, Some(1000));
            std::thread::sleep(Duration::from_millis(20));
        }
        told.store(true, Ordering::SeqCst);
    });
    let mut seen = Vec::new();
    while !done.load(Ordering::SeqCst) {
        let until = seen.len() + 500;
        while seen.len() < until
            && let Ok(event) = running.events.recv_timeout(Duration::from_millis(50))
        {
            seen.extend(number(&event.text));
        }
        seen.extend(running.stop().iter().filter_map(|event| number(&event.text)));
        running = home.start(&blocks);
    }
    writer.join().unwrap();
    collect(&running, &mut seen, 20_000);
    // What comes twice would come now.
    while let Ok(event) = running.events.recv_timeout(Duration::from_millis(500)) {
        seen.extend(number(&event.text));
    }
    seen.sort_unstable();
    assert!(seen.iter().copied().eq(0..20_000), "lost or doubled: {}", seen.len());
}

#[test]
fn a_line_reaches_the_channel_within_a_millisecond_or_so() {
    let home = Home::new();
    home.append("a.log", b"");
    let running = home.start(&[block("a.log", "syslog")]);
    let clock = tld_sys::clock::SystemClock;
    // Generous, since the test machine is shared; and what it is shared with may spoil a round, but not all of them.
    let quick = (0..5).any(|_| {
        let mut spans = Vec::new();
        for number in 0..200 {
            std::thread::sleep(Duration::from_millis(2));
            let begun = tld_sys::clock::Clock::boot(&clock);
            home.append("a.log", format!("{number}\n").as_bytes());
            running.next();
            spans.push(tld_sys::clock::Clock::boot(&clock) - begun);
        }
        spans.sort_unstable();
        println!("write to channel: median {:?}, 95 % {:?}, worst {:?}", spans[100], spans[190], spans[199]);
        spans[100] < Duration::from_millis(20)
    });
    assert!(quick);
}

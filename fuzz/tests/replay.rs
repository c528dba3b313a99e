//! Every target on its seeds, on inputs that once broke it, and on a fixed number of mutated ones. `TLD_FUZZ_SECONDS=60`
//! searches that long instead, from another start each time. A failing input is kept in `target/fuzz/`.

#![expect(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is told by panicking, and what was found is kept"
)]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use tld_fuzz::mutate::Mutator;
use tld_fuzz::{MAX_INPUT, TARGETS, Target};
use tld_sys::clock::{Clock, SystemClock};

/// One input must end long before this, in a development build on a busy machine: a loop, not slowness.
const HANG: Duration = Duration::from_secs(60);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = root().join("seeds").join(name);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn keep(name: &str, input: &[u8]) -> PathBuf {
    let folder = root().join("../target/fuzz").join(name);
    std::fs::create_dir_all(&folder).unwrap();
    let sum = input
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    let path = folder.join(format!("failing-{sum:016x}"));
    std::fs::write(&path, input).unwrap();
    path
}

fn search(target: Target, current: &Mutex<Vec<u8>>, done: &mpsc::Sender<()>) {
    let seeds = seeds(target.name);
    assert!(!seeds.is_empty(), "`seeds/{}` is empty", target.name);
    let run = |input: &[u8]| {
        input.clone_into(&mut current.lock().unwrap());
        (target.run)(input);
        done.send(()).unwrap();
    };
    seeds.iter().for_each(|seed| run(seed));
    let seconds =
        std::env::var("TLD_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).map(Duration::from_secs);
    let start = seconds.map_or(0, |_| SystemClock.wall_nanos().cast_unsigned());
    let mut mutator = Mutator::new(&seeds, target.words, MAX_INPUT, start);
    match seconds {
        Some(seconds) => {
            let begin = SystemClock.boot();
            while SystemClock.boot() - begin < seconds {
                run(&mutator.make());
            }
        }
        None => (0..target.inputs).for_each(|_| run(&mutator.make())),
    }
}

fn replay(name: &str) {
    let target = *TARGETS.iter().find(|target| target.name == name).expect("a listed target");
    let current = Arc::new(Mutex::new(Vec::new()));
    let (done, progress) = mpsc::channel();
    let worker = {
        let current = Arc::clone(&current);
        // As small as the smallest stack of a thread in the product: recursion must be bounded there too.
        std::thread::Builder::new()
            .stack_size(2 << 20)
            .spawn(move || search(target, &current, &done))
            .unwrap()
    };
    let (mut tried, mut slowest, mut last) = (0_u64, Duration::ZERO, SystemClock.boot());
    loop {
        match progress.recv_timeout(HANG) {
            Ok(()) => {
                let now = SystemClock.boot();
                slowest = slowest.max(now - last);
                (tried, last) = (tried + 1, now);
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let path = keep(name, &current.lock().unwrap());
                panic!("`{name}` did not end within {HANG:?} on {}", path.display());
            }
        }
    }
    if worker.join().is_err() {
        let input = current.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let path = keep(name, &input);
        panic!(
            "`{name}` failed after {tried} inputs on {}: {:?}",
            path.display(),
            String::from_utf8_lossy(&input)
        );
    }
    println!("{name}: {tried} inputs, slowest {slowest:?}");
}

macro_rules! targets {
    ($($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name));
        })*

        #[test]
        fn every_target_is_replayed_and_has_a_binary() {
            let replayed = [$(stringify!($name)),*];
            for target in TARGETS {
                assert!(replayed.contains(&target.name), "`{}` is not replayed", target.name);
                let binary = root().join(format!("libfuzzer/fuzz_targets/{}.rs", target.name));
                assert!(binary.is_file(), "no {}", binary.display());
            }
            assert_eq!(replayed.len(), TARGETS.len());
        }
    };
}

targets!(
    address, bundle, config, control, enrol, event, frames, json, lists, logtime, message, options, osmatch,
    osregex, pcre2, ruleset, sealed, syslog, xml,
);

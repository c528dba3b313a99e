//! A journal that cannot be written, and one that is damaged.

use super::*;

#[test]
fn a_full_disk_stops_no_block_that_the_kernel_ends_by_itself() {
    let rig = Rig::new();
    let mut running = rig.start();
    let orders =
        |from: u32, to: u32| (from..to).map(|n| order(&format!("o{n}"), &format!("203.0.113.{n}"), 600));
    assert!(running.give(orders(0, 20)).iter().all(|told| told.kind == OutcomeKind::Applied));
    running.executor.journal.set_full(true);
    let told = running.give(orders(20, 60));
    assert_eq!(told.len(), 40);
    assert!(told.iter().all(|told| told.kind == OutcomeKind::Applied));
    let noted = told.iter().filter(|told| told.detail.contains("applied, not journaled")).count();
    assert_eq!(noted, 40, "{}", told[0].detail);
    assert!(rig.blocked("203.0.113.59").is_some());
    // What only the journal would ever end is not begun.
    let told = running.give([order("endless", "203.0.113.100", 0)]);
    assert_eq!(kinds(&told), [OutcomeKind::Failed]);
    assert!(told[0].detail.contains("nothing was done"), "{}", told[0].detail);
    assert_eq!(rig.blocked("203.0.113.100"), None);
    running.executor.journal.set_full(false);
    rig.clock.advance(Duration::from_secs(2));
    running.tick();
    drop(running);
    // All is known again, also after a restart, and ends in time.
    let mut running = rig.start();
    assert_eq!(running.executor.active().len(), 60);
    rig.clock.advance(Duration::from_secs(600));
    assert_eq!(kinds(&running.tick()), vec![OutcomeKind::Reverted; 60]);
    assert_eq!(rig.blocked("203.0.113.59"), None);
}

#[test]
fn a_damaged_journal_is_replaced_and_the_firewalls_blocks_are_taken_over() {
    let rig = Rig::new();
    let mut running = rig.start();
    running.give([order("a", "203.0.113.7", 600), order("b", "203.0.113.8", 0)]);
    drop(running);
    let path = rig.home.path().join("var/threatlockdown/journal.db");
    // The middle is overwritten, as a bad disk would.
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4_096..].fill(0x55);
    tld_sys::durable::replace(&path, &bytes, 0o600).unwrap();
    let mut running = rig.start();
    assert_eq!(running.executor.active().len(), 2);
    assert_eq!(journal::list(rig.home.path(), 0).unwrap().len(), 2, "both can be listed and lifted");
    rig.clock.advance(Duration::from_secs(601));
    assert_eq!(kinds(&running.tick()), [OutcomeKind::Reverted], "what had a lease ends with it");
    assert_eq!(rig.blocked("203.0.113.8"), Some(None));
    running.executor.cycle(vec![Input::Revert(RevertSelector::Address([203, 0, 113, 8].into()))]);
    assert_eq!(kinds(&running.told()), [OutcomeKind::Reverted]);
    assert_eq!(rig.blocked("203.0.113.8"), None);
}

#[test]
fn blocks_of_a_journal_that_lost_all_it_knew_are_taken_over() {
    let rig = Rig::new();
    let mut running = rig.start();
    running.give([order("a", "203.0.113.7", 600)]);
    drop(running);
    let path = |suffix: &str| rig.home.path().join(format!("var/threatlockdown/journal.db{suffix}"));
    let _ = std::fs::remove_file(path("-wal"));
    tld_sys::durable::replace(&path(""), b"", 0o600).unwrap();
    let mut running = rig.start();
    assert_eq!(running.executor.active().len(), 1);
    running.executor.cycle(vec![Input::Revert(RevertSelector::All)]);
    assert_eq!(kinds(&running.told()), [OutcomeKind::Reverted]);
    assert_eq!(rig.blocked("203.0.113.7"), None);
}

#[test]
fn blocks_that_a_journal_forgot_with_its_log_are_taken_over_and_the_others_are_its_own() {
    let rig = Rig::new();
    let mut running = rig.start();
    let file = |suffix: &str| rig.home.path().join(format!("var/threatlockdown/journal.db{suffix}"));
    running.give([order("a", "203.0.113.7", 600)]);
    drop(running);
    let mut running = rig.start();
    let older = tld_sys::durable::read_bounded(&file(""), 1 << 20).unwrap();
    running.give([order("b", "203.0.113.8", 600), order("c", "203.0.113.9", 0)]);
    drop(running);
    // As if killed, and the file of the last changes deleted.
    let cut = || {
        for gone in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(file(gone));
        }
        tld_sys::durable::replace(&file(""), &older, 0o600).unwrap();
        tld_sys::durable::replace(&rig.home.path().join("var/threatlockdown/journal.open"), b"", 0o600)
            .unwrap();
    };
    cut();
    let mut running = rig.start();
    let mut known: Vec<String> = running.executor.active().into_iter().map(|one| one.order.0).collect();
    known.sort();
    assert!(known.len() == 3 && known[0] == "a" && known[1].starts_with("adopted-"), "{known:?}");
    rig.clock.advance(Duration::from_secs(601));
    assert_eq!(kinds(&running.tick()), [OutcomeKind::Reverted; 2], "each at its end");
    running.executor.cycle(vec![Input::Revert(RevertSelector::All)]);
    assert_eq!(kinds(&running.told()), [OutcomeKind::Reverted]);
    assert!(rig.kernel.0.lock().unwrap().set.is_empty());
    drop(running);
    // A journal that was closed in order has lost nothing: what else stands in the firewall is not its business.
    rig.kernel.0.lock().unwrap().set.insert(Spot { address: [203, 0, 113, 10].into(), port: None }, None);
    assert!(rig.start().executor.active().is_empty());
}

use super::*;

fn entry(journal: &mut Journal, id: &str, state: State, bytes: usize) -> Entry {
    let alert = serde_json::value::RawValue::from_string(r#"{"data":{"srcip":"203.0.113.7"}}"#.into());
    Entry {
        id: journal.fresh_id(),
        order: Order {
            id: OrderId(id.into()),
            response: "firewall-drop600".into(),
            executable: "x".repeat(bytes),
            timeout_secs: 600,
            extra_args: vec![],
            node: String::new(),
            alert: serde_json::value::RawValue::NULL.to_owned(),
            alert_id: "1.2".into(),
            rule: None,
            target: tld_model::Target::Address([203, 0, 113, 7].into()),
            created: Timestamp::EPOCH,
            timings: tld_model::Timings::default(),
            options: tld_model::OrderOptions::default(),
        },
        alert: Some(alert.unwrap()),
        program: "active-response/bin/firewall-drop".into(),
        kind: Kind::Action,
        state,
        key: Some("firewall-drop-203.0.113.7".into()),
        boot_id: None,
        until: None,
        length: 600,
        attempts: 0,
        failed: false,
        prior: None,
        outcome: None,
        told: false,
        changed: Timestamp::EPOCH,
    }
}

fn close(id: i64) -> Step {
    Step::Advance {
        id,
        state: State::Closed,
        key: None,
        until: None,
        length: 0,
        attempts: 0,
        failed: false,
        prior: None,
        outcome: None,
    }
}

fn alerts(journal: &Journal) -> i64 {
    journal.db.query_row("SELECT count(*) FROM alert", [], |row| row.get(0)).unwrap()
}

#[test]
fn a_journal_that_cannot_be_looked_at_is_not_an_empty_one() {
    let home = tempfile::tempdir().unwrap();
    assert!(list(home.path(), 0).unwrap().is_empty());
    // What a missing right does to others, this does to root too.
    durable::replace(&home.path().join("var"), b"", 0o600).unwrap();
    assert!(matches!(list(home.path(), 0), Err(JournalError::Unseen { .. })));
}

#[test]
fn an_alert_is_kept_until_its_effect_is_closed() {
    let home = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(home.path(), "boot").unwrap();
    let row = entry(&mut journal, "a", State::Active, 1);
    let id = row.id;
    let declined = entry(&mut journal, "b", State::Closed, 1);
    journal.write(&[Step::Insert(row.into()), Step::Insert(declined.into())], Timestamp::EPOCH).unwrap();
    assert_eq!(alerts(&journal), 1);
    assert!(journal.order(id).unwrap().alert.get().contains("203.0.113.7"));
    journal.write(&[close(id)], Timestamp::EPOCH).unwrap();
    assert_eq!(alerts(&journal), 0);
    assert_eq!(journal.order(id).unwrap().alert.get(), "null");
    assert_eq!(about(home.path(), "203.0.113.7", 10).unwrap().len(), 2, "it is still known what was done");
    assert_eq!(about(home.path(), "203.0.113.70", 10).unwrap().len(), 0);
}

#[test]
fn closed_rows_are_bounded_by_number_bytes_and_age() {
    let home = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(home.path(), "boot").unwrap();
    let count = |journal: &Journal| -> i64 {
        journal.db.query_row("SELECT count(*) FROM effect", [], |row| row.get(0)).unwrap()
    };
    for n in 0..10 {
        let row = entry(&mut journal, &format!("o{n}"), State::Closed, 10_000);
        journal.write(&[Step::Insert(row.into())], Timestamp::from_secs(1_000 + n)).unwrap();
    }
    let live = entry(&mut journal, "live", State::Active, 10_000);
    journal.write(&[Step::Insert(live.into())], Timestamp::from_secs(1)).unwrap();
    let now = Timestamp::from_secs(1_100);
    assert!(!journal.prune_to(now, 8, u64::MAX).unwrap());
    assert_eq!(count(&journal), 8 + 1);
    journal.prune_to(now, 100, 55_000).unwrap();
    assert_eq!(count(&journal), 5 + 1);
    journal.prune_to(now.plus(KEEP), 100, u64::MAX).unwrap();
    assert_eq!(count(&journal), 1, "what is open is never pruned");
}

#[test]
fn a_journal_of_the_first_builds_is_read_with_the_alerts_in_its_orders() {
    let home = tempfile::tempdir().unwrap();
    durable::create_dirs(&home.path().join(DIRECTORY), 0o750).unwrap();
    let db = Connection::open(home.path().join(PATH)).unwrap();
    db.execute_batch(
        "CREATE TABLE effect (id INTEGER PRIMARY KEY, order_id TEXT NOT NULL UNIQUE, order_json TEXT NOT NULL,
         program TEXT NOT NULL, kind TEXT NOT NULL, state TEXT NOT NULL, key TEXT, boot_id TEXT, until_boot INTEGER,
         until_wall INTEGER, length INTEGER NOT NULL DEFAULT 0, attempts INTEGER NOT NULL DEFAULT 0,
         failed INTEGER NOT NULL DEFAULT 0, outcome TEXT, changed INTEGER NOT NULL) STRICT;
         CREATE INDEX effect_live ON effect (state) WHERE state <> 'closed';
         INSERT INTO effect (id, order_id, order_json, program, kind, state, changed) VALUES (7, 'a',
         '{\"id\":\"a\",\"response\":\"r\",\"executable\":\"e\",\"timeout_secs\":0,\"alert\":{\"data\":1},\"alert_id\":\"1\",
           \"target\":\"none\",\"created\":0}', 'p', 'action', 'active', 0)",
    )
    .unwrap();
    drop(db);
    let (mut journal, damage) = Journal::open(home.path(), "boot").unwrap();
    assert_eq!(damage, None);
    assert_eq!(journal.live(0, 10).unwrap().len(), 1);
    assert_eq!(journal.order(7).unwrap().alert.get(), r#"{"data":1}"#);
    assert_eq!(journal.fresh_id(), 8);
}

#[test]
fn a_damaged_journal_is_set_aside_and_an_empty_one_takes_its_place() {
    let home = tempfile::tempdir().unwrap();
    durable::create_dirs(&home.path().join(DIRECTORY), 0o750).unwrap();
    durable::replace(&home.path().join(PATH), &[b'x'; 8_192], 0o600).unwrap();
    let (mut journal, damage) = Journal::open(home.path(), "boot").unwrap();
    let said = damage.unwrap();
    assert!(said.contains("journal.db") && said.contains(".bad-"), "{said}");
    let row = entry(&mut journal, "a", State::Active, 1);
    journal.write(&[Step::Insert(row.into())], Timestamp::EPOCH).unwrap();
    let kept = std::fs::read_dir(home.path().join(DIRECTORY)).unwrap().filter(|one| {
        one.as_ref().is_ok_and(|one| one.file_name().to_string_lossy().starts_with("journal.db.bad-"))
    });
    assert_eq!(kept.count(), 1);
}

#[test]
fn whoever_is_turned_away_learns_which_process_holds_the_journal() {
    let home = tempfile::tempdir().unwrap();
    let _held = Journal::open(home.path(), "boot").unwrap();
    let refused = Journal::open(home.path(), "boot").unwrap_err();
    assert!(refused.to_string().contains(&format!("process {}", std::process::id())), "{refused}");
}

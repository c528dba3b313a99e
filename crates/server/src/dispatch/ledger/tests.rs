use super::*;

fn open() -> (tempfile::TempDir, Ledger) {
    let home = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(home.path()).unwrap();
    (home, ledger)
}

fn draft(id: &str) -> Arc<Draft> {
    let json = serde_json::json!({
        "order": {"id": id, "response": "r5", "executable": "r", "timeout_secs": 5, "alert": {"a": 1}, "alert_id": "1.2",
                  "target": "none", "created": Timestamp::from_secs(100)},
        "audience": {"one": 1}, "origin": {"name": null, "module": "API"},
    });
    Arc::new(serde_json::from_str(&json.to_string()).unwrap())
}

fn row(id: i64, state: State) -> Row {
    Row {
        id,
        order: OrderId(format!("o{id}")),
        draft: id,
        agent: AgentId(1),
        state,
        deadline: Timestamp::from_secs(105),
        ends: None,
        plain: true,
        withdrawn: false,
        created: Timestamp::from_secs(100),
    }
}

fn put(ledger: &mut Ledger, id: i64, state: State, at: i64) {
    let steps = [
        Step::Draft { id, draft: draft(&format!("o{id}")), standing: None },
        Step::Put { row: row(id, state), outcome: None, ending: None },
    ];
    ledger.write(&steps, Timestamp::from_secs(at)).unwrap();
}

#[test]
fn only_what_is_unfinished_is_given_back_after_a_restart() {
    let (home, mut ledger) = open();
    put(&mut ledger, 1, State::Closed, 100);
    put(&mut ledger, 2, State::Sent, 100);
    drop(ledger);
    let open = Ledger::open(home.path()).unwrap().unfinished(Timestamp::from_secs(101)).unwrap();
    assert_eq!((open.rows.len(), open.drafts.len()), (1, 1));
    assert_eq!((open.rows[0].order.0.as_str(), open.rows[0].state), ("o2", State::Sent));
    assert_eq!((open.next_row, open.next_draft), (3, 3));
    assert_eq!(open.drafts[0].1.order.alert.get(), r#"{"a":1}"#);
}

#[test]
fn an_answer_for_all_stands_until_its_end() {
    let (_home, mut ledger) = open();
    let step = Step::Draft { id: 1, draft: draft("o"), standing: Some(Timestamp::from_secs(105)) };
    ledger.write(&[step], Timestamp::from_secs(100)).unwrap();
    assert_eq!(ledger.unfinished(Timestamp::from_secs(104)).unwrap().drafts.len(), 1);
    assert_eq!(ledger.unfinished(Timestamp::from_secs(106)).unwrap().drafts.len(), 0);
}

#[test]
fn old_closed_orders_are_forgotten_and_open_ones_are_not() {
    let (home, mut ledger) = open();
    put(&mut ledger, 1, State::Closed, 100);
    put(&mut ledger, 2, State::Sent, 100);
    put(&mut ledger, 3, State::Closed, 100 + 30 * 86_400);
    ledger.prune(Timestamp::from_secs(101 + 30 * 86_400)).unwrap();
    let listed = list(home.path(), &Filter { closed: 10, ..Filter::default() }).unwrap();
    let left: Vec<_> = listed.iter().map(|one| one.order.id.0.as_str()).collect();
    assert_eq!(left, ["o2", "o3"]);
    let drafts: i64 = ledger.db.query_row("SELECT count(*) FROM draft", [], |row| row.get(0)).unwrap();
    assert_eq!(drafts, 2);
}

#[test]
fn a_home_without_a_ledger_has_no_orders() {
    let home = tempfile::tempdir().unwrap();
    assert!(list(home.path(), &Filter::default()).unwrap().is_empty());
    assert!(!home.path().join(PATH).exists());
}

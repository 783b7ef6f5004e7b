//! The controls of the ledger: every kind of lie is found.

use serde_json::json;

use super::*;

const TEXTS: [&str; 3] = ["one", "two", "three"];

/// One conversation with three messages, one after the other, the last one recalled.
fn ledger() -> Ledger {
    let ledger = Ledger::new(vec![Room::Direct(0, 1)]);
    for (text, index) in TEXTS.iter().zip(1..) {
        ledger.begin_send(0, 0, text);
        ledger.sent(0, text, index);
    }
    ledger.begin_recall(0, 3);
    ledger.recalled(0, 3, 1);
    ledger
}

fn message(index: u32, text: &str, recall: u32) -> Value {
    json!({"msg_index": index, "recall_index": recall, "msg": text, "sender": "user-0", "timestamp": 5})
}

fn page(msgs: &[Value], recalls: Value, newest: (u32, u32)) -> Value {
    json!({"msgs": msgs, "recalls": recalls, "max_msg_index": newest.0, "max_recall_index": newest.1})
}

/// What the ledger says of an answer to a pull of everything.
fn verdict(page: &Value) -> Vec<String> {
    let ledger = ledger();
    let floor = ledger.floor(0);
    ledger.shown(0, &floor, 1, 50, page);
    ledger.violations()
}

#[test]
fn the_truth_is_believed() {
    let msgs = [message(1, "one", 0), message(2, "two", 0), message(3, "", 1)];
    assert_eq!(verdict(&page(&msgs, json!({"1": 3}), (3, 1))), [""; 0]);
}

#[test]
fn every_kind_of_lie_is_found() {
    let [one, two, three] = [message(1, "one", 0), message(2, "two", 0), message(3, "", 1)];
    let lies = [
        ("a lost message", page(&[one.clone(), two.clone()], json!({}), (2, 0))),
        ("a hole", page(&[one.clone(), three.clone()], json!({"1": 3}), (3, 1))),
        ("another text", page(&[one.clone(), message(2, "one", 0), three.clone()], json!({"1": 3}), (3, 1))),
        (
            "an invented text",
            page(&[one.clone(), message(2, "x", 0), three.clone()], json!({"1": 3}), (3, 1)),
        ),
        (
            "a recall taken back",
            page(&[one.clone(), two.clone(), message(3, "three", 0)], json!({"1": 3}), (3, 1)),
        ),
        (
            "a recalled text",
            page(&[one.clone(), two.clone(), message(3, "three", 1)], json!({"1": 3}), (3, 1)),
        ),
        (
            "an invented recall",
            page(&[one.clone(), message(2, "", 2), three.clone()], json!({"1": 3, "2": 2}), (3, 2)),
        ),
        ("a lost recall", page(&[one, two, three], json!({}), (3, 1))),
    ];
    for (name, lie) in lies {
        assert!(!verdict(&lie).is_empty(), "nobody noticed {name}");
    }
}

#[test]
fn an_order_against_time_is_found() {
    let right = ledger();
    right.check_real_time();
    assert_eq!(right.violations(), [""; 0]);
    let wrong = Ledger::new(vec![Room::Direct(0, 1)]);
    for (text, index) in TEXTS.iter().zip([2, 1, 3]) {
        wrong.begin_send(0, 0, text);
        wrong.sent(0, text, index);
    }
    wrong.check_real_time();
    assert_eq!(wrong.violations().len(), 1);
}

#[test]
fn a_refused_message_that_is_there_is_found() {
    let ledger = ledger();
    ledger.begin_send(0, 0, "four");
    ledger.refused(0, "four");
    let floor = ledger.floor(0);
    ledger.shown(0, &floor, 4, 50, &page(&[message(4, "four", 0)], json!({}), (4, 1)));
    assert_eq!(ledger.violations().len(), 1);
}

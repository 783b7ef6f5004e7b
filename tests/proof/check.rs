//! Reads a whole server and compares it with what its clients were told.

use serde_json::{Value, json};

use crate::client::{Client, number};
use crate::ledger::Ledger;
use crate::server::Server;
use crate::world::{Room, clients};

const PULL_COUNT: u32 = 50;
/// Sends per conversation that are sent once more.
const RETRIES: usize = 10;

/// Everything that was acknowledged or shown must be there, dense and once, and asking again for what was done must store
/// nothing. Gives how many messages there are; what is wrong is in the ledger's violations.
pub(crate) fn check(server: &Server, ledger: &Ledger) -> u32 {
    let mut clients = clients(server);
    let records = || server.metric("chinwag_commit_records_sum");
    let before = records();
    let mut messages = 0;
    for room in 0..ledger.rooms.len() {
        let checked = read(&mut clients, ledger, room)
            .and_then(|found| ask_again(&mut clients, ledger, room).map(|()| messages += found));
        checked.unwrap_or_else(|why| ledger.violation(room, why));
    }
    let stored = records() - before;
    if stored != 0.0 {
        ledger.violation(
            0,
            format!("asking again for what was acknowledged stored {stored} records: it had been lost"),
        );
    }
    messages
}

/// As [`check`], and stops at violations.
pub(crate) fn assert_whole(server: &Server, ledger: &Ledger) -> u32 {
    let messages = check(server, ledger);
    assert_eq!(ledger.violations(), [""; 0], "what was promised does not hold");
    messages
}

/// Pulls a whole conversation, page by page. The ledger compares the pages.
fn read(clients: &mut [Client], ledger: &Ledger, room: usize) -> Result<u32, String> {
    if matches!(ledger.rooms[room], Room::Group(_)) && !ledger.known(room).is_founded {
        return Ok(0);
    }
    let reader = ledger.rooms[room].reader();
    let (mut start, mut newest) = (1, 0);
    loop {
        let floor = ledger.floor(room);
        let fields = json!({
            "direction": "after", "start_msg_index": start, "start_recall_index": start, "count": PULL_COUNT,
        });
        let page = ask(&mut clients[reader], ledger, room, reader, "pull", fields)?;
        ledger.shown(room, &floor, start, PULL_COUNT, &page);
        newest = newest.max(number(&page, "max_msg_index"));
        start += PULL_COUNT;
        if start > newest && start > number(&page, "max_recall_index") {
            break;
        }
    }
    let known = ledger.known(room);
    if known.newest() > newest {
        return Err(format!("{} was acknowledged or shown, {newest} is the newest", known.newest()));
    }
    Ok(newest)
}

fn ask(
    client: &mut Client,
    ledger: &Ledger,
    room: usize,
    user: usize,
    verb: &str,
    fields: Value,
) -> Result<Value, String> {
    let body = ledger.rooms[room].request(user, fields);
    let answer = client.call(&format!("/im.chat/{verb}"), &body).map_err(|error| error.to_string())?;
    if answer.status == 200 { Ok(answer.body) } else { Err(format!("{verb}: {answer:?}")) }
}

/// Sends, recalls and acks what was acknowledged once more: the first answers must come back.
fn ask_again(clients: &mut [Client], ledger: &Ledger, room: usize) -> Result<(), String> {
    let known = ledger.known(room);
    let step = (known.messages.len() / RETRIES).max(1);
    let sends: Vec<_> =
        known.messages.iter().step_by(step).map(|(index, text)| (*index, text.clone())).collect();
    let senders: Vec<_> =
        sends.iter().map(|(index, _)| known.sender_of(*index).expect("it was sent")).collect();
    let recalls: Vec<_> = known.recalls().collect();
    let recallers: Vec<_> = recalls.iter().map(|(index, _)| known.sender_of(*index)).collect();
    let cursors = known.cursors.clone();
    drop(known);
    for ((index, text), sender) in sends.iter().zip(senders) {
        let fields = json!({"msg": text, "client_msg_id": text.split(' ').next()});
        let answer = ask(&mut clients[sender], ledger, room, sender, "send", fields)?;
        if number(&answer, "msg_index") != *index || answer["duplicate"] != json!(true) {
            return Err(format!("a retry of {text:?} at {index}: {answer}"));
        }
    }
    for ((index, recall), sender) in recalls.iter().zip(recallers) {
        // Of a message that was only ever seen recalled nobody knows whose it was.
        let Some(sender) = sender else { continue };
        let answer = ask(&mut clients[sender], ledger, room, sender, "recall", json!({"msg_index": index}))?;
        if number(&answer, "recall_index") != *recall {
            return Err(format!("recall {recall} of {index} again: {answer}"));
        }
    }
    for (user, cursor) in cursors {
        ask(&mut clients[user], ledger, room, user, "ack", json!({"msg_index": cursor}))?;
    }
    Ok(())
}

//! The rules of groups.

use super::super::state::tests::{accept, draft, everything, pull, pull_all, recall, send, user};
use super::*;
use crate::message::{Direction, Page};

fn caller(id: &str) -> Caller {
    Caller { user: user(id), admin: false }
}

fn admin(id: &str) -> Caller {
    Caller { user: user(id), admin: true }
}

fn users(ids: &[&str]) -> Vec<UserId> {
    ids.iter().map(|id| user(id)).collect()
}

fn id() -> GroupId {
    GroupId::parse("g").expect("a valid id")
}

/// A group owned by alice, with bob in it.
fn group() -> State {
    let mut state = State::new(ConversationKey::Group(id()));
    let (key, alice, members) = (state.key.clone(), caller("alice"), users(&["bob", "alice", "bob"]));
    let decision = create(&state, &key, &alice, "the name", &members, 5);
    accept(&mut state, decision).expect("a new group");
    state
}

fn change_add(state: &mut State, by: &Caller, ids: &[&str]) -> Result<(), Rejection> {
    let (key, ids) = (state.key.clone(), users(ids));
    let decision = add(state, &key, by, &ids, 6);
    accept(state, decision)
}

fn change_kick(state: &mut State, by: &Caller, ids: &[&str]) -> Result<(), Rejection> {
    let (key, ids) = (state.key.clone(), users(ids));
    let decision = kick(state, &key, by, &ids, 7);
    accept(state, decision)
}

fn change_leave(state: &mut State, by: &Caller) -> Result<(), Rejection> {
    let key = state.key.clone();
    let decision = leave(state, &key, by, 8);
    accept(state, decision)
}

fn duties(state: &State) -> Vec<(String, Duty)> {
    state.participants.members().map(|(_, row, m)| (row.user.to_string(), m.duty)).collect()
}

fn readable(state: &State, by: &str) -> Result<Page, Rejection> {
    pull(state, &user(by), &pull_all(Direction::After, 1), everything(state))
}

#[test]
fn the_creator_owns_the_group_and_its_id_is_taken() {
    let state = group();
    assert_eq!(duties(&state), [("alice".into(), Duty::Owner), ("bob".into(), Duty::Member)]);
    let key = state.key.clone();
    let again = create(&state, &key, &caller("alice"), "", &[], 5).map(|_| ());
    assert_eq!(again, Err(Rejection::GroupExists));
    let seen = info(&state, &id(), &caller("bob")).expect("a member");
    assert_eq!((seen.name.as_str(), seen.created_ns, seen.members_count), ("the name", 5, 2));
    assert_eq!(seen.duty, Duty::Member);
}

#[test]
fn outsiders_see_do_and_change_nothing() {
    let mut state = group();
    let outside = Err(Rejection::Forbidden(NOT_A_MEMBER));
    let eve = caller("eve");
    assert_eq!(send(&mut state, "eve", &draft("x", ""), 9).map(|_| ()), outside);
    assert_eq!(readable(&state, "eve").map(|_| ()), outside);
    assert_eq!(recall(&mut state, "eve", 1).map(|_| ()), outside);
    assert_eq!(info(&state, &id(), &eve).map(|_| ()), outside);
    assert_eq!(members(&state, &eve, "", 10).map(|_| ()), outside);
    assert_eq!(change_add(&mut state, &eve, &["eve"]), outside);
    assert_eq!(change_kick(&mut state, &eve, &["bob"]), outside);
    assert_eq!(change_leave(&mut state, &eve), outside);
    assert_eq!(duties(&state).len(), 2);
}

#[test]
fn members_may_not_administrate_but_an_admin_token_may() {
    let mut state = group();
    let refused = Err(Rejection::Forbidden(NEEDS_ADMIN));
    assert_eq!(change_add(&mut state, &caller("bob"), &["carol"]), refused);
    assert_eq!(change_kick(&mut state, &caller("bob"), &["alice"]), refused);
    assert_eq!(change_add(&mut state, &admin("backend"), &["carol"]), Ok(()));
    assert_eq!(change_kick(&mut state, &admin("backend"), &["bob"]), Ok(()));
    assert_eq!(duties(&state), [("alice".into(), Duty::Owner), ("carol".into(), Duty::Member)]);
    assert_eq!(info(&state, &id(), &admin("backend")).map(|seen| seen.duty), Ok(Duty::Admin));
}

#[test]
fn whoever_is_out_when_a_message_is_accepted_never_reads_it() {
    let mut state = group();
    send(&mut state, "alice", &draft("before", ""), 9).expect("a member");
    change_kick(&mut state, &caller("alice"), &["bob"]).expect("the owner");
    send(&mut state, "alice", &draft("while out", ""), 9).expect("a member");
    assert_eq!(readable(&state, "bob").map(|_| ()), Err(Rejection::Forbidden(NOT_A_MEMBER)));
    change_add(&mut state, &caller("alice"), &["bob", "carol"]).expect("the owner");
    send(&mut state, "alice", &draft("after", ""), 9).expect("a member");
    for newcomer in ["bob", "carol"] {
        let page = readable(&state, newcomer).expect("a member");
        let texts: Vec<_> = page.messages().map(|m| (m.msg_index, m.msg.to_owned())).collect();
        assert_eq!(texts, [(3, "after".to_owned())]);
        assert_eq!((page.min_msg_index, page.max_msg_index), (3, 3));
        let back = pull(&state, &user(newcomer), &pull_all(Direction::Before, 3), everything(&state));
        assert_eq!(back.expect("a member").messages().len(), 1);
    }
}

#[test]
fn changes_of_nobody_are_already_true() {
    let mut state = group();
    let lsn = state.applied_lsn;
    assert_eq!(change_add(&mut state, &caller("alice"), &["bob", "alice"]), Ok(()));
    assert_eq!(change_kick(&mut state, &caller("alice"), &["nobody"]), Ok(()));
    assert_eq!(state.applied_lsn, lsn);
}

#[test]
fn nobody_kicks_themselves_and_admins_kick_only_members() {
    let mut state = group();
    change_add(&mut state, &caller("alice"), &["carol", "dave"]).expect("the owner");
    set_duty(&mut state, &user("bob"), Duty::Admin);
    set_duty(&mut state, &user("carol"), Duty::Admin);
    assert!(matches!(change_kick(&mut state, &caller("alice"), &["alice"]), Err(Rejection::Invalid(_))));
    assert!(matches!(change_kick(&mut state, &caller("bob"), &["carol"]), Err(Rejection::Forbidden(_))));
    assert!(matches!(
        change_kick(&mut state, &caller("bob"), &["dave", "alice"]),
        Err(Rejection::Forbidden(_))
    ));
    assert_eq!(duties(&state).len(), 4, "a refused kick puts nobody out");
    assert_eq!(change_kick(&mut state, &caller("bob"), &["dave"]), Ok(()));
    assert_eq!(change_kick(&mut state, &caller("alice"), &["carol"]), Ok(()));
}

#[test]
fn an_admin_of_the_group_recalls_any_message_and_a_member_only_their_own() {
    let mut state = group();
    change_add(&mut state, &caller("alice"), &["carol"]).expect("the owner");
    send(&mut state, "bob", &draft("one", ""), 9).expect("a member");
    assert_eq!(recall(&mut state, "carol", 1), Err(Rejection::NotYourMessage));
    assert_eq!(recall(&mut state, "alice", 1), Ok(1));
    assert_eq!(recall(&mut state, "bob", 1), Ok(1));
}

#[test]
fn the_owner_is_succeeded_by_the_longest_standing_admin_then_member() {
    let mut state = group();
    change_add(&mut state, &caller("alice"), &["carol", "dave"]).expect("the owner");
    set_duty(&mut state, &user("dave"), Duty::Admin);
    change_leave(&mut state, &caller("alice")).expect("a member");
    assert_eq!(state.participants.membership_of(&user("dave")).map(|m| m.duty), Some(Duty::Owner));
    change_leave(&mut state, &caller("dave")).expect("a member");
    assert_eq!(state.participants.membership_of(&user("bob")).map(|m| m.duty), Some(Duty::Owner));
    change_leave(&mut state, &caller("bob")).expect("a member");
    change_leave(&mut state, &caller("carol")).expect("a member");
    assert_eq!(duties(&state), []);
    assert_eq!(state.group.as_ref().map(|facts| facts.members_count), Some(0));
}

#[test]
fn members_come_in_pages_and_a_foreign_cursor_is_refused() {
    let mut state = group();
    change_add(&mut state, &caller("alice"), &["c", "d", "e"]).expect("the owner");
    change_kick(&mut state, &caller("alice"), &["c"]).expect("the owner");
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = members(&state, &caller("alice"), &cursor, 2).expect("a member");
        seen.extend(page.members.iter().map(|member| member.user.to_string()));
        cursor = page.cursor;
        if cursor.is_empty() {
            break;
        }
    }
    assert_eq!(seen, ["alice", "bob", "d", "e"]);
    assert!(matches!(members(&state, &caller("alice"), "x", 2), Err(Rejection::Invalid(_))));
}

#[test]
fn a_group_has_a_largest_size() {
    let mut state = group();
    let crowd: Vec<String> = (0..GROUP_MEMBERS_MAX - 2).map(|i| format!("u{i}")).collect();
    let crowd: Vec<&str> = crowd.iter().map(String::as_str).collect();
    change_add(&mut state, &caller("alice"), &crowd).expect("room for all");
    assert!(matches!(
        change_add(&mut state, &caller("alice"), &["one too many"]),
        Err(Rejection::Invalid(_))
    ));
    assert_eq!(change_add(&mut state, &caller("alice"), &["bob"]), Ok(()));
}

#[test]
fn a_group_record_that_does_not_fit_is_refused() {
    let mut state = group();
    let before = format!("{state:?}");
    let key = state.key.clone();
    let mut record = GroupV1 {
        key: KeyV1::of(&key),
        change: GroupChange::Create as u8,
        by: "alice",
        timestamp_ns: 1,
        users: vec!["alice"],
        name: "",
        duty: 0,
        until_s: 0,
    };
    assert!(apply(&mut state, &record).is_err(), "created twice");
    record.change = 99;
    assert!(apply(&mut state, &record).is_err(), "an unknown change");
    record.change = GroupChange::Add as u8;
    record.users = vec!["bad\nid"];
    assert!(apply(&mut state, &record).is_err(), "an impossible id");
    assert_eq!(format!("{state:?}"), before);
}

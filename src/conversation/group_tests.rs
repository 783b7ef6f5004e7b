//! The rules of groups.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::state::tests::{accept, draft, everything, pull, pull_all, recall, send, user};
use super::*;
use crate::conversation::participants::{LOOKED_THROUGH, Membership};
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
    assert_eq!(members(&state, &eve, "", 10, 9).map(|_| ()), outside);
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
    apply::set_duty(&mut state, &user("bob"), Duty::Admin);
    apply::set_duty(&mut state, &user("carol"), Duty::Admin);
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
    apply::set_duty(&mut state, &user("dave"), Duty::Admin);
    change_leave(&mut state, &caller("alice")).expect("a member");
    assert_eq!(state.participants.membership_of(&user("dave")).map(|m| m.duty), Some(Duty::Owner));
    change_leave(&mut state, &caller("dave")).expect("a member");
    assert_eq!(state.participants.membership_of(&user("bob")).map(|m| m.duty), Some(Duty::Owner));
    change_leave(&mut state, &caller("bob")).expect("a member");
    change_leave(&mut state, &caller("carol")).expect("a member");
    assert_eq!(duties(&state), []);
    assert_eq!(state.group.as_ref().map(|facts| facts.members_count), Some(0));
}

/// A change that an admin token makes at random.
fn any_change<'a>(
    state: &State,
    key: &'a ConversationKey,
    by: &'a Caller,
    users: &'a [UserId],
    random: &mut StdRng,
) -> Result<Decision<'a, ()>, Rejection> {
    let duty = [Duty::Member, Duty::Admin, Duty::Owner][random.random_range(0..3)];
    let now_ns = random.random_range(5..9);
    match random.random_range(0..4) {
        0 => add(state, key, by, users, now_ns),
        1 => kick(state, key, by, users, now_ns),
        2 => leave(state, key, by, now_ns),
        _ => set_duty(state, key, by, &users[0], duty, now_ns),
    }
}

/// Takes over a change; whether the one who was said to inherit the group with it owns it, or nobody does anew.
fn heir_comes_true(state: &mut State, decision: Result<Decision<'_, ()>, Rejection>) -> bool {
    let Ok(Decision::Append(Record::Group(change), ())) = &decision else { return true };
    let (foretold, before) = (heir_of(state, change), owner_of(state));
    let says_itself = matches!(change.change(), Ok(GroupChange::Duty));
    accept(state, decision).expect("it was lawful");
    foretold == owner_of(state).filter(|owner| !says_itself && before.as_ref() != Some(owner))
}

#[test]
fn who_inherits_the_group_is_known_before_it_happens() {
    for seed in 0..300 {
        let (mut state, mut random) = (group(), StdRng::seed_from_u64(seed));
        for step in 0..30 {
            let mut some = users(&["alice", "bob", "carol", "dave", "erin"]);
            (0..some.len()).for_each(|place| some.swap(place, random.random_range(0..5)));
            some.truncate(random.random_range(1..6));
            let (key, by) = (state.key.clone(), Caller { user: some[0].clone(), admin: true });
            let decision = any_change(&state, &key, &by, &some, &mut random);
            assert!(heir_comes_true(&mut state, decision), "seed {seed} step {step}: {:?}", duties(&state));
        }
    }
}

/// Duties, mutes and who reads from where, as far as they outlast a change.
fn facts_of(state: &State) -> (Vec<Option<Membership>>, Option<Mutes>, Option<u32>) {
    let rows = state.participants.rows().iter().map(|row| row.membership).collect();
    let group = state.group.as_ref();
    (rows, group.map(|group| group.mutes.clone()), group.map(|group| group.members_count))
}

#[test]
fn who_goes_out_with_others_leaves_the_same_group_as_one_by_one() {
    const IDS: [&str; 8] = ["alice", "bob", "carol", "dave", "erin", "fred", "gina", "hugo"];
    let app = admin("app");
    for seed in 0..300 {
        let (mut state, mut random) = (group(), StdRng::seed_from_u64(seed));
        change_add(&mut state, &app, &IDS).expect("an admin token");
        for id in IDS {
            match random.random_range(0..4) {
                0 => drop(give(&mut state, &app, id, Duty::Admin)),
                1 => drop(silence(&mut state, &app, id, 100, S)),
                _ => {}
            }
        }
        let (mut one_by_one, mut out) = (state.clone(), IDS);
        (0..IDS.len()).for_each(|place| out.swap(place, random.random_range(0..IDS.len())));
        let out = &out[..random.random_range(1..=out.len())];
        change_kick(&mut state, &app, out).expect("an admin token");
        for id in out {
            change_kick(&mut one_by_one, &app, &[id]).expect("an admin token");
        }
        assert_eq!(facts_of(&state), facts_of(&one_by_one), "seed {seed}: {out:?}");
    }
}

#[test]
fn a_whole_group_of_owners_one_behind_the_other_is_looked_through_once() {
    let (mut state, app) = (group(), admin("app"));
    let crowd: Vec<String> = (0..GROUP_MEMBERS_MAX - 2).map(|number| format!("u{number}")).collect();
    let crowd: Vec<&str> = crowd.iter().map(String::as_str).collect();
    change_add(&mut state, &app, &crowd).expect("room for all");
    // In the order in which each inherits the group from the one before; the last one stays.
    let mut out = vec!["alice", "bob"];
    out.extend(&crowd[..crowd.len() - 1]);
    LOOKED_THROUGH.set(0);
    change_kick(&mut state, &app, &out).expect("an admin token");
    let looks = LOOKED_THROUGH.get();
    let last = *crowd.last().expect("a crowd");
    assert_eq!(duties(&state), [(last.to_owned(), Duty::Owner)]);
    assert!((1..5).contains(&looks), "all members were looked through {looks} times");
}

#[test]
fn the_members_say_who_is_muted_as_long_as_it_lasts() {
    let mut state = group();
    silence(&mut state, &caller("alice"), "bob", 20, 2 * S).expect("the owner");
    let muted = |state: &State, now_ns| {
        let page = members(state, &caller("bob"), "", 10, now_ns).expect("a member");
        page.members.iter().map(|member| member.muted_until_s).collect::<Vec<_>>()
    };
    assert_eq!(muted(&state, 3 * S), [0, 20]);
    assert_eq!(muted(&state, 20 * S - 1), [0, 20]);
    assert_eq!(muted(&state, 20 * S), [0, 0]);
    // By the clock of the conversation, as for sends.
    send(&mut state, "alice", &draft("later", ""), 20 * S).expect("the owner");
    assert_eq!(muted(&state, 3 * S), [0, 0]);
}

#[test]
fn members_come_in_pages_and_a_foreign_cursor_is_refused() {
    let mut state = group();
    change_add(&mut state, &caller("alice"), &["c", "d", "e"]).expect("the owner");
    change_kick(&mut state, &caller("alice"), &["c"]).expect("the owner");
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = members(&state, &caller("alice"), &cursor, 2, 9).expect("a member");
        seen.extend(page.members.iter().map(|member| member.user.to_string()));
        cursor = page.cursor;
        if cursor.is_empty() {
            break;
        }
    }
    assert_eq!(seen, ["alice", "bob", "d", "e"]);
    assert!(matches!(members(&state, &caller("alice"), "x", 2, 9), Err(Rejection::Invalid(_))));
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

const S: u64 = 1_000_000_000;

fn give(state: &mut State, by: &Caller, whom: &str, duty: Duty) -> Result<(), Rejection> {
    let (key, whom) = (state.key.clone(), user(whom));
    let decision = set_duty(state, &key, by, &whom, duty, 10);
    accept(state, decision)
}

fn silence(state: &mut State, by: &Caller, whom: &str, until_s: u64, now_ns: u64) -> Result<(), Rejection> {
    let (key, whom) = (state.key.clone(), user(whom));
    let decision = mute(state, &key, by, &whom, until_s, now_ns);
    accept(state, decision)
}

fn call_it(state: &mut State, by: &Caller, name: &str) -> Result<(), Rejection> {
    let key = state.key.clone();
    let decision = rename(state, &key, by, name, 10);
    accept(state, decision)
}

fn close(state: &mut State, by: &Caller) -> Result<(), Rejection> {
    let key = state.key.clone();
    let decision = dismiss(state, &key, by, 10);
    accept(state, decision)
}

fn duty_of(state: &State, id: &str) -> Option<Duty> {
    state.participants.membership_of(&user(id)).map(|membership| membership.duty)
}

#[test]
fn only_the_owner_gives_duties_and_there_is_one_owner() {
    let mut state = group();
    change_add(&mut state, &caller("alice"), &["carol"]).expect("the owner");
    assert_eq!(give(&mut state, &caller("alice"), "bob", Duty::Admin), Ok(()));
    for refused in ["bob", "carol"] {
        let why = Err(Rejection::Forbidden(NEEDS_OWNER));
        assert_eq!(give(&mut state, &caller(refused), "carol", Duty::Admin), why, "{refused}");
    }
    assert!(matches!(give(&mut state, &caller("alice"), "alice", Duty::Member), Err(Rejection::Invalid(_))));
    assert!(matches!(give(&mut state, &caller("alice"), "nobody", Duty::Admin), Err(Rejection::Invalid(_))));
    assert!(matches!(give(&mut state, &admin("app"), "alice", Duty::Admin), Err(Rejection::Invalid(_))));
    assert_eq!(give(&mut state, &caller("alice"), "carol", Duty::Owner), Ok(()));
    let duties = ["alice", "bob", "carol"].map(|id| duty_of(&state, id));
    assert_eq!(duties, [Some(Duty::Admin), Some(Duty::Admin), Some(Duty::Owner)]);
    assert_eq!(give(&mut state, &admin("app"), "bob", Duty::Owner), Ok(()));
    assert_eq!((duty_of(&state, "bob"), duty_of(&state, "carol")), (Some(Duty::Owner), Some(Duty::Admin)));
    let lsn = state.applied_lsn;
    assert_eq!(give(&mut state, &caller("bob"), "bob", Duty::Owner), Ok(()), "already true");
    assert_eq!(state.applied_lsn, lsn);
}

#[test]
fn the_owner_and_admins_rename_and_the_same_name_is_already_true() {
    let mut state = group();
    assert_eq!(call_it(&mut state, &caller("bob"), "mine"), Err(Rejection::Forbidden(NEEDS_ADMIN)));
    assert_eq!(call_it(&mut state, &caller("eve"), "mine"), Err(Rejection::Forbidden(NOT_A_MEMBER)));
    give(&mut state, &caller("alice"), "bob", Duty::Admin).expect("the owner");
    let lsn = state.applied_lsn;
    assert_eq!(call_it(&mut state, &caller("bob"), "the name"), Ok(()));
    assert_eq!(state.applied_lsn, lsn);
    assert_eq!(call_it(&mut state, &caller("bob"), "another"), Ok(()));
    assert_eq!(info(&state, &id(), &caller("alice")).map(|info| info.name), Ok("another".into()));
}

#[test]
fn who_is_muted_sends_nothing_until_the_clock_of_the_conversation_says_so() {
    let mut state = group();
    send(&mut state, "bob", &draft("before", "id"), S).expect("a member");
    silence(&mut state, &caller("alice"), "bob", 20, 2 * S).expect("the owner");
    let muted = Err(Rejection::Muted { until_s: 20 });
    assert_eq!(send(&mut state, "bob", &draft("x", ""), 3 * S).map(|_| ()), muted);
    assert_eq!(send(&mut state, "bob", &draft("x", ""), 20 * S - 1).map(|_| ()), muted);
    let retry = send(&mut state, "bob", &draft("before", "id"), 3 * S).expect("it was stored");
    assert!(retry.duplicate);
    assert_eq!(recall(&mut state, "bob", 1), Ok(1), "their own stays theirs");
    assert!(readable(&state, "bob").is_ok());
    // The clock of the conversation does not go back with that of the machine.
    send(&mut state, "alice", &draft("later", ""), 20 * S).expect("the owner");
    assert_eq!(send(&mut state, "bob", &draft("x", ""), 3 * S).map(|receipt| receipt.msg_index), Ok(3));
}

#[test]
fn a_moment_that_is_past_ends_a_mute_and_says_nothing_of_who_is_not_muted() {
    let mut state = group();
    let alice = caller("alice");
    let lsn = state.applied_lsn;
    assert_eq!(silence(&mut state, &alice, "bob", 0, 5 * S), Ok(()));
    assert_eq!(silence(&mut state, &alice, "bob", 5, 5 * S), Ok(()));
    assert_eq!(state.applied_lsn, lsn, "already true");
    silence(&mut state, &alice, "bob", u64::MAX, 5 * S).expect("the owner");
    assert!(send(&mut state, "bob", &draft("x", ""), 9 * S).is_err());
    silence(&mut state, &alice, "bob", 4, 9 * S).expect("the owner");
    assert!(state.group.as_ref().is_some_and(|group| group.mutes.is_empty()));
    assert!(send(&mut state, "bob", &draft("x", ""), 9 * S).is_ok());
}

#[test]
fn nobody_mutes_who_stands_as_high_or_higher_but_an_admin_token() {
    let mut state = group();
    change_add(&mut state, &caller("alice"), &["carol", "dave"]).expect("the owner");
    for id in ["bob", "carol"] {
        give(&mut state, &caller("alice"), id, Duty::Admin).expect("the owner");
    }
    for (by, whom) in
        [("bob", "carol"), ("bob", "alice"), ("bob", "bob"), ("alice", "alice"), ("dave", "dave")]
    {
        let refused = silence(&mut state, &caller(by), whom, 99, S);
        assert!(matches!(refused, Err(Rejection::Forbidden(_))), "{by} {whom} {refused:?}");
    }
    assert!(matches!(silence(&mut state, &caller("alice"), "eve", 99, S), Err(Rejection::Invalid(_))));
    assert_eq!(silence(&mut state, &caller("eve"), "bob", 99, S), Err(Rejection::Forbidden(NOT_A_MEMBER)));
    assert_eq!(silence(&mut state, &caller("bob"), "dave", 99, S), Ok(()));
    assert_eq!(silence(&mut state, &caller("alice"), "bob", 99, S), Ok(()));
    assert_eq!(silence(&mut state, &admin("app"), "alice", 99, S), Ok(()));
    assert!(send(&mut state, "alice", &draft("x", ""), S).is_err());
}

#[test]
fn a_mute_outlasts_going_and_coming_back_but_not_becoming_the_owner() {
    let mut state = group();
    change_add(&mut state, &caller("alice"), &["carol"]).expect("the owner");
    silence(&mut state, &caller("alice"), "bob", 99, S).expect("the owner");
    silence(&mut state, &caller("alice"), "carol", 99, S).expect("the owner");
    change_leave(&mut state, &caller("bob")).expect("a member");
    change_add(&mut state, &caller("alice"), &["bob"]).expect("the owner");
    assert_eq!(
        send(&mut state, "bob", &draft("x", ""), S).map(|_| ()),
        Err(Rejection::Muted { until_s: 99 })
    );
    give(&mut state, &caller("alice"), "carol", Duty::Owner).expect("the owner");
    assert!(send(&mut state, "carol", &draft("x", ""), S).is_ok());
    // The next owner by succession is alice, an admin by now; then bob, who is left alone.
    change_leave(&mut state, &caller("carol")).expect("a member");
    change_leave(&mut state, &caller("alice")).expect("a member");
    assert_eq!(duty_of(&state, "bob"), Some(Duty::Owner));
    assert!(send(&mut state, "bob", &draft("x", ""), S).is_ok());
}

#[test]
fn of_a_dismissed_group_nothing_is_left_but_its_id() {
    let mut state = group();
    send(&mut state, "bob", &draft("secret", "id"), 9).expect("a member");
    silence(&mut state, &caller("alice"), "bob", 99, S).expect("the owner");
    assert_eq!(close(&mut state, &caller("bob")), Err(Rejection::Forbidden(NEEDS_OWNER)));
    assert_eq!(close(&mut state, &caller("eve")), Err(Rejection::Forbidden(NOT_A_MEMBER)));
    assert_eq!(close(&mut state, &caller("alice")), Ok(()));
    let none = Err(Rejection::NoSuchGroup);
    for who in ["alice", "bob", "eve"] {
        assert_eq!(send(&mut state, who, &draft("x", ""), S).map(|_| ()), none);
        assert_eq!(readable(&state, who).map(|_| ()), none);
        assert_eq!(recall(&mut state, who, 1).map(|_| ()), none);
        assert!(state.standing_of(&user(who)).is_none());
        for by in [caller(who), admin(who)] {
            assert_eq!(info(&state, &id(), &by).map(|_| ()), none);
            assert_eq!(members(&state, &by, "", 10, S).map(|_| ()), none);
            assert_eq!(change_add(&mut state, &by, &["bob"]), none);
            assert_eq!(change_kick(&mut state, &by, &["bob"]), none);
            assert_eq!(change_leave(&mut state, &by), none);
            assert_eq!(give(&mut state, &by, "bob", Duty::Admin), none);
            assert_eq!(call_it(&mut state, &by, "x"), none);
            assert_eq!(silence(&mut state, &by, "bob", 0, S), none);
            assert_eq!(close(&mut state, &by), none);
            let again = create(&state, &state.key, &by, "", &[], 5).map(|_| ());
            assert_eq!(again, Err(Rejection::GroupExists));
        }
    }
    assert!(!format!("{state:?}").contains("secret"));
    assert_eq!(duties(&state), []);
}

#[test]
fn changes_that_do_not_fit_are_refused_and_change_nothing() {
    let mut state = group();
    let key = state.key.clone();
    let record = |change: GroupChange, users: Vec<&'static str>, duty| GroupV1 {
        key: KeyV1::of(&key),
        change: change as u8,
        by: "alice",
        timestamp_ns: 1,
        users,
        name: "",
        duty,
        until_s: 9,
    };
    let before = format!("{state:?}");
    for bad in [
        record(GroupChange::Duty, vec!["eve"], 3),
        record(GroupChange::Duty, vec![], 3),
        record(GroupChange::Duty, vec!["bob", "alice"], 3),
        record(GroupChange::Duty, vec!["bob"], 1),
        record(GroupChange::Duty, vec!["alice"], 0),
        record(GroupChange::Mute, vec!["eve"], 0),
        record(GroupChange::Mute, vec![], 0),
    ] {
        assert!(apply(&mut state, &bad).is_err(), "{bad:?}");
        assert_eq!(format!("{state:?}"), before, "{bad:?}");
    }
    apply(&mut state, &record(GroupChange::Dismiss, vec![], 0)).expect("fits");
    for change in [GroupChange::Create, GroupChange::Add, GroupChange::Rename, GroupChange::Dismiss] {
        assert!(apply(&mut state, &record(change, vec!["bob"], 0)).is_err(), "{change:?}");
    }
}

//! One connection's queue of events: bounded, never in anybody's way.
//!
//! Whoever delivers never waits and never fails: a queue that would grow past its limits becomes
//! *behind*, which is for each conversation how far it has gone without this connection. From there
//! on it only follows how far they go, until the connection takes that; then events flow again, and
//! the next message of a conversation is the one after what `behind` said. A message that is taken
//! back while it waits goes out without its text. What an event looks like
//! on a wire, and what a connection does about being behind, is the edge's.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use super::event::{Content, Event};
use crate::message::ConversationKey;

/// How much may wait for a connection that does not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most events.
    pub events_max: usize,
    /// Most bytes of events ([`Event::bytes`]). Events are shared: connections that wait for the same
    /// ones hold them once.
    pub bytes_max: usize,
    /// Most conversations that `behind` names; with more it is [`Behind::Everything`].
    pub behind_max: usize,
}

impl Default for Limits {
    /// 1,024 events are seconds of a busy group; 1 MiB is sixteen of the longest messages; 1,024
    /// conversations are more than an app asks for one by one.
    fn default() -> Self {
        Self { events_max: 1024, bytes_max: 1024 * 1024, behind_max: 1024 }
    }
}

/// How far conversations have gone without a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behind {
    /// These, each with its newest message and recall. Everything up to there is to be pulled.
    Chats(HashMap<Arc<ConversationKey>, Newest>),
    /// More than the limit: any conversation may have.
    Everything,
}

/// A conversation's newest indices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Newest {
    /// The newest message; 0 for none.
    pub msg_index: u32,
    /// The newest recall; 0 for none.
    pub recall_index: u32,
}

/// The queue between the delivery and one connection.
#[derive(Debug, Default)]
pub struct Session {
    limits: Limits,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    /// Empty as long as the connection is behind.
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    behind: Option<Behind>,
    /// The connection, if it waits.
    waker: Option<Waker>,
}

impl Session {
    /// An empty queue.
    pub fn new(limits: Limits) -> Self {
        Self { limits, queue: Mutex::default() }
    }

    /// Gives the connection an event. Never waits: over the session's limits everything that waits in
    /// it, and this event, becomes one "behind". Called in the order of the log, by one task at a time
    /// for each conversation.
    pub fn push(&self, event: &Arc<Event>) {
        self.change(|queue| queue.push(event, &self.limits));
    }

    /// Nobody knows any more what the connection lacks: it is behind in everything.
    pub fn fall_behind(&self) {
        self.change(|queue| {
            (queue.events, queue.bytes) = (VecDeque::new(), 0);
            queue.behind = Some(Behind::Everything);
        });
    }

    /// Events of a conversation of which the connection was told nothing yet: where it stands with them, and
    /// everything that waits, becomes one "behind".
    pub fn push_behind(&self, events: &[Arc<Event>]) {
        self.change(|queue| {
            events.iter().for_each(|event| queue.push(event, &self.limits));
            if queue.behind.is_none() {
                queue.collapse(self.limits.behind_max);
            }
        });
    }

    /// Changes the queue and wakes the connection.
    fn change(&self, change: impl FnOnce(&mut Queue)) {
        let waker = {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            change(&mut queue);
            queue.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes what is there: `Some` says how far the connection is behind, and goes before everything
    /// else; `None` comes with at least one event in `into`, and stops soon after `bytes_max` bytes of
    /// them. Pending, and woken by the next push, when there is nothing.
    pub fn poll_take(
        &self,
        cx: &mut Context<'_>,
        into: &mut Vec<Arc<Event>>,
        bytes_max: usize,
    ) -> Poll<Option<Behind>> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(behind) = queue.behind.take() {
            return Poll::Ready(Some(behind));
        }
        if queue.events.is_empty() {
            queue.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        queue.take(into, bytes_max);
        Poll::Ready(None)
    }

    /// How many events wait, for tests of the bound.
    #[cfg(test)]
    fn waiting(&self) -> (usize, usize) {
        let queue = self.queue.lock().expect("no panic under the lock");
        (queue.events.len(), queue.bytes)
    }
}

impl Queue {
    fn push(&mut self, event: &Arc<Event>, limits: &Limits) {
        if let Some(behind) = &mut self.behind {
            return behind.note(event, limits.behind_max);
        }
        if let Content::Recall { msg_index, recall_index, .. } = event.content {
            self.hide(&event.key, msg_index, recall_index);
        }
        self.bytes += event.bytes();
        self.events.push_back(event.clone());
        if self.events.len() > limits.events_max || self.bytes > limits.bytes_max {
            self.collapse(limits.behind_max);
        }
    }

    /// A message that still waits when it is taken back goes out without its texts.
    fn hide(&mut self, key: &ConversationKey, msg_index: u32, recall_index: u32) {
        for event in self.events.iter_mut().rev().filter(|event| *event.key == *key) {
            if let Some(hidden) = event.recalled(msg_index, recall_index) {
                self.bytes -= event.bytes() - hidden.bytes();
                *event = Arc::new(hidden);
                return;
            }
        }
    }

    fn collapse(&mut self, behind_max: usize) {
        let mut behind = Behind::Chats(HashMap::new());
        for event in mem::take(&mut self.events) {
            behind.note(&event, behind_max);
        }
        self.bytes = 0;
        self.behind = Some(behind);
    }

    fn take(&mut self, into: &mut Vec<Arc<Event>>, bytes_max: usize) {
        let mut taken = 0;
        while taken < bytes_max {
            let Some(event) = self.events.pop_front() else { break };
            taken += event.bytes();
            into.push(event);
        }
        self.bytes -= taken;
        if self.events.is_empty() {
            // An idle connection keeps no room for the busiest moment it had.
            self.events = VecDeque::new();
        }
    }
}

impl Behind {
    /// A signal leaves no trace: it was only for who could take it.
    fn note(&mut self, event: &Event, behind_max: usize) {
        let Self::Chats(chats) = self else { return };
        if matches!(event.content, Content::Signal { .. }) {
            return;
        }
        let newest = Newest { msg_index: event.messages, recall_index: event.recalls };
        if let Some(known) = chats.get_mut(&*event.key) {
            known.msg_index = known.msg_index.max(newest.msg_index);
            known.recall_index = known.recall_index.max(newest.recall_index);
        } else if chats.len() < behind_max {
            chats.insert(event.key.clone(), newest);
        } else {
            *self = Self::Everything;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use proptest::prelude::*;

    use super::*;
    use crate::message::{GroupId, OwnedMessage, UserId};

    fn user(id: &str) -> UserId {
        UserId::parse(id).expect("a valid id")
    }

    fn key(chat: usize) -> Arc<ConversationKey> {
        Arc::new(ConversationKey::Group(GroupId::parse(&format!("g{chat}")).expect("a valid id")))
    }

    fn message(chat: usize, msg_index: u32, recalls: u32, bytes: usize) -> Arc<Event> {
        let content = Content::Message(Arc::new(OwnedMessage {
            msg_index,
            sender: user("alice"),
            timestamp_ns: 1,
            msg: "x".repeat(bytes).into(),
            extra: "".into(),
        }));
        Arc::new(Event::new(key(chat), msg_index, recalls, content))
    }

    fn recall(chat: usize, messages: u32, recall_index: u32) -> Arc<Event> {
        let content = Content::Recall { msg_index: 1, recall_index, by: user("alice") };
        Arc::new(Event::new(key(chat), messages, recall_index, content))
    }

    fn signal(chat: usize) -> Arc<Event> {
        let content = Content::Signal { user: user("alice"), kind: "typing".into(), data: "null".into() };
        Arc::new(Event::new(key(chat), 9, 9, content))
    }

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn take(session: &Session) -> Poll<(Option<Behind>, Vec<Arc<Event>>)> {
        take_with(session, &Waker::from(Arc::new(Wakes::default())), usize::MAX)
    }

    fn take_with(
        session: &Session,
        waker: &Waker,
        bytes_max: usize,
    ) -> Poll<(Option<Behind>, Vec<Arc<Event>>)> {
        let mut events = Vec::new();
        let taken = session.poll_take(&mut Context::from_waker(waker), &mut events, bytes_max);
        taken.map(|behind| (behind, events))
    }

    #[test]
    fn who_waits_is_woken_once_and_gets_everything() {
        let session = Session::default();
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(wakes.clone());
        assert!(take_with(&session, &waker, usize::MAX).is_pending());
        session.push(&message(0, 1, 0, 0));
        session.push(&message(0, 2, 0, 0));
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        let Poll::Ready((None, events)) = take_with(&session, &waker, usize::MAX) else {
            panic!("two events")
        };
        assert_eq!(events.len(), 2);
        assert!(take_with(&session, &waker, usize::MAX).is_pending());
    }

    #[test]
    fn a_message_that_waits_when_it_is_recalled_goes_out_without_its_text() {
        let session = Session::default();
        for (chat, index) in [(0, 1), (1, 1), (0, 2)] {
            session.push(&message(chat, index, 0, 3));
        }
        let before = session.waiting().1;
        session.push(&recall(0, 2, 1));
        assert_eq!(session.waiting().1, before - 2 * 3 + recall(0, 2, 1).bytes());
        let Poll::Ready((None, events)) = take(&session) else { panic!("four events") };
        let Content::Recalled(first) = &events[0].content else { panic!("its text: {:?}", events[0]) };
        assert_eq!((&*first.message.msg, first.recall_index), ("", 1));
        let keep_theirs = events[1..3].iter().all(|event| matches!(event.content, Content::Message(_)));
        assert!(keep_theirs, "{events:?}");
        assert!(matches!(events[3].content, Content::Recall { msg_index: 1, .. }));
    }

    #[test]
    fn a_take_stops_at_its_bytes_but_gives_at_least_one() {
        let session = Session::default();
        for index in 1..=3 {
            session.push(&message(0, index, 0, 100));
        }
        for _ in 0..3 {
            let waker = Waker::noop();
            let Poll::Ready((None, events)) = take_with(&session, waker, 1) else { panic!("an event") };
            assert_eq!(events.len(), 1);
        }
        assert!(take(&session).is_pending());
    }

    #[test]
    fn one_long_message_over_the_limit_is_behind_too() {
        let session = Session::new(Limits { bytes_max: 10_000, ..Limits::default() });
        session.push(&message(0, 1, 0, 20_000));
        let Poll::Ready((Some(Behind::Chats(chats)), _)) = take(&session) else { panic!("behind") };
        assert_eq!(chats[&key(0)], Newest { msg_index: 1, recall_index: 0 });
    }

    #[test]
    fn a_signal_that_nobody_could_take_leaves_no_trace() {
        let session = Session::new(Limits { events_max: 1, ..Limits::default() });
        session.push(&message(0, 1, 0, 0));
        session.push(&signal(1));
        let Poll::Ready((Some(Behind::Chats(chats)), _)) = take(&session) else { panic!("behind") };
        assert_eq!(chats.len(), 1);
        assert!(chats.contains_key(&key(0)));
    }

    #[test]
    fn more_conversations_than_behind_can_name_are_everything() {
        let session = Session::new(Limits { events_max: 1, behind_max: 4, ..Limits::default() });
        for chat in 0..5 {
            session.push(&message(chat, 1, 0, 0));
        }
        assert_eq!(take(&session), Poll::Ready((Some(Behind::Everything), vec![])));
        session.push(&message(0, 2, 0, 0));
        let Poll::Ready((None, events)) = take(&session) else { panic!("live again") };
        assert_eq!(events[0].messages, 2);
    }

    impl PartialEq for Event {
        fn eq(&self, other: &Self) -> bool {
            (&self.key, self.messages, self.recalls) == (&other.key, other.messages, other.recalls)
        }
    }

    /// What a reader knows of a conversation, and what has happened in it.
    #[derive(Default)]
    struct Chat {
        known: (u32, u32),
        real: (u32, u32),
    }

    #[derive(Debug, Clone)]
    enum Step {
        Message { chat: usize, bytes: usize },
        Recall { chat: usize },
        Take { bytes_max: usize },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => (0..5_usize, 0..400_usize).prop_map(|(chat, bytes)| Step::Message { chat, bytes }),
            2 => (0..5_usize).prop_map(|chat| Step::Recall { chat }),
            1 => (1..5_000_usize).prop_map(|bytes_max| Step::Take { bytes_max }),
        ];
        prop::collection::vec(step, 0..200)
    }

    fn read(chats: &mut BTreeMap<usize, Chat>, behind: Option<Behind>, events: &[Arc<Event>]) {
        match behind {
            Some(Behind::Everything) => chats.values_mut().for_each(|chat| chat.known = chat.real),
            Some(Behind::Chats(named)) => {
                for (number, chat) in chats.iter_mut() {
                    if let Some(newest) = named.get(&key(*number)) {
                        chat.known = (newest.msg_index, newest.recall_index);
                    }
                }
            }
            None => {}
        }
        for event in events {
            let number = (0..5).find(|number| event.key == key(*number)).expect("one of ours");
            let known = &mut chats.get_mut(&number).expect("a chat").known;
            match &event.content {
                Content::Message(message) => {
                    assert_eq!(message.msg_index, known.0 + 1, "a hole or a repeat");
                    known.0 += 1;
                }
                Content::Recalled(last) => {
                    assert_eq!(last.message.msg_index, known.0 + 1, "a hole or a repeat");
                    known.0 += 1;
                }
                Content::Recall { recall_index, .. } => {
                    assert_eq!(*recall_index, known.1 + 1, "a hole or a repeat");
                    known.1 += 1;
                }
                other => panic!("{other:?} was not pushed"),
            }
        }
    }

    #[test]
    fn who_falls_behind_hears_of_that_before_anything_newer() {
        let session = Session::new(Limits::default());
        session.push(&message(0, 1, 0, 1));
        session.fall_behind();
        session.push(&message(0, 2, 0, 1));
        let (mut events, mut cx) = (Vec::new(), Context::from_waker(Waker::noop()));
        assert_eq!(
            session.poll_take(&mut cx, &mut events, usize::MAX),
            Poll::Ready(Some(Behind::Everything))
        );
        session.push(&message(0, 3, 0, 1));
        assert_eq!(session.poll_take(&mut cx, &mut events, usize::MAX), Poll::Ready(None));
        assert_eq!(events.len(), 1);
    }

    proptest! {
        #[test]
        fn a_reader_sees_the_next_index_or_a_behind_and_memory_has_a_bound(
            steps in steps(),
            events_max in 1..20_usize,
            bytes_max in 1..10_000_usize,
            behind_max in 1..6_usize,
        ) {
            let session = Session::new(Limits { events_max, bytes_max, behind_max });
            let mut chats: BTreeMap<usize, Chat> = (0..5).map(|chat| (chat, Chat::default())).collect();
            for step in steps {
                match step {
                    Step::Message { chat, bytes } => {
                        let real = &mut chats.get_mut(&chat).expect("a chat").real;
                        real.0 += 1;
                        session.push(&message(chat, real.0, real.1, bytes));
                    }
                    Step::Recall { chat } => {
                        let real = &mut chats.get_mut(&chat).expect("a chat").real;
                        real.1 += 1;
                        session.push(&recall(chat, real.0, real.1));
                    }
                    Step::Take { bytes_max } => {
                        if let Poll::Ready((behind, events)) = take_with(&session, Waker::noop(), bytes_max) {
                            read(&mut chats, behind, &events);
                        }
                    }
                }
                let (events, bytes) = session.waiting();
                prop_assert!(events <= events_max && bytes <= bytes_max);
            }
            while let Poll::Ready((behind, events)) = take(&session) {
                read(&mut chats, behind, &events);
            }
            for chat in chats.values() {
                prop_assert_eq!(chat.known, chat.real);
            }
        }
    }
}

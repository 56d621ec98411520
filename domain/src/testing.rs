//! Given, when, then: how the rules of an aggregate are tested. Not for production code.

use std::fmt::Debug;

use uuid::Uuid;

use crate::{aggregate::Aggregate, ids::Id, names::Name, time::Timestamp};

/// An aggregate to which some events happened.
#[derive(Debug, Clone)]
pub struct Given<A>(A);

/// The state that these events lead to.
pub fn given<A: Aggregate>(events: impl IntoIterator<Item = A::Event>) -> Given<A> {
    Given(A::default()).and(events)
}

impl<A: Aggregate> Given<A> {
    /// Further events happen.
    #[must_use]
    pub fn and(mut self, events: impl IntoIterator<Item = A::Event>) -> Self {
        for event in events {
            self.0.evolve(&event);
        }
        self
    }
    /// A command is judged.
    pub fn when(self, command: A::Command) -> Judged<A> {
        let answer = self.0.decide(&command);
        Judged { state: self.0, command, answer }
    }
    /// The state itself.
    pub fn state(&self) -> &A {
        &self.0
    }
}

/// A command and what the aggregate answered.
#[derive(Debug)]
#[must_use = "an answer nobody looks at tests nothing"]
pub struct Judged<A: Aggregate> {
    state: A,
    command: A::Command,
    answer: Result<Vec<A::Event>, A::Rejection>,
}

impl<A: Aggregate> Judged<A>
where
    A::Command: Debug,
    A::Event: Debug + PartialEq,
    A::Rejection: Debug + PartialEq,
{
    /// Exactly these events happen; goes on with them applied.
    ///
    /// # Panics
    /// When it is otherwise.
    #[track_caller]
    pub fn then<const N: usize>(self, events: [A::Event; N]) -> Given<A> {
        assert_eq!(self.answer.as_deref(), Ok(&events[..]), "{:?}", self.command);
        Given(self.state).and(events)
    }
    /// It is so already: nothing new happens.
    ///
    /// # Panics
    /// When it is otherwise.
    #[track_caller]
    pub fn then_nothing(self) -> Given<A> {
        self.then([])
    }
    /// This stands in the way.
    ///
    /// # Panics
    /// When it is otherwise.
    #[track_caller]
    pub fn then_rejected(self, rejection: &A::Rejection) -> Given<A> {
        assert_eq!(self.answer.as_ref(), Err(rejection), "{:?}", self.command);
        Given(self.state)
    }
}

/// The n-th id of its kind.
pub fn id<K>(n: u128) -> Id<K> {
    Id::new(uuid(n))
}
/// The n-th UUID (of version 7, as the hub makes them).
pub fn uuid(n: u128) -> Uuid {
    Uuid::from_u128(0x0195_5a3c_e000_7000_8000_0000_0000_0000 + n)
}
/// A name that is known to be one.
///
/// # Panics
/// When it is none.
pub fn name(text: &str) -> Name {
    Name::parse(text).expect("a name in a test is a name")
}
/// A moment: seconds after 2026-03-02T10:00:00Z.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(1_772_445_600_000 + seconds * 1000)
}
/// A digest in its stored form: 64 times the same hexadecimal digit.
pub fn digest(digit: char) -> String {
    digit.to_string().repeat(64)
}

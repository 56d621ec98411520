//! What every aggregate offers: judge a command, remember an event.

/// A consistency boundary with one stream of events.
///
/// `decide` holds every business `if`; `evolve` only remembers: it never refuses, never fails and never asks
/// anything outside its two arguments, so that replay gives the same state for ever.
pub trait Aggregate: Default + Clone + Send + Sync + Unpin + 'static {
    /// What it can be asked to do; carries the time and any fresh ids.
    type Command: Clone + Send + 'static;
    /// What can have happened to it.
    type Event: Clone + Send + Sync + 'static;
    /// The facts that can stand in the way.
    type Rejection: Clone + Send + 'static;

    /// The first part of its stream names and the word for it in telemetry.
    const KIND: &'static str;

    /// Judges a command. An empty list means: already so, nothing new happened.
    ///
    /// # Errors
    /// The rejection names the fact that stands in the way; nothing has changed.
    fn decide(&self, command: &Self::Command) -> Result<Vec<Self::Event>, Self::Rejection>;

    /// Remembers an event.
    fn evolve(&mut self, event: &Self::Event);

    /// The workspace it belongs to, once it exists; `None` also for what is unique over all workspaces (claims).
    /// The hub compares it with the caller's before it lets a command in.
    fn workspace(&self) -> Option<crate::ids::WorkspaceId>;

    /// Lifts a general event out of a stream of this aggregate; `None` for one of another kind.
    fn from_event(event: crate::event::Event) -> Option<Self::Event>;

    /// The general event for the log.
    fn into_event(event: Self::Event) -> crate::event::Event;
}

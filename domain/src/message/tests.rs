//! What a message goes through, as given, when, then.

use super::*;
use crate::testing::{Given, at, given, id};

fn hello() -> MessageSent {
    MessageSent {
        message_id: id(1),
        workspace_id: id(7),
        from: id(2),
        to: id(3),
        key_id: None,
        topic: None,
        broadcast: false,
        payload_bytes: 7,
        expires_at: at(60),
    }
}
fn send(message: MessageSent) -> Command {
    Command::Send { message, now: at(0) }
}
fn in_the_box() -> Given<Message> {
    given([Event::Sent(hello())])
}
fn over() -> Event {
    Event::Expired(MessageExpired {})
}

#[test]
fn a_message_is_sent_once_and_its_id_means_nothing_else() {
    given::<Message>([])
        .when(send(hello()))
        .then([Event::Sent(hello())])
        .when(send(hello()))
        .then_nothing()
        .when(send(MessageSent { to: id(4), ..hello() }))
        .then_rejected(&Rejection::MessageExists);
    let late = MessageSent { expires_at: at(0), ..hello() };
    given::<Message>([]).when(send(late)).then_rejected(&Rejection::ExpiryPast);
}

#[test]
fn what_was_never_sent_is_unknown() {
    for command in [Command::MarkRead, Command::Expire { now: at(99) }, Command::MakeRoom] {
        given::<Message>([]).when(command).then_rejected(&Rejection::MessageUnknown);
    }
}

#[test]
fn a_message_is_read_once() {
    in_the_box()
        .when(Command::MarkRead)
        .then([Event::Read(MessageRead {})])
        .when(Command::MarkRead)
        .then_nothing();
}

#[test]
fn a_message_is_kept_until_its_time_is_over() {
    let kept = in_the_box().when(Command::Expire { now: at(59) }).then_rejected(&Rejection::NotDue);
    assert!(kept.state().kept(at(59)).is_some());
    assert!(kept.state().kept(at(60)).is_none(), "also before anybody recorded it");
    let over = kept.when(Command::Expire { now: at(60) }).then([over()]);
    assert!(over.state().kept(at(0)).is_none());
    over.when(Command::MarkRead).then_nothing();
}

#[test]
fn only_what_was_read_makes_room_for_others() {
    in_the_box()
        .when(Command::MakeRoom)
        .then_rejected(&Rejection::Unread)
        .when(Command::MarkRead)
        .then([Event::Read(MessageRead {})])
        .when(Command::MakeRoom)
        .then([over()])
        .when(Command::MakeRoom)
        .then_nothing();
}

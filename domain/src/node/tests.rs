//! Each boot of a node is recorded once.

use super::*;
use crate::testing::{given, uuid};

fn started(boot: u128) -> NodeStarted {
    NodeStarted {
        node: "hub-1".to_owned(),
        boot: uuid(boot),
        version: "0.1.0".to_owned(),
        reads_format: None,
    }
}

#[test]
fn each_boot_is_recorded_once() {
    let after = given::<Node>([])
        .when(Command::Start(started(1)))
        .then([Event::Started(started(1))])
        .when(Command::Start(started(1)))
        .then_nothing()
        .when(Command::Start(started(2)))
        .then([Event::Started(started(2))]);
    assert_eq!(after.state().boot, Some(uuid(2)));
}

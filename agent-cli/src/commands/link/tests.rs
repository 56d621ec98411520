//! `connect link`: the list, and which link a word means.

use super::*;
use crate::commands::tests::{MOMENT, assert_transcript, link, zone};

#[test]
fn links_are_listed_with_service_use_and_end() {
    let rows = [
        (link("share_1", "my-app", Some(MOMENT), 12), "my-app".to_owned()),
        (link("share_2", "demo", None, 0), "web".to_owned()),
    ];
    assert_transcript(
        &list_text(&rows, Face::TERMINAL, &zone()),
        include_str!("../../../tests/transcripts/link-list.txt"),
    );
    assert!(list_text(&[], Face::PIPE, &zone()).starts_with("No active links\n"));
}

#[test]
fn a_link_is_found_by_subdomain_and_by_a_name_that_only_one_working_link_has() {
    let mut ended = link("share_3", "my-app", None, 0);
    ended.is_active = false;
    let shares = [link("share_1", "my-app", None, 0), link("share_2", "demo", None, 0), ended.clone()];
    let id = |wanted| chosen(&shares, wanted).map(|share| share.id.as_str());
    assert_eq!(id("my-app"), Ok("share_1"), "the ended one is not meant");
    assert_eq!(id("slug-of-share_2"), Ok("share_2"));
    assert_eq!(id("slug-of-share_3"), Ok("share_3"));
    assert_eq!(id("other").unwrap_err().code, "share_not_found");
    assert_eq!(chosen(&[ended], "my-app").unwrap().id, "share_3", "its log can still be read");
}

#[test]
fn a_name_that_several_links_have_is_refused_with_their_ids() {
    let shares = [link("share_1", "my-app", None, 0), link("share_2", "my-app", None, 0)];
    let failure = chosen(&shares, "my-app").unwrap_err();
    assert_eq!(failure.code, "share_ambiguous");
    assert!(failure.hint.unwrap().contains("share_1, share_2"));
}

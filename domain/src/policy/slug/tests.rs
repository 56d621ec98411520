//! Which subdomains can be chosen, and what random ones look like.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[test]
fn a_subdomain_can_be_chosen_from_letters_digits_and_hyphens() {
    for text in ["abc", "my-app", "a1-2-3", "123", "a--b", "acme-demo", &"a".repeat(63)] {
        assert_eq!(check_chosen(text), Ok(()), "{text}");
    }
}

#[test]
fn what_is_no_subdomain_is_refused_with_its_reason() {
    for (text, error) in [
        ("", InvalidSlug::Length),
        ("ab", InvalidSlug::Length),
        ("My-App", InvalidSlug::Character),
        ("a_b", InvalidSlug::Character),
        ("a.b", InvalidSlug::Character),
        ("a b", InvalidSlug::Character),
        ("caf\u{e9}", InvalidSlug::Character),
        ("-abc", InvalidSlug::OuterHyphen),
        ("abc-", InvalidSlug::OuterHyphen),
        ("---", InvalidSlug::OuterHyphen),
        ("xn--caf-dma", InvalidSlug::Encoded),
        ("ab--c", InvalidSlug::Encoded),
        ("www", InvalidSlug::Reserved),
        ("admin", InvalidSlug::Reserved),
        ("api", InvalidSlug::Reserved),
        ("app", InvalidSlug::Reserved),
        ("link", InvalidSlug::Reserved),
        ("static", InvalidSlug::Reserved),
        ("hub", InvalidSlug::Reserved),
        ("mail", InvalidSlug::Reserved),
        ("ns", InvalidSlug::Reserved),
        ("localhost", InvalidSlug::Reserved),
        ("_acme-challenge", InvalidSlug::Reserved),
    ] {
        assert_eq!(check_chosen(text), Err(error), "{text:?}");
    }
    assert_eq!(check_chosen(&"a".repeat(64)), Err(InvalidSlug::Length));
}

#[test]
fn the_reserved_words_are_sorted_so_that_each_is_found() {
    assert!(RESERVED.is_sorted());
    for word in RESERVED {
        assert_eq!(check_chosen(word), Err(InvalidSlug::Reserved), "{word}");
    }
}

#[test]
fn the_alphabet_has_32_letters_and_no_look_alikes() {
    assert_eq!(ALPHABET.iter().collect::<BTreeSet<_>>().len(), 32);
    assert!(!ALPHABET.iter().any(|b| b"0o1l".contains(b)));
}

proptest! {
    #[test]
    fn a_random_slug_is_a_label_that_keeps_every_bit(bytes in any::<[u8; RANDOM_BYTES]>()) {
        let slug = random(bytes);
        prop_assert_eq!(slug.len(), RANDOM_CHARS);
        prop_assert_eq!(check_chosen(&slug), Ok(()));
        let bits = slug.bytes().fold(0u128, |bits, b| {
            bits << 5 | ALPHABET.iter().position(|letter| *letter == b).unwrap() as u128
        });
        prop_assert_eq!(&bits.to_be_bytes()[16 - RANDOM_BYTES..], &bytes[..]);
    }
}

//! Which texts are names and descriptions.

use super::*;

#[test]
fn a_name_has_1_to_100_characters_counted_as_people_count() {
    assert!(Name::parse("a").is_ok());
    assert!(Name::parse(&"é".repeat(100)).is_ok());
    assert_eq!(Name::parse(""), Err(InvalidText::NameLength));
    assert_eq!(Name::parse(&"é".repeat(101)), Err(InvalidText::NameLength));
}

#[test]
fn a_name_cannot_deceive_a_terminal_or_a_page() {
    for text in ["a\nb", "a\u{1b}[31m", "a\0", "a\u{202e}b", "a\u{7f}"] {
        assert_eq!(Name::parse(text), Err(InvalidText::ControlCharacter), "{text:?}");
    }
    assert_eq!(Name::parse(" a"), Err(InvalidText::OuterWhiteSpace));
}

#[test]
fn a_description_may_have_lines_and_500_characters() {
    assert!(Description::parse("").is_ok());
    assert!(Description::parse("one\ntwo").is_ok());
    assert_eq!(Description::parse(&"x".repeat(501)), Err(InvalidText::DescriptionLength));
    assert_eq!(Description::parse("a\tb"), Err(InvalidText::ControlCharacter));
}

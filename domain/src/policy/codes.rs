//! Codes that people read out to each other: six characters of an alphabet without look-alikes.

/// How many characters a code has.
pub const CODE_CHARS: usize = 6;

// Without i, l, o and 0, so that 1 is a one wherever it stands. 32 characters: five bits each, a billion codes.
const ALPHABET: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz123456789";

/// The code of random bytes.
pub fn code(bytes: [u8; 4]) -> String {
    let bits = u32::from_be_bytes(bytes);
    (0..CODE_CHARS)
        .map(|place| char::from(ALPHABET[usize::try_from(bits >> (5 * place) & 31).expect("five bits")]))
        .collect()
}

/// A code as somebody typed it, in its one spelling: case does not matter, and spaces are ignored. `None`: it can be
/// no code.
pub fn normalized(text: &str) -> Option<String> {
    let mut code = String::with_capacity(CODE_CHARS);
    for c in text.chars().filter(|c| !c.is_whitespace()) {
        let c = c.to_ascii_lowercase();
        let is_known = u8::try_from(c).is_ok_and(|byte| ALPHABET.contains(&byte));
        if !is_known || code.len() == CODE_CHARS {
            return None;
        }
        code.push(c);
    }
    (code.len() == CODE_CHARS).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_six_characters_that_nobody_confuses() {
        assert_eq!(code([0; 4]), "aaaaaa");
        assert_eq!(code([0xff; 4]), "999999");
        assert_ne!(code([0, 0, 0, 1]), code([0, 0, 0, 2]));
        for look_alike in ['i', 'l', 'o', '0'] {
            assert!(!ALPHABET.contains(&u8::try_from(look_alike).unwrap()), "{look_alike}");
        }
        let distinct: std::collections::BTreeSet<_> = ALPHABET.iter().collect();
        assert_eq!(distinct.len(), 32);
    }

    #[test]
    fn case_and_spaces_do_not_matter_and_anything_else_is_no_code() {
        for text in ["x7k9m2", "X7K9M2", " x7k 9m2 ", "x 7 k 9 m 2", "x7k9M2\t"] {
            assert_eq!(normalized(text).as_deref(), Some("x7k9m2"), "{text:?}");
        }
        assert_eq!(normalized("a4b8c1").as_deref(), Some("a4b8c1"));
        for text in ["", "x7k9m", "x7k9m22", "x7k9mo", "x7k9m0", "x7k-9m2", "x7k9mé", "ｘ7k9m2"] {
            assert_eq!(normalized(text), None, "{text:?}");
        }
    }
}

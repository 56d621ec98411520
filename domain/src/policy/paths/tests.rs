//! What path rules match, against a slow matcher that is obviously right, and what can be read in two ways.

use proptest::prelude::*;

use super::*;

fn rule(text: &str) -> PathRule {
    PathRule::parse(text).unwrap()
}

fn allows(rule_text: &str, path: &str) -> bool {
    check(&[rule(rule_text)], path.as_bytes()).is_ok()
}

#[test]
fn a_rule_allows_exactly_what_the_table_says() {
    for (text, allowed, refused) in [
        // Everything below, not the folder itself, not its neighbours.
        (
            "/api/*",
            &["/api/x", "/api/x/y", "/api/x/", "/api/"][..],
            &["/api", "/apix", "/apix/y", "/", "/API/x", "/x/api/y", "/ap", "/api.", "/ap%69x"][..],
        ),
        ("/*", &["/", "/x", "/x/y", "/x/y/"], &[]),
        ("/", &["/"], &["/x", "/x/"]),
        ("/health", &["/health", "/he%61lth"], &["/health/", "/health/x", "/Health", "/healthz", "/"]),
        ("/docs/", &["/docs/"], &["/docs", "/docs/x"]),
        // A star stays within its segment.
        (
            "/files/*.txt",
            &["/files/a.txt", "/files/.txt", "/files/a.txt.txt"],
            &["/files/a/b.txt", "/files/a.txtx", "/files/a.TXT"],
        ),
        ("/v*/users", &["/v1/users", "/v/users", "/v1.2/users"], &["/v1/2/users", "/users", "/v1/users/"]),
        (
            "/*/users/*",
            &["/a/users/1", "/a/users/1/x", "/a/users/"],
            &["/a/users", "/users/1", "/a/b/users/1"],
        ),
        ("/a*b*c", &["/abc", "/aXbYc", "/abbcc"], &["/acb", "/ab", "/abc/"]),
        ("/a*a", &["/aa", "/aaa"], &["/a"]),
        ("/*a*a", &["/aa", "/xaya"], &["/a", "/ab"]),
        ("/*ab*b", &["/abb", "/ab-ab"], &["/ab", "/abc"]),
        ("/x*", &["/x", "/xyz"], &["/x/", "/x/y"]),
        // The rule is matched on the path after one decoding, whatever the case of the digits.
        ("/a b", &["/a%20b"], &["/a+b", "/ab"]),
        ("/caf\u{e9}", &["/caf%C3%A9", "/caf%c3%a9"], &["/cafe", "/cafe%CC%81"]),
        ("/a*b", &["/a%2Ab", "/a*b"], &[]),
    ] {
        for path in allowed {
            assert!(allows(text, path), "{text} refuses {path}");
        }
        for path in refused {
            assert!(!allows(text, path), "{text} allows {path}");
        }
    }
}

#[test]
fn one_rule_of_many_is_enough_and_none_allow_nothing() {
    let rules = [rule("/a"), rule("/b/*")];
    assert_eq!(check(&rules, b"/b/c"), Ok(()));
    assert_eq!(check(&rules, b"/c"), Err(PathRefusal::NotAllowed));
    assert_eq!(check(&[], b"/"), Err(PathRefusal::NotAllowed));
}

#[test]
fn a_path_that_can_be_read_in_two_ways_is_refused() {
    use AmbiguousPath as Why;
    for (path, why) in [
        ("", Why::NotRooted),
        ("*", Why::NotRooted),
        ("api/x", Why::NotRooted),
        ("http://other.example/api/x", Why::NotRooted),
        ("//api/x", Why::EmptySegment),
        ("/api//x", Why::EmptySegment),
        ("/api/x//", Why::EmptySegment),
        ("/api/./x", Why::DotSegment),
        ("/api/../admin", Why::DotSegment),
        ("/api/..", Why::DotSegment),
        ("/.", Why::DotSegment),
        ("/api/.../x", Why::TrailingDotOrSpace),
        ("/api/secret.", Why::TrailingDotOrSpace),
        ("/api/secret%20", Why::TrailingDotOrSpace),
        ("/api/..%20/x", Why::TrailingDotOrSpace),
        ("/api/x%C2%A0", Why::TrailingDotOrSpace),
        ("/api%2fx", Why::EncodedSlash),
        ("/api/%2Fx", Why::EncodedSlash),
        ("/api/..%2fadmin", Why::EncodedSlash),
        ("/api/\\x", Why::Backslash),
        ("/api/..%5cadmin", Why::Backslash),
        ("/api/%5Cx", Why::Backslash),
        ("/api/%252e", Why::EncodedPercent),
        ("/api/%25", Why::EncodedPercent),
        ("/api/%2e%2e/admin", Why::EncodedDot),
        ("/api/.%2E/admin", Why::EncodedDot),
        ("/api/a%2Eb", Why::EncodedDot),
        ("/api/x%00", Why::ControlCharacter),
        ("/api/x%0d%0aSet-Cookie:a", Why::ControlCharacter),
        ("/api/x\0", Why::ControlCharacter),
        ("/api/x%7f", Why::ControlCharacter),
        ("/api/%C2%85x", Why::ControlCharacter),
        ("/api/..;/admin", Why::Semicolon),
        ("/api;x=1/y", Why::Semicolon),
        ("/api/x%3by", Why::Semicolon),
        ("/api/x#y", Why::QueryOrFragment),
        ("/api/x%23y", Why::QueryOrFragment),
        ("/api/x?y", Why::QueryOrFragment),
        ("/api/x%3Fy", Why::QueryOrFragment),
        ("/api/%u002e", Why::BrokenEncoding),
        ("/api/%", Why::BrokenEncoding),
        ("/api/%2", Why::BrokenEncoding),
        ("/api/%zz", Why::BrokenEncoding),
        ("/api/%+1", Why::BrokenEncoding),
        ("/api/%%32e", Why::BrokenEncoding),
        ("/api/%c0%af", Why::NotUtf8),
        ("/api/%c0%ae%c0%ae/x", Why::NotUtf8),
        ("/api/%e0%80%af", Why::NotUtf8),
        ("/api/%ed%a0%80", Why::NotUtf8),
        ("/api/%ff", Why::NotUtf8),
        ("/api/%C3", Why::NotUtf8),
        ("/api/a b", Why::NotEncoded),
        ("/api/caf\u{e9}", Why::NotEncoded),
        ("/api/%EF%BC%8E%EF%BC%8E", Why::Lookalike),
        ("/api%EF%BC%8Fx", Why::Lookalike),
        ("/api/%E2%80%A4%E2%80%A4/x", Why::Lookalike),
        ("/api/%EF%BC%AE%EF%BC%AE/x", Why::Lookalike),
        ("/api/.%E2%80%8C.x", Why::Lookalike),
        ("/api%E2%88%95x", Why::Lookalike),
    ] {
        assert_eq!(check(&[rule("/*")], path.as_bytes()), Err(PathRefusal::Ambiguous(why)), "{path}");
    }
    assert_eq!(canonical(b"/api/\xff"), Err(Why::NotEncoded));
}

#[test]
fn whatever_normalizes_to_punctuation_of_paths_is_refused() {
    use unicode_normalization::UnicodeNormalization as _;
    let structural = |c: char| c.is_ascii_control() || "./\\%;?#".contains(c);
    let hidden = ('\u{80}'..=char::MAX).filter(|c| std::iter::once(*c).nfkc().any(structural));
    // By Windows' best-fit tables and code pages, or by eye; ignored by file systems; line ends and C1 controls.
    let others = "\u{a5}\u{20a9}\u{2044}\u{2215}\u{2216}\u{29f5}\u{29f8}\u{29f9}\u{ff0e}\u{ff0f}\u{ff2e}\u{ff3c}\
        \u{ad}\u{200b}\u{200c}\u{200d}\u{200e}\u{200f}\u{202a}\u{202e}\u{2060}\u{206f}\u{feff}\u{fe0f}\u{e0020}\
        \u{80}\u{85}\u{9f}\u{2028}\u{2029}";
    let mut count = 0;
    for c in hidden.chain(others.chars()) {
        let encoded: String = c.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect();
        let path = format!("/a{encoded}b");
        assert!(canonical(path.as_bytes()).is_err(), "U+{:04X} passes", u32::from(c));
        count += 1;
    }
    assert!(count > 60, "only {count} characters were looked at");
}

#[test]
fn everyday_paths_have_one_reading() {
    for (path, decoded) in [
        ("/", "/"),
        ("/a/b.c/.well-known/x", "/a/b.c/.well-known/x"),
        ("/a-b_c~d!e$f&g'h(i)j*k+l,m=n:o@p", "/a-b_c~d!e$f&g'h(i)j*k+l,m=n:o@p"),
        ("/a%20b/%E6%97%A5%E6%9C%AC", "/a b/\u{65e5}\u{672c}"),
        ("/..a/a..b", "/..a/a..b"),
        ("/%7Euser/%41", "/~user/A"),
        ("/%F0%9F%8E%89", "/\u{1f389}"),
    ] {
        assert_eq!(canonical(path.as_bytes()).unwrap().as_str(), decoded);
    }
    assert!(matches!(canonical(b"/plain").unwrap().0, Cow::Borrowed(_)), "a plain path was copied");
}

#[test]
fn every_byte_in_a_segment_is_matched_as_itself_or_refused() {
    let mut passed = 0;
    for byte in 0..=255u8 {
        let own_rule =
            std::str::from_utf8(&[byte]).ok().and_then(|text| PathRule::parse(&format!("/a{text}z")).ok());
        let spellings =
            [vec![byte], format!("%{byte:02x}").into_bytes(), format!("%{byte:02X}").into_bytes()];
        for spelling in spellings {
            let path = [b"/a", &spelling[..], b"z"].concat();
            // A plain slash divides segments: that is what it means.
            if spelling == b"/" {
                assert_eq!(canonical(&path).unwrap().as_str(), "/a/z");
                continue;
            }
            if let Ok(read) = canonical(&path) {
                let expected = format!("/a{}z", char::from(byte));
                assert_eq!(read.as_str(), expected, "byte {byte:02x} was read as another");
                let own = own_rule.as_ref().unwrap_or_else(|| panic!("no rule can name the byte {byte:02x}"));
                assert!(own.matches(&read), "byte {byte:02x} does not match itself");
                passed += 1;
            }
        }
    }
    assert!(passed > 200, "only {passed} spellings pass");
}

#[test]
fn a_rule_that_is_none_is_refused_with_its_reason() {
    use AmbiguousPath as Why;
    for (text, error) in [
        ("", InvalidRule::NotRooted),
        ("api/*", InvalidRule::NotRooted),
        ("*", InvalidRule::NotRooted),
        (" /api", InvalidRule::NotRooted),
        ("/a\nb", InvalidRule::ControlCharacter),
        ("/a\u{85}b", InvalidRule::ControlCharacter),
        ("/a?b=c", InvalidRule::QueryOrFragment),
        ("/a#b", InvalidRule::QueryOrFragment),
        ("/a%20b", InvalidRule::Encoded),
        ("/api/**", InvalidRule::DoubleStar),
        ("/a//b", InvalidRule::NeverMatches(Why::EmptySegment)),
        ("/a/../b", InvalidRule::NeverMatches(Why::DotSegment)),
        ("/a/b.", InvalidRule::NeverMatches(Why::TrailingDotOrSpace)),
        ("/a ", InvalidRule::NeverMatches(Why::TrailingDotOrSpace)),
        ("/a;b", InvalidRule::NeverMatches(Why::Semicolon)),
        ("/a\\b", InvalidRule::NeverMatches(Why::Backslash)),
        ("/\u{ff0f}", InvalidRule::NeverMatches(Why::Lookalike)),
    ] {
        assert_eq!(PathRule::parse(text), Err(error), "{text:?}");
    }
    assert!(PathRule::parse(&format!("/{}", "é".repeat(499))).is_ok());
    assert_eq!(PathRule::parse(&format!("/{}", "é".repeat(500))), Err(InvalidRule::TooLong));
}

#[test]
fn a_stored_rule_is_checked_when_it_is_read() {
    assert_eq!(serde_json::from_str::<PathRule>("\"/api/*\"").unwrap(), rule("/api/*"));
    assert_eq!(serde_json::to_string(&rule("/api/*")).unwrap(), "\"/api/*\"");
    let error = serde_json::from_str::<PathRule>("\"api\"").unwrap_err().to_string();
    assert!(error.contains("must start with /"), "{error}");
}

#[test]
fn hostile_rules_and_paths_cost_linear_time() {
    let hostile = rule(&format!("/{}b", "*a".repeat(249)));
    let path = format!("/{}", "a".repeat(64 * 1024));
    // Backtracking would need more steps than the age of the universe allows.
    assert!(!hostile.matches(&canonical(path.as_bytes()).unwrap()));
}

/// The rule language once more, by definition and without any haste: a star is tried with every length.
fn obviously_matches(rule: &str, path: &str) -> bool {
    fn glob(pattern: &[char], text: &[char]) -> bool {
        match pattern {
            [] => text.is_empty(),
            ['*', rest @ ..] => (0..=text.len()).any(|taken| glob(rest, &text[taken..])),
            [c, rest @ ..] => text.first() == Some(c) && glob(rest, &text[1..]),
        }
    }
    let chars = |text: &str| text.chars().collect::<Vec<_>>();
    let (rule_segments, path_segments): (Vec<_>, Vec<_>) =
        (rule.split('/').collect(), path.split('/').collect());
    let (patterns, everything_below) = match rule_segments.split_last() {
        Some((&"*", before)) => (before, true),
        _ => (&rule_segments[..], false),
    };
    let length_fits = if everything_below {
        path_segments.len() > patterns.len()
    } else {
        path_segments.len() == patterns.len()
    };
    length_fits
        && patterns
            .iter()
            .zip(&path_segments)
            .all(|(pattern, segment)| glob(&chars(pattern), &chars(segment)))
}

/// One decoding, by definition; the input is known to be well-formed.
fn obviously_decoded(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path;
    while let Some(c) = rest.chars().next() {
        if c == '%' {
            bytes.push(u8::from_str_radix(&rest[1..3], 16).unwrap());
            rest = &rest[3..];
        } else {
            bytes.extend_from_slice(c.to_string().as_bytes());
            rest = &rest[c.len_utf8()..];
        }
    }
    String::from_utf8(bytes).unwrap()
}

/// Every text of up to `longest` characters of an alphabet after a slash.
fn every_text(alphabet: &str, longest: usize) -> Vec<String> {
    let mut all = vec!["/".to_owned()];
    let mut last = all.clone();
    for _ in 0..longest {
        last = last.iter().flat_map(|text| alphabet.chars().map(move |c| format!("{text}{c}"))).collect();
        all.extend_from_slice(&last);
    }
    all
}

#[test]
fn the_matcher_agrees_with_the_definition_on_every_small_rule_and_path() {
    let rules: Vec<_> = every_text("ab*/", 5).iter().filter_map(|text| PathRule::parse(text).ok()).collect();
    let paths = every_text("ab/", 6);
    let paths: Vec<_> = paths.iter().filter_map(|path| canonical(path.as_bytes()).ok()).collect();
    assert!(rules.len() * paths.len() > 200_000, "{} rules, {} paths", rules.len(), paths.len());
    for rule in &rules {
        for path in &paths {
            let expected = obviously_matches(rule.as_str(), path.as_str());
            assert_eq!(rule.matches(path), expected, "{rule} on {}", path.as_str());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_matcher_agrees_with_the_definition_on_longer_and_encoded_ones(
        rule_text in "/((\\*|([ab]?\\*[ab]){1,3}\\*?|[ab]|\\*[ab]|[ab]\\*|[ab]\\*[ab]|\\*[ab]\\*|[ab]{2,3})/){0,3}(\\*?[ab]{0,2}|[ab]\\*)",
        path in "/(([ab]|%61|%C3%A9){1,3}/){0,3}([ab]|%62|%20a){0,3}",
    ) {
        let rule = PathRule::parse(&rule_text).unwrap();
        let canonical = canonical(path.as_bytes()).unwrap();
        let decoded = obviously_decoded(&path);
        prop_assert_eq!(canonical.as_str(), &decoded);
        prop_assert_eq!(rule.matches(&canonical), obviously_matches(&rule_text, &decoded));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    // Whatever a target does to a path that passed - decode it again, merge or resolve segments, cut at a separator -
    // it reads the same path.
    #[test]
    fn what_passes_reads_the_same_in_every_server(
        path in "/([a.%;/\\\\#? ]|%2[efEF]|%5c|%25|%00|%c0%af|%C3%A9|%20|\\.\\.){0,8}",
    ) {
        let Ok(canonical) = canonical(path.as_bytes()) else { return Ok(()) };
        let read = canonical.as_str();
        prop_assert!(!read.contains(['%', '\\', ';', '#', '?']), "{} divides {}", path, read);
        let mut resolved: Vec<&str> = Vec::new();
        for segment in read.split('/').skip(1) {
            match segment.trim_end_matches(['.', ' ']) {
                "" => {}
                trimmed => {
                    prop_assert_eq!(trimmed, segment);
                    resolved.push(trimmed);
                }
            }
        }
        prop_assert_eq!(format!("/{}", resolved.join("/")), if read == "/" { read } else { read.trim_end_matches('/') });
    }

    #[test]
    fn no_bytes_make_it_panic(path in prop::collection::vec(any::<u8>(), 0..64), text in "\\PC{0,32}") {
        let rules: Vec<_> = PathRule::parse(&format!("/{text}")).into_iter().collect();
        let _judged = check(&rules, &path);
        let _rooted = check(&rules, &[b"/", &path[..]].concat());
    }
}

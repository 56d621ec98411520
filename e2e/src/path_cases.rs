//! Request targets that try to be read in two ways, and a slow, plain reading of path rules to judge them by.
//!
//! The cases are drawn from a seed: the same number is the same case for ever. The tricks are the classes of the known
//! bugs of other products: encoded separators, dot segments, empty segments, parameters, overlong UTF-8, absolute forms.

/// The rules of one share, and plain paths inside and outside of them.
#[derive(Debug, Clone, Copy)]
pub struct RuleSet {
    pub rules: &'static [&'static str],
    pub inside: &'static [&'static str],
    pub outside: &'static [&'static str],
}

/// Every shape that a rule can have: below a folder, exact, a star inside, several.
pub const RULE_SETS: &[RuleSet] = &[
    RuleSet {
        rules: &["/api/*"],
        inside: &["/api/x", "/api/users/7", "/api/a.b/c-d_e~f"],
        outside: &["/api", "/apix", "/secret", "/", "/API/x", "/ap", "/x/api/x"],
    },
    RuleSet {
        rules: &["/status"],
        inside: &["/status"],
        outside: &["/status/", "/status/x", "/statusx", "/Status", "/secret", "/"],
    },
    RuleSet {
        rules: &["/v1/*/items"],
        inside: &["/v1/7/items", "/v1/a-b/items"],
        outside: &["/v1/7/items/x", "/v1/7/8/items", "/v1/items", "/v1/7/secret", "/v2/7/items"],
    },
    RuleSet {
        rules: &["/public/*", "/files/*.txt", "/exact/page.html"],
        inside: &["/public/a/b", "/files/a.txt", "/exact/page.html"],
        outside: &["/public", "/files/a.pdf", "/files/a/b.txt", "/exact/page", "/private/a", "/files/.txtx"],
    },
];

/// What is put into a path to give it a second meaning.
const TRICKS: &[&[u8]] = &[
    b"%2f",
    b"%2F",
    b"%252f",
    b"%5c",
    b"%5C",
    b"\\",
    b"//",
    b"/./",
    b"/../",
    b"/..",
    b"/.",
    b"/%2e%2e/",
    b"/%2e./",
    b"/.%2e/",
    b"/%2E%2E",
    b"%2e%2e%2f",
    b"..%2f",
    b"/..;/",
    b"/..;x=1/",
    b";param",
    b";/../",
    b"%3b",
    b"%00",
    b"\0",
    b"#",
    b"#/../",
    b"%23",
    b"?",
    b"?q=/../secret",
    b"%3f",
    b"%3F/../",
    b".",
    b"..",
    b"...",
    b" ",
    b"%20",
    b"%09",
    b"\t",
    b"%0a",
    b"%0d%0a",
    b"%7f",
    b"\x7f",
    b"%c0%af",
    b"%c0%ae%c0%ae/",
    b"%e0%80%af",
    b"%f0%80%80%af",
    b"%ff",
    b"\xff",
    b"\xc0\xaf",
    b"%ef%bc%8e%ef%bc%8e/",
    b"%ef%bc%8f",
    b"\xef\xbc\x8f",
    b"%u002f",
    b"%u2215",
    b"%",
    b"%2",
    b"%zz",
    b"%25",
    b"%2525",
    b"*",
    b"/*",
    b"**",
    b"&",
    b"=",
    b"~",
    b":",
    b"@",
    b"//evil/",
    b"/..\\",
    b"\\..\\",
    b"%5c..%5c",
    b"/%252e%252e/",
    b"/.../",
    b"/. /",
    b"/.%00/",
    b"/%2e%2e%00/",
    b"+",
    b"|",
    b"\"",
];

/// Spellings of one step up.
const CLIMBS: &[&[u8]] = &[
    b"/..",
    b"/%2e%2e",
    b"/.%2e",
    b"/%2E.",
    b"%2f..",
    b"%2F%2e%2e",
    b"//..",
    b"/./..",
    b"/..;",
    b"/..;a=b",
    b"\\..",
    b"%5c..",
    b"/%252e%252e",
    b"/..%00",
    b"/%c0%ae%c0%ae",
];

/// What a star must not stand for: anything that is more than a part of one segment to somebody.
const STARS: &[&[u8]] = &[
    b"..",
    b".",
    b"%2e%2e",
    b".%2e",
    b"..;",
    b"..%2fsecret%2f",
    b"x%2f..%2f..%2fsecret%2f",
    b"..%2f..%2fapi%2fx",
    b"x%2fy",
    b"x/y",
    b"..%5cx",
    b"..\\x",
    b"%2e%2e%2fsecret",
    b"x%00",
    b"%252e%252e",
    b"x?",
    b"x#",
    b"",
    b"x%2f",
    b"..%2f",
    b"%2f",
    b"x;y",
];

/// How the visitor names the share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `/shared/<token>` in front of the path.
    Path,
    /// The slug's own host name.
    Host,
    /// The slug's host name in an absolute request target.
    Absolute,
    /// An absolute request target with a foreign authority, the slug in `Host`.
    ForeignAbsolute,
}

/// One request.
#[derive(Debug, Clone)]
pub struct Case {
    /// Which of [`RULE_SETS`].
    pub rule_set: usize,
    pub form: Form,
    pub method: &'static str,
    /// As it is sent, after the link's prefix or authority.
    pub path: Vec<u8>,
    /// What must become of it, where that is plain: a path without tricks passes or is refused by its rule.
    pub plain: Option<Verdict>,
}

/// What a rule says of a path without tricks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Inside,
    Outside,
}

/// The case of that number.
pub fn case(number: u64) -> Case {
    let mut dice = Dice::new(number);
    let rule_set = dice.below(RULE_SETS.len());
    let rules = RULE_SETS[rule_set];
    // One in eight has no trick: the proof that something passes at all.
    if dice.below(8) == 0 {
        let inside = dice.below(2) == 0;
        let path = dice.pick(if inside { rules.inside } else { rules.outside });
        let verdict = if inside { Verdict::Inside } else { Verdict::Outside };
        let form = dice.pick(&[Form::Path, Form::Host]);
        // `/shared/<token>` without more reads like `/`; `Form::Path` of `/` is the same.
        return Case { rule_set, form, method: "GET", path: path.as_bytes().to_vec(), plain: Some(verdict) };
    }
    let form = dice.pick(&[
        Form::Path,
        Form::Path,
        Form::Path,
        Form::Host,
        Form::Host,
        Form::Host,
        Form::Absolute,
        Form::ForeignAbsolute,
    ]);
    let path = tricked(&mut dice, rules);
    Case {
        rule_set,
        form,
        method: dice.pick(&["GET", "GET", "GET", "GET", "POST", "HEAD"]),
        path,
        plain: None,
    }
}

fn tricked(dice: &mut Dice, rules: RuleSet) -> Vec<u8> {
    let starred: Vec<&str> = rules.rules.iter().copied().filter(|rule| star_inside(rule).is_some()).collect();
    match dice.below(4) {
        0 if !starred.is_empty() => {
            let rule = dice.pick(&starred);
            filled_star(dice, rule)
        }
        0 | 1 => climbed(dice, rules),
        _ => mutated(dice, rules),
    }
}

/// Goes up from a good place and down to a bad one, each step in another spelling of `/..`.
fn climbed(dice: &mut Dice, rules: RuleSet) -> Vec<u8> {
    let mut path = dice.pick(rules.inside).as_bytes().to_vec();
    let depth = path.iter().filter(|&&byte| byte == b'/').count();
    // Mostly to the root and not above it, where every server refuses.
    let steps = if dice.below(4) == 0 { 1 + dice.below(5) } else { depth };
    let one_spelling = (dice.below(2) == 0).then(|| dice.pick(CLIMBS));
    for _ in 0..steps {
        let step = one_spelling.unwrap_or_else(|| dice.pick(CLIMBS));
        path.extend_from_slice(step);
    }
    path.extend_from_slice(dice.pick(rules.outside).as_bytes());
    path
}

/// Puts more than a segment where a rule has its star.
fn filled_star(dice: &mut Dice, rule: &str) -> Vec<u8> {
    let at = star_inside(rule).expect("the rule was chosen for its star");
    let (before, after) = (&rule.as_bytes()[..at], &rule.as_bytes()[at + 1..]);
    [before, dice.pick(STARS), after].concat()
}

/// Where a rule has a star that stands for a part of one segment.
fn star_inside(rule: &str) -> Option<usize> {
    rule.strip_suffix("/*").unwrap_or(rule).find('*')
}

fn mutated(dice: &mut Dice, rules: RuleSet) -> Vec<u8> {
    let start = if dice.below(2) == 0 { dice.pick(rules.inside) } else { dice.pick(rules.outside) };
    let mut path = start.as_bytes().to_vec();
    for _ in 0..=dice.below(3) {
        match dice.below(10) {
            // Encodes one character: legal, and the same resource.
            0 | 1 => {
                let at = dice.below(path.len());
                let encoded = format!("%{:02x}", path[at]);
                path.splice(at..=at, encoded.bytes());
            }
            2 => {
                for byte in &mut path {
                    if byte.is_ascii_alphabetic() && dice.below(4) == 0 {
                        *byte ^= 0x20;
                    }
                }
            }
            // Very long.
            3 if dice.below(10) == 0 => {
                path.extend(std::iter::repeat_n(b'a', 8_192));
                path.extend_from_slice(b"/../../secret");
            }
            _ => {
                let trick = dice.pick(TRICKS);
                // At a border more often than inside a word.
                let borders: Vec<usize> =
                    (0..=path.len()).filter(|&at| at == path.len() || path[at] == b'/').collect();
                let at = if dice.below(3) == 0 { dice.below(path.len() + 1) } else { dice.pick(&borders) };
                path.splice(at..at, trick.iter().copied());
            }
        }
    }
    path
}

/// Whether a path lies inside one of the rules, read as slowly and plainly as product.md section 3 states them.
pub fn inside(rules: &[&str], path: &str) -> bool {
    let path: Vec<char> = path.chars().collect();
    rules.iter().any(|rule| match rule.strip_suffix("/*") {
        // Everything below: a beginning that matches, then a slash.
        Some(folder) => {
            let folder: Vec<char> = folder.chars().collect();
            (0..path.len()).any(|at| path[at] == '/' && matches(&folder, &path[..at]))
        }
        None => matches(&rule.chars().collect::<Vec<_>>(), &path),
    })
}

/// `*` is any run of characters without a slash; everything else is itself.
fn matches(rule: &[char], path: &[char]) -> bool {
    match (rule, path) {
        ([], []) => true,
        (['*', rest @ ..], _) => {
            let segment = path.iter().take_while(|&&c| c != '/').count();
            (0..=segment).any(|taken| matches(rest, &path[taken..]))
        }
        ([expected, rule @ ..], [found, path @ ..]) => expected == found && matches(rule, path),
        ([_, ..], []) | ([], [_, ..]) => false,
    }
}

/// A small deterministic source of numbers (splitmix64): the same seed throws the same for ever.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        // Mixed first: neighbouring seeds would otherwise walk the same numbers, one step apart.
        Self(mix(seed ^ 0x5045_4e41_4e43_4531))
    }
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("below a usize")
    }
    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_reads_rules_as_the_contract_states_them() {
        for set in RULE_SETS {
            for path in set.inside {
                assert!(inside(set.rules, path), "{path} should be inside {:?}", set.rules);
            }
            for path in set.outside {
                assert!(!inside(set.rules, path), "{path} should be outside {:?}", set.rules);
            }
        }
    }

    #[test]
    fn the_same_number_is_the_same_case_and_cases_differ() {
        assert_eq!(case(7).path, case(7).path);
        let different: std::collections::BTreeSet<_> =
            (0..2_000).map(case).map(|c| (c.rule_set, c.path)).collect();
        assert!(different.len() > 1_500, "only {} different cases in 2,000", different.len());
    }

    #[test]
    fn plain_cases_come_in_both_kinds() {
        let kinds: Vec<_> = (0..500).filter_map(|number| case(number).plain).collect();
        assert!(kinds.contains(&Verdict::Inside) && kinds.contains(&Verdict::Outside));
    }
}

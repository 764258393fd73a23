//! Patterns for one path or name, as Go's `path.Match` has them, and so docker's filters, COPY and `.dockerignore`.

/// Whether a name fits a pattern: `*` stands for any text and `?` for any byte without a slash, `[a-z]` and `[^a-z]` for a
/// byte of a set or none of it, `\` takes the next byte as it is. A pattern that makes no sense fits nothing.
pub(crate) fn matches(name: &[u8], pattern: &[u8]) -> bool {
    let (mut at, mut next) = (0, 0);
    // Behind the last star: where the pattern goes on, and up to where the star has taken the name. Going back to the last
    // one is enough, for whatever an earlier one could take is fitted already; so this never takes exponential time.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if next == pattern.len() && at == name.len() {
            return true;
        }
        if pattern.get(next) == Some(&b'*') {
            next += 1;
            star = Some((next, at));
            continue;
        }
        if let (Some(&byte), Some(rest)) = (name.get(at), pattern.get(next..))
            && let Some(length) = one(rest, byte)
        {
            at += 1;
            next += length;
            continue;
        }
        match star {
            Some((behind, taken)) if name.get(taken).is_some_and(|&byte| byte != b'/') => {
                star = Some((behind, taken + 1));
                (at, next) = (taken + 1, behind);
            }
            _ => return false,
        }
    }
}

/// How long the pattern's first part is, if it stands for this byte.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [b'?', ..] => (byte != b'/').then_some(1),
        [b'\\', escaped, ..] => (*escaped == byte).then_some(2),
        [b'[', rest @ ..] => {
            let (negated, mut rest) = match rest {
                [b'^', rest @ ..] => (true, rest),
                rest => (false, rest),
            };
            let mut found = false;
            let mut first = true;
            loop {
                let (low, behind) = element(rest, first)?;
                let Some(low) = low else {
                    let length = pattern.len() - behind.len();
                    return (found != negated && byte != b'/').then_some(length);
                };
                let (high, behind) = match behind {
                    [b'-', behind @ ..] => {
                        let (high, behind) = element(behind, true)?;
                        (high?, behind)
                    }
                    behind => (low, behind),
                };
                found |= (low..=high).contains(&byte);
                (rest, first) = (behind, false);
            }
        }
        [literal, ..] => (*literal == byte).then_some(1),
        [] => None,
    }
}

/// One byte of a set, or its end, and what is behind.
fn element(set: &[u8], first: bool) -> Option<(Option<u8>, &[u8])> {
    match set {
        [b']', rest @ ..] if !first => Some((None, rest)),
        [b'\\', byte, rest @ ..] | [byte, rest @ ..] => Some((Some(*byte), rest)),
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_go_has_them() {
        for (name, pattern) in [
            ("main.rs", "*.rs"),
            ("a1", "a?"),
            ("busybox:latest", "busy*"),
            ("a/b:1", "*/b:*"),
            ("b7", "[a-c][^a-z]"),
            ("a*b", "a\\*b"),
            ("]", "[]]"),
            ("aXbXc", "*X*X*"),
        ] {
            assert!(matches(name.as_bytes(), pattern.as_bytes()), "{name} {pattern}");
        }
        for (name, pattern) in [
            ("main.rc", "*.rs"),
            ("a", "a?"),
            ("a/b", "a*"),
            ("busybox", "box"),
            ("d", "[a-c]"),
            ("a", "[a"),
            ("/", "[^a]"),
        ] {
            assert!(!matches(name.as_bytes(), pattern.as_bytes()), "{name} {pattern}");
        }
    }

    #[test]
    fn many_stars_take_no_longer_than_one() {
        let name = vec![b'a'; 5000];
        let pattern = [b"*a".repeat(500), b"b".to_vec()].concat();
        assert!(!matches(&name, &pattern));
    }
}

//! The configuration fragment: one option a line, its reason above it, and the check that the options took.

use std::collections::{HashMap, HashSet};

/// One option that the fragment sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// `CONFIG_…`.
    pub option: String,
    /// `y`, a number, a quoted text; `None` for "is not set".
    pub value: Option<String>,
    /// Some versions of the source do not know it.
    pub optional: bool,
    /// The comment above it, or above its group.
    pub reason: String,
}

/// Reads a fragment. A group of options shares the comment above it; an empty line or a heading (`##`) ends the group.
///
/// # Errors
/// The line, where one is neither a comment nor an option.
pub fn parse(text: &str) -> Result<Vec<Setting>, String> {
    let mut settings: Vec<Setting> = Vec::new();
    let mut reason = String::new();
    let mut after_option = false;
    for line in text.lines().map(str::trim) {
        let (body, optional) = match line.strip_suffix("# if present") {
            Some(body) => (body.trim_end(), true),
            None => (line, false),
        };
        if let Some((option, value)) = option_of(body) {
            settings.push(Setting { option, value, optional, reason: reason.clone() });
            after_option = true;
        } else if line.is_empty() || line.starts_with("##") {
            reason.clear();
            after_option = false;
        } else if let Some(comment) = line.strip_prefix('#') {
            if after_option {
                reason.clear();
            }
            after_option = false;
            reason.push_str(comment);
        } else {
            return Err(line.to_owned());
        }
    }
    Ok(settings)
}

/// `CONFIG_X=value` or `# CONFIG_X is not set`.
pub(super) fn option_of(line: &str) -> Option<(String, Option<String>)> {
    if let Some(rest) = line.strip_prefix("# CONFIG_") {
        let name = rest.strip_suffix(" is not set")?;
        return Some((format!("CONFIG_{name}"), None));
    }
    let (name, value) = line.split_once('=')?;
    let known = name.strip_prefix("CONFIG_")?;
    let plain = known.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    plain.then(|| (name.to_owned(), Some(value.to_owned())))
}

/// The settings that a finished `.config` does not hold. An option that is off may be absent altogether.
pub fn not_taken<'a>(settings: &'a [Setting], config: &str) -> Vec<&'a Setting> {
    let on: HashMap<&str, &str> = config
        .lines()
        .filter(|line| line.starts_with("CONFIG_"))
        .filter_map(|line| line.split_once('='))
        .collect();
    let known: HashSet<&str> = on
        .keys()
        .copied()
        .chain(config.lines().filter_map(|line| line.strip_prefix("# ")?.strip_suffix(" is not set")))
        .collect();
    let taken = |setting: &Setting| match (&setting.value, on.get(setting.option.as_str())) {
        (Some(wanted), Some(found)) => found == wanted,
        (Some(_), None) => setting.optional && !known.contains(setting.option.as_str()),
        (None, found) => found.is_none(),
    };
    settings.iter().filter(|setting| !taken(setting)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::FRAGMENT;
    use super::*;

    #[test]
    fn every_option_of_our_fragment_has_a_reason() {
        let settings = parse(FRAGMENT).unwrap();
        assert!(settings.len() > 100);
        for setting in settings {
            assert!(setting.reason.len() > 20, "{} has no reason", setting.option);
        }
    }

    #[test]
    fn no_option_is_set_twice() {
        let mut seen = HashSet::new();
        for setting in parse(FRAGMENT).unwrap() {
            assert!(seen.insert(setting.option.clone()), "{} stands twice", setting.option);
        }
    }

    #[test]
    fn a_group_shares_its_comment_and_the_next_comment_starts_a_new_one() {
        let text = "# One reason,\n# in two lines.\nCONFIG_A=y\n# CONFIG_B is not set\n# Another.\nCONFIG_C=8 # if present\n";
        let settings = parse(text).unwrap();
        assert_eq!(settings[1].reason, " One reason, in two lines.");
        assert_eq!(settings[1].value, None);
        assert_eq!(settings[2].reason, " Another.");
        assert!(settings[2].optional);
    }

    #[test]
    fn what_is_neither_comment_nor_option_is_named() {
        assert_eq!(parse("# why\nCONFIG_A"), Err("CONFIG_A".to_owned()));
    }

    #[test]
    fn an_option_that_did_not_take_is_found() {
        let settings = parse(
            "# why\nCONFIG_A=y\nCONFIG_B=8\n# CONFIG_C is not set\nCONFIG_D=y # if present\nCONFIG_E=y",
        )
        .unwrap();
        let config = "CONFIG_A=y\nCONFIG_B=64\nCONFIG_C=y\n# CONFIG_E is not set\n";
        let names: Vec<_> =
            not_taken(&settings, config).iter().map(|setting| setting.option.as_str()).collect();
        assert_eq!(names, ["CONFIG_B", "CONFIG_C", "CONFIG_E"]);
    }
}

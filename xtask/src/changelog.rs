//! Form of CHANGELOG.md: Keep a Changelog, with dates.

/// Kinds of change, as headings name them.
const KINDS: &[&str] = &["Added", "Changed", "Deprecated", "Fixed", "Removed", "Security"];

/// State of a changelog with respect to a version.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum State {
    HasVersion,
    Neither,
    OnlyUnreleased,
}

/// Returns whether the changelog has a section for a version, as `## [0.1.0] - 2030-01-01`.
pub(crate) fn state(text: &str, version: &str) -> State {
    let has = |wanted: &str| sections(text).any(|(_, heading)| title(heading).0 == Some(wanted));
    if has(version) {
        State::HasVersion
    } else if has("Unreleased") {
        State::OnlyUnreleased
    } else {
        State::Neither
    }
}

/// Returns what is wrong with the headings of a changelog.
///
/// The first section is `## [Unreleased]`, every other one `## [VERSION] - YYYY-MM-DD`, the newest first. Headings below
/// a section are kinds of change, or dates with kinds of change below them.
pub(crate) fn problems(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if sections(text).next().is_none_or(|(_, heading)| heading != "[Unreleased]") {
        problems.push("the first section must be `## [Unreleased]`; add it, also when it is empty".to_owned());
    }
    let mut newest: Option<&str> = None;
    for (line, heading) in sections(text).filter(|(_, heading)| *heading != "[Unreleased]") {
        match title(heading) {
            (Some(_), Some(date)) if is_date(date) => {
                if newest.is_some_and(|newest| newest < date) {
                    problems.push(format!("line {line}: `{heading}` is newer than the section above; move it up"));
                }
                newest = Some(date);
            }
            _ => problems.push(format!("line {line}: write `## {heading}` as `## [VERSION] - YYYY-MM-DD`")),
        }
    }
    for (index, line) in text.lines().enumerate() {
        let (heading, may_be_date) = match (line.strip_prefix("### "), line.strip_prefix("#### ")) {
            (Some(heading), _) => (heading, true),
            (_, Some(heading)) => (heading, false),
            _ => continue,
        };
        if !(KINDS.contains(&heading) || may_be_date && is_date(heading)) {
            let or_date = if may_be_date { ", or a date" } else { "" };
            problems.push(format!("line {}: `{heading}` is none of {}{or_date}", index + 1, KINDS.join(", ")));
        }
    }
    problems
}

/// The headings of the second level, each with its line.
fn sections(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().filter_map(|(index, line)| Some((index + 1, line.strip_prefix("## ")?.trim_end())))
}

/// Splits `[VERSION] - DATE` into its parts.
fn title(heading: &str) -> (Option<&str>, Option<&str>) {
    let (name, date) = match heading.split_once(" - ") {
        Some((name, date)) => (name, Some(date)),
        None => (heading, None),
    };
    (name.strip_prefix('[').and_then(|name| name.strip_suffix(']')), date)
}

/// Returns true for `YYYY-MM-DD` with a month and a day that can be.
fn is_date(text: &str) -> bool {
    let digits = |part: &str, len: usize| part.len() == len && part.bytes().all(|byte| byte.is_ascii_digit());
    let parts: Vec<&str> = text.split('-').collect();
    let [year, month, day] = parts[..] else { return false };
    let within =
        |part: &str, most: u8| digits(part, 2) && part.parse().is_ok_and(|number| (1..=most).contains(&number));
    digits(year, 4) && within(month, 12) && within(day, 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_by_its_heading() {
        for (text, expected) in [
            ("# Changelog\n\n## [Unreleased]\n\n## [0.1.0] - 2030-01-01\n", State::HasVersion),
            ("## [Unreleased]\n\n### Added\n- 0.1.0 soon\n", State::OnlyUnreleased),
            ("## [0.1.01] - 2030-01-01\n", State::Neither),
            ("## 0.1.0\n", State::Neither),
            ("", State::Neither),
        ] {
            assert_eq!(state(text, "0.1.0"), expected, "{text}");
        }
    }

    #[test]
    fn dated_sections_and_kinds_of_change_pass() {
        for text in [
            "# Changelog\n\n## [Unreleased]\n",
            "## [Unreleased]\n\n### Added\n\n## [0.2.0] - 2030-02-01\n\n### Fixed\n\n## [0.1.0] - 2030-01-31\n",
            "## [Unreleased]\n\n### 2030-01-02\n\n#### Added\n\n### 2030-01-01\n\n#### Security\n",
        ] {
            assert_eq!(problems(text), [""; 0], "{text}");
        }
    }

    #[test]
    fn other_headings_are_reported_with_their_line() {
        for (text, expected) in [
            ("", "the first section must be `## [Unreleased]`"),
            ("## [0.1.0] - 2030-01-01\n", "the first section must be `## [Unreleased]`"),
            ("## [Unreleased]\n## 0.1.0\n", "line 2: write `## 0.1.0` as"),
            ("## [Unreleased]\n## [0.1.0]\n", "line 2: write `## [0.1.0]` as"),
            ("## [Unreleased]\n## [0.1.0] - 2030-13-01\n", "line 2: write `## [0.1.0] - 2030-13-01` as"),
            (
                "## [Unreleased]\n## [0.1.0] - 2030-01-01\n## [0.2.0] - 2030-01-02\n",
                "line 3: `[0.2.0] - 2030-01-02` is",
            ),
            ("## [Unreleased]\n### Odds and ends\n", "line 2: `Odds and ends` is none of"),
            ("## [Unreleased]\n### 2030-01-01\n#### 2030-01-01\n", "line 3: `2030-01-01` is none of"),
        ] {
            let problems = problems(text);
            assert_eq!(problems.len(), 1, "{text}: {problems:?}");
            assert!(problems[0].starts_with(expected), "{text}: {problems:?}");
        }
    }
}

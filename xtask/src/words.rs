//! Check of the words with which documentation comments begin. Part of `tidy`.

use std::path::Path;

/// First words with which no documentation comment may begin: pronouns, question words and verbs of a question.
///
/// Such a comment leaves out its subject ("Who may ask."), so that only a reader who knows the item understands it.
/// A comment begins with a noun phrase for a type or field ("Peers that may ask.") and with a verb in the third person
/// for a function ("Returns the peers that may ask."). "This" is allowed, since a noun follows it in practice.
const REFUSED: &[&str] = &[
    "am",
    "anybody",
    "anyone",
    "anything",
    "are",
    "as",
    "did",
    "do",
    "does",
    "everybody",
    "everyone",
    "everything",
    "he",
    "her",
    "here",
    "hers",
    "him",
    "his",
    "how",
    "i",
    "is",
    "it",
    "its",
    "itself",
    "my",
    "nobody",
    "nothing",
    "our",
    "ours",
    "she",
    "somebody",
    "someone",
    "something",
    "that",
    "their",
    "theirs",
    "them",
    "there",
    "these",
    "they",
    "those",
    "was",
    "we",
    "were",
    "what",
    "whatever",
    "when",
    "whenever",
    "where",
    "wherever",
    "whether",
    "which",
    "whichever",
    "who",
    "whoever",
    "whom",
    "whose",
    "why",
    "you",
    "your",
    "yours",
];

/// Directories whose documentation comments are not checked yet. Remove a directory once its comments pass.
const PENDING: &[&str] = &["crates/trunkline/"];

/// Findings of the check over all files of the repository.
#[derive(Debug, Default)]
pub(crate) struct Words {
    problems: Vec<String>,
    pending: Vec<usize>,
}

impl Words {
    /// Checks one source file, given its path below the root of the repository.
    pub(crate) fn check(&mut self, file: &Path, text: &str) {
        if file.extension().is_none_or(|extension| extension != "rs") {
            return;
        }
        let found = refused_beginnings(text);
        self.pending.resize(PENDING.len(), 0);
        match PENDING.iter().position(|directory| file.starts_with(directory)) {
            Some(index) => self.pending[index] += found.len(),
            None => self.problems.extend(found.into_iter().map(|(line, word)| {
                let shown = file.display();
                format!("{shown}:{line}: a documentation comment begins with `{word}`; name its subject instead")
            })),
        }
    }

    /// Prints the number of findings in each pending directory and returns the problems of all others. A pending
    /// directory without findings is a problem as well, so that it becomes checked.
    pub(crate) fn finish(mut self) -> Vec<String> {
        for (directory, count) in PENDING.iter().zip(&self.pending) {
            match count {
                0 => self.problems.push(format!("xtask/src/words.rs: {directory} passes; remove it from PENDING")),
                count => eprintln!("tidy: {directory} has {count} documentation comments to reword (PENDING)"),
            }
        }
        self.problems
    }
}

/// Returns the line, from 1, and the first word of each documentation comment that begins with a refused word.
fn refused_beginnings(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut before = None;
    for (index, line) in text.lines().enumerate() {
        let comment = documentation(line);
        let marker = comment.map(|(marker, _)| marker);
        if let Some((_, content)) = comment
            && before != marker
            && let Some(word) = first_word(content)
            && REFUSED.contains(&word.to_lowercase().as_str())
        {
            found.push((index + 1, word));
        }
        before = marker;
    }
    found
}

/// Splits a line of a documentation comment into its marker (`///` or `//!`) and its content.
pub(crate) fn documentation(line: &str) -> Option<(&str, &str)> {
    let line = line.trim_start();
    let (marker, content) = line.split_at_checked(3)?;
    match marker {
        "///" if !content.starts_with('/') => Some((marker, content)),
        "//!" => Some((marker, content)),
        _ => None,
    }
}

/// Returns the leading letters of a comment, or `None` if it begins with code or punctuation. A contraction such as
/// "it's" counts as its first part.
fn first_word(content: &str) -> Option<&str> {
    let content = content.trim_start().trim_start_matches(['*', '_', '"', '(']);
    let end = content.find(|c: char| !c.is_alphabetic()).unwrap_or(content.len());
    // A hyphen makes another word of it: "Is-a relation", "As-built list".
    (end > 0 && !content[end..].starts_with('-')).then(|| &content[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_that_begins_with_a_pronoun_or_question_word_is_found_by_line() {
        let text =
            "//! Who may ask.\n\n/// Peers that may ask.\nstruct Peers {\n    /// They, by name.\n    names: u8,\n}\n";
        assert_eq!(refused_beginnings(text), [(1, "Who"), (5, "They")]);
        assert_eq!(refused_beginnings("/// Is this it?\n///\n/// Whose is it?\nfn f() {}\n"), [(1, "Is")]);
        assert_eq!(refused_beginnings("/// **What** it is.\n/// it's\n"), [(1, "What")]);
        assert_eq!(refused_beginnings("/// It's a name.\n"), [(1, "It")]);
    }

    #[test]
    fn a_comment_that_names_its_subject_passes() {
        for text in [
            "/// Returns what it holds.\n/// Who asks may know.\n",
            "/// This node's own name.\n",
            "/// Item of `routes:`.\n",
            "/// `what` is asked.\n",
            "/// As-built list.\n",
            "/// Whoseness.\n",
            "///\n",
            "// What an ordinary comment asks is not checked.\n",
            "//// Who writes four slashes?\n",
        ] {
            assert_eq!(refused_beginnings(text), [], "{text}");
        }
    }

    #[test]
    fn an_inner_comment_after_an_outer_one_is_a_comment_of_its_own() {
        assert_eq!(refused_beginnings("/// Names.\n//! What they are.\n"), [(2, "What")]);
    }

    #[test]
    fn only_rust_files_outside_the_pending_directories_are_problems() {
        let mut words = Words::default();
        words.check(Path::new("new/src/lib.rs"), "//! What it is.\n");
        words.check(Path::new("new/README.md"), "/// What it is.\n");
        for directory in PENDING {
            words.check(&Path::new(directory).join("lib.rs"), "//! What it is.\n");
        }
        let problems = words.finish();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with("new/src/lib.rs:1: ") && problems[0].contains("`What`"), "{problems:?}");
    }

    #[test]
    fn a_pending_directory_without_findings_is_a_problem() {
        let mut words = Words::default();
        words.check(Path::new("new/src/lib.rs"), "//! Names.\n");
        assert_eq!(words.finish().len(), PENDING.len());
    }
}

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

/// Returns the problems of one source file, given its path below the root of the repository.
pub(crate) fn problems(file: &Path, text: &str) -> Vec<String> {
    if file.extension().is_none_or(|extension| extension != "rs") {
        return Vec::new();
    }
    let named = |(line, word)| {
        let shown = file.display();
        format!("{shown}:{line}: a documentation comment begins with `{word}`; name its subject instead")
    };
    refused_beginnings(text).into_iter().map(named).collect()
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
    fn only_rust_files_are_checked() {
        let found = problems(Path::new("new/src/lib.rs"), "//! What it is.\n");
        assert!(found[0].starts_with("new/src/lib.rs:1: ") && found[0].contains("`What`"), "{found:?}");
        assert!(problems(Path::new("new/README.md"), "/// What it is.\n").is_empty());
    }
}

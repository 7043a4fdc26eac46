//! Check of the length of lines in Markdown files. Part of `tidy`.

use std::path::Path;

/// Most columns (characters) of a line in a Markdown file.
const MAX_COLUMNS: usize = 120;

/// Returns `line: problem` for each line of a Markdown file that is too long. Other files have no problems.
pub(crate) fn problems(file: &Path, text: &str) -> Vec<String> {
    if file.extension().is_none_or(|extension| extension != "md") {
        return Vec::new();
    }
    let long = long_lines(text).into_iter();
    long.map(|(line, columns)| format!("{line}: {columns} columns; wrap the line, at most {MAX_COLUMNS} are allowed"))
        .collect()
}

/// Returns the number, from 1, and the columns of each line that is too long. Rows of tables, fenced code blocks and
/// lines that consist of one link or address cannot be wrapped, and are not counted.
fn long_lines(text: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut open: Option<&str> = None;
    for (index, line) in text.lines().enumerate() {
        let content = line.trim_start();
        let fence = fence(content);
        match (open, fence) {
            (Some(opening), Some(closing)) if closing.starts_with(opening) && content.trim_end() == closing => {
                open = None
            }
            (Some(_), _) => {}
            (None, Some(_)) => open = fence,
            (None, None) => {
                let columns = line.chars().count();
                if columns > MAX_COLUMNS && !content.starts_with('|') && !is_one_link(content) {
                    found.push((index + 1, columns));
                }
            }
        }
    }
    found
}

/// Returns the fence with which a line begins: three or more backticks or tildes. A line of inline code has further
/// backticks and is not a fence.
fn fence(content: &str) -> Option<&str> {
    let mark = content.chars().next().filter(|mark| matches!(mark, '`' | '~'))?;
    let (fence, info) = content.split_at(content.find(|c| c != mark).unwrap_or(content.len()));
    (fence.len() >= 3 && !(mark == '`' && info.contains('`'))).then_some(fence)
}

/// Returns true for a line that holds nothing but a link or an address, without white space at which it could be
/// wrapped: also as an item of a list, in a quotation, or as the definition of a link (`[name]: address`).
fn is_one_link(content: &str) -> bool {
    let mut words = content.split_whitespace().filter(|word| !matches!(*word, "-" | "*" | "+" | ">")).peekable();
    words.next_if(|word| word.starts_with('[') && word.ends_with("]:"));
    let link = words.next().is_some_and(|word| word.contains("://") || word.contains("]("));
    link && words.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<usize> {
        long_lines(text).into_iter().map(|(line, _)| line).collect()
    }

    #[test]
    fn a_line_over_the_limit_is_found_and_one_at_the_limit_is_not() {
        let fits = format!("{}a", "é ".repeat(59));
        assert_eq!(fits.chars().count(), MAX_COLUMNS - 1);
        assert_eq!(long_lines(&format!("{fits}b\n{fits}bc\n")), [(2, MAX_COLUMNS + 1)]);
        assert_eq!(found(&format!("# {fits}\n\n- {fits}\n\n    {fits}\n")), [1, 3, 5]);
    }

    #[test]
    fn rows_of_tables_and_fenced_code_are_not_counted() {
        let long = "word ".repeat(40);
        assert_eq!(found(&format!("| {long} |\n  | {long} |\n")), [0; 0]);
        assert_eq!(found(&format!("```console\n$ {long}\n```\n{long}\n")), [4]);
        assert_eq!(found(&format!("~~~\n```\n{long}\n~~~\n{long}\n")), [5]);
        assert_eq!(found(&format!("````\n{long}\n```\n{long}\n````\n{long}\n")), [6]);
        assert_eq!(found(&format!("- item\n\n  ```\n  {long}\n  ```\n")), [0; 0]);
    }

    #[test]
    fn inline_code_at_the_beginning_of_a_line_opens_no_block() {
        let long = "word ".repeat(40);
        assert_eq!(found(&format!("```code``` {long}\n{long}\n")), [1, 2]);
        assert_eq!(found(&format!("`code` {long}\n")), [1]);
    }

    #[test]
    fn one_link_without_white_space_is_not_counted() {
        let address = format!("https://example.com/{}", "a".repeat(120));
        for line in [&address, &format!("- {address}"), &format!("[text]({address})"), &format!("[name]: {address}")] {
            assert_eq!(found(line), [0; 0], "{line}");
        }
        assert_eq!(found(&format!("See {address}\n{address} {address}\n{}", "a".repeat(121))), [1, 2, 3]);
    }

    #[test]
    fn only_markdown_files_are_checked_and_the_line_is_named() {
        let long = "word ".repeat(40);
        assert!(problems(Path::new("a/notes.txt"), &long).is_empty());
        assert!(problems(Path::new("a/notes.md"), &long)[0].starts_with("1: 200 columns"));
    }
}

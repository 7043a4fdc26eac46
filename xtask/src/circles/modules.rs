//! The modules of one crate: which file defines an item, and which items a file names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, ImplItem, Item, Lit, Meta, UseTree, Visibility};

/// A name in a file of an item that another file defines.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Arrow {
    /// The file with the name, relative to the directory of the sources.
    pub(super) from: String,
    /// The file with the definition.
    pub(super) to: String,
    pub(super) name: String,
}

/// Returns the root files of the library and of the programs of a package.
pub(super) fn roots(source: &Path) -> Result<Vec<PathBuf>, String> {
    let mut roots = vec![source.join("lib.rs"), source.join("main.rs")];
    if let Ok(entries) = fs::read_dir(source.join("bin")) {
        for entry in entries {
            let path = entry.map_err(|error| format!("{}: {error}", source.display()))?.path();
            roots.push(if path.is_dir() { path.join("main.rs") } else { path });
        }
    }
    roots.retain(|root| root.is_file());
    Ok(roots)
}

/// Returns what the files of the crate with this root name of each other.
pub(super) fn arrows(source: &Path, root: &Path) -> Result<Vec<Arrow>, String> {
    let mut tree = Tree::default();
    tree.read(root, None)?;
    let shown = |file: usize| {
        let file = &tree.files[file];
        file.strip_prefix(source).unwrap_or(file).display().to_string()
    };
    let mut arrows = BTreeSet::new();
    for (at, module) in tree.modules.iter().enumerate() {
        let imports = module.uses.iter().filter(|import| import.private).map(|import| &import.path);
        for path in imports.chain(&module.mentions) {
            if let Some((Target::Item(file), segment)) = tree.resolve(at, path, &mut BTreeSet::new())
                && file != module.file
            {
                arrows.insert(Arrow { from: shown(module.file), to: shown(file), name: segment.clone() });
            }
        }
    }
    Ok(arrows.into_iter().collect())
}

type Segments = Vec<String>;

#[derive(Debug, Default)]
struct Tree {
    files: Vec<PathBuf>,
    modules: Vec<Module>,
}

#[derive(Debug, Default)]
struct Module {
    /// Index of the file.
    file: usize,
    parent: Option<usize>,
    children: BTreeMap<String, usize>,
    /// The file of each item.
    items: BTreeMap<String, usize>,
    uses: Vec<Import>,
    /// The modules and enums of which all names are imported.
    globs: Vec<Segments>,
    /// Paths in code.
    mentions: BTreeSet<Segments>,
}

/// A `use` of one name.
#[derive(Debug)]
struct Import {
    name: String,
    path: Segments,
    private: bool,
}

/// Meaning of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Module(usize),
    /// An item, or something within one, by the file that defines it.
    Item(usize),
}

impl Tree {
    /// Reads a file with all modules below it. Returns its module.
    fn read(&mut self, path: &Path, parent: Option<usize>) -> Result<usize, String> {
        let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let parsed = syn::parse_file(&text)
            .map_err(|error| format!("{}:{}: cannot be parsed: {error}", path.display(), error.span().start().line))?;
        let file = self.files.len();
        self.files.push(path.to_path_buf());
        let below = match path.file_stem().and_then(|stem| stem.to_str()) {
            Some("lib" | "main" | "mod") | None => path.with_file_name(""),
            Some(_) if parent.is_none() => path.with_file_name(""),
            Some(stem) => path.with_file_name(stem),
        };
        let module = self.add(file, parent);
        self.fill(module, &parsed.items, &below)?;
        Ok(module)
    }

    fn add(&mut self, file: usize, parent: Option<usize>) -> usize {
        self.modules.push(Module { file, parent, ..Module::default() });
        self.modules.len() - 1
    }

    /// Adds these items to a module. Its child modules have their files in the directory `below`.
    fn fill(&mut self, at: usize, items: &[Item], below: &Path) -> Result<(), String> {
        for item in items.iter().filter(|item| !is_for_tests(attributes(item))) {
            let Item::Mod(child) = item else {
                self.add_item(at, item);
                continue;
            };
            let name = child.ident.to_string();
            let inside = below.join(&name);
            let module = match &child.content {
                Some((_, items)) => {
                    let module = self.add(self.modules[at].file, Some(at));
                    self.fill(module, items, &inside)?;
                    module
                }
                None => self.read(&file_of(&self.files[self.modules[at].file], child, &inside), Some(at))?,
            };
            self.modules[at].children.insert(name, module);
        }
        Ok(())
    }

    fn add_item(&mut self, at: usize, item: &Item) {
        let file = self.modules[at].file;
        // A macro that is exported has its path at the root.
        let exported =
            matches!(item, Item::Macro(item) if item.attrs.iter().any(|of| of.path().is_ident("macro_export")));
        if let Some(name) = name(item) {
            self.modules[if exported { 0 } else { at }].items.insert(name, file);
        }
        let mut reader = Reader { module: &mut self.modules[at] };
        reader.visit_item(item);
    }

    /// Follows a path in a module. Returns its meaning, and the segment that names it. `None` for a name of another crate,
    /// of the language, or of something local.
    fn resolve<'p>(
        &self,
        at: usize,
        path: &'p [String],
        seen: &mut BTreeSet<(usize, String)>,
    ) -> Option<(Target, &'p String)> {
        let mut target = None;
        for (index, segment) in path.iter().enumerate() {
            let is_last = index + 1 == path.len();
            target = Some(match (target, segment.as_str()) {
                (None, "crate") => Target::Module(0),
                (None, "self") => Target::Module(at),
                (None, "super") => Target::Module(self.modules[at].parent?),
                (None, name) => self.look_up(at, name, is_last, seen)?,
                (Some(Target::Module(module)), "super") => Target::Module(self.modules[module].parent?),
                (Some(Target::Module(module)), "self") => Target::Module(module),
                (Some(Target::Module(module)), name) => self.look_up(module, name, is_last, seen)?,
                // A variant, or an associated item.
                (Some(Target::Item(_)), _) => return Some((target?, path.get(index - 1)?)),
            });
        }
        Some((target?, path.last()?))
    }

    /// Finds a name in a module. A name may be that of an item and of a module: the last one of a path is the item.
    fn look_up(&self, at: usize, name: &str, is_last: bool, seen: &mut BTreeSet<(usize, String)>) -> Option<Target> {
        let module = &self.modules[at];
        let item = module.items.get(name).map(|file| Target::Item(*file));
        let child = module.children.get(name).map(|child| Target::Module(*child));
        if let Some(own) = if is_last { item.or(child) } else { child.or(item) } {
            return Some(own);
        }
        if !seen.insert((at, name.to_owned())) {
            return None;
        }
        let imports = module.uses.iter().filter(|import| import.name == name).map(|import| import.path.clone());
        let globs = module.globs.iter().map(|path| path.iter().cloned().chain([name.to_owned()]).collect());
        imports.chain(globs).find_map(|path: Segments| Some(self.resolve(at, &path, seen)?.0))
    }
}

/// Returns the file of a module that is declared in `declared_in`.
fn file_of(declared_in: &Path, child: &syn::ItemMod, inside: &Path) -> PathBuf {
    let given = child.attrs.iter().find_map(|attribute| match &attribute.meta {
        Meta::NameValue(value) if value.path.is_ident("path") => match &value.value {
            syn::Expr::Lit(syn::ExprLit { lit: Lit::Str(text), .. }) => Some(text.value()),
            _ => None,
        },
        _ => None,
    });
    match given {
        Some(path) => declared_in.with_file_name(path),
        None if inside.with_extension("rs").is_file() => inside.with_extension("rs"),
        None => inside.join("mod.rs"),
    }
}

/// Returns true for code that only tests compile.
fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("cfg") => {
            let words: Vec<_> = list.tokens.clone().into_iter().collect();
            match words.as_slice() {
                [TokenTree::Ident(word)] => word == "test",
                // One of several conditions that must all hold.
                [TokenTree::Ident(word), TokenTree::Group(all)] if word == "all" => {
                    let all: Vec<_> = all.stream().into_iter().collect();
                    all.split(|token| matches!(token, TokenTree::Punct(comma) if comma.as_char() == ','))
                        .any(|one| matches!(one, [TokenTree::Ident(word)] if word == "test"))
                }
                _ => false,
            }
        }
        _ => false,
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn name(item: &Item) -> Option<String> {
    let name = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(name.to_string())
}

/// Collects the imports and the paths of an item. An import within a body counts as one of the module.
struct Reader<'a> {
    module: &'a mut Module,
}

impl Reader<'_> {
    fn import(&mut self, tree: &UseTree, mut path: Segments, private: bool) {
        match tree {
            UseTree::Path(tree) => {
                path.push(tree.ident.to_string());
                self.import(&tree.tree, path, private);
            }
            UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.import(tree, path.clone(), private));
            }
            UseTree::Glob(_) => self.module.globs.push(path),
            UseTree::Name(tree) => self.import_as(&tree.ident.to_string(), path, &tree.ident.to_string(), private),
            UseTree::Rename(tree) => self.import_as(&tree.rename.to_string(), path, &tree.ident.to_string(), private),
        }
    }

    fn import_as(&mut self, name: &str, mut path: Segments, last: &str, private: bool) {
        // `a::{self}` is `a`.
        let name = if name == "self" { path.last().cloned().unwrap_or_default() } else { name.to_owned() };
        if last != "self" || path.is_empty() {
            path.push(last.to_owned());
        }
        self.module.uses.push(Import { name, path, private });
    }

    /// Collects the paths in the arguments of a macro, whose grammar is unknown: names with `::` between them.
    fn read_tokens(&mut self, tokens: TokenStream) {
        let mut path = Segments::new();
        // What comes before the present token: the end of a path, two colons that continue it, or something else.
        let (mut colons, mut is_field) = (0, false);
        for token in tokens {
            match token {
                TokenTree::Ident(word) => {
                    if colons != 2 {
                        self.mention(&mut path);
                    }
                    if !is_field {
                        path.push(word.to_string());
                    }
                    (colons, is_field) = (0, false);
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Punct(punct) => {
                    self.mention(&mut path);
                    // A field, a method, or a lifetime.
                    (colons, is_field) = (0, ['.', '\''].contains(&punct.as_char()));
                }
                TokenTree::Group(group) => {
                    self.mention(&mut path);
                    (colons, is_field) = (0, false);
                    self.read_tokens(group.stream());
                }
                TokenTree::Literal(_) => {
                    self.mention(&mut path);
                    (colons, is_field) = (0, false);
                }
            }
        }
        self.mention(&mut path);
    }

    fn mention(&mut self, path: &mut Segments) {
        if !path.is_empty() {
            self.module.mentions.insert(std::mem::take(path));
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_attribute(&mut self, _: &'ast Attribute) {}

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let attributes = match item {
            ImplItem::Const(item) => &item.attrs,
            ImplItem::Fn(item) => &item.attrs,
            ImplItem::Macro(item) => &item.attrs,
            ImplItem::Type(item) => &item.attrs,
            _ => return,
        };
        if !is_for_tests(attributes) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_item(&mut self, item: &'ast Item) {
        if !is_for_tests(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        // A path from the root of all crates leads to another crate.
        if item.leading_colon.is_none() {
            self.import(&item.tree, Segments::new(), matches!(item.vis, Visibility::Inherited));
        }
    }

    fn visit_macro(&mut self, of: &'ast syn::Macro) {
        self.visit_path(&of.path);
        self.read_tokens(of.tokens.clone());
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            self.module.mentions.insert(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        visit::visit_path(self, path);
    }

    fn visit_visibility(&mut self, _: &'ast Visibility) {}
}

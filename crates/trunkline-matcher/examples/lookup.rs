//! Adds patterns to a table and asks it for a name.
//!
//! `cargo run -p trunkline-matcher --example lookup -- prod-db2@example.com`

use std::error::Error;

use trunkline_matcher::{PatternTable, RoutePattern};

fn main() -> Result<(), Box<dyn Error>> {
    let name = std::env::args().nth(1);
    let name = name.as_deref().unwrap_or("prod-db2@example.com");

    let table = PatternTable::new();
    // One edit for many patterns: readers see all of them or none.
    table.edit(|edit| -> Result<(), Box<dyn Error>> {
        for (text, weight, value) in [
            ("database@prod", 100, "the old database"),
            ("prod-.*", 50, "the production gateway"),
            (r".*@example\.com", 30, "the office"),
            (r"^prod-db[0-9]+@example\.com$", 200, "the database itself"),
        ] {
            edit.insert(RoutePattern::new(text)?, weight, value)?;
        }
        Ok(())
    })?;

    println!("{name}");
    for entry in table.snapshot().matches(name)? {
        let (weight, pattern) = (entry.weight(), entry.pattern());
        println!("{weight:>5}  {pattern:<30}  {}", entry.value());
    }

    // A pattern that is refused shows where.
    if let Err(error) = RoutePattern::new("^prod-(db|cache@example") {
        println!("\n{error}\n\n{}", error.caret());
    }
    Ok(())
}

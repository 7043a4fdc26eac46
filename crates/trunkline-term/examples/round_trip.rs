//! A term, its bytes, and the same term under other names.

use trunkline_term::{Atom, Limits, Term, TermError};

fn main() -> Result<(), TermError> {
    let limits = Limits::default();
    let request = Term::tuple([
        Term::atom("process_manager")?,
        Term::map([(Term::atom("priority")?, Term::from(7)), (Term::atom("job")?, Term::from("index"))]),
    ]);
    let bytes = request.encode(&limits)?;
    println!("{} bytes: {request:?}", bytes.len());

    let other = Atom::new("proc_mgr")?;
    let renamed = Term::decode(&bytes, &limits)?
        .replace_atoms(&mut |atom| (atom.as_str() == "process_manager").then(|| other.clone()));
    println!("{renamed:?}");
    Ok(())
}

use std::fs;
use std::os::unix::fs::PermissionsExt;

use trunkline_config::edit::save_atomically;

use super::Dir;

#[test]
fn saving_keeps_the_mode_and_leaves_nothing_beside() {
    let dir = Dir::new();
    let path = dir.file("app.yaml", "old", 0o640);
    save_atomically(&path, "new").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn saving_follows_a_symbolic_link_and_keeps_it() {
    let dir = Dir::new();
    fs::create_dir(dir.path().join("real")).unwrap();
    let real = dir.file("real/app.yaml", "old", 0o600);
    let link = dir.path().join("app.yaml");
    std::os::unix::fs::symlink("real/app.yaml", &link).unwrap();
    save_atomically(&link, "new").unwrap();
    assert_eq!(fs::read_to_string(real).unwrap(), "new");
    assert!(fs::symlink_metadata(link).unwrap().is_symlink());
}

#[test]
fn saving_makes_a_file_that_is_not_there() {
    let dir = Dir::new();
    save_atomically(&dir.path().join("new.yaml"), "text").unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("new.yaml")).unwrap(), "text");
    let error = save_atomically(&dir.path().join("no/such/dir.yaml"), "text").unwrap_err();
    assert!(error.to_string().contains("no/such/dir.yaml"));
}

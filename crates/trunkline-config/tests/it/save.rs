use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use trunkline_config::edit::save_atomically;

use super::Dir;

#[test]
fn saving_keeps_the_mode_and_leaves_no_temporary_file() {
    let dir = Dir::new();
    let path = dir.file("app.yaml", "old", 0o640);
    save_atomically(&path, "new").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn saving_keeps_owner_and_group() {
    let dir = Dir::new();
    let path = dir.file("app.yaml", "old", 0o640);
    let meta = || fs::metadata(&path).unwrap();
    let is_root = meta().uid() == 0;
    // Only the superuser can change the owner; for another user, owner and group must stay as they are.
    let (owner, group) = if is_root { (12_345, 54_321) } else { (meta().uid(), meta().gid()) };
    chown(&path, Some(owner), Some(group)).unwrap();
    save_atomically(&path, "new").unwrap();
    assert_eq!((meta().uid(), meta().gid(), meta().mode() & 0o777), (owner, group, 0o640));
}

#[test]
fn saving_refuses_a_read_only_file() {
    let dir = Dir::new();
    let path = dir.file("app.yaml", "old", 0o444);
    let error = save_atomically(&path, "new").unwrap_err();
    assert!(error.to_string().contains("app.yaml"), "{error}");
    assert!(error.source.to_string().contains("read-only"), "{}", error.source);
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left beside it");
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
fn saving_creates_a_missing_file() {
    let dir = Dir::new();
    save_atomically(&dir.path().join("new.yaml"), "text").unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("new.yaml")).unwrap(), "text");
    let error = save_atomically(&dir.path().join("no/such/dir.yaml"), "text").unwrap_err();
    assert!(error.to_string().contains("no/such/dir.yaml"));
}

//! `dist`: the static binary, and an archive that is the same bytes wherever it is built from the same commit.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use crate::metadata::Metadata;
use crate::{Outcome, Project, cannot_start, run, stdout_of};

pub(crate) const HELP: &str = "\
Usage: cargo xtask dist

Builds the binary `trunkline` for this machine with the profile `dist`, statically linked, checks that it needs no
dynamic loader, and writes to target/dist:
  trunkline-VERSION-TRIPLE.tar.gz   the binary, licences, README.md and CHANGELOG.md (.tar where there is no gzip)
  SHA256SUMS                        for `sha256sum -c`
Times in the archive are SOURCE_DATE_EPOCH, or else the time of the last commit. Paths of this machine are kept out of
the binary. RUSTFLAGS from the environment are not used. Linux only.
";

/// The package that has the binary, and the binary.
const PACKAGE: &str = "trunkline-cli";
const BINARY: &str = "trunkline";

/// Files that go into the archive next to the binary.
const DOCUMENTS: &[&str] = &["CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT", "README.md"];

/// Builds, checks, packs, and prints what was written.
pub(crate) fn dist(project: &Project) -> Outcome {
    let mut documents = Vec::new();
    for name in DOCUMENTS {
        let data = read(&project.root.join(name))?;
        documents.push(File { name: (*name).to_owned(), mode: 0o644, data });
    }
    let metadata = Metadata::members(project)?;
    let version = metadata
        .workspace()
        .find(|package| package.name == PACKAGE)
        .map(|package| package.version.clone())
        .ok_or_else(|| format!("the workspace has no package {PACKAGE}"))?;
    let triple = host(project)?;
    if !triple.contains("linux") {
        return Err(format!("dist builds on Linux only; this is {triple}").into());
    }
    let time = archive_time(project)?;

    run(&mut build(project, &metadata.target_directory, &triple))?;
    let binary = metadata.target_directory.join(&triple).join("dist").join(BINARY);
    let data = read(&binary)?;
    if let Some(loader) = interpreter(&data).map_err(|error| format!("{}: {error}", binary.display()))? {
        return Err(format!("{} is not static: it asks for the loader {loader}", binary.display()).into());
    }

    let stem = format!("{BINARY}-{version}-{triple}");
    let mut files = documents;
    files.push(File { name: BINARY.to_owned(), mode: 0o755, data });
    for file in &mut files {
        file.name = format!("{stem}/{}", file.name);
    }
    let archive = tar(files, time)?;

    let directory = metadata.target_directory.join("dist");
    fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let archive = compress(&directory.join(format!("{stem}.tar")), &archive)?;
    let name = archive.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let sums = directory.join("SHA256SUMS");
    write(&sums, format!("{:x}  {name}\n", Sha256::digest(read(&archive)?)).as_bytes())?;
    println!("{}\n{}\n{}", binary.display(), archive.display(), sums.display());
    Ok(())
}

/// The build of the static binary. Naming the target keeps the flags away from build scripts and derive macros, which
/// cannot be static.
fn build(project: &Project, target: &Path, triple: &str) -> Command {
    let mut flags = vec!["-C".to_owned(), "target-feature=+crt-static".to_owned()];
    let mut hide = |from: &Path, to: &str| flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    // The last one that fits is used, so the inner directories come after the outer ones.
    hide(&project.root, "/trunkline");
    hide(target, "/target");
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    if let Some(home) = home.or_else(|| env::home_dir().map(|home| home.join(".cargo"))) {
        hide(&home, "/cargo");
    }
    let mut command = project.cargo("build");
    command
        .args(["--locked", "--profile", "dist", "-p", PACKAGE, "--bin", BINARY, "--target", triple])
        .env_remove("RUSTFLAGS")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    command
}

/// The triple of the machine we are on.
fn host(project: &Project) -> Outcome<String> {
    let version = stdout_of(&mut project.cargo("-vV"))?;
    let line = version.lines().find_map(|line| line.strip_prefix("host: "));
    line.map(str::to_owned).ok_or_else(|| "`cargo -vV` names no host".to_owned().into())
}

/// The time every file in the archive gets, in seconds since 1970.
fn archive_time(project: &Project) -> Outcome<u64> {
    let (text, source) = match env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => (text, "SOURCE_DATE_EPOCH"),
        Err(_) => (
            stdout_of(&mut project.git(&["log", "-1", "--format=%ct"])).map_err(|failure| {
                format!("no last commit to take the time from ({failure}): set SOURCE_DATE_EPOCH")
            })?,
            "the time of the last commit",
        ),
    };
    text.trim().parse().map_err(|_| format!("{source} is not a number of seconds: {text:?}").into())
}

/// Writes the archive and compresses it with the system's gzip, where there is one. Returns what is there in the end.
fn compress(path: &Path, archive: &[u8]) -> Outcome<PathBuf> {
    write(path, archive)?;
    let mut gzip = Command::new("gzip");
    // Neither name nor time in the header, and an older archive is replaced.
    gzip.args(["-n", "-9", "-f"]).arg(path);
    match gzip.status() {
        Ok(status) if status.success() => Ok(path.with_added_extension("gz")),
        Ok(status) => Err(format!("gzip failed ({status})").into()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(path.to_path_buf()),
        Err(error) => Err(cannot_start(&gzip, &error)),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn write(path: &Path, data: &[u8]) -> Result<(), String> {
    fs::write(path, data).map_err(|error| format!("{}: {error}", path.display()))
}

/// A file on its way into an archive.
#[derive(Clone)]
struct File {
    name: String,
    mode: u32,
    data: Vec<u8>,
}

/// The unit everything in a tar archive is padded to, in bytes.
const BLOCK: usize = 512;

/// A tar archive in the ustar format (POSIX.1-1988) that depends on nothing but its arguments: names are sorted, and
/// everything belongs to user and group 0.
fn tar(mut files: Vec<File>, time: u64) -> Result<Vec<u8>, String> {
    files.sort_by(|a, b| a.name.cmp(&b.name));
    let mut archive = Vec::new();
    for file in &files {
        archive.extend_from_slice(&header(file, time)?);
        archive.extend_from_slice(&file.data);
        archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    }
    // Two empty blocks end it.
    archive.resize(archive.len() + 2 * BLOCK, 0);
    Ok(archive)
}

/// The block before a file's data.
fn header(file: &File, time: u64) -> Result<[u8; BLOCK], String> {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, size: usize, what: &[u8]| {
        if what.len() > size {
            return Err(format!("{}: does not fit a ustar header", file.name));
        }
        block[at..at + what.len()].copy_from_slice(what);
        Ok(())
    };
    put(0, 100, file.name.as_bytes())?;
    put(100, 7, format!("{:07o}", file.mode).as_bytes())?;
    put(108, 7, b"0000000")?;
    put(116, 7, b"0000000")?;
    put(124, 11, format!("{:011o}", file.data.len()).as_bytes())?;
    put(136, 11, format!("{time:011o}").as_bytes())?;
    // The checksum is taken with spaces in its own place.
    put(148, 8, b"        ")?;
    put(156, 1, b"0")?;
    put(257, 8, b"ustar\x0000")?;
    put(329, 7, b"0000000")?;
    put(337, 7, b"0000000")?;
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(block)
}

/// The dynamic loader a 64-bit little-endian ELF file asks for (`PT_INTERP`), if it does. Offsets are those of
/// `Elf64_Ehdr` and `Elf64_Phdr` in the System V ABI.
fn interpreter(elf: &[u8]) -> Result<Option<String>, String> {
    const PT_INTERP: u64 = 3;
    let number = |at: usize, size: usize| -> Result<u64, String> {
        let bytes = at.checked_add(size).and_then(|end| elf.get(at..end)).ok_or("the file is cut short")?;
        Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    let place = |at: usize, size: usize| -> Result<usize, String> {
        usize::try_from(number(at, size)?).map_err(|_| "an offset is too large".to_owned())
    };
    if elf.get(..6) != Some(b"\x7fELF\x02\x01") {
        return Err("not a 64-bit little-endian ELF file".to_owned());
    }
    let (table, entry, count) = (place(32, 8)?, place(54, 2)?, place(56, 2)?);
    for index in 0..count {
        let at = table.checked_add(index * entry).ok_or("an offset is too large")?;
        if number(at, 4)? == PT_INTERP {
            let (start, size) = (place(at + 8, 8)?, place(at + 32, 8)?);
            let path = start.checked_add(size).and_then(|end| elf.get(start..end)).ok_or("the file is cut short")?;
            return Ok(Some(String::from_utf8_lossy(path).trim_end_matches('\0').to_owned()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Vec<File> {
        let file = |name: &str, mode, data: &[u8]| File { name: name.to_owned(), mode, data: data.to_vec() };
        vec![file("a/b", 0o755, &[7; 600]), file("a/a", 0o644, b""), file("a/c", 0o644, &[b'x'; BLOCK])]
    }

    #[test]
    fn the_same_files_give_the_same_bytes_in_any_order() {
        let mut turned = files();
        turned.reverse();
        let archive = tar(files(), 1_700_000_000).unwrap();
        assert_eq!(archive, tar(turned, 1_700_000_000).unwrap());
        assert_ne!(archive, tar(files(), 1_700_000_001).unwrap());
        // Three headers, 0 + 2 + 1 blocks of data, the end.
        assert_eq!(archive.len(), (3 + 3 + 2) * BLOCK);
    }

    #[test]
    fn a_name_that_does_not_fit_is_refused() {
        let file = File { name: "n".repeat(101), mode: 0o644, data: Vec::new() };
        assert!(tar(vec![file], 0).is_err());
    }

    #[test]
    fn the_system_tar_reads_the_archive() {
        let path = env::temp_dir().join(format!("xtask-dist-{}.tar", std::process::id()));
        fs::write(&path, tar(files(), 1_700_000_000).unwrap()).unwrap();
        let listed = Command::new("tar").env("TZ", "UTC").arg("tvf").arg(&path).output();
        let data = Command::new("tar").arg("xOf").arg(&path).arg("a/b").output();
        fs::remove_file(&path).unwrap();
        // A machine without tar has nothing to say here.
        let (Ok(listed), Ok(data)) = (listed, data) else { return };
        assert!(listed.status.success(), "{listed:?}");
        let listed = String::from_utf8(listed.stdout).unwrap();
        let names: Vec<&str> = listed.lines().filter_map(|line| line.split_whitespace().last()).collect();
        assert_eq!(names, ["a/a", "a/b", "a/c"]);
        assert!(listed.contains("-rwxr-xr-x"), "{listed}");
        assert_eq!(data.stdout, [7; 600]);
    }

    /// An ELF header with the given program headers and the text of a loader after them.
    fn elf(types: &[u32]) -> Vec<u8> {
        let mut file = b"\x7fELF\x02\x01".to_vec();
        file.resize(64, 0);
        file[32] = 64;
        file[54] = 56;
        file[56] = u8::try_from(types.len()).unwrap();
        let end = u64::try_from(64 + 56 * types.len()).unwrap();
        for of in types {
            let mut entry = [0; 56];
            entry[..4].copy_from_slice(&of.to_le_bytes());
            entry[8..16].copy_from_slice(&end.to_le_bytes());
            entry[32..40].copy_from_slice(&10_u64.to_le_bytes());
            file.extend_from_slice(&entry);
        }
        file.extend_from_slice(b"/lib/ld.1\0");
        file
    }

    #[test]
    fn a_loader_is_found_where_there_is_one() {
        assert_eq!(interpreter(&elf(&[6, 3, 1])), Ok(Some("/lib/ld.1".to_owned())));
        assert_eq!(interpreter(&elf(&[1, 2])), Ok(None));
        assert!(interpreter(b"#!/bin/sh").is_err());
        assert!(interpreter(&elf(&[1, 3])[..100]).is_err());
    }
}

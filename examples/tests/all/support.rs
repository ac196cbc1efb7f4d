//! Runs programs and gives what they print.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

/// The folder `examples`.
pub(crate) fn examples() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What a program prints, provided that it succeeds.
#[track_caller]
pub(crate) fn stdout(program: impl AsRef<Path>, arguments: &[&str]) -> String {
    let program = program.as_ref();
    let output = Command::new(program).args(arguments).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program:?} {arguments:?}: {}\n{stdout}\n{stderr}",
        output.status
    );
    stdout
}

/// The `soe` command, built from this workspace. Cargo builds the programs of a package for its own tests only, so this
/// one is built here if it is missing or older than its sources.
pub(crate) fn soe() -> &'static Path {
    static SOE: OnceLock<PathBuf> = OnceLock::new();
    SOE.get_or_init(|| {
        let profile = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned();
        let soe = profile.join(format!("soe{}", std::env::consts::EXE_SUFFIX));
        let crates = examples().with_file_name("crates");
        if modified(&soe).is_none_or(|built| newest(&crates).is_some_and(|source| source > built)) {
            build(&profile);
        }
        assert!(soe.is_file(), "cargo has not put `soe` to {}", soe.display());
        soe
    })
}

fn build(profile: &Path) {
    eprintln!("building the `soe` command for the tests of the examples");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--package", "soe-cli", "--bin", "soe"]);
    cargo
        .current_dir(examples())
        .arg("--target-dir")
        .arg(profile.parent().unwrap());
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    assert!(cargo.status().unwrap().success(), "`cargo build -p soe-cli` failed");
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).ok()?.modified().ok()
}

/// When the source that was changed last was changed.
fn newest(folder: &Path) -> Option<SystemTime> {
    let entries = std::fs::read_dir(folder).ok()?.flatten();
    let times = entries.filter_map(|entry| match entry.file_type().ok()?.is_dir() {
        true => newest(&entry.path()),
        false => modified(&entry.path()),
    });
    times.max()
}

//! Runs programs and workflows, and gives what they print and what they leave.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use serde_json::Value as Json;
use soe_backends::{Context, ExecutionId};
use soe_core::config::Config;
use soe_core::runtime::{Engine, EngineBuilder, EngineError, Orchestration};

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

/// What an execution left.
pub(crate) struct Done {
    pub(crate) engine: Engine,
    pub(crate) id: ExecutionId,
    pub(crate) result: Result<(), EngineError>,
    pub(crate) context: Arc<Context>,
}

/// Runs the first workflow of a file with START and these context fields.
pub(crate) async fn run(builder: EngineBuilder, workflow: &str, fields: Json) -> Done {
    let engine = builder.build().unwrap();
    let config = Config::from_yaml(workflow).unwrap();
    assert!(config.warnings().is_empty(), "{:?}", config.warnings());
    let name = config.registry().workflows.keys().next().unwrap().clone();
    let Json::Object(fields) = fields else {
        panic!("{fields}")
    };
    let start = Orchestration::new(config, name).signal("START").context(fields);
    let execution = engine.start(start).await.unwrap();
    let result = execution.wait().await.map(|_| ());
    let context = execution.context().await.unwrap();
    Done {
        id: execution.id().clone(),
        engine,
        result,
        context,
    }
}

impl Done {
    pub(crate) fn signals(&self) -> String {
        soe_examples::signals(&self.context)
    }

    pub(crate) fn value(&self, field: &str) -> Json {
        self.context.value(field).map_or(Json::Null, |value| value.to_json())
    }

    pub(crate) fn runs(&self, node: &str) -> u64 {
        self.context.operational.nodes.get(node).copied().unwrap_or(0)
    }

    /// `[llm_calls, tool_calls, errors]`
    pub(crate) fn counts(&self) -> [u64; 3] {
        let counts = &self.context.operational;
        [counts.llm_calls, counts.tool_calls, counts.errors]
    }

    /// How often a signal was broadcast.
    pub(crate) fn times(&self, signal: &str) -> usize {
        let signals = self.context.operational.signals.iter();
        signals.filter(|sent| sent.as_ref() == signal).count()
    }
}

/// The printed text has this line.
#[track_caller]
pub(crate) fn has_line(printed: &str, line: &str) {
    assert!(
        printed.lines().any(|printed| printed == line),
        "no line '{line}' in\n{printed}"
    );
}

//! A file store without room or without the right to write: the state stays, and the execution goes on later.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use soe_backends::{Backends, ExecutionId};
use soe_core::runtime::{Engine, EngineErrorKind};

use crate::common::*;

/// A file system of its own, of one megabyte; `None` where this user may not make one.
struct Disk(
    PathBuf,
    #[allow(dead_code, reason = "it is removed at the end")] tempfile::TempDir,
);

impl Disk {
    fn new() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        fs::create_dir(&path).unwrap();
        mount(&["-t", "tmpfs", "-o", "size=1m", "tmpfs"], &path).then_some(Self(path, folder))
    }

    fn remount(&self, option: &str) -> bool {
        mount(&["-o", &format!("remount,{option}")], &self.0)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn mount(arguments: &[&str], path: &Path) -> bool {
    let output = Command::new("mount").args(arguments).arg(path).output();
    output.is_ok_and(|output| output.status.success())
}

fn engine_on(folder: &Path) -> Engine {
    let builder = Engine::builder().backends(Backends::file(folder).unwrap());
    builder.tool(returns(|| json!("x".repeat(10_000)))).build().unwrap()
}

#[tokio::test]
async fn a_full_disk() {
    let Some(disk) = Disk::new() else {
        eprintln!("SKIPPED: this user can't mount a file system");
        return;
    };
    let store = disk.0.join("store");
    let engine = engine_on(&store);
    let finished = engine.orchestrate(start(WORK)).await.unwrap();
    let filler = disk.0.join("filler");
    // Down to the last byte: a write that fails has taken what there was.
    let _ = fs::write(&filler, vec![0; 2 << 20]);

    let execution = engine.execution(finished.execution.clone());
    let mut taken = 0;
    let error = loop {
        // The page in which the file ends has room for a few.
        match execution.signal(["MORE"]).await {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
    };
    assert!(taken < 100, "there was room");
    assert_eq!(error.kind(), &EngineErrorKind::Backend);
    let text = format!("{error:#}");
    assert!(text.contains("make room on the disk"), "{text}");
    let error = engine
        .start(start(WORK).id(ExecutionId::new("new").unwrap()))
        .await
        .unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("make room on the disk"), "{text}");
    let context = engine_on(&store).context(&finished.execution).await.unwrap();
    let signals = context.operational.signals.iter().filter(|signal| ***signal == *"MORE");
    assert_eq!(signals.count(), taken, "those that were acknowledged");

    fs::remove_file(filler).unwrap();
    execution.signal(["START"]).await.unwrap();
    soon(execution.wait()).await.unwrap();
    assert_eq!(execution.history("result").await.unwrap().len(), 2);
    engine
        .orchestrate(start(WORK).id(ExecutionId::new("new").unwrap()))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_read_only_disk() {
    let Some(disk) = Disk::new() else {
        eprintln!("SKIPPED: this user can't mount a file system");
        return;
    };
    let store = disk.0.join("store");
    let engine = engine_on(&store);
    let finished = engine.orchestrate(start(WORK)).await.unwrap();
    let before = engine.state(&finished.execution).await.unwrap();
    if !disk.remount("ro") {
        eprintln!("SKIPPED: the file system can't be made read-only");
        return;
    }
    let execution = engine.execution(finished.execution.clone());
    let error = format!("{:#}", execution.signal(["START"]).await.unwrap_err());
    assert!(error.contains("write access"), "{error}");
    assert_eq!(engine.state(&finished.execution).await.unwrap(), before);
    let error = Backends::file(disk.0.join("other")).unwrap_err().to_string();
    assert!(error.contains("write access"), "{error}");

    assert!(disk.remount("rw"));
    execution.signal(["START"]).await.unwrap();
    soon(execution.wait()).await.unwrap();
    assert_eq!(execution.history("result").await.unwrap().len(), 2);
}

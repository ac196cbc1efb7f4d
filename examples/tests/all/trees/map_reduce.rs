//! 16 Map and reduce.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use soe_core::runtime::{Engine, EngineBuilder};

use crate::support::{Done, has_line, run, stdout};

#[path = "../../../16-map-reduce/tools.rs"]
mod tools;

const PROGRAM: &str = env!("CARGO_BIN_EXE_16-map-reduce");

async fn count(folder: &Path) -> Done {
    let builder = tools::tools().into_iter().fold(Engine::builder(), EngineBuilder::tool);
    let workflow = include_str!("../../../16-map-reduce/workflow.yaml");
    run(builder, workflow, json!({"folder": folder, "most": 2})).await
}

#[test]
fn the_program_counts_its_texts_the_same_every_time() {
    let expected = "     60     5 bread.txt
     56     5 harbour.txt
     47     8 letters.md
     33     3 tide.txt
    196    21 total
     25 the (files: 4)
     12 and (files: 4)
      6 it (files: 2)
";
    for _ in 0..3 {
        assert_eq!(stdout(PROGRAM, &["--most", "3"]), expected);
    }
}

#[tokio::test]
async fn every_file_is_counted_once_and_added_up_once() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..40 {
        let text = format!("one two\nword{number} one");
        fs::write(folder.path().join(format!("{number:02}.txt")), text).unwrap();
    }
    fs::write(folder.path().join("image.png"), [0xff, 0xd8]).unwrap();
    fs::create_dir(folder.path().join("folder.txt")).unwrap();
    let done = count(folder.path()).await;
    assert_eq!(
        [done.times("COUNTED"), done.times("MAPPED"), done.times("REDUCED")],
        [40, 1, 1]
    );
    let total = done.value("total");
    assert_eq!([&total["lines"], &total["words"]], [80, 160]);
    assert_eq!(
        total["most_frequent"],
        json!([{"word": "one", "times": 80, "files": 40}, {"word": "two", "times": 40, "files": 40}])
    );
    // The texts stay in the children.
    assert_eq!(done.value("text"), Value::Null);
}

#[tokio::test]
async fn what_cannot_be_read_holds_nothing_up() {
    let folder = tempfile::tempdir().unwrap();
    let done = count(folder.path()).await;
    assert_eq!(done.signals(), "START MAPPED REDUCED");
    assert_eq!(done.value("total")["words"], 0);

    fs::write(folder.path().join("good.txt"), "a b").unwrap();
    fs::write(folder.path().join("large.txt"), vec![b'a'; 4 * 1024 * 1024 + 1]).unwrap();
    fs::write(folder.path().join("odd.txt"), [0xff, 0xfe, 0x00]).unwrap();
    let done = count(folder.path()).await;
    assert_eq!(
        [done.times("COUNTED"), done.times("UNREADABLE"), done.times("MAPPED")],
        [1, 2, 1]
    );
    assert_eq!(done.value("total")["unreadable"], json!(["large.txt", "odd.txt"]));
    assert_eq!(done.value("total")["words"], 2);
    let printed = stdout(PROGRAM, &[folder.path().to_str().unwrap()]);
    has_line(&printed, "      -     - odd.txt can't be read");

    let done = count(&folder.path().join("missing")).await;
    assert_eq!(done.signals(), "START");
    assert!(done.value("files").as_str().unwrap().contains("can't be listed"));
}

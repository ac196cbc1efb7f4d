//! 14 Fan-out and fan-in.

use serde_json::json;
use soe_core::runtime::{Engine, EngineBuilder};
use tokio::time::Instant;

use crate::support::{Done, has_line, run, stdout};

#[path = "../../../14-fan-out/tools.rs"]
mod tools;

async fn back_up(hosts: &[String]) -> Done {
    let builder = tools::tools().into_iter().fold(Engine::builder(), EngineBuilder::tool);
    let workflow = include_str!("../../../14-fan-out/workflow.yaml");
    run(builder, workflow, json!({"hosts": hosts})).await
}

#[test]
fn the_program_reports_four_lists() {
    let printed = stdout(env!("CARGO_BIN_EXE_14-fan-out"), &[]);
    for report in [
        r#"{"stored":4,"gigabytes":165,"failed":[]}"#,
        r#"{"stored":2,"gigabytes":135,"failed":["old-1 doesn't answer","old-2 doesn't answer"]}"#,
        r#"{"stored":1,"gigabytes":15,"failed":[]}"#,
        r#"{"stored":0,"gigabytes":0,"failed":[]}"#,
    ] {
        has_line(&printed, &format!("  report: {report}"));
    }
    assert_eq!(printed.matches("Report ran 1 time").count(), 4, "{printed}");
    has_line(&printed, "  Join was evaluated 0 times, Report ran 1 time");

    let printed = stdout(env!("CARGO_BIN_EXE_14-fan-out"), &["web-7", "old-3"]);
    has_line(
        &printed,
        r#"  report: {"stored":1,"gigabytes":15,"failed":["old-3 doesn't answer"]}"#,
    );
}

#[tokio::test(start_paused = true)]
async fn the_join_passes_once_for_any_number_of_items() {
    for hosts in [0, 1, 2, 8, 9, 65, 200] {
        let names: Vec<String> = (0..hosts)
            .map(|number| format!("{}-{number}", ["web", "db", "old"][number % 3]))
            .collect();
        let done = back_up(&names).await;
        let failed = (0..hosts).filter(|number| number % 3 == 2).count();
        let outcome = if failed == 0 { "COMPLETE" } else { "INCOMPLETE" };
        assert_eq!(done.times("STORED"), hosts - failed, "{hosts}");
        assert_eq!(done.times("FAILED"), failed, "{hosts}");
        assert_eq!([done.times("ALL_ENDED"), done.times(outcome)], [1, 1], "{hosts}");
        assert_eq!([done.runs("Join"), done.runs("Report")], [hosts as u64, 1], "{hosts}");
        let report = done.value("report");
        assert_eq!(report["stored"], hosts - failed, "{hosts}");
        assert_eq!(report["failed"].as_array().unwrap().len(), failed, "{hosts}");
    }
}

#[tokio::test(start_paused = true)]
async fn eight_hosts_are_backed_up_at_a_time() {
    let hosts: Vec<String> = (0..16).map(|number| format!("web-{number}")).collect();
    let began = Instant::now();
    back_up(&hosts[..8]).await;
    assert_eq!(began.elapsed().as_millis() / 100, 1);
    let began = Instant::now();
    back_up(&hosts).await;
    assert_eq!(began.elapsed().as_millis() / 100, 2);
}

//! A loop with a guard: a job is polled until it is finished, at most so many times.
//!
//! `cargo run -q -p soe-examples --bin 04-guarded-loop`

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use soe_core::config::Config;
use soe_core::runtime::{Engine, EngineBuilder, Orchestration};
use soe_core::tools::tool_fn;

#[derive(Deserialize, JsonSchema)]
struct SubmitArgs {
    report: String,
}

#[derive(Deserialize, JsonSchema)]
struct StatusArgs {
    job: String,
}

#[derive(Deserialize, JsonSchema)]
struct PauseArgs {
    millis: u64,
}

/// Stands for a service that renders reports: job id to the number of polls after which it is finished.
#[derive(Clone, Default)]
struct RenderService {
    jobs: Arc<Mutex<HashMap<String, u32>>>,
}

impl RenderService {
    fn submit(&self, report: &str) -> String {
        let job = format!("job-{report}");
        let polls = if report == "huge" { u32::MAX } else { 3 };
        self.jobs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(job.clone(), polls);
        job
    }

    fn status(&self, job: &str) -> Option<&'static str> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let left = jobs.get_mut(job)?;
        *left = left.saturating_sub(1);
        Some(if *left == 0 { "finished" } else { "rendering" })
    }
}

fn register(engine: EngineBuilder, service: &RenderService) -> EngineBuilder {
    let (submitting, polling) = (service.clone(), service.clone());
    engine
        .tool(tool_fn(
            "submit_job",
            "Has a report rendered.",
            move |args: SubmitArgs, _| {
                let job = submitting.submit(&args.report);
                async move { Ok(job) }
            },
        ))
        .tool(tool_fn(
            "job_status",
            "Says how a job stands.",
            move |args: StatusArgs, _| {
                let status = polling.status(&args.job);
                async move { Ok(status.unwrap_or("unknown")) }
            },
        ))
        .tool(tool_fn("pause", "Waits.", |args: PauseArgs, _| async move {
            tokio::time::sleep(Duration::from_millis(args.millis)).await;
            Ok(())
        }))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let engine = register(Engine::builder(), &RenderService::default()).build()?;
    let config = Arc::new(Config::from_yaml(include_str!("workflow.yaml"))?);
    for report in ["monthly", "huge"] {
        let start = Orchestration::new(config.clone(), "export")
            .signal("START")
            .field("report", report)
            .field("max_polls", 5);
        let finished = engine.orchestrate(start).await?;
        let context = engine.context(&finished.execution).await?;
        let polls = context.operational.nodes.get("Poll").copied().unwrap_or(0);
        let outcome = if context.operational.signals.contains("FINISHED") {
            "finished"
        } else {
            "gave up"
        };
        println!("{report}: {outcome} after {polls} polls");
    }
    Ok(())
}

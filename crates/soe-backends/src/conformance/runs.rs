//! Checks of what a state says of work that is not done: runs, snapshots, work list, status, limits.

use std::sync::Arc;
use std::time::Duration;

use super::fixture::{Must, Writer, appended, at, broadcast, dispatched, finished, id, of, run, snapshot, time};
use super::{Factory, Finding, Outcome, ensure};
use crate::{
    Answer, Backends, Change, Context, Dialogue, DialogueStep, Entry, ExecutionChange, Failure, Limits, Progress,
    Question, Rejected, Run, Stage, Status, TreeState, Usage, Value,
};

/// Contexts of runs in flight, in the root and in a child.
pub async fn snapshots(factory: &dyn Factory) -> Outcome {
    for execution in [0, 2] {
        let backends = factory.fresh().await;
        let mut writer = Writer::with_children(&backends, "snapshots", 2).await?;
        let here = |changes: Vec<Change>| {
            changes
                .into_iter()
                .map(|change| of(execution, change))
                .collect::<Vec<_>>()
        };
        let first = vec![
            broadcast(&["GO"]),
            appended("a", 1_i64),
            dispatched(1, 1),
            dispatched(2, 1),
            snapshot(1),
        ];
        writer.commit(here(first)).await?;
        let second = context(&backends, &writer, execution).await?;
        let more = vec![
            appended("a", 2_i64),
            appended("b", "new"),
            dispatched(3, 3),
            snapshot(3),
        ];
        writer.commit(here(more)).await?;
        let third = context(&backends, &writer, execution).await?;
        for number in 4..20_u64 {
            writer
                .commit(here(vec![appended("a", number), broadcast(&["AGAIN"])]))
                .await?;
        }
        writer.verify("with runs in flight").await?;
        kept(&backends, &writer, execution, &[(1, &second), (3, &third)]).await?;
        ensure!(
            second.value("b").is_none() && third.value("a") == Some(&Value::from(2_i64)),
            "a held context changed"
        );
        writer.commit(here(vec![finished(2)])).await?;
        kept(&backends, &writer, execution, &[(1, &second), (3, &third)]).await?;
        writer
            .commit(here(vec![finished(1), appended("a", Value::Null)]))
            .await?;
        kept(&backends, &writer, execution, &[(3, &third)]).await?;
        writer.commit(here(vec![finished(3)])).await?;
        kept(&backends, &writer, execution, &[]).await?;
        writer.verify("after the last run").await?;
    }
    Ok(())
}

async fn load(backends: &Backends, writer: &Writer<'_>) -> Result<Arc<TreeState>, Finding> {
    let state = backends.context().load(&writer.id).await.must("loading")?;
    state.ok_or_else(|| Finding::Violated("the tree is missing".to_owned()))
}

async fn context(backends: &Backends, writer: &Writer<'_>, execution: u64) -> Result<Arc<Context>, Finding> {
    let state = load(backends, writer).await?;
    let context = state.get(execution).map(|execution| execution.context.clone());
    context.ok_or_else(|| Finding::Violated(format!("execution {execution} is missing")))
}

async fn kept(backends: &Backends, writer: &Writer<'_>, execution: u64, expected: &[(u64, &Arc<Context>)]) -> Outcome {
    let state = load(backends, writer).await?;
    let Some(state) = state.get(execution) else {
        return Err(Finding::Violated(format!("execution {execution} is missing")));
    };
    let found: Vec<_> = state.snapshots.keys().collect();
    let wanted: Vec<_> = expected.iter().map(|(run, _)| *run).collect();
    ensure!(
        found == wanted,
        "there are contexts for the runs {found:?} instead of {wanted:?}"
    );
    for (run, context) in expected {
        let found = state.snapshots.get(*run);
        ensure!(
            found == Some(*context),
            "the context of run {run} is not as it was then: {found:?}"
        );
    }
    Ok(())
}

/// Progress of runs.
pub async fn progress(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let mut writer = Writer::create(&backends, "progress").await?;
    writer
        .commit(
            (1..=30)
                .map(|number| dispatched(number, 1))
                .chain([snapshot(1)])
                .collect(),
        )
        .await?;
    writer.verify("with 30 runs in flight").await?;
    for attempt in 2..5 {
        writer
            .commit(vec![
                at(
                    0,
                    ExecutionChange::Progressed {
                        run: 7,
                        progress: Progress::Tool { attempt },
                    },
                ),
                at(0, ExecutionChange::Error),
            ])
            .await?;
    }
    writer
        .commit((1..=29).filter(|run| *run != 7).map(finished).collect())
        .await?;
    writer.verify("after three attempts").await
}

/// Answers of built-in tools.
pub async fn answers(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let mut writer = Writer::create(&backends, "answers").await?;
    let answered = |execution: Option<&str>, run, index| {
        let answer = Answer {
            execution: execution.map(id),
            run,
            index,
            value: Value::map([("status", "updated")].map(|(key, value)| (key, Value::from(value)))),
        };
        at(0, ExecutionChange::Answered(Arc::new(answer)))
    };
    writer
        .commit(vec![
            appended("a", 1_i64),
            appended("a", 2_i64),
            dispatched(1, 1),
            dispatched(2, 1),
            snapshot(1),
        ])
        .await?;
    writer
        .commit(vec![
            answered(None, 1, None),
            answered(None, 2, Some(3)),
            at(0, ExecutionChange::ToolCalled),
        ])
        .await?;
    let foreign = (0..70).map(|run| answered(Some("a-child"), run, None));
    writer.commit(foreign.collect()).await?;
    writer.verify("with answers").await?;
    let history = [Value::Null, Value::from("copied")].into_iter().collect();
    let replaced = ExecutionChange::Replaced {
        field: "a".into(),
        history,
        before: 2 * Value::from(1_i64).size(),
        size: 60,
    };
    writer.commit(vec![finished(1), at(0, replaced)]).await?;
    writer.verify("after a run and a copied field").await
}

/// What runs have asked, and what was answered.
pub async fn dialogues(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let mut writer = Writer::create(&backends, "dialogues").await?;
    let begin = |number, progress| {
        let run = Run {
            progress,
            ..(*run(number, 1)).clone()
        };
        at(0, ExecutionChange::Dispatched(Arc::new(run)))
    };
    let step = |run, step| at(0, ExecutionChange::Dialogue { run, step });
    let tokens = |prompt_tokens, completion_tokens| DialogueStep::Replied {
        usage: Some(Usage {
            prompt_tokens,
            completion_tokens,
        }),
    };
    let agent = Dialogue {
        unseen_from: 2,
        unseen: [(1, 0)].into(),
        ..Dialogue::new(Stage::Router)
    };
    let changes = vec![
        begin(1, Progress::Llm(Box::default())),
        begin(2, Progress::Agent(Box::new(agent))),
        snapshot(1),
        step(1, DialogueStep::Asked),
        step(2, DialogueStep::Waits),
    ];
    writer.commit(changes).await?;
    writer.verify("with two dialogues").await?;
    let rejected = Rejected {
        reply: "{\"a\": ".into(),
        problem: "it ends too early\n\u{1f600}".into(),
    };
    let called = |index, arguments| Entry::Called {
        index,
        turn: 1,
        id: (index == 1).then(|| "call-1".into()),
        tool: "search".into(),
        arguments,
        refused: index == 2,
    };
    let question = Question {
        stage: Stage::Parameter,
        tool: Some("search".into()),
    };
    let answered = Entry::Answered {
        index: 1,
        tool: "search".into(),
        content: "two\nlines".into(),
    };
    let failed = Entry::Failed {
        index: 0,
        tool: "search".into(),
        error: "no".into(),
    };
    let steps = [
        (1, tokens(10, 5)),
        (1, DialogueStep::Rejected(rejected)),
        (1, DialogueStep::Asked),
        (2, DialogueStep::Asked),
        (2, tokens(u64::MAX, 1)),
        (2, DialogueStep::Question(question)),
        (2, DialogueStep::Entry(Entry::Said { text: "hm".into() })),
        (2, DialogueStep::Entry(called(0, Value::Null))),
        (
            2,
            DialogueStep::Entry(called(1, Value::from(serde_json::json!({"q": [1, 2.5]})))),
        ),
        (2, DialogueStep::Entry(called(2, Value::from("no JSON")))),
        (2, DialogueStep::Retried { index: 0 }),
        (2, DialogueStep::Entry(answered)),
        (2, DialogueStep::Entry(failed)),
        (2, DialogueStep::Failure),
        (2, DialogueStep::Entry(Entry::SystemError { error: "what?".into() })),
        (2, DialogueStep::Question(Stage::Turn.into())),
        (2, DialogueStep::Asked),
        (2, DialogueStep::Lost),
    ];
    for (run, change) in steps {
        writer.commit(vec![step(run, change)]).await?;
    }
    writer.verify("after questions, replies and calls of tools").await?;
    writer.commit(vec![finished(1)]).await?;
    writer.verify("after one of them is over").await
}

/// Statuses and failures.
pub async fn statuses(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let mut writer = Writer::with_children(&backends, "statuses", 1).await?;
    let failure = |node: Option<&str>, limit: Option<&str>| {
        Some(Arc::new(Failure {
            message: "it \"broke\"\nbadly".to_owned(),
            node: node.map(Arc::from),
            limit: limit.map(Arc::from),
        }))
    };
    let steps = [
        (Status::Prepared, None),
        (Status::Running, None),
        (Status::Failed, failure(Some("summarize"), None)),
        (Status::Running, None),
        (Status::Failed, failure(None, Some("llm_calls"))),
        (Status::Suspended, failure(None, None)),
        (Status::Rested, None),
        (Status::Cancelled, failure(Some(""), None)),
    ];
    for (status, failure) in steps {
        let change = ExecutionChange::Status {
            status,
            at: time(2),
            failure,
        };
        writer.commit(vec![at(0, change.clone()), at(1, change)]).await?;
        writer.verify(&format!("with status {status}")).await?;
    }
    Ok(())
}

/// Limits of every kind.
pub async fn limits(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let mut writer = Writer::create(&backends, "limits").await?;
    let limits = Limits {
        broadcasts: u64::from(u32::MAX) + 1,
        llm_calls: Some(0),
        tokens: Some(i64::MAX as u64),
        active_time: Some(Duration::new(3600, 1)),
        ..Limits::default()
    };
    for limits in [limits, Limits::default()] {
        writer.commit(vec![Change::Limits(Arc::new(limits))]).await?;
        writer.verify("with other limits").await?;
    }
    Ok(())
}

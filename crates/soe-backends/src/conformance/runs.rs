//! Checks of what a state says of work that is not done: runs, snapshots, stack, pending batches, status, limits.

use std::sync::Arc;
use std::time::Duration;

use super::fixture::{Must, Writer, appended, broadcast, dispatched, frame, id, time};
use super::{Factory, Finding, Outcome, ensure};
use crate::{
    Answer, Backends, Change, Context, Dialogue, DialogueStep, Entry, ExecutionState, Failure, Limits, Progress,
    Question, Rejected, Run, Stage, Status, Usage, Value,
};

/// Contexts of runs in flight.
pub async fn snapshots(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let mut writer = Writer::create(&backends, "snapshots").await?;
    writer
        .commit(vec![
            broadcast(&["GO"]),
            appended("a", 1_i64),
            dispatched(1, 2),
            dispatched(2, 2),
        ])
        .await?;
    let second = load(&backends, &writer).await?.context;
    writer
        .commit(vec![appended("a", 2_i64), appended("b", "new"), dispatched(3, 3)])
        .await?;
    let third = load(&backends, &writer).await?.context;
    for number in 4..20_u64 {
        writer
            .commit(vec![appended("a", number), broadcast(&["AGAIN"])])
            .await?;
    }
    writer.verify("with runs in flight").await?;
    kept(&backends, &writer, &[(2, &second), (3, &third)]).await?;
    ensure!(
        second.value("b").is_none() && third.value("a") == Some(&Value::from(2_i64)),
        "a held context changed"
    );

    writer.commit(vec![Change::Finished { run: 2 }]).await?;
    kept(&backends, &writer, &[(2, &second), (3, &third)]).await?;
    writer
        .commit(vec![Change::Finished { run: 1 }, appended("a", Value::Null)])
        .await?;
    kept(&backends, &writer, &[(3, &third)]).await?;
    writer.commit(vec![Change::Finished { run: 3 }]).await?;
    kept(&backends, &writer, &[]).await?;
    writer.verify("after the last run").await
}

async fn load(backends: &Backends, writer: &Writer<'_>) -> Result<ExecutionState, Finding> {
    let state = backends.context().load(&writer.id).await.must("loading")?;
    state.ok_or_else(|| Finding::Violated("the execution is missing".to_owned()))
}

async fn kept(backends: &Backends, writer: &Writer<'_>, expected: &[(u64, &Context)]) -> Outcome {
    let state = load(backends, writer).await?;
    let (found, wanted): (Vec<_>, Vec<_>) = (
        state.snapshots.keys().collect(),
        expected.iter().map(|(v, _)| v).collect(),
    );
    ensure!(
        found == wanted,
        "there are contexts of the commits {found:?} instead of {wanted:?}"
    );
    for (version, context) in expected {
        let same = state
            .snapshots
            .get(version)
            .is_some_and(|kept| kept.as_ref() == *context);
        ensure!(
            same,
            "the context of commit {version} is not as it was then: {:?}",
            state.snapshots.get(version)
        );
    }
    Ok(())
}

/// Progress of runs.
pub async fn progress(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let mut writer = Writer::create(&backends, "progress").await?;
    writer
        .commit((1..=30).map(|number| dispatched(number, 2)).collect())
        .await?;
    writer.verify("with 30 runs in flight").await?;
    for attempt in 2..5 {
        writer
            .commit(vec![
                Change::Progressed {
                    run: 7,
                    progress: Progress::Tool { attempt },
                },
                Change::Error,
            ])
            .await?;
    }
    writer
        .commit(
            (1..=29)
                .filter(|run| *run != 7)
                .map(|run| Change::Finished { run })
                .collect(),
        )
        .await?;
    writer.verify("after three attempts").await
}

/// Answers of built-in tools.
pub async fn answers(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let mut writer = Writer::create(&backends, "answers").await?;
    let answered = |execution: Option<&str>, run, index| {
        Change::Answered(Arc::new(Answer {
            execution: execution.map(id),
            run,
            index,
            value: Value::map([("status", "updated")].map(|(key, value)| (key, Value::from(value)))),
        }))
    };
    writer
        .commit(vec![
            appended("a", 1_i64),
            appended("a", 2_i64),
            dispatched(1, 2),
            dispatched(2, 2),
        ])
        .await?;
    writer
        .commit(vec![
            answered(None, 1, None),
            answered(None, 2, Some(3)),
            Change::ToolCalled,
        ])
        .await?;
    let foreign = (0..70).map(|run| answered(Some("a-child"), run, None));
    writer.commit(foreign.collect()).await?;
    writer.verify("with answers").await?;
    let history = [Value::Null, Value::from("copied")].into_iter().collect();
    let replaced = Change::Replaced {
        field: "a".into(),
        history,
        before: 2 * Value::from(1_i64).size(),
        size: 60,
    };
    writer.commit(vec![Change::Finished { run: 1 }, replaced]).await?;
    writer.verify("after a run and a copied field").await
}

/// What runs have asked, and what was answered.
pub async fn dialogues(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let mut writer = Writer::create(&backends, "dialogues").await?;
    let begin = |number, progress| match dispatched(number, 2) {
        Change::Dispatched(run) => Change::Dispatched(Arc::new(Run {
            progress,
            ..run.as_ref().clone()
        })),
        other => other,
    };
    let step = |run, step| Change::Dialogue { run, step };
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
    let turn = super::conversations::turn;
    let turns = vec![turn("first", Some("a:1/0")), turn("second", Some("a:1/1"))];
    writer.commit(vec![Change::Turns(turns)]).await?;
    writer.verify("with turns on their way").await?;
    writer.commit(vec![Change::TurnsStored(1)]).await?;
    writer.verify("with one turn on its way").await?;
    writer.commit(vec![Change::Finished { run: 1 }]).await?;
    writer.verify("after one of them is over").await
}

/// The rest of a cascade.
pub async fn stack_and_pending(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let mut writer = Writer::create(&backends, "stack").await?;
    let accepted = |signals: &[&str]| Change::Accepted(signals.iter().map(|signal| Arc::from(*signal)).collect());
    writer
        .commit(vec![
            Change::Stack {
                kept: 0,
                frames: vec![frame(1), frame(0), frame(7)],
            },
            accepted(&["X", "Y"]),
            accepted(&[]),
        ])
        .await?;
    writer.commit(vec![accepted(&["Z"])]).await?;
    writer.verify("with a stack and accepted batches").await?;
    writer
        .commit(vec![
            Change::TakenUp,
            Change::Stack {
                kept: 0,
                frames: vec![frame(3)],
            },
        ])
        .await?;
    writer.verify("after a batch was taken up").await?;
    writer
        .commit(vec![
            Change::TakenUp,
            Change::TakenUp,
            Change::Stack {
                kept: 0,
                frames: Vec::new(),
            },
        ])
        .await?;
    writer.verify("when nothing is left").await
}

/// Statuses and failures.
pub async fn statuses(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let mut writer = Writer::create(&backends, "statuses").await?;
    let failure = |node: Option<&str>, limit: Option<&str>| {
        Some(Failure {
            message: "it \"broke\"\nbadly".to_owned(),
            node: node.map(Arc::from),
            limit: limit.map(Arc::from),
        })
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
        writer
            .commit(vec![Change::Status {
                status,
                at: time(2),
                failure,
            }])
            .await?;
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

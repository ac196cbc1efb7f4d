//! Checks of the inbox of a tree: messages from anybody, whoever runs it.

use std::sync::Arc;

use super::fixture::{Must, Writer, appended, commit, created, guard, id, must_conflict, of, owned, time};
use super::{Factory, Finding, Outcome, ensure};
use crate::{Backends, Change, Definitions, Deletion, ExecutionId, Limits, Message, Post, Posted, Request, Value};

pub(super) fn message(tree: &ExecutionId, name: &str, request: Request) -> Message {
    Message {
        id: name.into(),
        at: time(3),
        execution: tree.clone(),
        request,
    }
}

pub(super) fn signal(tree: &ExecutionId, name: &str) -> Message {
    message(
        tree,
        name,
        Request::Signal([Arc::from("GO"), Arc::from("ü\u{0}")].into()),
    )
}

/// Posts a message that is new, and gives its place.
pub(super) async fn post(backends: &Backends, tree: &ExecutionId, message: &Message) -> Result<u64, Finding> {
    match backends.context().post(tree, message).await.must("posting")? {
        Post::Stored(seq) => Ok(seq),
        other => Err(Finding::Violated(format!(
            "posting the new message {} gives {other:?}",
            message.id
        ))),
    }
}

async fn inbox(backends: &Backends, tree: &ExecutionId) -> Result<Vec<Posted>, Finding> {
    backends
        .context()
        .inbox(tree, 0, usize::MAX)
        .await
        .must("reading an inbox")
}

async fn holds(backends: &Backends, tree: &ExecutionId, expected: &[Posted], when: &str) -> Outcome {
    let found = inbox(backends, tree).await?;
    ensure!(
        found == expected,
        "{when} the inbox has {found:?} instead of {expected:?}"
    );
    Ok(())
}

/// Messages of each kind, and what each post answers.
pub async fn posted(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let writer = Writer::with_children(&backends, "posted", 1).await?;
    let (tree, child) = (&writer.id, writer.id.child(&writer.id, 1, 0, 1));
    let limits = Limits {
        tokens: Some(9),
        ..Limits::default()
    };
    let definitions = Definitions {
        identities: [("zeta".into(), "a".into()), ("alpha".into(), "".into())].into(),
        context_schema: [("a".into(), Value::Null)].into(),
    };
    let requests = [
        Request::Signal([].into()),
        Request::Cancel,
        Request::Resume { limits: None },
        Request::Resume {
            limits: Some(limits.into()),
        },
        Request::Define(definitions.into()),
    ];
    let mut messages = vec![
        signal(tree, "first"),
        signal(&child, "text ü\u{1f600} with 'quotes'/.."),
        signal(tree, ""),
    ];
    let named = requests.into_iter().enumerate();
    messages.extend(named.map(|(number, request)| message(&child, &format!("request-{number}"), request)));
    let mut expected: Vec<Posted> = Vec::new();
    for message in messages {
        let seq = post(&backends, tree, &message).await?;
        let last = expected.last().map_or(0, |posted| posted.seq);
        ensure!(seq > last, "after place {last}, a message gets place {seq}");
        expected.push(Posted { seq, message });
        holds(&backends, tree, &expected, "after posting").await?;
    }
    for posted in &expected {
        // The id decides, not what else it says.
        let again = message(tree, &posted.message.id, Request::Cancel);
        let answer = backends.context().post(tree, &again).await.must("posting again")?;
        ensure!(
            answer == Post::Duplicate(posted.seq),
            "posting {} again gives {answer:?}, it is at {}",
            posted.message.id,
            posted.seq
        );
    }
    holds(&backends, tree, &expected, "after posting all again").await?;
    parts(&backends, tree, &expected).await?;
    writer.verify("after messages were posted").await
}

/// Parts of an inbox.
async fn parts(backends: &Backends, tree: &ExecutionId, all: &[Posted]) -> Outcome {
    let (first, last) = (all[0].seq, all[all.len() - 1].seq);
    for after in [0, first, first + 1, last - 1, last, last + 1, u64::MAX] {
        for limit in [0, 1, 3, usize::MAX] {
            let found = backends
                .context()
                .inbox(tree, after, limit)
                .await
                .must("reading an inbox")?;
            let later = all.iter().filter(|posted| posted.seq > after);
            let expected: Vec<_> = later.take(limit).cloned().collect();
            ensure!(
                found == expected,
                "asked for {limit} messages after {after}, it gives {found:?} instead of {expected:?}"
            );
        }
    }
    Ok(())
}

/// Taking messages.
pub async fn taken(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let mut writer = Writer::create(&backends, "taken").await?;
    let tree = writer.id.clone();
    let mut left = Vec::new();
    for number in 0..6 {
        let message = signal(&tree, &format!("m-{number}"));
        let seq = post(&backends, &tree, &message).await?;
        left.push(Posted { seq, message });
    }
    for (count, gives_after) in [(1, true), (2, false), (1, true)] {
        writer.gives_after = Some(gives_after);
        let taken: Vec<_> = left.drain(..count).collect();
        let last = taken[count - 1].seq;
        // A commit that is refused takes nothing.
        let mut stale = writer.next(vec![Change::Taken(last), appended("a", last)]);
        stale.fence += 1;
        must_conflict(
            backends.commit(vec![stale], None).await,
            &tree,
            "a commit under another fence",
        )?;
        let all: Vec<_> = taken.iter().chain(&left).cloned().collect();
        holds(&backends, &tree, &all, "after a refused commit").await?;

        writer.commit(vec![appended("a", last), Change::Taken(last)]).await?;
        holds(&backends, &tree, &left, "after a commit that takes").await?;
        writer.verify("after a commit that takes").await?;
        for posted in &taken {
            let answer = backends
                .context()
                .post(&tree, &posted.message)
                .await
                .must("posting again")?;
            ensure!(
                answer == Post::Duplicate(posted.seq),
                "posting {} again, which was taken from {}, gives {answer:?}",
                posted.message.id,
                posted.seq
            );
        }
        holds(&backends, &tree, &left, "after posting again what was taken").await?;
    }
    writer.commit(vec![appended("a", "nothing taken")]).await?;
    holds(&backends, &tree, &left, "after a commit that takes nothing").await?;
    let message = signal(&tree, "later");
    let seq = post(&backends, &tree, &message).await?;
    left.push(Posted { seq, message });
    holds(&backends, &tree, &left, "after posting another").await?;
    writer.commit(vec![Change::Taken(seq)]).await?;
    holds(&backends, &tree, &[], "after all were taken").await?;
    let seq_after = post(&backends, &tree, &signal(&tree, "last")).await?;
    ensure!(
        seq_after > seq,
        "after place {seq} was taken, a message gets place {seq_after}"
    );
    Ok(())
}

/// Ids of messages that were taken long ago.
pub async fn remembered(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let mut writer = Writer::create(&backends, "remembered").await?;
    let tree = writer.id.clone();
    let mut places = Vec::new();
    for number in 0..100 {
        places.push(post(&backends, &tree, &signal(&tree, &format!("m-{number}"))).await?);
    }
    writer.commit(vec![Change::Taken(places[49])]).await?;
    for version in 0..10_u64 {
        writer.commit(vec![appended("n", version)]).await?;
    }
    writer.commit(vec![Change::Taken(places[99])]).await?;
    for (number, place) in places.iter().enumerate() {
        let again = signal(&tree, &format!("m-{number}"));
        let answer = backends.context().post(&tree, &again).await.must("posting again")?;
        ensure!(
            answer == Post::Duplicate(*place),
            "message {number} of 100 that were taken is forgotten: {answer:?}"
        );
    }
    holds(&backends, &tree, &[], "after all were posted again").await
}

/// Posting between commits.
pub async fn undisturbed(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let mut writer = Writer::with_children(&backends, "undisturbed", 2).await?;
    let tree = writer.id.clone();
    writer.commit(vec![owned("engine", 3)]).await?;
    for number in 0..5_u64 {
        // Computed before, stored after a message came.
        let computed = writer.next(vec![of(1, appended("n", number))]);
        post(&backends, &tree, &signal(&tree, &format!("m-{number}"))).await?;
        writer.verify("after a message came").await?;
        writer.store(vec![computed]).await?;
        writer.verify("after a commit that a message came before").await?;
    }
    let found = inbox(&backends, &tree).await?;
    ensure!(found.len() == 5, "5 messages beside commits left {}", found.len());
    Ok(())
}

/// The trees that have messages.
pub async fn waiting(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    lists(&backends, &[], "when nothing is stored").await?;
    let mut writers = Vec::new();
    for name in ["b", "a", "a.1", "c"] {
        writers.push(Writer::create(&backends, name).await?);
    }
    lists(&backends, &[], "before anything was posted").await?;
    let (mut last, ids) = (Vec::new(), [id("b"), id("a"), id("a.1")]);
    for name in &ids {
        post(&backends, name, &signal(name, "one")).await?;
        last.push(post(&backends, name, &signal(name, "two")).await?);
    }
    lists(&backends, &ids, "after messages to three trees").await?;
    for limit in [0, 1, 2] {
        let found = backends.context().waiting(limit).await.must("listing what waits")?;
        let known = found.iter().all(|tree| ids.contains(tree));
        ensure!(
            known && found.len() == limit,
            "asked for {limit} trees with messages, it gives {found:?}"
        );
    }
    writers[0].commit(vec![Change::Taken(last[0])]).await?;
    writers[1]
        .commit(vec![Change::Taken(last[1] - 1), appended("a", 1_i64)])
        .await?;
    lists(
        &backends,
        &ids[1..],
        "after all messages of one were taken, and one of another",
    )
    .await?;
    // A message that was taken doesn't wait again.
    let again = backends.context().post(&ids[0], &signal(&ids[0], "two")).await;
    again.must("posting again")?;
    lists(&backends, &ids[1..], "after a taken message was posted again").await?;
    writers[1].commit(vec![Change::Taken(last[1])]).await?;
    writers[2].commit(vec![Change::Taken(last[2])]).await?;
    lists(&backends, &[], "after all were taken").await?;
    writers[1].delete().await?;
    post(&backends, &ids[0], &signal(&ids[0], "three")).await?;
    lists(&backends, &ids[..1], "after another message").await
}

async fn lists(backends: &Backends, expected: &[ExecutionId], when: &str) -> Outcome {
    let mut found = backends
        .context()
        .waiting(usize::MAX)
        .await
        .must("listing what waits")?;
    let mut expected = expected.to_vec();
    found.sort_unstable();
    expected.sort_unstable();
    ensure!(
        found == expected,
        "{when}, {found:?} have messages instead of {expected:?}"
    );
    Ok(())
}

/// Deleting with and without messages.
pub async fn deleted(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let mut writer = Writer::create(&backends, "deleted").await?;
    let tree = writer.id.clone();
    let seq = post(&backends, &tree, &signal(&tree, "m")).await?;
    let Some(state) = writer.state.clone() else {
        return Ok(());
    };
    let deletion = backends.delete(&tree, guard(&state)).await.must("deleting")?;
    ensure!(
        deletion == Deletion::Changed,
        "a tree is deleted though a message waits: {deletion:?}"
    );
    writer.verify("after it couldn't be deleted").await?;
    ensure!(
        inbox(&backends, &tree).await?.len() == 1,
        "a message is gone with a tree that wasn't deleted"
    );
    writer.commit(vec![Change::Taken(seq)]).await?;
    writer.delete().await?;
    holds(&backends, &tree, &[], "after deleting").await?;
    let answer = backends
        .context()
        .post(&tree, &signal(&tree, "m"))
        .await
        .must("posting")?;
    ensure!(answer == Post::NoSuchTree, "posting to a deleted tree gives {answer:?}");
    // A tree of the same name knows nothing of the messages of the one before.
    let creation = commit(&tree, 1, vec![created(&tree)]);
    backends.commit(vec![creation], None).await.must("creating it anew")?;
    holds(&backends, &tree, &[], "of a tree that was created anew").await?;
    let message = signal(&tree, "m");
    let seq = post(&backends, &tree, &message).await?;
    holds(
        &backends,
        &tree,
        &[Posted { seq, message }],
        "of a tree that was created anew",
    )
    .await
}

/// Trees with similar names.
pub async fn isolated(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let names = ["t", "t.1", "t.1x", "t.1.0x", "T"].map(id);
    for name in &names {
        Writer::create(&backends, name.as_str()).await?;
    }
    let mut expected = Vec::new();
    for name in &names {
        let message = signal(name, "the-same-id");
        let seq = post(&backends, name, &message).await?;
        expected.push(Posted { seq, message });
    }
    for (name, posted) in names.iter().zip(&expected) {
        holds(
            &backends,
            name,
            std::slice::from_ref(posted),
            "beside trees with similar names",
        )
        .await?;
    }
    Ok(())
}

/// After a restart.
pub async fn survives(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let mut writer = Writer::create(&backends, "posted").await?;
    let tree = writer.id.clone();
    let first = post(&backends, &tree, &signal(&tree, "first")).await?;
    let message = signal(&tree, "second");
    let seq = post(&backends, &tree, &message).await?;
    writer.commit(vec![Change::Taken(first)]).await?;
    let state = writer.state;
    let Some(backends) = factory.reopen(backends).await else {
        return Err(Finding::Skipped("the factory can't re-open a store"));
    };
    holds(&backends, &tree, &[Posted { seq, message }], "after re-opening").await?;
    for (name, place) in [("first", first), ("second", seq)] {
        let answer = backends
            .context()
            .post(&tree, &signal(&tree, name))
            .await
            .must("posting again")?;
        ensure!(
            answer == Post::Duplicate(place),
            "after re-opening, posting again gives {answer:?}"
        );
    }
    lists(&backends, std::slice::from_ref(&tree), "after re-opening").await?;
    let later = post(&backends, &tree, &signal(&tree, "third")).await?;
    ensure!(
        later > seq,
        "after re-opening, a message gets place {later} behind {seq}"
    );
    let mut writer = Writer::new(&backends, tree.as_str());
    writer.state = state;
    writer.verify("after messages to a re-opened store").await
}

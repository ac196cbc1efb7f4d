//! Checks of what values a store keeps as they are.

use super::fixture::{Writer, appended, at, broadcast, field, genesis, of, stack, started};
use super::{Factory, Outcome};
use crate::{Change, ExecutionChange, Value};

/// Text of every kind.
pub async fn unicode(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let control: String = (0_u32..0x20).chain(0x7f..0xa0).filter_map(char::from_u32).collect();
    let texts = [
        "Grüße aus Köln",
        "日本語テキスト",
        "مرحبا",
        "🦀👩‍👩‍👧",
        "e\u{301} is not é",
        "\u{2028}\u{2029}\u{feff}\u{fffd}\u{10ffff}",
        "\"quoted\" \\ and \\u0000 'too'",
        "$1 {{ context.x }} %s '; DROP TABLE executions; --",
        "\0",
        control.as_str(),
    ];
    let mut writer = Writer::new(&backends, "unicode");
    let mut genesis = genesis(&writer.id);
    genesis.root.workflow = texts.concat().into();
    genesis.root.fields = texts.iter().map(|text| field(text, [Value::from(*text)])).collect();
    let child = started(&writer.id, 1);
    writer.commit(vec![Change::Created(Box::new(genesis)), child]).await?;
    for text in texts {
        let nested = Value::map([(text, Value::list([Value::from(text)]))]);
        let changes = vec![
            of(1, appended(text, nested.clone())),
            appended(text, nested),
            broadcast(&[text]),
            at(0, ExecutionChange::Routed { node: text.into() }),
        ];
        writer.commit(changes).await?;
    }
    writer.verify("with text of every kind").await
}

/// Numbers at the edges.
pub async fn numbers(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let mut writer = Writer::create(&backends, "numbers").await?;
    let floats = [
        0.1 + 0.2,
        1.0,
        -1.5e-300,
        f64::MAX,
        f64::MIN_POSITIVE,
        5e-324,
        1e21,
        123_456_789.123_456_78,
        1.0 / 3.0,
    ];
    let integers = [0, 1, -1, i64::MIN, i64::MAX, (1 << 53) + 1];
    let mut changes: Vec<_> = floats.iter().map(|number| appended("floats", *number)).collect();
    changes.extend(integers.iter().map(|number| appended("integers", *number)));
    changes.push(appended("unsigned", u64::MAX));
    changes.push(appended("unsigned", i64::MAX as u64 + 1));
    changes.push(appended("booleans", true));
    changes.push(appended("texts", "1"));
    writer.commit(changes).await?;
    writer.verify("with numbers at the edges").await
}

/// Much of everything.
pub async fn large(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let mut writer = Writer::create(&backends, "large").await?;
    writer
        .commit(vec![appended("text", "0123456789".repeat(1_000_000))])
        .await?;
    let nested = (0..100).fold(Value::from(1_i64), |inner, depth| match depth % 2 {
        0 => Value::list([inner]),
        _ => Value::map([("inner", inner)]),
    });
    writer.commit(vec![appended("nested", nested)]).await?;
    let many = (0..10_000_u64)
        .map(|n| appended(&format!("field_{}", n % 500), n))
        .collect();
    writer.commit(many).await?;
    let wide = Value::map((0..5_000_u64).map(|n| (format!("key_{}", n * 7919 % 5000), Value::from(n))));
    writer.commit(vec![appended("wide", wide)]).await?;
    writer.verify("with large values").await
}

/// Nothing, in every place where it can be.
pub async fn empty(factory: &dyn Factory) -> Outcome {
    let backends = factory.fresh().await;
    let mut writer = Writer::new(&backends, "empty");
    let mut genesis = genesis(&writer.id);
    genesis.root.fields = vec![field("nothing_yet", []), field("", [])];
    writer.commit(vec![Change::Created(Box::new(genesis))]).await?;
    writer.verify("with empty histories").await?;
    let none: [(&str, Value); 0] = [];
    let values = [Value::from(""), Value::list([]), Value::map(none), Value::Null];
    writer
        .commit(values.iter().map(|value| appended("", value.clone())).collect())
        .await?;
    writer.commit(Vec::new()).await?;
    writer
        .commit(vec![broadcast(&[]), broadcast(&[""]), stack(Vec::new())])
        .await?;
    writer.verify("with empty values, batches and commits").await
}

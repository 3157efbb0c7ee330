//! The language of rules: what expressions come to, what is unknown and why, what is refused, and that it all ends.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the whole file is tests; the lint knows test functions only")]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evaluator::condition::{Bucket, CompileError, Evaluation, Expression, Names, Scene, Wanted};
use evaluator::json::Json;
use evaluator::record::Record;
use evaluator::rule::{Instance, Outcome, Rule};
use proptest::prelude::*;
use serde_json::{Value, json};

/// What an expression comes to over these fields of `ext`, or why it comes to nothing.
fn over(ext: &str, source: &str) -> Result<Value, String> {
    let expression =
        Expression::compile(source, &Names::default()).unwrap_or_else(|e| panic!("{source}: {}", e.message));
    let ext = Json::parse(ext).unwrap();
    let params = Json::from(&json!({}));
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    let scene = Scene { raw: Bucket::Missing, ext: Bucket::There(&ext), com: Bucket::Missing, params: &params, now };
    let evaluation = Evaluation::new(scene, &[]);
    evaluation.value(&expression).map(|value| value.to_json()).map_err(|trouble| trouble.to_string())
}

const EXT: &str = r#"{
    "t": true, "f": false, "nil": null, "one": 1, "half": 0.5, "text": "abc", "empty": "", "list": [3, 1, 2],
    "names": ["b", "A", "a"], "nulls": ["a", null], "object": {"a": {"b": 1}, "n": null}, "version": "1.1",
    "when": "2025-12-01T00:00:00Z", "epoch": 1764547200, "big": 18446744073709551615, "disks": [{"n": "x", "e": true}, {"n": "y"}]
}"#;

#[track_caller]
fn is(source: &str, expected: Value) {
    assert_eq!(over(EXT, source), Ok(expected), "{source}");
}

#[track_caller]
fn unknown(source: &str, reason: &str) {
    assert_eq!(over(EXT, source), Err(reason.to_owned()), "{source}");
}

#[test]
fn values_and_operators() {
    for (source, expected) in [
        ("ext.one + 1 == 2 && ext.half * 2.0 == 1", json!(true)),
        ("7 / 2", json!(3)),
        ("7 % 2 + -1", json!(0)),
        ("7.0 / 2", json!(3.5)),
        ("ext.one == 1.0", json!(true)),
        ("ext.text + 'd'", json!("abcd")),
        ("ext.list + [4]", json!([3, 1, 2, 4])),
        ("ext.list[0] > ext.list[1] ? 'more' : 'less'", json!("more")),
        ("ext.object.a.b", json!(1)),
        ("ext['object']['a'].b", json!(1)),
        ("'abc' < 'abd'", json!(true)),
        ("2 in ext.list && !(5 in ext.list)", json!(true)),
        ("'a' in ext.object", json!(true)),
        ("[1, 2] == [1, 2.0] && {'a': 1} == {'a': 1}", json!(true)),
        ("{'x': ext.one, 'y': [ext.t]}", json!({"x": 1, "y": [true]})),
        ("ext.big > 1", json!(true)),
        ("size(ext.list) + ext.text.size() + size(ext.object)", json!(8)),
    ] {
        is(source, expected);
    }
}

#[test]
fn loops() {
    for (source, expected) in [
        ("ext.list.all(x, x > 0)", json!(true)),
        ("ext.list.exists(x, x > 2)", json!(true)),
        ("ext.list.exists_one(x, x > 2)", json!(true)),
        ("ext.list.filter(x, x > 1)", json!([3, 2])),
        ("ext.list.map(x, x * 2)", json!([6, 2, 4])),
        ("ext.list.map(x, x > 1, x * 2)", json!([6, 4])),
        ("ext.list.map(x, ext.list.filter(y, y < x).size())", json!([2, 0, 1])),
        ("ext.object.exists(name, name == 'a')", json!(true)),
        ("[].all(x, x > 0) && ![].exists(x, x > 0)", json!(true)),
        // One that decides is enough, as with && and ||.
        ("ext.disks.exists(d, d.e == true)", json!(true)),
        ("[1, 'a', 3].all(x, x > 2)", json!(false)),
    ] {
        is(source, expected);
    }
    unknown("ext.disks.all(d, d.e == true)", "d.e is missing");
    unknown("ext.nil.all(d, d > 1)", "ext.nil is null");
    unknown("ext.text.all(d, d > 1)", "ext.text is a text; a list is needed");
}

#[test]
fn missing_data_is_never_an_answer() {
    for (source, reason) in [
        ("ext.absent == false", "ext.absent is missing"),
        ("ext.absent != false", "ext.absent is missing"),
        ("ext.absent == null", "ext.absent is missing"),
        ("ext.absent.deeper == 1", "ext.absent is missing"),
        ("com.x == 1", "com is missing"),
        ("ext.nil == false", "ext.nil is null"),
        ("false == ext.nil", "ext.nil is null"),
        ("ext.nil != 'a'", "ext.nil is null"),
        ("ext.nil < 1", "ext.nil is null"),
        ("ext.nil.x == 1", "ext.nil is null"),
        ("!ext.nil", "ext.nil is null"),
        ("ext.nil ? 1 : 2", "ext.nil is null"),
        ("ext.nil in ['a']", "ext.nil is null"),
        ("'x' in ext.nil", "ext.nil is null"),
        ("'x' in ext.nulls", "ext.nulls holds null among its items"),
        ("size(ext.nil) > 0", "ext.nil is null"),
        ("ext.text == true", "ext.text is a text and is compared with a boolean"),
        ("1 == ext.text", "ext.text is a text and is compared with a number"),
        ("ext.text > 1", "ext.text is a text and is compared with a number"),
        ("ext.one && true", "ext.one is a number; a boolean is needed"),
        ("ext.list[9] == 1", "ext.list[9] is missing"),
        ("ext.object['zz'] == 1", "ext.object['zz'] is missing"),
        ("ext.?absent == 1", "ext.absent is an optional value; a plain value is needed"),
        ("1 / (ext.one - 1) == 1", "1 / (ext.one - 1) divides by zero"),
        ("9223372036854775807 + ext.one", "9223372036854775807 + ext.one is too large a number"),
        ("ext.one + ext.text", "ext.text is a text; a number is needed"),
        ("ext.object.n == 1", "ext.object.n is null"),
        ("version.lt(ext.nil, '1.2')", "ext.nil is null"),
        ("version.lt(ext.absent, '1.2')", "ext.absent is missing"),
        ("version.lt('newest', '1.2')", "'newest' is `newest`, which is not a version"),
        ("ext.?nil.orValue(1) == 1", "ext.nil is null"),
        ("lists.minus(ext.nulls, [])", "ext.nulls holds null among its texts"),
    ] {
        unknown(source, reason);
    }
    is("'a' in ext.nulls", json!(true));
}

#[test]
fn one_side_that_decides_is_enough() {
    for source in ["ext.f && ext.absent", "ext.absent && ext.f", "ext.nil == 1 && 1 == 2"] {
        is(source, json!(false));
    }
    for source in ["ext.t || ext.absent", "ext.absent || ext.t", "ext.nil == 1 || 1 == 1"] {
        is(source, json!(true));
    }
    unknown("ext.t && ext.absent", "ext.absent is missing");
    unknown("ext.absent || ext.f", "ext.absent is missing");
    unknown("ext.absent || ext.nil", "ext.absent is missing");
}

#[test]
fn a_rule_can_say_what_missing_and_null_mean() {
    for (source, expected) in [
        ("has(ext.absent)", json!(false)),
        ("has(ext.absent.deeper)", json!(false)),
        ("has(ext.nil)", json!(true)),
        ("has(ext.nil.deeper)", json!(false)),
        ("has(com.x)", json!(false)),
        ("is_set(ext.nil)", json!(false)),
        ("is_set(ext.absent.deeper)", json!(false)),
        ("is_set(ext.f)", json!(true)),
        ("ext.nil == null", json!(true)),
        ("ext.f != null", json!(true)),
        ("ext.?absent.orValue(false)", json!(false)),
        ("ext.?f.orValue(true)", json!(false)),
        ("ext.?absent.?deeper.orValue(7)", json!(7)),
        ("ext.?object.a.b.orValue(7)", json!(1)),
        ("ext.?nil.deeper.orValue(7)", json!(7)),
        ("ext.?absent.hasValue()", json!(false)),
        ("ext.?absent.or(ext.?one).orValue(2)", json!(1)),
        ("ext.list[?9].orValue(7)", json!(7)),
        ("com.?x.orValue(1)", json!(1)),
        ("ext.?absent.orValue(null) == null", json!(true)),
        ("[1, ?ext.?absent, ?ext.?one]", json!([1, 1])),
    ] {
        is(source, expected);
    }
}

#[test]
fn functions() {
    for (source, expected) in [
        ("ext.text.contains('b') && ext.text.startsWith('a') && ext.text.endsWith('c')", json!(true)),
        ("ext.text.matches('^[a-c]+$')", json!(true)),
        ("'a,b'.split(',').map(x, x.upperAscii()).join('-')", json!("A-B")),
        ("ext.list.sort()", json!([1, 2, 3])),
        ("[2, 1, 2].distinct()", json!([2, 1])),
        ("' x '.trim().replace('x', 'y')", json!("y")),
        ("int('5') + int(2.9) + int(ext.one)", json!(8)),
        ("double('1.5')", json!(1.5)),
        ("string(5) + string(true)", json!("5true")),
        ("version.lt(ext.version, '1.2') && version.ge('1.10', '1.2') && version.eq('TLS1_2', '1.2')", json!(true)),
        ("time.since(ext.when) == duration('31d') && time.since(ext.epoch) == duration('31d')", json!(true)),
        ("timestamp(ext.when) + duration('1d') < now", json!(true)),
        ("time.until(now + duration('1h')) > duration('30m')", json!(true)),
        ("text.same('Allow', 'allow') && text.among('X', ['x', 'y'])", json!(true)),
        ("text.listed(ext.names)", json!("b, A, and a")),
        ("text.last('/a/b/c', '/')", json!("c")),
        ("lists.minus(ext.names, ['A'])", json!(["a", "b"])),
        ("lists.minus_any_case(ext.names, ['A'])", json!(["b"])),
        ("lists.shared(ext.names, ['A', 'b', 'z'])", json!(["A", "b"])),
        ("lists.shared_any_case(ext.names, ['B'])", json!(["b"])),
        ("net.is_internet(['0.0.0.0/1', '128.0.0.0/1']) && !net.is_internet(['10.0.0.0/8'])", json!(true)),
        ("net.opened(['20-25', 3389], [22, 443, 3389])", json!([22, 3389])),
        (
            "[net.transport(6), net.transport('UDP'), net.transport('*'), net.transport('icmp')]",
            json!(["tcp", "udp", "all", "other"]),
        ),
        ("math.divides(3, 9) && !math.divides(3, 10) && math.divides(0.5, 2)", json!(true)),
    ] {
        is(source, expected);
    }
}

#[test]
fn what_is_no_expression_is_told_with_its_place() {
    let names = Names { params: &["ports".to_owned()], ..Names::default() };
    for (source, at, said) in [
        ("", 0, "empty"),
        ("ext.a ==", 7, "syntax error"),
        ("ext.a == 1 && exd.b", 14, "unknown name `exd`; did you mean `ext`?"),
        ("ext.a.contans('x')", 6, "unknown function `contans`; did you mean `contains`?"),
        ("version.lt(ext.a)", 8, "write `version.lt(one, other)`"),
        ("params.prots == 1", 7, "unknown parameter `prots`; did you mean `ports`?"),
        ("has(ext)", 0, "`has` asks for a field"),
        ("ext.a.matches('(')", 14, "the pattern is wrong"),
        ("ext.a.matches(ext.b)", 18, "is written as a text"),
        ("ext.list.all(ext, true)", 13, "has a meaning already"),
        ("b'abc' == ext.a", 0, "bytes are not supported"),
        ("Foo{a: 1}", 0, ""),
        ("x", 0, "unknown name `x`"),
    ] {
        let CompileError { message, at: found } = Expression::compile(source, &names).unwrap_err();
        assert!(message.contains(said), "{source}: {message}");
        assert!(found == at || said.is_empty() || said == "syntax error", "{source}: {message} at {found}");
    }
}

#[test]
fn what_is_read_of_raw_is_known_before_any_record_comes() {
    let reads = |source: &str| Expression::compile(source, &Names::default()).unwrap().reads().raw.clone();
    let fields = |names: &[&str]| Wanted::Fields(names.iter().map(|name| (*name).to_owned()).collect());
    assert_eq!(reads("ext.a == 1"), fields(&[]));
    assert_eq!(
        reads("raw.a.b == 1 && has(raw.c) && raw.?d.orValue(1) == 1 && raw['e'] == 1"),
        fields(&["a", "c", "d", "e"])
    );
    assert_eq!(reads("'x' in raw"), Wanted::All);
    assert_eq!(reads("raw[ext.name] == 1"), Wanted::All);
    assert_eq!(reads("[1].all(raw2, raw2 > 0)"), fields(&[]));
}

#[test]
fn every_evaluation_ends() {
    let many = format!("{{\"l\": [{}]}}", vec!["1"; 10_000].join(","));
    let begin = Instant::now();
    for source in [
        "ext.l.all(a, ext.l.all(b, ext.l.all(c, a + b + c > 0)))",
        "ext.l.map(a, ext.l).map(m, m.map(x, m)).size() > 0",
        "[ext.l].all(m, m.all(a, m.all(b, a in m)))",
        "ext.l.all(a, a in ext.l && ext.l.sort() == ext.l)",
        "ext.l.all(a, ext.l.all(b, false || ext.absent || ext.l.all(c, c > 0)))",
        "ext.l.map(a, 'x').join('yyyyyyyyyyyyyyyyyyy').split('x').map(p, ext.l.map(a, 'x').join(p)).size() > 0",
    ] {
        let said = over(&many, source);
        assert!(said.as_ref().is_err_and(|reason| reason.contains("more than 1000000 steps")), "{source}: {said:?}");
    }
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    let deep = |open: &str, close: &str, count: usize| format!("{}true{}", open.repeat(count), close.repeat(count));
    for source in [
        deep("(", ")", 10_000),
        deep("!(", ")", 10_000),
        deep("[", "]", 10_000),
        "!".repeat(15_000) + "true",
        "-".repeat(15_000) + "1",
        format!("ext{}", ".a".repeat(7_000)),
        format!("true{}", " && true".repeat(1_900)),
        format!("1{}", " + 1".repeat(3_900)),
        format!("true{}", " ? true : true".repeat(1_000)),
        format!("ext{}", "[0]".repeat(5_000)),
        "x".repeat(1 << 20),
        // As deep as is allowed.
        deep("(", ")", 19),
        deep("[", "]", 19),
        deep("size(", ")", 19),
        deep("ext.all(x, ", ")", 16),
        format!("ext{}", ".a".repeat(159)),
        format!("1{}", " + 1".repeat(159)),
        format!("true{}", " ? true : true".repeat(79)),
        format!("ext{}", "[0]".repeat(150)),
        format!("{}1{}", "(".repeat(15), " + 1)".repeat(15)),
    ] {
        // In a thread with the stack that the workers' threads have.
        let compiled = std::thread::Builder::new().stack_size(2 << 20).spawn(move || {
            let begin = Instant::now();
            let _ = Expression::compile(&source, &Names::default());
            assert!(begin.elapsed() < Duration::from_secs(20), "{}: {:?}", &source[..20], begin.elapsed());
        });
        compiled.unwrap().join().unwrap();
    }
}

// --- against the interpreter of the crate `cel` ----------------------------------------------------------------

/// The value that `cel` gives, if it gives one that JSON has.
fn reference(ext: &Value, source: &str) -> Option<Value> {
    let program = cel::Program::compile(source).ok()?;
    let mut context = cel::Context::default();
    context.add_variable("ext", cel_value(ext)).ok()?;
    plain(&program.execute(&context).ok()?)
}

fn cel_value(value: &Value) -> cel::Value {
    match value {
        Value::Null => cel::Value::Null,
        Value::Bool(flag) => (*flag).into(),
        Value::Number(number) => number.as_i64().map_or_else(|| number.as_f64().unwrap().into(), cel::Value::Int),
        Value::String(text) => text.clone().into(),
        Value::Array(items) => items.iter().map(cel_value).collect::<Vec<_>>().into(),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| (name.clone(), cel_value(value))).collect::<HashMap<_, _>>().into()
        }
    }
}

fn plain(value: &cel::Value) -> Option<Value> {
    Some(match value {
        cel::Value::Null => Value::Null,
        cel::Value::Bool(flag) => json!(flag),
        cel::Value::Int(number) => json!(number),
        cel::Value::Float(number) => json!(number),
        cel::Value::String(text) => json!(text.as_str()),
        cel::Value::List(items) => items.iter().map(plain).collect::<Option<Vec<_>>>()?.into(),
        _ => return None,
    })
}

fn source() -> impl Strategy<Value = String> {
    let atom = prop_oneof![
        Just("true".to_owned()),
        Just("false".to_owned()),
        Just("null".to_owned()),
        (-3_i64..4).prop_map(|n| n.to_string()),
        Just("0.5".to_owned()),
        Just("'a'".to_owned()),
        Just("'ab'".to_owned()),
        Just("ext.t".to_owned()),
        Just("ext.n".to_owned()),
        Just("ext.i".to_owned()),
        Just("ext.s".to_owned()),
        Just("ext.l".to_owned()),
        Just("ext.o.i".to_owned()),
        Just("ext.absent".to_owned()),
        Just("[1, 2]".to_owned()),
        Just("has(ext.t)".to_owned()),
        Just("has(ext.absent)".to_owned()),
        Just("ext.?i.orValue(3)".to_owned()),
        Just("ext.?absent.orValue(3)".to_owned()),
    ];
    atom.prop_recursive(4, 24, 3, |inner| {
        let operators = ["==", "!=", "<", "<=", ">", ">=", "&&", "||", "+", "-", "*", "/", "%", "in"];
        prop_oneof![
            (inner.clone(), proptest::sample::select(operators.to_vec()), inner.clone())
                .prop_map(|(one, operator, other)| format!("({one} {operator} {other})")),
            inner.clone().prop_map(|one| format!("!({one})")),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
            inner.clone().prop_map(|one| format!("size({one})")),
            (inner.clone(), inner.clone()).prop_map(|(one, body)| format!("({one}).exists(x, x == ({body}))")),
            (inner.clone(), inner.clone()).prop_map(|(one, body)| format!("({one}).all(x, x > ({body}))")),
            (inner.clone(), inner.clone()).prop_map(|(one, body)| format!("({one}).map(x, [x, {body}])")),
            (inner.clone(), inner).prop_map(|(one, other)| format!("({one}).contains({other})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Where ours has a value, it is CEL's. (Where CEL has one, ours may be unknown: that is the difference.)
    #[test]
    fn what_has_a_value_has_that_of_cel(source in source()) {
        let ext = json!({"t": true, "n": null, "i": 2, "s": "ab", "l": [1, 2, 3], "o": {"i": 7}});
        let Ok(expression) = Expression::compile(&source, &Names::default()) else {
            return Err(TestCaseError::fail(format!("{source} does not compile")));
        };
        let tree = Json::from(&ext);
        let params = Json::Null;
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let scene = Scene { raw: Bucket::Missing, ext: Bucket::There(&tree), com: Bucket::Missing, params: &params, now };
        let evaluation = Evaluation::new(scene, &[]);
        let ours = evaluation.value(&expression).ok().map(|value| value.to_json());
        if let (Some(ours), Some(theirs)) = (ours, reference(&ext, &source)) {
            prop_assert_eq!(ours, theirs, "{}", source);
        }
    }

    /// No text whatever makes the compiler panic.
    #[test]
    fn no_source_makes_the_compiler_panic(source in "[a-z.?\\[\\](){}0-9'\"&|!=<> ,+*/%:-]{0,60}|\\PC{0,40}") {
        if let Err(error) = Expression::compile(&source, &Names::default()) {
            prop_assert!(!error.message.is_empty());
        }
    }
}

// --- rules ---------------------------------------------------------------------------------------------------------

const RULE: &str = "id: x\ntitle: t t\nseverity: low\nremediation: Mend it.\napplies_to: {ext.record_type: x}\n\
    params: {n: {type: int, default: 3}, l: {type: list of string}}\n\
    let: {a: 'ext.?a.orValue(raw.b)', c: 'size(ext.l) + params.n'}\nwhen: 'ext.w != 5'\nevent_type: x_event\n\
    for_each: {d: ext.l}\nsub_key: d.k\nunknown_if: 'd.u == true'\nfail_if: 'd.e == a && c > 1'\n\
    description: '{{ cloud }} {{ resource }} {{ d.k }} {{ a }} {{ c | default(1) }}.'\nrecommendation: 'Mend {{ d }}.'\n\
    ext: {z: d.k}\ncom: {y: a}\nevidence: {v: ext}\n";

fn json_text() -> impl Strategy<Value = String> {
    let scalars = [
        "null",
        "true",
        "false",
        "0",
        "-1",
        "5",
        "1e300",
        "18446744073709551616",
        "\"\"",
        "\"a\"",
        "\"\\ud800\"",
        "\"\\u0000\"",
        "1e999",
        "{}",
        "[]",
    ];
    proptest::sample::select(scalars.map(str::to_owned).to_vec()).prop_recursive(4, 40, 6, |inner| {
        let names = proptest::sample::select(vec!["a", "b", "e", "k", "l", "u", "w", "record_type"]);
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(|items| format!("[{}]", items.join(","))),
            proptest::collection::vec((names, inner), 0..6).prop_map(|fields| {
                let fields: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
                format!("{{{}}}", fields.join(","))
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the record, a rule says something: events exactly when it fails, a reason when it is unknown.
    #[test]
    fn no_record_makes_a_rule_panic(l in json_text(), a in json_text(), raw in json_text(), com in json_text()) {
        static RULE_OF_TEST: std::sync::LazyLock<Arc<Rule>> =
            std::sync::LazyLock::new(|| Arc::new(Rule::parse("x.yaml", RULE).unwrap()));
        let rule = &*RULE_OF_TEST;
        let instance = Instance::new(rule, &Value::Null).unwrap();
        let texts = [
            format!(r#"{{"raw":{raw},"ext":{{"record_type":"x","w":1,"l":{l},"a":{a}}},"com":{{"reference":"r"}}}}"#),
            format!(r#"{{"raw":{raw},"ext":{{"record_type":"x","w":1,"l":[{l},{{"k":{a},"e":1,"u":false}}],"a":1}},"com":{com}}}"#),
            format!(r#"{{"raw":{raw},"ext":{a},"com":{com}}}"#),
        ];
        for text in &texts {
            let Ok(record) = Record::parse(text.as_bytes(), rule.raw_wanted()) else { continue };
            let judgement = instance.judge(&record, "2026-01-01T00:00:00Z".parse().unwrap());
            prop_assert_eq!(judgement.events.is_empty(), judgement.outcome != Outcome::Fail);
            if let Some(reason) = judgement.unknown() {
                prop_assert!(!reason.is_empty() && reason.len() < 2_000);
            }
            let _ = instance.explain(&record, "2026-01-01T00:00:00Z".parse().unwrap());
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever becomes of a rule file, the loader says what is wrong, or takes it.
    #[test]
    fn no_file_makes_the_loader_panic(at in 0_usize..1000, cut in 0_usize..20, new in "[ a-z0-9:{}\\[\\]'\"!&*|>\n\t#-]{0,8}|\\PC{0,4}") {
        let at = at % RULE.len();
        let end = (at + cut).min(RULE.len());
        let text = format!("{}{new}{}", &RULE[..at], &RULE[end..]);
        if let Err(error) = Rule::parse("x.yaml", &text) {
            prop_assert!(error.to_string().starts_with("x.yaml"));
        }
    }
}

#[test]
fn huge_values_are_nothing_special() {
    let rule = Arc::new(Rule::parse("x.yaml", RULE).unwrap());
    let instance = Instance::new(&rule, &Value::Null).unwrap();
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    let long = json!("x".repeat(1 << 20)).to_string();
    let many = |item: &str| format!("[{}]", vec![item; 10_000].join(","));
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    let begin = Instant::now();
    for value in
        [&long, &many("null"), &many(r#"{"k":"a","e":1,"u":false}"#), &many(&json!("y".repeat(50)).to_string()), &deep]
    {
        for text in [
            format!(r#"{{"raw":{{}},"ext":{{"record_type":"x","w":1,"l":{value},"a":1}},"com":{{"reference":"r"}}}}"#),
            format!(
                r#"{{"raw":{{"b":{value}}},"ext":{{"record_type":"x","w":{value},"l":[{{"k":{value}}}]}},"com":{{}}}}"#
            ),
            format!(r#"{{"raw":{value},"ext":{value},"com":{value}}}"#),
        ] {
            let record = Record::parse(text.as_bytes(), rule.raw_wanted()).unwrap();
            let judgement = instance.judge(&record, now);
            assert!(judgement.events.len() <= 1_000, "{}", judgement.events.len());
            assert!(judgement.unknown().is_none_or(|reason| reason.len() < 2_000));
        }
    }
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
}

#[test]
fn a_broken_rule_is_shown_with_a_caret() {
    let shown = |old: &str, new: &str| Rule::parse("my/rule.yaml", &RULE.replace(old, new)).unwrap_err().to_string();
    assert_eq!(
        shown("c > 1'", "cc > 1'"),
        "my/rule.yaml:13:23: unknown name `cc`; did you mean `c`? (allowed: raw, ext, com, params, now, a, c, d)\n\
         13 | fail_if: 'd.e == a && cc > 1'\n   |                       ^"
    );
    assert_eq!(
        shown("severity: low", "severity: hgih"),
        "my/rule.yaml:3:11: unknown severity `hgih`; did you mean `high`? (allowed: critical, high, medium, low, info)\n\
         3 | severity: hgih\n  |           ^"
    );
    assert!(shown("fail_if", "fial_if").contains("13:1: unknown key `fial_if`; did you mean `fail_if`?"));
    assert!(shown("d.k }}", "dd.k }}").contains("unknown name `dd`"));
    assert!(shown("Mend {{ d }}", "Mend {{ d }").contains(":15:"), "{}", shown("Mend {{ d }}", "Mend {{ d }"));
    assert!(shown("sub_key: d.k\n", "").contains("set `sub_key`, too"));
    assert!(shown("type: int", "type: integer").contains("there is no type `integer`"));
    assert!(shown("when: 'ext.w", "when: 'ext.w.matches(\"(\") && ext.w").contains("the pattern is wrong"));
    assert!(shown("title: t t\n", "").contains("set `title`") || shown("title: t t\n", "").contains("title"));
    assert!(shown("let: {a:", "let: {raw: 'ext.a', a:").contains("`raw` has a meaning already"));
    assert!(shown("ext: {z:", "ext: {record_type:").contains("every event has its own"));
    assert!(shown("id: x\n", "id: x\nid: y\n").contains("duplicate field"));
    assert!(shown("id: x", "id: X y").contains("small letters"));
}

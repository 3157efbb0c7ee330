//! The functions that expressions can call.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use super::evaluate::Evaluation;
use super::value::{Items, Trouble, Value, excerpt};
use crate::json::{Json, Object};
use crate::native::networks::{self, Coverage};
use crate::native::{firewall, ports, time, version};

/// A function of the language.
#[derive(Debug)]
pub struct Function {
    /// Its name: `contains`, `version.lt`.
    pub name: &'static str,
    /// How it is written.
    pub signature: &'static str,
    /// What it gives, in one line.
    pub about: &'static str,
    /// Whether it is called on a value: `text.contains('x')`.
    member: bool,
    /// The fewest and the most arguments, the value included.
    arguments: (usize, usize),
    pub(super) call: Call,
}

type Call = for<'e, 's> fn(&'e Evaluation<'s>, &'e [Argument<'s>]) -> Answer<'s>;
type Answer<'s> = Result<Value<'s>, Trouble>;

impl Function {
    pub(super) fn takes(&self, count: usize) -> bool {
        (self.arguments.0..=self.arguments.1).contains(&count)
    }
}

/// An argument, and the source that it came from.
#[derive(Debug)]
pub(super) struct Argument<'s> {
    pub(super) value: Value<'s>,
    pub(super) what: Arc<str>,
}

impl<'s> Argument<'s> {
    fn wrong(&self, wanted: &'static str) -> Trouble {
        let what = Arc::clone(&self.what);
        match &self.value {
            Value::Null => Trouble::Null(what),
            Value::Optional(None) => Trouble::Missing(what),
            other => Trouble::Kind { what, found: other.kind(), wanted },
        }
    }

    fn unclear(&self, found: &str, wanted: &'static str) -> Trouble {
        Trouble::Unclear { what: Arc::clone(&self.what), found: excerpt(found), wanted }
    }

    fn text(&self) -> Result<&str, Trouble> {
        match &self.value {
            Value::Text(text) => Ok(text),
            _ => Err(self.wrong("a text")),
        }
    }

    fn items(&self) -> Result<Items<'s>, Trouble> {
        self.value.items().ok_or_else(|| self.wrong("a list"))
    }

    /// A list of texts.
    fn texts(&self) -> Result<Vec<Cow<'s, str>>, Trouble> {
        let texts = self.items()?.map(|item| match item {
            Value::Text(text) => Ok(text),
            other => Err(Trouble::Other(format!("{} holds {} among its texts", self.what, other.kind()))),
        });
        texts.collect()
    }

    fn point(&self) -> Result<jiff::Timestamp, Trouble> {
        const WANTED: &str = "a point in time";
        match &self.value {
            Value::Time(time) => Ok(*time),
            Value::Text(text) => time::point(text).ok_or_else(|| self.unclear(text, WANTED)),
            Value::Int(seconds) => {
                time::epoch(*seconds as f64).ok_or_else(|| self.unclear(&seconds.to_string(), WANTED))
            }
            Value::Float(seconds) => time::epoch(*seconds).ok_or_else(|| self.unclear(&seconds.to_string(), WANTED)),
            _ => Err(self.wrong(WANTED)),
        }
    }

    fn version(&self) -> Result<version::Number, Trouble> {
        const WANTED: &str = "a version";
        let text = match &self.value {
            Value::Text(text) => text.clone(),
            Value::Int(number) => number.to_string().into(),
            Value::Float(number) => number.to_string().into(),
            _ => return Err(self.wrong(WANTED)),
        };
        version::parse(&text).ok_or_else(|| self.unclear(&text, WANTED))
    }

    fn ports(&self) -> Result<Vec<u16>, Trouble> {
        let port = |item: Value<'_>| match item {
            Value::Int(port) => u16::try_from(port).ok(),
            Value::Text(port) => port.parse().ok(),
            _ => None,
        };
        let mut ports = Vec::new();
        for item in self.items()? {
            let shown = item.to_json();
            ports.push(port(item).ok_or_else(|| self.unclear(&shown.to_string(), "a port"))?);
        }
        ports.sort_unstable();
        ports.dedup();
        Ok(ports)
    }
}

/// All functions, in the order of the guide.
#[must_use]
pub fn functions() -> &'static [Function] {
    FUNCTIONS
}

pub(super) fn find(name: &str, member: bool) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|function| function.name == name && function.member == member)
}

pub(super) fn names() -> impl Iterator<Item = &'static str> {
    let built_in = ["has", "is_set", "all", "exists", "exists_one", "filter", "map", "matches"];
    FUNCTIONS.iter().map(|function| function.name).chain(built_in)
}

pub(super) fn is_namespace(name: &str) -> bool {
    ["lists", "math", "net", "text", "time", "version"].contains(&name)
}

const fn member(
    name: &'static str,
    arguments: usize,
    signature: &'static str,
    about: &'static str,
    call: Call,
) -> Function {
    Function { name, signature, about, member: true, arguments: (arguments, arguments), call }
}

const fn global(
    name: &'static str,
    arguments: usize,
    signature: &'static str,
    about: &'static str,
    call: Call,
) -> Function {
    Function { name, signature, about, member: false, arguments: (arguments, arguments), call }
}

static FUNCTIONS: &[Function] = &[
    global("size", 1, "size(value)", "the length of a text, a list or an object", size),
    member("size", 1, "value.size()", "the same", size),
    member("contains", 2, "text.contains(part)", "whether the part stands in the text", |_, args| {
        Ok(Value::Bool(args[0].text()?.contains(args[1].text()?)))
    }),
    member("startsWith", 2, "text.startsWith(part)", "whether the text begins so", |_, args| {
        Ok(Value::Bool(args[0].text()?.starts_with(args[1].text()?)))
    }),
    member("endsWith", 2, "text.endsWith(part)", "whether the text ends so", |_, args| {
        Ok(Value::Bool(args[0].text()?.ends_with(args[1].text()?)))
    }),
    member("lowerAscii", 1, "text.lowerAscii()", "the text in lower case", |_, args| {
        Ok(Value::Text(args[0].text()?.to_ascii_lowercase().into()))
    }),
    member("upperAscii", 1, "text.upperAscii()", "the text in upper case", |_, args| {
        Ok(Value::Text(args[0].text()?.to_ascii_uppercase().into()))
    }),
    member("trim", 1, "text.trim()", "the text without white space at its ends", |_, args| {
        Ok(Value::Text(args[0].text()?.trim().to_owned().into()))
    }),
    member("split", 2, "text.split(separator)", "the parts between the separators", |evaluation, args| {
        let (text, separator) = (args[0].text()?, args[1].text()?);
        if separator.is_empty() {
            return Err(args[1].unclear(separator, "a separator"));
        }
        evaluation.spend(text.len())?;
        Ok(Value::texts(text.split(separator).map(|part| Cow::Owned(part.to_owned()))))
    }),
    member("replace", 3, "text.replace(old, new)", "the text with all of the old replaced", |evaluation, args| {
        let (text, old, new) = (args[0].text()?, args[1].text()?, args[2].text()?);
        evaluation.spend(text.len().saturating_mul(new.len().max(1)) / 16)?;
        Ok(Value::Text(text.replace(old, new).into()))
    }),
    Function {
        name: "join",
        signature: "list.join(separator)",
        about: "the texts as one",
        member: true,
        arguments: (1, 2),
        call: |evaluation, args| {
            let separator = args.get(1).map_or(Ok(""), Argument::text)?;
            let texts = args[0].texts()?;
            evaluation.spend(texts.len().saturating_mul(1 + separator.len() / 16))?;
            Ok(Value::Text(texts.join(separator).into()))
        },
    },
    member("sort", 1, "list.sort()", "the items in their order", |evaluation, args| {
        let mut items: Vec<Value<'_>> = args[0].items()?.collect();
        evaluation.spend(items.len().saturating_mul(4))?;
        if let Some(odd) = items.windows(2).find(|pair| pair[0].compare(&pair[1]).is_none()) {
            let message = format!("{} holds {} beside {}", args[0].what, odd[0].kind(), odd[1].kind());
            return Err(Trouble::Other(message));
        }
        items.sort_by(|one, other| one.compare(other).unwrap_or(Ordering::Equal));
        Ok(Value::Made(Rc::new(items)))
    }),
    member("distinct", 1, "list.distinct()", "the items, each once", |evaluation, args| {
        let mut kept: Vec<Value<'_>> = Vec::new();
        for item in args[0].items()? {
            evaluation.spend(1 + kept.len())?;
            if !kept.iter().any(|known| known.equals(&item) == Some(true)) {
                kept.push(item);
            }
        }
        Ok(Value::Made(Rc::new(kept)))
    }),
    member("orValue", 2, "ext.?name.orValue(other)", "the field, or the other value if it is missing", |_, args| {
        match &args[0].value {
            Value::Optional(Some(value)) => Ok((**value).clone()),
            Value::Optional(None) => Ok(args[1].value.clone()),
            _ => Err(args[0].wrong("an optional value (`.?`)")),
        }
    }),
    member("or", 2, "ext.?name.or(ext.?other)", "the first of the two that is there", |_, args| {
        match (&args[0].value, &args[1].value) {
            (Value::Optional(Some(_)), _) => Ok(args[0].value.clone()),
            (Value::Optional(None), Value::Optional(_)) => Ok(args[1].value.clone()),
            (Value::Optional(None), _) => Err(args[1].wrong("an optional value (`.?`)")),
            _ => Err(args[0].wrong("an optional value (`.?`)")),
        }
    }),
    member("hasValue", 1, "ext.?name.hasValue()", "whether the field is there", |_, args| match &args[0].value {
        Value::Optional(value) => Ok(Value::Bool(value.is_some())),
        _ => Err(args[0].wrong("an optional value (`.?`)")),
    }),
    global("string", 1, "string(value)", "a number, a boolean or a time as a text", |_, args| {
        Ok(Value::Text(match &args[0].value {
            Value::Text(text) => text.clone(),
            Value::Int(_) | Value::Float(_) | Value::Bool(_) => args[0].value.to_json().to_string().into(),
            Value::Time(time) => time.to_string().into(),
            Value::Duration(duration) => super::duration_text(*duration).into(),
            _ => return Err(args[0].wrong("a text, a number, a boolean or a time")),
        }))
    }),
    global("int", 1, "int(value)", "a text or a number as a whole number", |_, args| match &args[0].value {
        Value::Int(number) => Ok(Value::Int(*number)),
        Value::Float(number) if number.is_finite() && number.abs() < 9.2e18 => Ok(Value::Int(*number as i64)),
        Value::Text(text) => text.trim().parse().map(Value::Int).map_err(|_| args[0].unclear(text, "a whole number")),
        Value::Time(time) => Ok(Value::Int(time.as_second())),
        _ => Err(args[0].wrong("a number, or a text that is one")),
    }),
    global("double", 1, "double(value)", "a text or a number as a number", |_, args| match &args[0].value {
        Value::Int(number) => Ok(Value::Float(*number as f64)),
        Value::Float(number) => Ok(Value::Float(*number)),
        Value::Text(text) => {
            let number = text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
            number.map(Value::Float).ok_or_else(|| args[0].unclear(text, "a number"))
        }
        _ => Err(args[0].wrong("a number, or a text that is one")),
    }),
    global("timestamp", 1, "timestamp(value)", "a point in time of RFC 3339 text or epoch seconds", |_, args| {
        args[0].point().map(Value::Time)
    }),
    global("duration", 1, "duration(text)", "a length of time: `90d`, `1h 30m`, `P90D`", |_, args| {
        match &args[0].value {
            Value::Duration(duration) => Ok(Value::Duration(*duration)),
            _ => {
                let text = args[0].text()?;
                time::length(text).map(Value::Duration).ok_or_else(|| args[0].unclear(text, "a length of time"))
            }
        }
    }),
    global("time.since", 1, "time.since(point)", "how long ago it was, at the time of the run", |evaluation, args| {
        Ok(Value::Duration(evaluation.scene().now.duration_since(args[0].point()?)))
    }),
    global(
        "time.until",
        1,
        "time.until(point)",
        "how long it is until then, from the time of the run",
        |evaluation, args| Ok(Value::Duration(args[0].point()?.duration_since(evaluation.scene().now))),
    ),
    global("version.lt", 2, "version.lt(one, other)", "whether the one is older: `1.0`, `TLS1_2`", |_, args| {
        versions(args, Ordering::is_lt)
    }),
    global("version.le", 2, "version.le(one, other)", "whether it is older or the same", |_, args| {
        versions(args, Ordering::is_le)
    }),
    global("version.gt", 2, "version.gt(one, other)", "whether it is newer", |_, args| versions(args, Ordering::is_gt)),
    global("version.ge", 2, "version.ge(one, other)", "whether it is newer or the same", |_, args| {
        versions(args, Ordering::is_ge)
    }),
    global("version.eq", 2, "version.eq(one, other)", "whether they are the same: `1.2` and `TLS1_2`", |_, args| {
        versions(args, Ordering::is_eq)
    }),
    global("text.same", 2, "text.same(one, other)", "whether two texts are equal in any case of letters", |_, args| {
        Ok(Value::Bool(args[0].text()?.trim().eq_ignore_ascii_case(args[1].text()?.trim())))
    }),
    global(
        "text.among",
        2,
        "text.among(text, list)",
        "whether it is in a list in any case of letters",
        |evaluation, args| {
            let (text, list) = (args[0].text()?.trim(), args[1].texts()?);
            evaluation.spend(list.len())?;
            Ok(Value::Bool(list.iter().any(|item| item.trim().eq_ignore_ascii_case(text))))
        },
    ),
    global("text.listed", 1, "text.listed(list)", "the texts for people: `a, b, and c`", |_, args| {
        Ok(Value::Text(listed(&args[0].texts()?).into()))
    }),
    global("text.last", 2, "text.last(text, separator)", "what stands behind the last separator", |_, args| {
        let text = args[0].text()?;
        Ok(Value::Text(text.rsplit(args[1].text()?).next().unwrap_or(text).to_owned().into()))
    }),
    global(
        "lists.of",
        1,
        "lists.of(value)",
        "a list as it is, and anything else as a list of itself alone",
        |_, args| match &args[0].value {
            Value::Null | Value::Optional(None) => Err(args[0].wrong("a value")),
            value if value.items().is_some() => Ok(value.clone()),
            value => Ok(Value::Made(Rc::new(vec![value.clone()]))),
        },
    ),
    global(
        "lists.minus",
        2,
        "lists.minus(one, other)",
        "the texts of the one that are not in the other, sorted",
        |evaluation, args| differing(evaluation, args, false, false),
    ),
    global(
        "lists.minus_any_case",
        2,
        "lists.minus_any_case(one, other)",
        "the same in any case of letters",
        |evaluation, args| differing(evaluation, args, true, false),
    ),
    global("lists.shared", 2, "lists.shared(one, other)", "the texts that are in both, sorted", |evaluation, args| {
        differing(evaluation, args, false, true)
    }),
    global(
        "lists.shared_any_case",
        2,
        "lists.shared_any_case(one, other)",
        "the same in any case of letters",
        |evaluation, args| differing(evaluation, args, true, true),
    ),
    global(
        "net.is_internet",
        1,
        "net.is_internet(sources)",
        "whether addresses and networks together are the whole Internet",
        |evaluation, args| {
            let sources = match &args[0].value {
                Value::Text(text) => vec![text.clone()],
                _ => args[0].texts()?,
            };
            evaluation.spend(sources.len().saturating_mul(4))?;
            match networks::coverage(sources.iter().map(AsRef::as_ref)) {
                Coverage::Whole => Ok(Value::Bool(true)),
                Coverage::Part => Ok(Value::Bool(false)),
                Coverage::Unclear(source) => Err(args[0].unclear(source, "an address or a network")),
            }
        },
    ),
    global(
        "net.opened",
        2,
        "net.opened(tokens, ports)",
        "those of the ports that tokens such as `8000-8100` or `*` open, sorted",
        |evaluation, args| {
            let wanted = args[1].ports()?;
            let tokens = args[0].items()?;
            evaluation.spend(tokens.len().saturating_mul(4))?;
            let (mut ranges, mut unread) = (Vec::new(), None);
            for token in tokens {
                let range = match &token {
                    Value::Text(text) => ports::parse(text),
                    Value::Int(number) => ports::parse(&number.to_string()),
                    _ => None,
                };
                match range {
                    Some(range) => ranges.push(range),
                    None => unread = unread.or(Some(token)),
                }
            }
            let found = ports::within(&wanted, ranges);
            match unread {
                Some(token) if found.is_empty() => {
                    Err(args[0].unclear(&token.to_json().to_string(), "a list of ports"))
                }
                _ => Ok(numbers(&found)),
            }
        },
    ),
    global(
        "net.transport",
        1,
        "net.transport(protocol)",
        "`tcp`, `udp`, `all` or `other`, of a protocol's name or number",
        |_, args| {
            let text = match &args[0].value {
                Value::Int(number) => Cow::Owned(number.to_string()),
                _ => Cow::Borrowed(args[0].text()?),
            };
            let transport = firewall::transport(&text).ok_or_else(|| args[0].unclear(&text, "a protocol"))?;
            Ok(Value::Text(Cow::Borrowed(match transport {
                firewall::Transport::Every => "all",
                firewall::Transport::Tcp => "tcp",
                firewall::Transport::Udp => "udp",
                firewall::Transport::Neither => "other",
            })))
        },
    ),
    global(
        "net.exposes",
        2,
        "net.exposes(com, ports)",
        "those of the ports that a firewall rule opens to the whole Internet, sorted",
        |evaluation, args| exposed(evaluation, args, firewall::exposed),
    ),
    global(
        "net.exposes_udp",
        2,
        "net.exposes_udp(com, ports)",
        "the same over UDP alone, whether something is known to speak it on the ports or not",
        |evaluation, args| exposed(evaluation, args, firewall::exposed_udp),
    ),
    global("math.divides", 2, "math.divides(divisor, number)", "whether nothing remains", |_, args| {
        for arg in args {
            if !matches!(arg.value, Value::Int(_) | Value::Float(_)) {
                return Err(arg.wrong("a number"));
            }
        }
        match (&args[0].value, &args[1].value) {
            (Value::Int(n), Value::Int(number)) => match number.checked_rem(*n) {
                Some(rest) => Ok(Value::Bool(rest == 0)),
                None => Ok(Value::Bool(*n == -1)),
            },
            (Value::Int(n), Value::Float(number)) => Ok(Value::Bool(number % (*n as f64) == 0.0)),
            (Value::Float(n), Value::Int(number)) => Ok(Value::Bool((*number as f64) % n == 0.0)),
            (Value::Float(n), Value::Float(number)) => Ok(Value::Bool(number % n == 0.0)),
            _ => Ok(Value::Bool(false)),
        }
    }),
];

fn size<'s>(_: &Evaluation<'s>, args: &[Argument<'s>]) -> Answer<'s> {
    let size = match &args[0].value {
        Value::Text(text) => text.chars().count(),
        Value::List(items) => items.len(),
        Value::Made(items) => items.len(),
        Value::Object(object) => object.len(),
        Value::MadeObject(fields) => fields.len(),
        _ => return Err(args[0].wrong("a text, a list or an object")),
    };
    Ok(Value::Int(i64::try_from(size).unwrap_or(i64::MAX)))
}

fn versions<'s>(args: &[Argument<'s>], holds: fn(Ordering) -> bool) -> Answer<'s> {
    Ok(Value::Bool(holds(version::compare(&args[0].version()?, &args[1].version()?))))
}

/// The texts of the first list that are in the second, or that are not.
fn differing<'s>(evaluation: &Evaluation<'s>, args: &[Argument<'s>], any_case: bool, shared: bool) -> Answer<'s> {
    let (one, other) = (args[0].texts()?, args[1].texts()?);
    evaluation.spend(one.len().saturating_add(other.len()).saturating_mul(4))?;
    let form = |text: &Cow<'s, str>| if any_case { text.to_ascii_lowercase() } else { text.clone().into_owned() };
    let known: BTreeSet<String> = other.iter().map(form).collect();
    let kept: BTreeSet<Cow<'s, str>> = one.into_iter().filter(|text| known.contains(&form(text)) == shared).collect();
    Ok(Value::texts(kept))
}

type Exposed = fn(&Object<'_>, &[u16]) -> Result<Vec<u16>, String>;

fn exposed<'s>(evaluation: &Evaluation<'s>, args: &[Argument<'s>], exposed: Exposed) -> Answer<'s> {
    let wanted = args[1].ports()?;
    let Value::Object(rule) = &args[0].value else { return Err(args[0].wrong("the `com` of a firewall rule")) };
    let lists = ["source_addresses", "destination_ports"].iter().filter_map(|name| rule.get(name));
    let items: usize = lists.map(|list| if let Json::List(list) = list { list.len() } else { 1 }).sum();
    evaluation.spend(items.saturating_mul(4))?;
    exposed(rule, &wanted).map(|ports| numbers(&ports)).map_err(Trouble::Other)
}

fn numbers<'s>(ports: &[u16]) -> Value<'s> {
    Value::Made(Rc::new(ports.iter().map(|port| Value::Int(i64::from(*port))).collect()))
}

/// At most so many items stand in a sentence.
const LISTED: usize = 20;

/// Texts as a part of a sentence: `a`, `a and b`, `a, b, and c`, `none`.
#[must_use]
pub fn listed(texts: &[impl AsRef<str>]) -> String {
    let mut items: Vec<Cow<'_, str>> = texts.iter().take(LISTED).map(|text| text.as_ref().into()).collect();
    if texts.len() > LISTED {
        items.push(format!("{} more", texts.len() - LISTED).into());
    }
    match items.as_slice() {
        [] => "none".to_owned(),
        [only] => only.to_string(),
        [first, second] => format!("{first} and {second}"),
        [rest @ .., last] => format!("{}, and {last}", rest.join(", ")),
    }
}

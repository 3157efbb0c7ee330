//! Evaluates compiled expressions over a record.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::rc::Rc;
use std::sync::Arc;

use jiff::Timestamp;

use super::functions::Argument;
use super::value::{Items, Trouble, Value};
use super::{Comparison, Expression, Kind, Loop, MAX_STEPS, Name, Node, Operator};
use crate::json::Json;

/// A bucket of a record.
#[derive(Debug, Clone, Copy)]
pub enum Bucket<'s> {
    /// It is there.
    There(&'s Json<'s>),
    /// It is absent or null.
    Missing,
    /// It cannot be read, for this reason.
    Broken(&'s str),
}

/// What expressions are evaluated on.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'s> {
    /// The API's answer.
    pub raw: Bucket<'s>,
    /// Cloud-specific, derived.
    pub ext: Bucket<'s>,
    /// Common to all clouds.
    pub com: Bucket<'s>,
    /// The parameters: an object.
    pub params: &'s Json<'static>,
    /// The time of the audit's version.
    pub now: Timestamp,
}

/// The evaluation of one rule's expressions on one record: what is named under `let` is evaluated once.
#[derive(Debug)]
pub struct Evaluation<'s> {
    scene: Scene<'s>,
    lets: &'s [Expression],
    known: RefCell<Vec<Option<Result<Value<'s>, Trouble>>>>,
    variables: RefCell<Vec<Value<'s>>>,
    steps: Cell<u32>,
}

impl<'s> Evaluation<'s> {
    /// The evaluation of a rule with these named expressions.
    #[must_use]
    pub fn new(scene: Scene<'s>, lets: &'s [Expression]) -> Self {
        Self {
            scene,
            lets,
            known: RefCell::new(Vec::new()),
            variables: RefCell::new(Vec::new()),
            steps: Cell::new(MAX_STEPS),
        }
    }

    /// What an expression comes to.
    ///
    /// # Errors
    /// Why it comes to nothing.
    pub fn value(&self, expression: &'s Expression) -> Result<Value<'s>, Trouble> {
        self.value_of(&expression.node)
    }

    /// What a condition comes to.
    ///
    /// # Errors
    /// Why it comes to neither true nor false.
    pub fn truth(&self, expression: &'s Expression) -> Result<bool, Trouble> {
        self.truth_of(&expression.node)
    }

    /// What the named expression of this number comes to.
    ///
    /// # Errors
    /// Why it comes to nothing.
    pub fn named(&self, number: usize) -> Result<Value<'s>, Trouble> {
        if let Some(Some(known)) = self.known.borrow().get(number) {
            return known.clone();
        }
        let Some(expression) = self.lets.get(number) else { return Ok(Value::Null) };
        // It stands outside of every loop.
        let variables = self.variables.take();
        let value = self.value_of(&expression.node);
        self.variables.replace(variables);
        let mut known = self.known.borrow_mut();
        if known.len() <= number {
            known.resize(number + 1, None);
        }
        if let Some(place) = known.get_mut(number) {
            *place = Some(value.clone());
        }
        value
    }

    /// Evaluates with the item of the rule's `for_each`.
    pub fn with_item<T>(&self, item: Value<'s>, evaluate: impl FnOnce(&Self) -> T) -> T {
        self.variables.borrow_mut().push(item);
        let result = evaluate(self);
        self.variables.borrow_mut().pop();
        result
    }

    /// The scene.
    #[must_use]
    pub fn scene(&self) -> &Scene<'s> {
        &self.scene
    }

    /// Counts steps of a function that looks at so many things.
    ///
    /// # Errors
    /// When there are no steps left.
    pub fn spend(&self, steps: usize) -> Result<(), Trouble> {
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        match self.steps.get().checked_sub(steps) {
            Some(left) => {
                self.steps.set(left);
                Ok(())
            }
            None => {
                self.steps.set(0);
                Err(Trouble::Cost)
            }
        }
    }

    fn truth_of(&self, node: &'s Node) -> Result<bool, Trouble> {
        match &node.kind {
            Kind::And(one, other) => self.either(one, other, false),
            Kind::Or(one, other) => self.either(one, other, true),
            Kind::Not(one) => {
                self.spend(1)?;
                self.truth_of(one).map(|truth| !truth)
            }
            _ => match self.value_of(node)? {
                Value::Bool(truth) => Ok(truth),
                other => Err(wrong(node, &other, "a boolean")),
            },
        }
    }

    /// `&&` and `||`: one side that decides is enough, whatever is unknown of the other.
    fn either(&self, one: &'s Node, other: &'s Node, deciding: bool) -> Result<bool, Trouble> {
        self.spend(1)?;
        let first = self.truth_of(one);
        match &first {
            Ok(truth) if *truth == deciding => return first,
            Err(Trouble::Cost) => return first,
            _ => {}
        }
        match self.truth_of(other) {
            Ok(truth) if truth == deciding => Ok(deciding),
            Err(Trouble::Cost) => Err(Trouble::Cost),
            Ok(_) => first,
            Err(trouble) => Err(first.err().unwrap_or(trouble)),
        }
    }

    pub(super) fn value_of(&self, node: &'s Node) -> Result<Value<'s>, Trouble> {
        self.spend(1)?;
        match &node.kind {
            Kind::Constant(json) => Ok(Value::from(json)),
            Kind::Bucket(name) => self.bucket(*name, node),
            Kind::Params => Ok(Value::from(self.scene.params)),
            Kind::Now => Ok(Value::Time(self.scene.now)),
            Kind::Let(number) => self.named(*number),
            Kind::Variable(number) => Ok(self.variables.borrow().get(*number).cloned().unwrap_or(Value::Null)),
            Kind::Field(of, name) => self.field(node, of, name),
            Kind::OptionalField(of, name) => self.optional_field(of, name),
            Kind::Has(of, name) => self.has(of, name),
            Kind::IsSet(one) => match self.value_of(one) {
                Ok(value) => Ok(Value::Bool(!matches!(value, Value::Null | Value::Optional(None)))),
                Err(Trouble::Missing(_) | Trouble::Null(_)) => Ok(Value::Bool(false)),
                Err(trouble) => Err(trouble),
            },
            Kind::Index(of, index) => self.index(node, self.value_of(of)?, of, index),
            Kind::OptionalIndex(of, index) => self.optional_index(node, of, index),
            Kind::Not(_) | Kind::And(..) | Kind::Or(..) => self.truth_of(node).map(Value::Bool),
            Kind::Negate(one) => match self.value_of(one)? {
                Value::Int(number) => number.checked_neg().map(Value::Int).ok_or_else(|| too_large(node)),
                Value::Float(number) => Ok(Value::Float(-number)),
                Value::Duration(duration) => Ok(Value::Duration(-duration)),
                other => Err(wrong(one, &other, "a number")),
            },
            Kind::Choose(condition, one, other) => {
                if self.truth_of(condition)? {
                    self.value_of(one)
                } else {
                    self.value_of(other)
                }
            }
            Kind::Equal(one, other, negated) => {
                let (first, second) = (self.value_of(one)?, self.value_of(other)?);
                self.spend(size(&first).min(size(&second)))?;
                match first.equals(&second) {
                    Some(equal) => Ok(Value::Bool(equal != *negated)),
                    None => Err(unlike(one, &first, other, &second)),
                }
            }
            Kind::IsNull(one, negated) => {
                let is_null = matches!(self.value_of(one)?, Value::Null);
                Ok(Value::Bool(is_null != *negated))
            }
            Kind::Compare(comparison, one, other) => {
                let (first, second) = (self.value_of(one)?, self.value_of(other)?);
                let Some(order) = first.compare(&second) else { return Err(unlike(one, &first, other, &second)) };
                Ok(Value::Bool(match comparison {
                    Comparison::Less => order == Ordering::Less,
                    Comparison::LessOrEqual => order != Ordering::Greater,
                    Comparison::Greater => order == Ordering::Greater,
                    Comparison::GreaterOrEqual => order != Ordering::Less,
                }))
            }
            Kind::In(one, list) => self.contains(one, list).map(Value::Bool),
            Kind::Arithmetic(operator, one, other) => self.arithmetic(node, *operator, one, other),
            Kind::List(items) => self.list(items),
            Kind::Object(fields) => self.object(fields),
            Kind::Call(function, arguments) => {
                let mut values = Vec::with_capacity(arguments.len());
                for argument in arguments {
                    let value = self.value_of(argument)?;
                    values.push(Argument { value, what: Arc::clone(&argument.blame) });
                }
                (function.call)(self, &values)
            }
            Kind::Matches(one, regex) => match self.value_of(one)? {
                Value::Text(text) => {
                    self.spend(text.len() / 16)?;
                    Ok(Value::Bool(regex.is_match(&text)))
                }
                other => Err(wrong(one, &other, "a text")),
            },
            Kind::Loop(kind, list, number, bodies) => self.run(*kind, list, *number, bodies),
        }
    }

    fn bucket(&self, name: Name, node: &'s Node) -> Result<Value<'s>, Trouble> {
        let bucket = match name {
            Name::Raw => self.scene.raw,
            Name::Ext => self.scene.ext,
            Name::Com => self.scene.com,
        };
        match bucket {
            Bucket::There(json) => Ok(Value::from(json)),
            Bucket::Missing => Err(Trouble::Missing(Arc::clone(&node.blame))),
            Bucket::Broken(reason) => Err(Trouble::Other(format!("{} cannot be read: {reason}", node.text))),
        }
    }

    fn field(&self, node: &'s Node, of: &'s Node, name: &str) -> Result<Value<'s>, Trouble> {
        match self.value_of(of)? {
            Value::Object(object) => {
                object.get(name).map(Value::from).ok_or_else(|| Trouble::Missing(Arc::clone(&node.blame)))
            }
            Value::Optional(None) => Ok(Value::Optional(None)),
            Value::Optional(Some(value)) => optional(of, &value, name),
            value if value.is_object() => value.field(name).ok_or_else(|| Trouble::Missing(Arc::clone(&node.blame))),
            other => Err(wrong(of, &other, "an object")),
        }
    }

    fn optional_field(&self, of: &'s Node, name: &str) -> Result<Value<'s>, Trouble> {
        match self.value_of(of) {
            Ok(Value::Null | Value::Optional(None)) => Ok(Value::Optional(None)),
            Ok(Value::Optional(Some(value))) => optional(of, &value, name),
            Ok(value) => optional(of, &value, name),
            // A bucket that is missing has none of its fields.
            Err(Trouble::Missing(_)) if matches!(of.kind, Kind::Bucket(_)) => Ok(Value::Optional(None)),
            Err(trouble) => Err(trouble),
        }
    }

    fn has(&self, of: &'s Node, name: &str) -> Result<Value<'s>, Trouble> {
        match self.value_of(of) {
            Ok(Value::Null | Value::Optional(None)) => Ok(Value::Bool(false)),
            Ok(Value::Optional(Some(value))) => Ok(Value::Bool(value.field(name).is_some())),
            Ok(value) if value.is_object() => Ok(Value::Bool(value.field(name).is_some())),
            Ok(other) => Err(wrong(of, &other, "an object")),
            Err(Trouble::Missing(_) | Trouble::Null(_)) => Ok(Value::Bool(false)),
            Err(trouble) => Err(trouble),
        }
    }

    fn index(&self, node: &'s Node, value: Value<'s>, of: &'s Node, index: &'s Node) -> Result<Value<'s>, Trouble> {
        let missing = || Trouble::Missing(Arc::clone(&node.blame));
        match (&value, self.value_of(index)?) {
            (Value::List(items), Value::Int(number)) => {
                usize::try_from(number).ok().and_then(|at| items.get(at)).map(Value::from).ok_or_else(missing)
            }
            (Value::Made(items), Value::Int(number)) => {
                usize::try_from(number).ok().and_then(|at| items.get(at)).cloned().ok_or_else(missing)
            }
            (object, Value::Text(name)) if object.is_object() => object.field(&name).ok_or_else(missing),
            (Value::List(_) | Value::Made(_), other) => Err(wrong(index, &other, "the number of an item")),
            (object, other) if object.is_object() => Err(wrong(index, &other, "the name of a field")),
            (other, _) => Err(wrong(of, other, "a list or an object")),
        }
    }

    fn optional_index(&self, node: &'s Node, of: &'s Node, index: &'s Node) -> Result<Value<'s>, Trouble> {
        let value = match self.value_of(of)? {
            Value::Null | Value::Optional(None) => return Ok(Value::Optional(None)),
            Value::Optional(Some(value)) => (*value).clone(),
            value => value,
        };
        match self.index(node, value, of, index) {
            Ok(value) => Ok(Value::Optional(Some(Rc::new(value)))),
            Err(Trouble::Missing(_)) => Ok(Value::Optional(None)),
            Err(trouble) => Err(trouble),
        }
    }

    fn contains(&self, one: &'s Node, list: &'s Node) -> Result<bool, Trouble> {
        let (value, container) = (self.value_of(one)?, self.value_of(list)?);
        if container.is_object() {
            return match &value {
                Value::Text(name) => Ok(container.field(name).is_some()),
                other => Err(wrong(one, other, "a text")),
            };
        }
        let items = container.items().ok_or_else(|| wrong(list, &container, "a list"))?;
        if matches!(value, Value::Null) {
            return Err(Trouble::Null(Arc::clone(&one.blame)));
        }
        self.spend(items.len())?;
        let mut unlike = None;
        for item in items {
            match value.equals(&item) {
                Some(true) => return Ok(true),
                Some(false) => {}
                None => unlike = Some(item.kind()),
            }
        }
        match unlike {
            // It might have been the one that is looked for.
            Some(kind) => Err(Trouble::Other(format!("{} holds {kind} among its items", list.blame))),
            None => Ok(false),
        }
    }

    fn arithmetic(
        &self,
        node: &'s Node,
        operator: Operator,
        one: &'s Node,
        other: &'s Node,
    ) -> Result<Value<'s>, Trouble> {
        let (first, second) = (self.value_of(one)?, self.value_of(other)?);
        match (operator, &first, &second) {
            (_, Value::Int(first), Value::Int(second)) => {
                let (first, second) = (*first, *second);
                let result = match operator {
                    Operator::Add => first.checked_add(second),
                    Operator::Subtract => first.checked_sub(second),
                    Operator::Multiply => first.checked_mul(second),
                    Operator::Divide | Operator::Remainder if second == 0 => return Err(by_zero(node)),
                    Operator::Divide => first.checked_div(second),
                    Operator::Remainder => first.checked_rem(second),
                };
                result.map(Value::Int).ok_or_else(|| too_large(node))
            }
            (Operator::Add, Value::Text(first), Value::Text(second)) => {
                self.spend((first.len() + second.len()) / 64)?;
                Ok(Value::Text(Cow::Owned(format!("{first}{second}"))))
            }
            (Operator::Add, Value::Time(time), Value::Duration(duration))
            | (Operator::Add, Value::Duration(duration), Value::Time(time)) => {
                time.checked_add(*duration).map(Value::Time).map_err(|_| too_large(node))
            }
            (Operator::Subtract, Value::Time(time), Value::Duration(duration)) => {
                time.checked_sub(*duration).map(Value::Time).map_err(|_| too_large(node))
            }
            (Operator::Subtract, Value::Time(first), Value::Time(second)) => {
                Ok(Value::Duration(first.duration_since(*second)))
            }
            (Operator::Add, Value::Duration(first), Value::Duration(second)) => {
                first.checked_add(*second).map(Value::Duration).ok_or_else(|| too_large(node))
            }
            (Operator::Subtract, Value::Duration(first), Value::Duration(second)) => {
                first.checked_sub(*second).map(Value::Duration).ok_or_else(|| too_large(node))
            }
            (Operator::Add, ..) if first.items().is_some() => match (first.items(), second.items()) {
                (Some(items), Some(more)) => {
                    self.spend(items.len() + more.len())?;
                    Ok(Value::Made(Rc::new(items.chain(more).collect())))
                }
                _ => Err(wrong(other, &second, "a list")),
            },
            (Operator::Add, Value::Text(_), _) => Err(wrong(other, &second, "a text")),
            _ => {
                let (first, second) = (float(one, &first)?, float(other, &second)?);
                Ok(Value::Float(match operator {
                    Operator::Add => first + second,
                    Operator::Subtract => first - second,
                    Operator::Multiply => first * second,
                    Operator::Divide | Operator::Remainder if second == 0.0 => return Err(by_zero(node)),
                    Operator::Divide => first / second,
                    Operator::Remainder => first % second,
                }))
            }
        }
    }

    fn list(&self, nodes: &'s [(Node, bool)]) -> Result<Value<'s>, Trouble> {
        let mut items = Vec::with_capacity(nodes.len());
        for (node, optional) in nodes {
            match (optional, self.value_of(node)?) {
                (true, Value::Optional(None)) => {}
                (true, Value::Optional(Some(value))) => items.push((*value).clone()),
                (_, value) => items.push(value),
            }
        }
        Ok(Value::Made(Rc::new(items)))
    }

    fn object(&self, nodes: &'s [(Node, Node, bool)]) -> Result<Value<'s>, Trouble> {
        let mut fields = Vec::with_capacity(nodes.len());
        for (key, node, optional) in nodes {
            let name = match self.value_of(key)? {
                Value::Text(name) => name,
                other => return Err(wrong(key, &other, "a text")),
            };
            match (optional, self.value_of(node)?) {
                (true, Value::Optional(None)) => {}
                (true, Value::Optional(Some(value))) => fields.push((name, (*value).clone())),
                (_, value) => fields.push((name, value)),
            }
        }
        Ok(Value::MadeObject(Rc::new(fields)))
    }

    fn run(&self, kind: Loop, list: &'s Node, number: usize, bodies: &'s [Node]) -> Result<Value<'s>, Trouble> {
        let value = self.value_of(list)?;
        let items = match &value {
            value if value.is_object() => {
                let names = value.fields().into_iter().map(|(name, _)| Value::Text(name)).collect();
                Items::Made(Rc::new(names), 0)
            }
            _ => value.items().ok_or_else(|| wrong(list, &value, "a list"))?,
        };
        let [body, rest @ ..] = bodies else { return Ok(Value::Null) };
        let depth = self.variables.borrow().len();
        let result = self.turns(kind, items, number, body, rest.first());
        self.variables.borrow_mut().truncate(depth);
        result
    }

    fn turns(
        &self,
        kind: Loop,
        items: Items<'s>,
        number: usize,
        body: &'s Node,
        then: Option<&'s Node>,
    ) -> Result<Value<'s>, Trouble> {
        let mut found = Vec::new();
        let mut count = 0_u64;
        let mut trouble = None;
        for item in items {
            {
                let mut variables = self.variables.borrow_mut();
                variables.truncate(number);
                variables.push(item.clone());
            }
            match kind {
                Loop::All | Loop::Exists => match self.truth_of(body) {
                    Ok(truth) if truth == (kind == Loop::Exists) => return Ok(Value::Bool(truth)),
                    Ok(_) => {}
                    Err(Trouble::Cost) => return Err(Trouble::Cost),
                    // Another item may decide.
                    Err(first) => trouble = trouble.or(Some(first)),
                },
                Loop::ExistsOne => count += u64::from(self.truth_of(body)?),
                Loop::Filter => {
                    if self.truth_of(body)? {
                        found.push(item);
                    }
                }
                Loop::Map => match then {
                    Some(then) => {
                        if self.truth_of(body)? {
                            found.push(self.value_of(then)?);
                        }
                    }
                    None => found.push(self.value_of(body)?),
                },
            }
        }
        match (kind, trouble) {
            (_, Some(trouble)) => Err(trouble),
            (Loop::All | Loop::Exists, None) => Ok(Value::Bool(kind == Loop::All)),
            (Loop::ExistsOne, None) => Ok(Value::Bool(count == 1)),
            (Loop::Filter | Loop::Map, None) => Ok(Value::Made(Rc::new(found))),
        }
    }
}

/// The field of an optional chain.
fn optional<'s>(of: &Node, value: &Value<'s>, name: &str) -> Result<Value<'s>, Trouble> {
    match value {
        Value::Null => Ok(Value::Optional(None)),
        value if value.is_object() => Ok(Value::Optional(value.field(name).map(Rc::new))),
        other => Err(wrong(of, other, "an object")),
    }
}

/// Roughly how much there is to look at in a value.
fn size(value: &Value<'_>) -> usize {
    match value {
        Value::Text(text) => text.len() / 64,
        Value::List(items) => items.len(),
        Value::Made(items) => items.len(),
        Value::Object(object) => object.len(),
        Value::MadeObject(fields) => fields.len(),
        _ => 0,
    }
}

fn float(node: &Node, value: &Value<'_>) -> Result<f64, Trouble> {
    match value {
        Value::Int(number) => Ok(*number as f64),
        Value::Float(number) => Ok(*number),
        other => Err(wrong(node, other, "a number")),
    }
}

fn wrong(node: &Node, found: &Value<'_>, wanted: &'static str) -> Trouble {
    let what = Arc::clone(&node.blame);
    match found {
        Value::Null => Trouble::Null(what),
        Value::Optional(None) => Trouble::Missing(what),
        other => Trouble::Kind { what, found: other.kind(), wanted },
    }
}

fn unlike(one: &Node, first: &Value<'_>, other: &Node, second: &Value<'_>) -> Trouble {
    for (node, value) in [(one, first), (other, second)] {
        match value {
            Value::Null => return Trouble::Null(Arc::clone(&node.blame)),
            Value::Optional(_) => {
                return Trouble::Kind { what: Arc::clone(&node.blame), found: value.kind(), wanted: "a plain value" };
            }
            _ => {}
        }
    }
    // What the rule says is right; what the record says is to blame.
    let is_said = |node: &Node| matches!(node.kind, Kind::Constant(_) | Kind::List(_));
    if is_said(one) {
        Trouble::Unlike { what: Arc::clone(&other.blame), found: second.kind(), other: first.kind() }
    } else {
        Trouble::Unlike { what: Arc::clone(&one.blame), found: first.kind(), other: second.kind() }
    }
}

fn too_large(node: &Node) -> Trouble {
    Trouble::Other(format!("{} is too large a number", node.text))
}

fn by_zero(node: &Node) -> Trouble {
    Trouble::Other(format!("{} divides by zero", node.text))
}

//! The language of rules: CEL expressions over records, compiled once, evaluated without copying.
//!
//! The crate `cel` parses. Evaluation is ours, because a rule must never take missing data for a pass: a field that is
//! missing or null, and values of kinds that cannot be compared, are trouble here, where CEL would call them unequal.
//! It also ends: each evaluation has a number of steps to take and no more.

mod compile;
mod evaluate;
mod functions;
mod source;
mod value;

pub use compile::{CompileError, Names, Reads, Wanted};
pub use evaluate::{Bucket, Evaluation, Scene};
pub use functions::{Function, functions, listed};
pub use value::{Items, Trouble, Value, duration_text, excerpt, excerpt_of};

use std::sync::Arc;

use crate::json::Json;

/// The steps that one rule may take on one record: some ten milliseconds.
pub const MAX_STEPS: u32 = 1_000_000;

/// A compiled expression.
#[derive(Debug)]
pub struct Expression {
    node: Node,
    reads: Reads,
}

impl Expression {
    /// Compiles the source of an expression in which these names are known.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn compile(source: &str, names: &Names<'_>) -> Result<Self, CompileError> {
        compile::compile(source, names)
    }

    /// Its source, on one line.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.node.text
    }

    /// What the expression reads of the record.
    #[must_use]
    pub fn reads(&self) -> &Reads {
        &self.reads
    }

    /// What reasons name instead of the expression: the field that it takes its value from, if it is no more than that.
    #[must_use]
    pub fn blame(&self) -> Option<&Arc<str>> {
        let is_field = match &self.node.kind {
            Kind::Field(..) | Kind::OptionalField(..) | Kind::Index(..) | Kind::OptionalIndex(..) => true,
            Kind::Call(function, _) => function.name == "orValue",
            _ => false,
        };
        is_field.then_some(&self.node.blame)
    }

    /// The expression and its parts, in the order of their evaluation, as texts with their depth. What is inside of a
    /// loop is left out, for it has no value of its own.
    #[must_use]
    pub fn parts(&self) -> Vec<Part<'_>> {
        let mut parts = Vec::new();
        collect(&self.node, 0, &mut parts);
        parts
    }
}

/// A part of an expression.
#[derive(Debug, Clone, Copy)]
pub struct Part<'e> {
    /// How deep it stands.
    pub depth: usize,
    node: &'e Node,
}

impl<'e> Part<'e> {
    /// Its source.
    #[must_use]
    pub fn text(&self) -> &'e str {
        &self.node.text
    }

    /// Whether it says what it is by itself.
    #[must_use]
    pub fn is_constant(&self) -> bool {
        matches!(self.node.kind, Kind::Constant(_))
    }

    /// What it comes to.
    ///
    /// # Errors
    /// Why it comes to nothing.
    pub fn value<'s>(&self, evaluation: &Evaluation<'s>) -> Result<Value<'s>, Trouble>
    where
        'e: 's,
    {
        evaluation.value_of(self.node)
    }
}

fn collect<'e>(node: &'e Node, depth: usize, parts: &mut Vec<Part<'e>>) {
    parts.push(Part { depth, node });
    let below: Vec<&Node> = match &node.kind {
        Kind::Field(of, _) | Kind::OptionalField(of, _) if matches!(of.kind, Kind::Bucket(_) | Kind::Params) => {
            Vec::new()
        }
        Kind::Field(of, _) | Kind::OptionalField(of, _) | Kind::Has(of, _) => vec![of],
        Kind::Not(one) | Kind::Negate(one) | Kind::IsSet(one) | Kind::IsNull(one, _) | Kind::Matches(one, _) => {
            vec![one]
        }
        Kind::Index(one, other) | Kind::OptionalIndex(one, other) => vec![one, other],
        Kind::And(one, other)
        | Kind::Or(one, other)
        | Kind::Equal(one, other, _)
        | Kind::Compare(_, one, other)
        | Kind::Arithmetic(_, one, other)
        | Kind::In(one, other) => vec![one, other],
        Kind::Choose(condition, one, other) => vec![condition, one, other],
        Kind::List(items) => items.iter().map(|(item, _)| item).collect(),
        Kind::Object(fields) => fields.iter().map(|(_, value, _)| value).collect(),
        Kind::Call(_, arguments) => arguments.iter().collect(),
        Kind::Loop(_, list, ..) => vec![list],
        Kind::Constant(_) | Kind::Bucket(_) | Kind::Params | Kind::Now | Kind::Let(_) | Kind::Variable(_) => Vec::new(),
    };
    for node in below {
        collect(node, depth + 1, parts);
    }
}

/// A part of a compiled expression.
#[derive(Debug)]
struct Node {
    kind: Kind,
    /// Its source.
    text: Arc<str>,
    /// What reasons name: the field that it comes from, if it comes from one, and else its source.
    blame: Arc<str>,
}

#[derive(Debug)]
enum Kind {
    Constant(Json<'static>),
    Bucket(Name),
    Params,
    /// The time of the audit's version: the same for each delivery of a record.
    Now,
    /// A named expression of the rule.
    Let(usize),
    /// What a loop, or the rule's `for_each`, stands at.
    Variable(usize),
    Field(Box<Node>, Box<str>),
    OptionalField(Box<Node>, Box<str>),
    Has(Box<Node>, Box<str>),
    IsSet(Box<Node>),
    Index(Box<Node>, Box<Node>),
    OptionalIndex(Box<Node>, Box<Node>),
    Not(Box<Node>),
    Negate(Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Choose(Box<Node>, Box<Node>, Box<Node>),
    /// Whether two values are equal, and whether that is asked the other way round.
    Equal(Box<Node>, Box<Node>, bool),
    /// The same with the word `null` on one side.
    IsNull(Box<Node>, bool),
    Compare(Comparison, Box<Node>, Box<Node>),
    In(Box<Node>, Box<Node>),
    Arithmetic(Operator, Box<Node>, Box<Node>),
    /// The items, and whether each is optional.
    List(Vec<(Node, bool)>),
    Object(Vec<(Node, Node, bool)>),
    Call(&'static Function, Vec<Node>),
    Matches(Box<Node>, regex::Regex),
    /// The kind, the list, and what is evaluated of each item, with the item as the variable of this number.
    Loop(Loop, Box<Node>, usize, Vec<Node>),
}

/// A bucket of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Raw,
    Ext,
    Com,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loop {
    All,
    Exists,
    ExistsOne,
    Filter,
    /// With a filter before it when there are two expressions.
    Map,
}

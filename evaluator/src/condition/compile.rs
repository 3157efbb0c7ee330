//! From source to a tree that can be evaluated: names and functions are looked up once, here.

use std::collections::BTreeSet;
use std::sync::Arc;

use cel::common::ast::operators as op;
use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, SourceInfo};

use super::functions::{self, Function};
use super::source;
use super::{Comparison, Expression, Kind, Loop, Name, Node, Operator};
use crate::json::Json;

/// The longest source of an expression, in bytes.
const MAX_SOURCE: usize = 16 * 1024;
/// How deep an expression may be nested.
const MAX_DEPTH: u16 = 40;
/// How many operators may follow each other, brackets around them counted.
const MAX_CHAIN: usize = 160;
/// What any stack has room for.
const SHALLOW: usize = 24;
/// The stack for what is deeper, in bytes.
const STACK: usize = 64 << 20;
/// What a bracket counts.
const BRACKET: usize = 8;
/// The most memory that a pattern of `matches` takes, in bytes.
const MAX_PATTERN: usize = 1 << 20;

/// The names that an expression may use, beside `raw`, `ext`, `com`, `params` and `now`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Names<'n> {
    /// The parameters of the rule.
    pub params: &'n [String],
    /// The named expressions of the rule that stand before this one, and what reasons name instead of each.
    pub lets: &'n [(String, Arc<str>)],
    /// What the items of the rule's `for_each` are called.
    pub item: Option<&'n str>,
}

/// Why a source is no expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompileError {
    /// What is wrong, and what to do.
    pub message: String,
    /// Where, in characters from the beginning of the source.
    pub at: usize,
}

/// Which fields of a bucket are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// These, by name.
    Fields(BTreeSet<String>),
    /// The bucket as a whole.
    All,
}

impl Default for Wanted {
    fn default() -> Self {
        Self::Fields(BTreeSet::new())
    }
}

impl Wanted {
    /// Whether nothing is read.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        matches!(self, Self::Fields(fields) if fields.is_empty())
    }

    /// Adds what is read elsewhere.
    pub fn add(&mut self, other: &Self) {
        match (&mut *self, other) {
            (Self::Fields(fields), Self::Fields(others)) => fields.extend(others.iter().cloned()),
            (Self::All, _) => {}
            (Self::Fields(_), Self::All) => *self = Self::All,
        }
    }
}

/// What an expression reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reads {
    /// Of `raw`.
    pub raw: Wanted,
    /// The named expressions, by number.
    pub lets: BTreeSet<usize>,
}

impl Reads {
    /// Adds what another expression reads.
    pub fn add(&mut self, other: &Self) {
        self.raw.add(&other.raw);
        self.lets.extend(&other.lets);
    }
}

pub(super) fn compile(source: &str, names: &Names<'_>) -> Result<Expression, CompileError> {
    if source.len() > MAX_SOURCE {
        let message = format!("the expression is longer than {MAX_SOURCE} bytes; cut it into named parts under `let`");
        return Err(CompileError { message, at: 0 });
    }
    if source.trim().is_empty() {
        return Err(CompileError { message: "the expression is empty".to_owned(), at: 0 });
    }
    if depth_of(source)? <= SHALLOW {
        return parse(source, names);
    }
    // The parser goes down many functions for each bracket.
    std::thread::scope(|scope| {
        let parsing = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, || parse(source, names));
        let parsed = parsing.ok().and_then(|parsing| parsing.join().ok());
        parsed.unwrap_or_else(|| Err(CompileError { message: too_deep(), at: 0 }))
    })
}

fn parse(source: &str, names: &Names<'_>) -> Result<Expression, CompileError> {
    // No macros: `has`, `all` and the like are left as the calls that they are written as.
    let parser = cel::Env::default().parser().enable_ident_escape_syntax(true).max_recursion_depth(MAX_DEPTH);
    let (expr, info) = parser.parse_with_source_info(source).map_err(|errors| syntax_error(source, &errors))?;
    let mut compiler = Compiler { names, info, variables: Vec::new(), reads: Reads::default() };
    compiler.variables.extend(names.item.map(str::to_owned));
    let node = compiler.node(&expr, 0)?;
    Ok(Expression { node, reads: compiler.reads })
}

/// How deeply the parser would go into a source, if that is not too deep: brackets in brackets, and long chains such as `a.b.c` or `1 + 2 +
/// 3` in them. `&&`, `||` and commas begin a new chain.
fn depth_of(source: &str) -> Result<usize, CompileError> {
    let mut deepest = 0;
    let (mut chain, mut around) = (0_usize, Vec::new());
    let mut characters = source.chars().enumerate().peekable();
    while let Some((at, character)) = characters.next() {
        match character {
            '\'' | '"' => {
                while let Some((_, inside)) = characters.next_if(|(_, inside)| *inside != character) {
                    if inside == '\\' {
                        characters.next();
                    }
                }
                characters.next();
            }
            '(' | '[' | '{' => {
                around.push(chain + BRACKET);
                chain = 0;
            }
            ')' | ']' | '}' => chain = around.pop().unwrap_or_default().saturating_sub(BRACKET) + 1,
            '&' | '|' | ',' => chain = 0,
            '.' | '+' | '-' | '*' | '/' | '%' | '!' | '?' | ':' | '<' | '>' | '=' => chain += 1,
            // `in` is made of letters: each blank may stand before one.
            ' ' | '\n' if characters.peek().is_some_and(|(_, next)| *next == 'i') => chain += 1,
            _ => {}
        }
        deepest = deepest.max(around.iter().sum::<usize>() + chain);
        if deepest > MAX_CHAIN {
            return Err(CompileError { message: too_deep(), at });
        }
    }
    Ok(deepest)
}

fn too_deep() -> String {
    "the expression is nested too deeply; cut it into named parts under `let`".to_owned()
}

fn syntax_error(source: &str, errors: &cel::ParseErrors) -> CompileError {
    let Some(error) = errors.errors.iter().min_by_key(|error| error.pos) else {
        return CompileError { message: "this is no expression".to_owned(), at: 0 };
    };
    let (line, column) = error.pos;
    let before = source.split_inclusive('\n').take(usize::try_from(line - 1).unwrap_or(0));
    let at = before.map(|line| line.chars().count()).sum::<usize>() + usize::try_from(column - 1).unwrap_or(0);
    let said = error.msg.strip_prefix("Syntax error: ").unwrap_or(&error.msg);
    // The parser lists every token that it would have taken.
    let said = said.split_once(" expecting ").map_or(said, |(what, _)| what);
    let message = match said {
        "UNKNOWN" | "" => "this is no expression".to_owned(),
        said if said.contains("recursion") => too_deep(),
        said => format!("syntax error: {said}"),
    };
    CompileError { message, at: at.min(source.chars().count().saturating_sub(1)) }
}

struct Compiler<'n> {
    names: &'n Names<'n>,
    info: SourceInfo,
    /// The variables of `for_each` and of the loops around what is compiled.
    variables: Vec<String>,
    reads: Reads,
}

impl Compiler<'_> {
    fn node(&mut self, expr: &IdedExpr, depth: u16) -> Result<Node, CompileError> {
        if depth > MAX_DEPTH * 4 {
            return Err(self.error(expr, too_deep()));
        }
        let kind = self.kind(expr, depth + 1)?;
        let text: Arc<str> = source::of(expr).into();
        let blame = self.blame(&kind, &text);
        Ok(Node { kind, text, blame })
    }

    fn blame(&self, kind: &Kind, text: &Arc<str>) -> Arc<str> {
        match kind {
            Kind::OptionalField(..) | Kind::OptionalIndex(..) => text.replace(".?", ".").replace("[?", "[").into(),
            Kind::Call(function, args) if function.name == "orValue" => {
                args.first().map_or_else(|| Arc::clone(text), |arg| Arc::clone(&arg.blame))
            }
            Kind::Let(number) => {
                self.names.lets.get(*number).map_or_else(|| Arc::clone(text), |(_, blame)| Arc::clone(blame))
            }
            _ => Arc::clone(text),
        }
    }

    fn boxed(&mut self, expr: &IdedExpr, depth: u16) -> Result<Box<Node>, CompileError> {
        self.node(expr, depth).map(Box::new)
    }

    fn kind(&mut self, expr: &IdedExpr, depth: u16) -> Result<Kind, CompileError> {
        match &expr.expr {
            Expr::Literal(literal) => constant(literal)
                .ok_or_else(|| self.error(expr, "bytes are not supported: records have none; write a text".to_owned())),
            Expr::Ident(name) => self.name(expr, name),
            Expr::Select(select) => {
                self.read_field(&select.operand, &select.field);
                let of = self.operand(&select.operand, depth)?;
                if matches!(of.kind, Kind::Params) {
                    self.known_param(expr, &select.field)?;
                }
                Ok(Kind::Field(Box::new(of), select.field.as_str().into()))
            }
            Expr::List(list) => {
                let optional = |index| list.optional_indices.contains(&index);
                let items = list.elements.iter().enumerate();
                let items = items.map(|(index, item)| Ok((self.node(item, depth)?, optional(index))));
                Ok(Kind::List(items.collect::<Result<_, _>>()?))
            }
            Expr::Map(map) => {
                let mut fields = Vec::new();
                for entry in &map.entries {
                    let EntryExpr::MapEntry(entry) = &entry.expr else { continue };
                    fields.push((self.node(&entry.key, depth)?, self.node(&entry.value, depth)?, entry.optional));
                }
                Ok(Kind::Object(fields))
            }
            Expr::Call(call) => self.call(expr, call, depth),
            Expr::Struct(_) => Err(self.error(expr, "there are no message types here; write {'name': value}".into())),
            Expr::Comprehension(_) | Expr::Unspecified => Err(self.error(expr, "this is no expression".to_owned())),
        }
    }

    /// What a field is taken of: of a bucket, only that field is read, which is noted already.
    fn operand(&mut self, expr: &IdedExpr, depth: u16) -> Result<Node, CompileError> {
        match &expr.expr {
            Expr::Ident(name) if !self.variables.contains(name) && bucket(name).is_some() => {
                let kind = bucket(name).map_or(Kind::Params, Kind::Bucket);
                Ok(Node { kind, text: name.as_str().into(), blame: name.as_str().into() })
            }
            _ => self.node(expr, depth),
        }
    }

    fn read_field(&mut self, of: &IdedExpr, field: &str) {
        if let Expr::Ident(name) = &of.expr
            && bucket(name) == Some(Name::Raw)
            && !self.variables.contains(name)
            && let Wanted::Fields(fields) = &mut self.reads.raw
        {
            fields.insert(field.to_owned());
        }
    }

    fn name(&mut self, expr: &IdedExpr, name: &str) -> Result<Kind, CompileError> {
        if let Some(number) = self.variables.iter().rposition(|variable| variable == name) {
            return Ok(Kind::Variable(number));
        }
        if let Some(number) = self.names.lets.iter().position(|(known, _)| known == name) {
            self.reads.lets.insert(number);
            return Ok(Kind::Let(number));
        }
        match (name, bucket(name)) {
            (_, Some(bucket)) => {
                if bucket == Name::Raw {
                    self.reads.raw = Wanted::All;
                }
                Ok(Kind::Bucket(bucket))
            }
            ("params", _) => Ok(Kind::Params),
            ("now", _) => Ok(Kind::Now),
            _ => {
                let mut known: Vec<&str> = RESERVED.to_vec();
                known.extend(self.names.lets.iter().map(|(name, _)| name.as_str()));
                known.extend(self.variables.iter().map(String::as_str));
                let message = proto::config::suggest::unknown("name", name, &known);
                Err(self.error(expr, message))
            }
        }
    }

    fn known_param(&self, expr: &IdedExpr, name: &str) -> Result<(), CompileError> {
        if self.names.params.iter().any(|known| known == name) {
            return Ok(());
        }
        let known: Vec<&str> = self.names.params.iter().map(String::as_str).collect();
        Err(self.error(expr, proto::config::suggest::unknown("parameter", name, &known)))
    }

    fn call(&mut self, expr: &IdedExpr, call: &CallExpr, depth: u16) -> Result<Kind, CompileError> {
        if let Some(target) = &call.target {
            return self.member_call(expr, call, target, depth);
        }
        match (call.func_name.as_str(), call.args.as_slice()) {
            (op::LOGICAL_NOT, [one]) => Ok(Kind::Not(self.boxed(one, depth)?)),
            (op::NEGATE, [one]) => Ok(Kind::Negate(self.boxed(one, depth)?)),
            (op::CONDITIONAL, [condition, one, other]) => {
                Ok(Kind::Choose(self.boxed(condition, depth)?, self.boxed(one, depth)?, self.boxed(other, depth)?))
            }
            (op::OPT_SELECT, [of, field]) => match &field.expr {
                Expr::Literal(LiteralValue::String(field)) => {
                    self.read_field(of, field.inner());
                    let of = self.operand(of, depth)?;
                    Ok(Kind::OptionalField(Box::new(of), field.inner().into()))
                }
                _ => Err(self.error(expr, "the name of a field is needed behind `.?`".to_owned())),
            },
            (op::INDEX | op::OPT_INDEX, [of, index]) => {
                let of = match &index.expr {
                    Expr::Literal(LiteralValue::String(field)) => {
                        self.read_field(of, field.inner());
                        Box::new(self.operand(of, depth)?)
                    }
                    _ => self.boxed(of, depth)?,
                };
                let index = self.boxed(index, depth)?;
                let optional = call.func_name == op::OPT_INDEX;
                Ok(if optional { Kind::OptionalIndex(of, index) } else { Kind::Index(of, index) })
            }
            ("has", [of]) => match &of.expr {
                Expr::Select(select) => {
                    self.read_field(&select.operand, &select.field);
                    let of = self.operand(&select.operand, depth)?;
                    if matches!(of.kind, Kind::Params) {
                        self.known_param(expr, &select.field)?;
                    }
                    Ok(Kind::Has(Box::new(of), select.field.as_str().into()))
                }
                _ => Err(self.error(expr, "`has` asks for a field: write `has(ext.name)`".to_owned())),
            },
            ("is_set", [one]) => Ok(Kind::IsSet(self.boxed(one, depth)?)),
            (name, [one, other]) if source::symbol(name).is_some() => self.operation(name, one, other, depth),
            (name, args) => {
                let function = self.function(expr, name, args.len(), false)?;
                let args = args.iter().map(|arg| self.node(arg, depth)).collect::<Result<_, _>>()?;
                Ok(Kind::Call(function, args))
            }
        }
    }

    fn operation(&mut self, name: &str, one: &IdedExpr, other: &IdedExpr, depth: u16) -> Result<Kind, CompileError> {
        let is_null = |expr: &IdedExpr| matches!(expr.expr, Expr::Literal(LiteralValue::Null));
        if let op::EQUALS | op::NOT_EQUALS = name {
            let negated = name == op::NOT_EQUALS;
            return match (is_null(one), is_null(other)) {
                (_, true) => Ok(Kind::IsNull(self.boxed(one, depth)?, negated)),
                (true, false) => Ok(Kind::IsNull(self.boxed(other, depth)?, negated)),
                (false, false) => Ok(Kind::Equal(self.boxed(one, depth)?, self.boxed(other, depth)?, negated)),
            };
        }
        let (one, other) = (self.boxed(one, depth)?, self.boxed(other, depth)?);
        Ok(match name {
            op::LOGICAL_AND => Kind::And(one, other),
            op::LOGICAL_OR => Kind::Or(one, other),
            op::LESS => Kind::Compare(Comparison::Less, one, other),
            op::LESS_EQUALS => Kind::Compare(Comparison::LessOrEqual, one, other),
            op::GREATER => Kind::Compare(Comparison::Greater, one, other),
            op::GREATER_EQUALS => Kind::Compare(Comparison::GreaterOrEqual, one, other),
            op::ADD => Kind::Arithmetic(Operator::Add, one, other),
            op::SUBSTRACT => Kind::Arithmetic(Operator::Subtract, one, other),
            op::MULTIPLY => Kind::Arithmetic(Operator::Multiply, one, other),
            op::DIVIDE => Kind::Arithmetic(Operator::Divide, one, other),
            op::MODULO => Kind::Arithmetic(Operator::Remainder, one, other),
            _ => Kind::In(one, other),
        })
    }

    fn member_call(
        &mut self,
        expr: &IdedExpr,
        call: &CallExpr,
        target: &IdedExpr,
        depth: u16,
    ) -> Result<Kind, CompileError> {
        let name = call.func_name.as_str();
        if let Expr::Ident(namespace) = &target.expr
            && functions::is_namespace(namespace)
            && !self.variables.contains(namespace)
            && !self.names.lets.iter().any(|(name, _)| name == namespace)
        {
            let function = self.function(expr, &format!("{namespace}.{name}"), call.args.len(), false)?;
            let args = call.args.iter().map(|arg| self.node(arg, depth)).collect::<Result<_, _>>()?;
            return Ok(Kind::Call(function, args));
        }
        let kind = match (name, call.args.len()) {
            ("all", 2) => Some(Loop::All),
            ("exists", 2) => Some(Loop::Exists),
            ("exists_one" | "existsOne", 2) => Some(Loop::ExistsOne),
            ("filter", 2) => Some(Loop::Filter),
            ("map", 2 | 3) => Some(Loop::Map),
            _ => None,
        };
        if let (Some(kind), [variable, bodies @ ..]) = (kind, call.args.as_slice()) {
            let Expr::Ident(variable_name) = &variable.expr else {
                return Err(self.error(variable, format!("a name for the items is needed: `list.{name}(item, ...)`")));
            };
            if RESERVED.contains(&variable_name.as_str()) || functions::is_namespace(variable_name) {
                let message = format!("`{variable_name}` has a meaning already; give the items another name");
                return Err(self.error(variable, message));
            }
            let list = self.boxed(target, depth)?;
            let number = self.variables.len();
            self.variables.push(variable_name.clone());
            let bodies = bodies.iter().map(|body| self.node(body, depth)).collect::<Result<Vec<_>, _>>();
            self.variables.pop();
            return Ok(Kind::Loop(kind, list, number, bodies?));
        }
        if let ("matches", [pattern]) = (name, call.args.as_slice()) {
            let Expr::Literal(LiteralValue::String(text)) = &pattern.expr else {
                return Err(self.error(pattern, "the pattern of `matches` is written as a text".to_owned()));
            };
            let built = regex::RegexBuilder::new(text.inner()).size_limit(MAX_PATTERN).build();
            let regex = built.map_err(|error| self.error(pattern, format!("the pattern is wrong: {error}")))?;
            return Ok(Kind::Matches(self.boxed(target, depth)?, regex));
        }
        let function = self.function(expr, name, call.args.len() + 1, true)?;
        let mut args = vec![self.node(target, depth)?];
        for arg in &call.args {
            args.push(self.node(arg, depth)?);
        }
        Ok(Kind::Call(function, args))
    }

    fn function(
        &self,
        expr: &IdedExpr,
        name: &str,
        count: usize,
        member: bool,
    ) -> Result<&'static Function, CompileError> {
        let Some(function) = functions::find(name, member) else {
            let known: Vec<&str> = functions::names().collect();
            let hint = proto::config::suggest::did_you_mean(name, known);
            return Err(self.error(expr, format!("unknown function `{name}`{hint}")));
        };
        if !function.takes(count) {
            return Err(self.error(expr, format!("write `{}`", function.signature)));
        }
        Ok(function)
    }

    fn error(&self, expr: &IdedExpr, message: String) -> CompileError {
        // A call stands where its bracket opens, a field where its dot is: the name is what is meant.
        let start = self.info.offset_for(expr.id).map_or(0, |(start, _)| start as usize);
        let at = match &expr.expr {
            Expr::Call(call) if source::symbol(&call.func_name).is_none() && call.func_name.len() > 1 => {
                start.saturating_sub(call.func_name.chars().count())
            }
            Expr::Select(_) => start + 1,
            _ => start,
        };
        CompileError { message, at }
    }
}

const RESERVED: [&str; 5] = ["raw", "ext", "com", "params", "now"];

/// Whether a name has a meaning in every expression, so that nothing else can be called so.
pub(super) fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name) || functions::is_namespace(name)
}

impl Names<'_> {
    /// Whether something of a rule can have this name: one that expressions can write, and that means nothing else.
    #[must_use]
    pub fn can_be(name: &str) -> bool {
        const WORDS: [&str; 4] = ["true", "false", "null", "in"];
        let mut bytes = name.bytes();
        bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && !WORDS.contains(&name)
            && !is_reserved(name)
    }
}

fn bucket(name: &str) -> Option<Name> {
    match name {
        "raw" => Some(Name::Raw),
        "ext" => Some(Name::Ext),
        "com" => Some(Name::Com),
        _ => None,
    }
}

fn constant(literal: &LiteralValue) -> Option<Kind> {
    Some(Kind::Constant(match literal {
        LiteralValue::Boolean(flag) => Json::Bool(*flag.inner()),
        LiteralValue::Int(number) => Json::Int(*number.inner()),
        LiteralValue::UInt(number) => i64::try_from(*number.inner()).map_or(Json::Large(*number.inner()), Json::Int),
        LiteralValue::Double(number) => Json::Float(*number.inner()),
        LiteralValue::Null => Json::Null,
        LiteralValue::String(text) => Json::Text(text.inner().to_owned().into()),
        LiteralValue::Bytes(_) => return None,
    }))
}

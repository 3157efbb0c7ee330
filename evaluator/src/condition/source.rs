//! Writes a parsed expression as source again, so that reasons can name its parts.

use cel::common::ast::operators as op;
use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue};

/// The longest source that a reason names.
const LONGEST: usize = 120;

/// The source of an expression, cut off when it is long.
pub(super) fn of(expr: &IdedExpr) -> String {
    let mut text = String::new();
    write(&mut text, expr);
    if text.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push_str("...");
    }
    text
}

fn write(text: &mut String, expr: &IdedExpr) {
    if text.len() > LONGEST {
        return;
    }
    match &expr.expr {
        Expr::Ident(name) => text.push_str(name),
        Expr::Literal(literal) => write_literal(text, literal),
        Expr::Select(select) => {
            write_operand(text, &select.operand);
            text.push('.');
            text.push_str(&select.field);
        }
        Expr::List(list) => {
            text.push('[');
            separated(text, &list.elements);
            text.push(']');
        }
        Expr::Map(map) => {
            text.push('{');
            for (index, entry) in map.entries.iter().enumerate() {
                if index > 0 {
                    text.push_str(", ");
                }
                if let EntryExpr::MapEntry(entry) = &entry.expr {
                    write(text, &entry.key);
                    text.push_str(": ");
                    write(text, &entry.value);
                }
            }
            text.push('}');
        }
        Expr::Call(call) => match (&call.target, call.func_name.as_str(), call.args.as_slice()) {
            (None, op::CONDITIONAL, [condition, one, other]) => {
                write_operand(text, condition);
                text.push_str(" ? ");
                write_operand(text, one);
                text.push_str(" : ");
                write_operand(text, other);
            }
            (None, op::INDEX | op::OPT_INDEX, [of, index]) => {
                write_operand(text, of);
                text.push_str(if call.func_name == op::INDEX { "[" } else { "[?" });
                write(text, index);
                text.push(']');
            }
            (None, op::OPT_SELECT, [of, field]) => {
                write_operand(text, of);
                text.push_str(".?");
                match &field.expr {
                    Expr::Literal(LiteralValue::String(name)) => text.push_str(name.inner()),
                    _ => write(text, field),
                }
            }
            (None, op::LOGICAL_NOT | op::NEGATE, [one]) => {
                text.push_str(&call.func_name[..1]);
                write_operand(text, one);
            }
            (None, name, [one, other]) if symbol(name).is_some() => {
                write_operand(text, one);
                text.push(' ');
                text.push_str(symbol(name).unwrap_or_default());
                text.push(' ');
                write_operand(text, other);
            }
            (target, name, args) => {
                if let Some(target) = target {
                    write_operand(text, target);
                    text.push('.');
                }
                text.push_str(name);
                text.push('(');
                separated(text, args);
                text.push(')');
            }
        },
        Expr::Comprehension(_) | Expr::Struct(_) | Expr::Unspecified => text.push_str("..."),
    }
}

fn write_literal(text: &mut String, literal: &LiteralValue) {
    match literal {
        LiteralValue::Boolean(flag) => text.push_str(&flag.inner().to_string()),
        LiteralValue::Int(number) => text.push_str(&number.inner().to_string()),
        LiteralValue::UInt(number) => text.push_str(&number.inner().to_string()),
        LiteralValue::Double(number) => text.push_str(&number.inner().to_string()),
        LiteralValue::Null => text.push_str("null"),
        LiteralValue::String(string) => {
            text.push('\'');
            text.extend(string.inner().chars().take(LONGEST));
            text.push('\'');
        }
        LiteralValue::Bytes(_) => text.push_str("b'...'"),
    }
}

/// An operand, in parentheses where it is made with an operator itself.
fn write_operand(text: &mut String, expr: &IdedExpr) {
    let is_operation = matches!(&expr.expr, Expr::Call(call) if call.target.is_none()
        && (symbol(&call.func_name).is_some() || call.func_name == op::CONDITIONAL));
    if is_operation {
        text.push('(');
    }
    write(text, expr);
    if is_operation {
        text.push(')');
    }
}

fn separated(text: &mut String, items: &[IdedExpr]) {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            text.push_str(", ");
        }
        write(text, item);
    }
}

/// The symbol of an operator between two operands.
pub(super) fn symbol(function: &str) -> Option<&'static str> {
    Some(match function {
        op::LOGICAL_AND => "&&",
        op::LOGICAL_OR => "||",
        op::ADD => "+",
        op::SUBSTRACT => "-",
        op::MULTIPLY => "*",
        op::DIVIDE => "/",
        op::MODULO => "%",
        op::EQUALS => "==",
        op::NOT_EQUALS => "!=",
        op::LESS => "<",
        op::LESS_EQUALS => "<=",
        op::GREATER => ">",
        op::GREATER_EQUALS => ">=",
        op::IN => "in",
        _ => return None,
    })
}

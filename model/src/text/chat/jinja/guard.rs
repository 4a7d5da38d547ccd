//! Guards in the code of a template.
//!
//! The engine counts its steps, and a step may take as long as it likes: `a == b` is one step, and `a` may hold 2^30 values. So each
//! instruction that looks at a whole value is replaced by a filter that pays for the walk, or gets one before it. Names of these filters
//! begin with `#`, so no template can name them. The code of the engine is changed, not the text of the template: what the engine runs
//! is what is guarded.

use minijinja::Value;
use minijinja::machinery::{Instruction, Instructions};

/// The filters of [`super::operators`].
pub(super) mod names {
    pub(in super::super) const EQ: &str = "#==";
    pub(in super::super) const NE: &str = "#!=";
    pub(in super::super) const LT: &str = "#<";
    pub(in super::super) const LE: &str = "#<=";
    pub(in super::super) const GT: &str = "#>";
    pub(in super::super) const GE: &str = "#>=";
    pub(in super::super) const IN: &str = "#in";
    pub(in super::super) const CONCAT: &str = "#~";
    pub(in super::super) const PERCENT: &str = "#%";
    /// An object from its keys and values.
    pub(in super::super) const MAP: &str = "#map";
    /// A filter, with its name behind its arguments.
    pub(in super::super) const FILTER: &str = "#filter";
    /// A test, with its name behind its arguments.
    pub(in super::super) const TEST: &str = "#test";
    /// A value that is looked at.
    pub(in super::super) const PAID: &str = "#paid";
    /// A value that a variable holds.
    pub(in super::super) const STORED: &str = "#stored";
    /// A value that a namespace may hold.
    pub(in super::super) const HELD: &str = "#held";
    /// A subscript.
    pub(in super::super) const ITEM: &str = "#item";
    /// A part of a text or a list.
    pub(in super::super) const SLICE: &str = "#slice";
    /// A value that is iterated over: the engine pays for items, and copies a text.
    pub(in super::super) const ITERATED: &str = "#iterated";
    /// A value that is added to another, which copies it.
    pub(in super::super) const ADDED: &str = "#added";
    /// A value that is copied to a list.
    pub(in super::super) const LISTED: &str = "#listed";
    /// A value that is assigned to several variables.
    pub(in super::super) const UNPACKED: &str = "#unpacked";
}

/// Filters that look at no value inside of their first argument, or pay for each.
const FREE_FILTERS: [&str; 8] =
    ["length", "count", "first", "last", "default", "d", "items", "reverse"];

/// Tests that look at the kind of a value only.
const FREE_TESTS: [&str; 17] = [
    "defined",
    "undefined",
    "none",
    "boolean",
    "odd",
    "even",
    "number",
    "integer",
    "int",
    "float",
    "string",
    "sequence",
    "iterable",
    "mapping",
    "sameas",
    "true",
    "false",
];

/// The guarded code.
///
/// # Errors
/// If the template has a form that cannot be guarded.
pub(super) fn guarded<'s>(code: &Instructions<'s>) -> Result<Instructions<'s>, String> {
    let mut steps = Vec::new();
    // Where each instruction begins, with its guards.
    let mut starts = Vec::new();
    while let Some(instruction) = code.get(starts.len() as u32) {
        let line = code.get_line(starts.len() as u32);
        starts.push(steps.len() as u32);
        steps.extend(guards(instruction)?.into_iter().map(|step| (step, line)));
    }
    starts.push(steps.len() as u32);
    let mut guarded = Instructions::new(code.name(), code.source());
    for (mut step, line) in steps {
        if let Some(target) = target(&mut step) {
            *target = starts.get(*target as usize).copied().ok_or("it jumps out of its code")?;
        }
        match line.and_then(|line| u16::try_from(line).ok()) {
            Some(line) => guarded.add_with_line(step, line),
            None => guarded.add(step),
        };
    }
    Ok(guarded)
}

/// Where an instruction may go on.
fn target<'i>(instruction: &'i mut Instruction<'_>) -> Option<&'i mut u32> {
    use Instruction::{BuildMacro, Iterate, Jump, JumpIfFalse, JumpIfFalseOrPop, JumpIfTrueOrPop};
    match instruction {
        Jump(target) | JumpIfFalse(target) | JumpIfFalseOrPop(target) => Some(target),
        JumpIfTrueOrPop(target) | Iterate(target) | BuildMacro(_, target, _) => Some(target),
        _ => None,
    }
}

/// An instruction with its guards.
fn guards<'s>(instruction: &Instruction<'s>) -> Result<Vec<Instruction<'s>>, String> {
    use Instruction as I;
    let apply = |name: &'static str, args: u16| I::ApplyFilter(name, Some(args), NO_LOCAL);
    let named = |name: &str, args: Option<u16>, filter: &'static str| match args
        .and_then(|args| args.checked_add(1))
    {
        Some(args) => Ok(vec![I::LoadConst(Value::from(name)), apply(filter, args)]),
        None => Err(format!("{name} with a list of arguments (*) is not supported")),
    };
    Ok(match instruction {
        I::Eq => vec![apply(names::EQ, 2)],
        I::Ne => vec![apply(names::NE, 2)],
        I::Lt => vec![apply(names::LT, 2)],
        I::Lte => vec![apply(names::LE, 2)],
        I::Gt => vec![apply(names::GT, 2)],
        I::Gte => vec![apply(names::GE, 2)],
        I::In => vec![apply(names::IN, 2)],
        I::StringConcat => vec![apply(names::CONCAT, 2)],
        I::Rem => vec![apply(names::PERCENT, 2)],
        // A chain, as in `a < b < c`.
        I::CompareAndPreserve(_) => {
            vec![
                apply(names::PAID, 1),
                I::Swap,
                apply(names::PAID, 1),
                I::Swap,
                instruction.clone(),
            ]
        }
        I::Add => vec![apply(names::ADDED, 1), I::Add],
        I::SetAttr(_) => vec![I::Swap, apply(names::HELD, 1), I::Swap, instruction.clone()],
        I::StoreLocal(_) => vec![apply(names::STORED, 1), instruction.clone()],
        I::GetItem => vec![apply(names::ITEM, 2)],
        I::Slice => vec![apply(names::SLICE, 4)],
        // A call with one argument may begin a loop again.
        I::PushLoop(_) | I::FastRecurse | I::CallFunction(_, Some(1)) => {
            vec![apply(names::ITERATED, 1), instruction.clone()]
        }
        I::UnpackList(_) => vec![apply(names::UNPACKED, 1), instruction.clone()],
        I::BuildMap(0) => vec![instruction.clone()],
        I::BuildMap(pairs) => {
            let args = u16::try_from(pairs.saturating_mul(2));
            vec![apply(names::MAP, args.map_err(|_| "an object has too many fields")?)]
        }
        // All output goes through the formatter, which limits its length.
        I::EmitRaw(text) => {
            vec![I::LoadConst(Value::from_safe_string((*text).to_owned())), I::Emit]
        }
        I::ApplyFilter("list", Some(1), _) => {
            vec![apply(names::LISTED, 1), instruction.clone()]
        }
        I::ApplyFilter(name, ..) if FREE_FILTERS.contains(name) => vec![instruction.clone()],
        I::ApplyFilter(name, args, _) => named(name, *args, names::FILTER)?,
        I::PerformTest(name, ..) if FREE_TESTS.contains(name) => vec![instruction.clone()],
        I::PerformTest(name, args, _) => named(name, *args, names::TEST)?,
        I::CallMethod("changed", _) => return Err("changed() is not supported".into()),
        _ => vec![instruction.clone()],
    })
}

/// The engine remembers filters by numbers, which are those of the code that it made.
const NO_LOCAL: u8 = u8::MAX;

//! Reads pickles as data: only the opcodes and names that state dictionaries need.
//!
//! A pickle is a program for a machine with a stack and a memo. Python's machine imports and calls any function that the pickle
//! names. This one accepts three functions, and a call only records its arguments.
//!
//! Strings are borrowed from the pickle and containers are in two flat tables. A [`Value`] is a number or an index, so that copying
//! or dropping a deeply nested value is cheap. Memory is linear in the number of opcodes that run. Each takes at least a byte of the
//! pickle, and a pickle has no loops.

use std::collections::HashMap;

use crate::files::checkpoint::Dtype;
use crate::files::cursor::Cursor;

/// A value on the stack.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    Int(i64),
    Str(&'a str),
    Global(Global),
    /// Its items are [`Pickle::tuple`]. A tuple holds only values made before it.
    Tuple(usize),
    /// Its entries are [`Pickle::dict`]. A dictionary may hold itself.
    Dict(usize),
    /// The tuple that identifies a storage.
    Storage(usize),
    /// The arguments of `_rebuild_tensor_v2`: a tuple of at least four.
    Tensor(usize),
    /// A list. Its items are dropped, because no tensor of a state dictionary is in a list.
    List,
    /// None, a boolean or a float: part of no tensor.
    Other,
}

/// A function or type that a pickle may refer to by name.
#[derive(Debug, Clone, Copy)]
pub(super) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(Dtype),
}

impl Global {
    fn find(module: &[u8], name: &[u8]) -> Option<Self> {
        Some(match (module, name) {
            (b"collections", b"OrderedDict") => Global::OrderedDict,
            (b"torch._utils", b"_rebuild_tensor_v2") => Global::RebuildTensor,
            (b"torch._utils", b"_rebuild_parameter") => Global::RebuildParameter,
            (b"torch", storage) => Global::Storage(match storage {
                b"FloatStorage" => Dtype::F32,
                b"HalfStorage" => Dtype::F16,
                b"BFloat16Storage" => Dtype::BF16,
                b"CharStorage" => Dtype::I8,
                b"ByteStorage" => Dtype::U8,
                b"DoubleStorage" => Dtype::F64,
                b"LongStorage" => Dtype::I64,
                b"IntStorage" => Dtype::I32,
                b"ShortStorage" => Dtype::I16,
                b"BoolStorage" => Dtype::Bool,
                _ => return None,
            }),
            _ => return None,
        })
    }
}

/// The value that a pickle describes, and the containers in it.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    pub(super) root: Value<'a>,
    tuples: Vec<Vec<Value<'a>>>,
    dicts: Vec<Vec<(Value<'a>, Value<'a>)>>,
}

impl<'a> Pickle<'a> {
    pub(super) fn tuple(&self, tuple: usize) -> &[Value<'a>] {
        self.tuples.get(tuple).map_or(&[], Vec::as_slice)
    }

    pub(super) fn dict(&self, dict: usize) -> &[(Value<'a>, Value<'a>)] {
        self.dicts.get(dict).map_or(&[], Vec::as_slice)
    }

    pub(super) fn dict_count(&self) -> usize {
        self.dicts.len()
    }
}

/// Runs a pickle to its end. An error begins with the position of the opcode that failed.
pub(super) fn read(bytes: &[u8]) -> Result<Pickle<'_>, String> {
    let mut machine = Machine::new(bytes);
    loop {
        let at = machine.input.position();
        match machine.step() {
            Ok(None) => {}
            Ok(Some(root)) => {
                return Ok(Pickle { root, tuples: machine.tuples, dicts: machine.dicts });
            }
            Err(problem) => return Err(format!("byte {at}: {problem}")),
        }
    }
}

/// Opcodes by their names in Python's `pickletools`: those of protocol 2, which `torch.save` writes, and those of protocols 3 to 5,
/// which it writes if it is asked to.
mod op {
    pub(super) const PROTO: u8 = 0x80;
    pub(super) const STOP: u8 = b'.';
    pub(super) const MARK: u8 = b'(';

    pub(super) const NONE: u8 = b'N';
    pub(super) const NEWTRUE: u8 = 0x88;
    pub(super) const NEWFALSE: u8 = 0x89;
    pub(super) const BININT: u8 = b'J';
    pub(super) const BININT1: u8 = b'K';
    pub(super) const BININT2: u8 = b'M';
    pub(super) const LONG1: u8 = 0x8a;
    pub(super) const BINFLOAT: u8 = b'G';
    pub(super) const BINUNICODE: u8 = b'X';
    pub(super) const SHORT_BINUNICODE: u8 = 0x8c;
    pub(super) const BINUNICODE8: u8 = 0x8d;
    pub(super) const SHORT_BINBYTES: u8 = b'C';
    pub(super) const BINBYTES: u8 = b'B';
    pub(super) const BINBYTES8: u8 = 0x8e;
    pub(super) const BYTEARRAY8: u8 = 0x96;

    pub(super) const EMPTY_TUPLE: u8 = b')';
    pub(super) const TUPLE1: u8 = 0x85;
    pub(super) const TUPLE2: u8 = 0x86;
    pub(super) const TUPLE3: u8 = 0x87;
    pub(super) const TUPLE: u8 = b't';
    pub(super) const EMPTY_LIST: u8 = b']';
    pub(super) const APPEND: u8 = b'a';
    pub(super) const APPENDS: u8 = b'e';
    pub(super) const EMPTY_SET: u8 = 0x8f;
    pub(super) const ADDITEMS: u8 = 0x90;
    pub(super) const FROZENSET: u8 = 0x91;
    pub(super) const EMPTY_DICT: u8 = b'}';
    pub(super) const SETITEM: u8 = b's';
    pub(super) const SETITEMS: u8 = b'u';

    pub(super) const BINPUT: u8 = b'q';
    pub(super) const LONG_BINPUT: u8 = b'r';
    pub(super) const BINGET: u8 = b'h';
    pub(super) const LONG_BINGET: u8 = b'j';

    pub(super) const MEMOIZE: u8 = 0x94;
    pub(super) const FRAME: u8 = 0x95;

    pub(super) const GLOBAL: u8 = b'c';
    pub(super) const STACK_GLOBAL: u8 = 0x93;
    pub(super) const BINPERSID: u8 = b'Q';
    pub(super) const REDUCE: u8 = b'R';
    pub(super) const BUILD: u8 = b'b';
}

type Done = Result<(), String>;

struct Machine<'a> {
    input: Cursor<'a>,
    stack: Vec<Value<'a>>,
    /// Length of the stack at each open mark. Values below the last mark cannot be popped.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    tuples: Vec<Vec<Value<'a>>>,
    dicts: Vec<Vec<(Value<'a>, Value<'a>)>>,
}

impl<'a> Machine<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            input: Cursor::new(bytes),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            tuples: Vec::new(),
            dicts: Vec::new(),
        }
    }

    /// Runs one opcode; the last one gives the value of the pickle.
    fn step(&mut self) -> Result<Option<Value<'a>>, String> {
        match self.input.u8()? {
            op::STOP => return self.stop().map(Some),
            op::PROTO => self.protocol()?,
            op::MARK => self.marks.push(self.stack.len()),

            op::NONE | op::NEWTRUE | op::NEWFALSE => self.stack.push(Value::Other),
            op::BININT => {
                let int = i32::from_le_bytes(self.input.array()?);
                self.stack.push(Value::Int(int.into()));
            }
            op::BININT1 => {
                let int = self.input.u8()?;
                self.stack.push(Value::Int(int.into()));
            }
            op::BININT2 => {
                let int = self.input.u16()?;
                self.stack.push(Value::Int(int.into()));
            }
            op::LONG1 => self.long()?,
            op::BINFLOAT => {
                self.input.take(8)?;
                self.stack.push(Value::Other);
            }
            op::BINUNICODE => {
                let len = self.input.u32()?;
                self.string(len.into())?;
            }
            op::SHORT_BINUNICODE => {
                let len = self.input.u8()?;
                self.string(len.into())?;
            }
            op::BINUNICODE8 => {
                let len = self.input.u64()?;
                self.string(len)?;
            }
            op::SHORT_BINBYTES => {
                let len = self.input.u8()?;
                self.bytes(len.into())?;
            }
            op::BINBYTES => {
                let len = self.input.u32()?;
                self.bytes(len.into())?;
            }
            op::BINBYTES8 | op::BYTEARRAY8 => {
                let len = self.input.u64()?;
                self.bytes(len)?;
            }

            op::EMPTY_TUPLE => self.tuple(0)?,
            op::TUPLE1 => self.tuple(1)?,
            op::TUPLE2 => self.tuple(2)?,
            op::TUPLE3 => self.tuple(3)?,
            op::TUPLE => {
                let items = self.pop_to_mark()?;
                self.push_tuple(items);
            }
            // No tensor is in a set, either.
            op::EMPTY_LIST | op::EMPTY_SET => self.stack.push(Value::List),
            op::FROZENSET => {
                self.pop_to_mark()?;
                self.stack.push(Value::Other);
            }
            op::APPEND => {
                self.pop()?;
                self.check_list()?;
            }
            op::APPENDS | op::ADDITEMS => {
                self.pop_to_mark()?;
                self.check_list()?;
            }
            op::EMPTY_DICT => self.push_dict(),
            op::SETITEM => {
                let items = self.pop_many(2)?;
                self.set_items(&items)?;
            }
            op::SETITEMS => {
                let items = self.pop_to_mark()?;
                self.set_items(&items)?;
            }

            op::BINPUT => {
                let key = self.input.u8()?;
                self.put(key.into())?;
            }
            op::LONG_BINPUT => {
                let key = self.input.u32()?;
                self.put(key)?;
            }
            op::BINGET => {
                let key = self.input.u8()?;
                self.get(key.into())?;
            }
            op::LONG_BINGET => {
                let key = self.input.u32()?;
                self.get(key)?;
            }

            op::MEMOIZE => {
                let key = u32::try_from(self.memo.len()).map_err(|_| "too many memo keys")?;
                self.put(key)?;
            }
            // The length of what follows, which is read from memory anyway.
            op::FRAME => {
                self.input.take(8)?;
            }

            op::GLOBAL => {
                let (module, name) = (self.input.line()?, self.input.line()?);
                self.global(module, name)?;
            }
            op::STACK_GLOBAL => {
                let names = self.pop_many(2)?;
                let [Value::Str(module), Value::Str(name)] = names[..] else {
                    return Err("names a function by what is no text".into());
                };
                self.global(module.as_bytes(), name.as_bytes())?;
            }
            op::BINPERSID => self.storage()?,
            op::REDUCE => self.call()?,
            op::BUILD => self.set_attributes()?,
            opcode => {
                let symbol = char::from(opcode).escape_default();
                return Err(format!("opcode {opcode:#04x} ('{symbol}') has no place in weights"));
            }
        }
        Ok(None)
    }

    fn protocol(&mut self) -> Done {
        match self.input.u8()? {
            2..=5 => Ok(()),
            other => Err(format!("pickle protocol {other}, expected 2 to 5")),
        }
    }

    fn stop(&mut self) -> Result<Value<'a>, String> {
        let root = self.pop()?;
        if !self.stack.is_empty() || !self.marks.is_empty() || !self.input.is_empty() {
            return Err("STOP before everything was used".into());
        }
        Ok(root)
    }

    /// A little-endian integer with a length of up to eight bytes, enough for any size.
    fn long(&mut self) -> Done {
        let len = self.input.u8()?.into();
        let bytes = self.input.take(len)?;
        let negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
        let mut wide = if negative { [0xff; 8] } else { [0; 8] };
        wide.get_mut(..len)
            .ok_or_else(|| format!("an integer of {len} bytes"))?
            .copy_from_slice(bytes);
        self.stack.push(Value::Int(i64::from_le_bytes(wide)));
        Ok(())
    }

    fn bytes(&mut self, len: u64) -> Done {
        self.input.take(usize::try_from(len).map_err(|_| "bytes longer than memory")?)?;
        self.stack.push(Value::Other);
        Ok(())
    }

    fn string(&mut self, len: u64) -> Done {
        let len = usize::try_from(len).map_err(|_| "a string longer than memory")?;
        let text = str::from_utf8(self.input.take(len)?).map_err(|_| "text that is not UTF-8")?;
        self.stack.push(Value::Str(text));
        Ok(())
    }

    fn pop(&mut self) -> Result<Value<'a>, String> {
        self.reach(1)?;
        self.stack.pop().ok_or_else(|| "an empty stack".into())
    }

    fn pop_many(&mut self, n: usize) -> Result<Vec<Value<'a>>, String> {
        let start = self.reach(n)?;
        Ok(self.stack.split_off(start))
    }

    /// Index of the last `n` values, if there are so many above the last mark.
    fn reach(&self, n: usize) -> Result<usize, String> {
        let bottom = self.marks.last().copied().unwrap_or(0);
        let start = self.stack.len().checked_sub(n).filter(|&start| start >= bottom);
        start.ok_or_else(|| format!("needs {n} values, finds fewer"))
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value<'a>>, String> {
        let start = self.marks.pop().ok_or("no mark")?;
        Ok(self.stack.split_off(start))
    }

    fn tuple(&mut self, n: usize) -> Done {
        let items = self.pop_many(n)?;
        self.push_tuple(items);
        Ok(())
    }

    fn push_tuple(&mut self, items: Vec<Value<'a>>) {
        self.stack.push(Value::Tuple(self.tuples.len()));
        self.tuples.push(items);
    }

    fn pop_tuple(&mut self) -> Result<(usize, &[Value<'a>]), String> {
        match self.pop()? {
            Value::Tuple(tuple) => Ok((tuple, self.tuples.get(tuple).map_or(&[], Vec::as_slice))),
            _ => Err("expects a tuple".into()),
        }
    }

    fn push_dict(&mut self) {
        self.stack.push(Value::Dict(self.dicts.len()));
        self.dicts.push(Vec::new());
    }

    fn check_list(&mut self) -> Done {
        match self.stack.get(self.reach(1)?) {
            Some(Value::List) => Ok(()),
            _ => Err("appends to what is not a list".into()),
        }
    }

    fn set_items(&mut self, items: &[Value<'a>]) -> Done {
        let (pairs, []) = items.as_chunks::<2>() else {
            return Err("a key without a value".into());
        };
        let target = self.stack.get(self.reach(1)?);
        let Some(&Value::Dict(dict)) = target else {
            return Err("sets items of what is not a dictionary".into());
        };
        let dict = self.dicts.get_mut(dict).ok_or("no such dictionary")?;
        dict.extend(pairs.iter().map(|&[key, value]| (key, value)));
        Ok(())
    }

    fn put(&mut self, key: u32) -> Done {
        let value = self.stack.get(self.reach(1)?).ok_or("an empty stack")?;
        self.memo.insert(key, *value);
        Ok(())
    }

    fn get(&mut self, key: u32) -> Done {
        let value = self.memo.get(&key).ok_or_else(|| format!("nothing under memo key {key}"))?;
        self.stack.push(*value);
        Ok(())
    }

    fn global(&mut self, module: &[u8], name: &[u8]) -> Done {
        let global = Global::find(module, name).ok_or_else(|| {
            let (module, name) = (module.escape_ascii(), name.escape_ascii());
            format!("refers to {module}.{name}, which has no place in weights; nothing was run")
        })?;
        self.stack.push(Value::Global(global));
        Ok(())
    }

    fn storage(&mut self) -> Done {
        match self.pop_tuple()? {
            (tuple, [Value::Str("storage"), ..]) => {
                self.stack.push(Value::Storage(tuple));
                Ok(())
            }
            _ => Err("a persistent id that is not a storage".into()),
        }
    }

    /// Calls the function below the arguments.
    fn call(&mut self) -> Done {
        let (tuple, arguments) = self.pop_tuple()?;
        let arguments = (arguments.len(), arguments.first().copied());
        let Value::Global(function) = self.pop()? else {
            return Err("calls what is not a function".into());
        };
        match (function, arguments) {
            (Global::OrderedDict, (0, _)) => self.push_dict(),
            (Global::RebuildTensor, (6, _)) => self.stack.push(Value::Tensor(tuple)),
            (Global::RebuildParameter, (3, Some(tensor @ Value::Tensor(_)))) => {
                self.stack.push(tensor);
            }
            (function, (n, _)) => return Err(format!("calls {function:?} with {n} arguments")),
        }
        Ok(())
    }

    /// Ignores attributes of a dictionary. Modules have their versions in one, `_metadata`.
    fn set_attributes(&mut self) -> Done {
        let attributes = self.pop()?;
        match (self.stack.get(self.reach(1)?), attributes) {
            (Some(Value::Dict(_)), Value::Dict(_)) => Ok(()),
            _ => Err("sets attributes of what is not a dictionary".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn int(opcodes: &[u8]) -> i64 {
        match read(&[b"\x80\x02", opcodes, b"."].concat()).unwrap().root {
            Value::Int(int) => int,
            other => panic!("{other:?}"),
        }
    }

    /// As `pickle.dumps({"a": 1, "s": {2}, "b": b"x"}, protocol)` with an `OrderedDict` writes it.
    #[test]
    fn later_protocols_are_read() {
        let body = b"\x95\x2d\0\0\0\0\0\0\0\x8c\x0bcollections\x94\x8c\x0bOrderedDict\x94\x93\x94)R\x94(\x8c\x01a\x94K\x01\
            \x8d\x01\0\0\0\0\0\0\0s\x94\x8f\x94(K\x02\x90\x8c\x01b\x94C\x01x\x94\x8c\x01c\x94h\x04u.";
        for protocol in [4, 5] {
            let bytes = [&[0x80, protocol], &body[..]].concat();
            let pickle = read(&bytes).unwrap();
            let Value::Dict(dict) = pickle.root else { panic!("{:?}", pickle.root) };
            let [
                (Value::Str("a"), Value::Int(1)),
                (Value::Str("s"), Value::List),
                (Value::Str("b"), Value::Other),
                (Value::Str("c"), Value::Str("a")),
            ] = pickle.dict(dict)
            else {
                panic!("{:?}", pickle.dict(dict))
            };
        }
        for protocol in [1, 6] {
            let error = read(&[0x80, protocol, b'N', b'.']).unwrap_err();
            assert!(error.contains("expected 2 to 5"), "{error}");
        }
        let error = read(b"\x80\x04\x8c\x02os\x8c\x06system\x93.").unwrap_err();
        assert!(error.contains("os.system") && error.contains("nothing was run"), "{error}");
        assert!(read(b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xffx.").is_err());
    }

    #[test]
    fn integers_of_every_width() {
        assert_eq!(int(b"K\xff"), 255);
        assert_eq!(int(b"M\xff\xff"), 65535);
        assert_eq!(int(b"J\xfe\xff\xff\xff"), -2);
        assert_eq!(int(b"\x8a\x00"), 0);
        assert_eq!(int(b"\x8a\x01\xff"), -1);
        assert_eq!(int(b"\x8a\x05\x00\x00\x00\x80\x00"), 1 << 31);
        assert_eq!(int(b"\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x80"), i64::MIN);
    }
}

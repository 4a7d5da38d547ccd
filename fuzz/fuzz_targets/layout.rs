//! A file in the layout of the kernels whose header and data are changed in any way opens and runs, or is refused.

#![no_main]

use std::fs;
use std::ops::ControlFlow;
use std::sync::LazyLock;

use glm_fuzz::{Number, Tiny, logits, one_thread};
use glm_model::{Activations, Model, QuantizeOptions, quantize};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value, json};

#[derive(Debug, Arbitrary)]
struct Case<'a> {
    base: u8,
    changes: Vec<Change<'a>>,
    /// Bytes of the header's text or of the data: whether in the header, where, and what is flipped.
    flips: Vec<(bool, u16, u8)>,
    cut: Option<u16>,
    float_activations: bool,
}

#[derive(Debug, Arbitrary)]
enum Change<'a> {
    /// A key of the metadata gets this value, or is removed.
    Metadata(u8, Option<&'a str>),
    /// The value of a key of the metadata, where a piece is replaced.
    Piece(u8, u8, &'a str),
    /// A new key.
    Key(&'a str, &'a str),
    Dtype(u8, u8),
    /// A length of an axis changes.
    Axis(u8, u8, i8),
    /// Two axes are exchanged, so that the size is the same.
    Swap(u8, u8, u8),
    Offset(u8, bool, i16),
    Remove(u8),
    Rename(u8, u8),
}

struct Base {
    header: Map<String, Value>,
    data: Vec<u8>,
    config: Value,
}

static BASES: LazyLock<Vec<Base>> = LazyLock::new(|| {
    [(4, 32, false), (4, 64, true), (8, 32, false), (8, 128, false)]
        .into_iter()
        .enumerate()
        .map(|(at, (bits, group, minimum))| {
            let number = if at % 2 == 0 { Number::F32 } else { Number::Bf16 };
            let model = Tiny { output_norms: at % 2 == 0, tied_head: at == 3, number };
            let folder = tempfile::tempdir().expect("a folder");
            let (source, target) = (folder.path().join("source"), folder.path().join("target"));
            fs::create_dir(&source).expect("a folder");
            Tiny::write(&source, &model.config(), &model.tensors(Tiny::usual)).expect("a model");
            let mut options = QuantizeOptions::new(bits, group);
            options.minimum = minimum;
            quantize(&source, &target, &options, &mut |_, _, _| ControlFlow::Continue(()))
                .expect("it is quantized");
            let file = fs::read(target.join("model.safetensors")).expect("the file");
            let (header, data) =
                file[8..].split_at(u64::from_le_bytes(file[..8].try_into().expect("8")) as usize);
            let header = serde_json::from_slice(header).expect("a header");
            Base { header, data: data.to_vec(), config: model.config() }
        })
        .collect()
});

fn key(map: &Map<String, Value>, at: u8) -> Option<String> {
    map.keys().nth(usize::from(at) % map.len().max(1)).cloned()
}

/// A tensor of the header.
fn tensor(header: &mut Map<String, Value>, at: u8) -> Option<&mut Value> {
    let name = key(header, at).filter(|name| name != "__metadata__")?;
    header.get_mut(&name)
}

fn change(header: &mut Map<String, Value>, change: &Change) -> Option<()> {
    match *change {
        Change::Metadata(at, value) => {
            let metadata = header.get_mut("__metadata__")?.as_object_mut()?;
            let key = key(metadata, at)?;
            match value {
                Some(value) => metadata.insert(key, json!(value)),
                None => metadata.remove(&key),
            };
        }
        Change::Piece(key_at, at, piece) => {
            let metadata = header.get_mut("__metadata__")?.as_object_mut()?;
            let key = key(metadata, key_at)?;
            let mut value: Vec<char> = metadata.get(&key)?.as_str()?.chars().collect();
            let at = usize::from(at) % value.len().max(1);
            let end = (at + piece.chars().count().max(1)).min(value.len());
            value.splice(at..end, piece.chars());
            metadata.insert(key, value.into_iter().collect::<String>().into());
        }
        Change::Key(key, value) => {
            header.get_mut("__metadata__")?.as_object_mut()?.insert(key.to_owned(), json!(value));
        }
        Change::Dtype(at, dtype) => {
            let names = ["U8", "I8", "F16", "BF16", "F32", "I32", "I64", "F64", "BOOL"];
            tensor(header, at)?["dtype"] = json!(names[usize::from(dtype) % names.len()]);
        }
        Change::Axis(at, axis, by) => {
            let shape = tensor(header, at)?["shape"].as_array_mut()?;
            let axis = usize::from(axis) % shape.len().max(1);
            let length = shape.get_mut(axis)?;
            *length = json!(length.as_u64()?.wrapping_add_signed(by.into()));
        }
        Change::Swap(at, a, b) => {
            let shape = tensor(header, at)?["shape"].as_array_mut()?;
            let n = shape.len().max(1);
            let (a, b) = (usize::from(a) % n, usize::from(b) % n);
            if n == shape.len() {
                shape.swap(a, b);
            }
        }
        Change::Offset(at, end, by) => {
            let offset = tensor(header, at)?["data_offsets"].get_mut(usize::from(end))?;
            *offset = json!(offset.as_u64()?.wrapping_add_signed(by.into()));
        }
        Change::Remove(at) => {
            let name = key(header, at)?;
            header.remove(&name);
        }
        Change::Rename(from, to) => {
            let (from, to) = (key(header, from)?, key(header, to)?);
            let value = header.remove(&from)?;
            header.insert(to, value);
        }
    }
    Some(())
}

fuzz_target!(|case: Case| {
    let base = &BASES[usize::from(case.base) % BASES.len()];
    let (mut header, mut data) = (base.header.clone(), base.data.clone());
    let changes = &case.changes[..case.changes.len().min(8)];
    for made in changes {
        let _ = change(&mut header, made);
    }
    let mut text = Value::Object(header).to_string().into_bytes();
    // As it was written: data begin at a multiple of 64.
    text.resize((8 + text.len()).next_multiple_of(64) - 8, b' ');
    for &(in_header, at, bits) in case.flips.iter().take(8) {
        let bytes = if in_header { &mut text } else { &mut data };
        let at = usize::from(at) % bytes.len();
        bytes[at] ^= bits;
    }
    let mut file = [&(text.len() as u64).to_le_bytes()[..], &text, &data].concat();
    if let Some(cut) = case.cut {
        file.truncate(usize::from(cut));
    }
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("config.json"), base.config.to_string()).expect("a file");
    fs::write(folder.path().join("model.safetensors"), file).expect("a file");
    let mut options = one_thread();
    options.activations = case.float_activations.then_some(Activations::F32);
    match Model::open(folder.path(), &options) {
        Ok(model) => {
            let inventory = model.inventory();
            assert!(inventory.bytes() > 0);
            assert_eq!(logits(&model, &[1, 2, 3]).expect("it runs").len(), Tiny::VOCAB);
        }
        Err(error) => {
            let is_changed =
                !case.changes.is_empty() || !case.flips.is_empty() || case.cut.is_some();
            assert!(is_changed, "{error}");
        }
    }
});

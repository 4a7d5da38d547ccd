//! Malformed and malicious files. Each must give an error with a message, in bounded time and memory.

#[path = "common/forge.rs"]
mod forge;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::path::Path;

use forge::{Entry, Tensor, dict, int, ints, pickle, text, torch, torch_entries, zip, zip64};
use glm_model::{Checkpoint, Format, Result};

/// An allocator that sums the allocated bytes of each thread, including freed ones.
struct Counting;

thread_local! {
    static ALLOCATED: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: all calls are forwarded to the system allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.set(ALLOCATED.get() + layout.size());
        // SAFETY: the caller upholds the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller upholds the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Opens a file. The memory must be bounded by a constant plus a multiple of the file size.
#[track_caller]
fn open(format: Format, file: &[u8]) -> Result<Checkpoint> {
    let before = ALLOCATED.get();
    let result = Checkpoint::from_bytes(format, file.to_vec());
    let allocated = ALLOCATED.get() - before;
    let limit = 64 * 1024 + 250 * file.len();
    assert!(allocated < limit, "{allocated} bytes for a file of {}", file.len());
    result
}

#[track_caller]
fn good(format: Format, file: &[u8]) -> Checkpoint {
    open(format, file).unwrap_or_else(|error| panic!("{error}"))
}

#[track_caller]
fn refused(format: Format, file: &[u8], problem: &str) {
    let error = open(format, file).expect_err("the file was believed").to_string();
    assert!(error.contains(problem), "expected …{problem}…, found {error}");
}

#[track_caller]
fn torch_refused(file: &[u8], problem: &str) {
    refused(Format::Torch, file, problem);
}

#[track_caller]
fn pickle_refused(opcodes: &[&[u8]], problem: &str) {
    torch_refused(&torch(&pickle(opcodes), &[("0", &[0; 24])]), problem);
}

#[track_caller]
fn header_refused(header: &str, problem: &str) {
    refused(Format::Safetensors, &forge::safetensors(header, &[0; 24]), problem);
}

const SAFETENSORS: &str = r#"{"__metadata__":{"format":"pt"},
    "a":{"dtype":"F16","shape":[2,3],"data_offsets":[0,12]},
    "b":{"dtype":"F32","shape":[3],"data_offsets":[12,24]}}"#;

const A: Tensor = Tensor {
    storage: "HalfStorage",
    key: "0",
    numel: 12,
    offset: 0,
    shape: &[2, 3],
    strides: &[3, 1],
};
const B: Tensor = Tensor { offset: 6, ..A };
const DATA: [u8; 24] =
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24];

fn good_safetensors() -> Vec<u8> {
    forge::safetensors(SAFETENSORS, &DATA)
}

fn good_entries() -> Vec<Entry> {
    torch_entries(&pickle(&[&dict(&[("a", A), ("b", B)])]), &[("0", &DATA)])
}

/// The valid archive with a change to its last entry, the storage.
fn changed(change: impl FnOnce(&mut Entry)) -> Vec<u8> {
    let mut entries = good_entries();
    change(entries.last_mut().unwrap());
    zip(&entries)
}

#[test]
fn valid_files_are_read() {
    let checkpoint = good(Format::Safetensors, &good_safetensors());
    assert_eq!(checkpoint.metadata().get("format").map(String::as_str), Some("pt"));
    assert_eq!(checkpoint.tensor("b").unwrap().bytes(), &DATA[12..]);
    for file in [zip(&good_entries()), zip64(&good_entries())] {
        let checkpoint = good(Format::Torch, &file);
        assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(checkpoint.tensor("a").unwrap().bytes(), &DATA[..12]);
        assert_eq!(checkpoint.tensor("b").unwrap().bytes(), &DATA[12..], "a view with an offset");
        assert_eq!(checkpoint.tensor("b").unwrap().shape(), [2, 3]);
        assert_eq!(checkpoint.total_bytes(), 24);
    }
}

#[test]
fn truncated_files_are_refused() {
    for (format, file) in [
        (Format::Safetensors, good_safetensors()),
        (Format::Torch, zip(&good_entries())),
        (Format::Torch, zip64(&good_entries())),
    ] {
        for len in 0..file.len() {
            open(format, &file[..len]).expect_err("a part of a file was believed");
        }
        let longer = [&file[..], b"\0"].concat();
        open(format, &longer).expect_err("a byte too many was believed");
    }
}

/// Success and errors are both allowed, panics are not. The length of tensors must match their shape.
#[test]
fn changed_bytes_do_not_panic() {
    for (format, file) in [
        (Format::Safetensors, good_safetensors()),
        (Format::Torch, zip(&good_entries())),
        (Format::Torch, zip64(&good_entries())),
    ] {
        let mut refused = 0;
        for at in 0..file.len() {
            for bits in [0x01, 0x02, 0x10, 0x80, 0xff] {
                let mut file = file.clone();
                file[at] ^= bits;
                let Ok(checkpoint) = open(format, &file) else {
                    refused += 1;
                    continue;
                };
                for name in checkpoint.names() {
                    let tensor = checkpoint.tensor(name).unwrap();
                    let count: usize = tensor.shape().iter().product();
                    assert_eq!(tensor.bytes().len(), count * tensor.dtype().size());
                }
            }
        }
        assert!(refused > file.len(), "only {refused} of {} changes were noticed", 5 * file.len());
    }
}

#[test]
fn safetensors_lengths() {
    let mut file = good_safetensors();
    for length in [1 << 63, u64::MAX, u64::MAX - 7, 17 << 20] {
        file[..8].copy_from_slice(&length.to_le_bytes());
        refused(Format::Safetensors, &file, "its header would have");
    }
    file[..8].copy_from_slice(&(16u64 << 20).to_le_bytes());
    refused(Format::Safetensors, &file, "is cut off: a header of 16777216 bytes");
    header_refused("{}", "the header promises 0 bytes of data, found 24");
}

#[test]
fn safetensors_headers() {
    let entry = |dtype: &str, shape: &str, from: u64, to: u64| {
        format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{from},{to}]}}"#)
    };
    let one = |tensor: String| format!(r#"{{"a":{tensor}}}"#);
    let two = |a: String, b: String| format!(r#"{{"a":{a},"b":{b}}}"#);
    let big = u64::MAX;
    header_refused(&one(entry("F16", "[12]", 24, 0)), "invalid offset");
    header_refused(&one(entry("F16", "[13]", 0, 24)), "invalid shape");
    header_refused(&one(entry("F16", "[11]", 0, 22)), "promises 22 bytes of data, found 24");
    header_refused(&one(entry("F16", "[9223372036854775808,2]", 0, 24)), "overflow");
    header_refused(&one(entry("F16", &format!("[{big}]"), 0, 24)), "overflow");
    header_refused(&one(entry("F16", "[-12]", 0, 24)), "invalid value");
    header_refused(&one(entry("F17", "[12]", 0, 24)), "unknown variant `F17`");
    header_refused(&one(entry("F8_E4M3", "[24]", 0, 24)), "type F8_E4M3 is not supported");
    header_refused(&one(entry("U8", "[1,1,1,1,1,1,1,1,24]", 0, 24)), "has 9 axes");
    let halves = [entry("U8", "[12]", 0, 12), entry("U8", "[12]", 12, 24)];
    good(
        Format::Safetensors,
        &forge::safetensors(&two(halves[0].clone(), halves[1].clone()), &DATA),
    );
    header_refused(&two(halves[0].clone(), entry("U8", "[13]", 11, 24)), "invalid offset");
    header_refused(&two(halves[0].clone(), entry("U8", "[11]", 13, 24)), "invalid offset");
    header_refused(&two(halves[0].clone(), halves[0].clone()), "invalid offset");
    let all = entry("U8", "[24]", 0, 24);
    header_refused(&format!(r#"{{"a":{all},"a":{all}}}"#), "tensor a appears twice");
    header_refused(&format!(r#"{{"a\n":{all}}}"#), "cannot be printed");
    header_refused("[]", "expected an object of tensors");
    header_refused(&"[".repeat(1 << 20), "header: ");
    header_refused(&format!(r#"{{"a":{}"#, "[".repeat(1 << 20)), "header: ");
}

/// A few bytes of a header are many in memory.
#[test]
fn entries_of_headers_are_bounded() {
    let all = r#""a":{"dtype":"U8","shape":[24],"data_offsets":[0,24]}"#;
    let metadata = |n: usize| (0..n).map(|i| format!("\"{i}\":\"\"")).collect::<Vec<_>>().join(",");
    let header = |n| format!(r#"{{"__metadata__":{{{}}},{all}}}"#, metadata(n));
    good(Format::Safetensors, &forge::safetensors(&header(1024), &[0; 24]));
    header_refused(&header(1025), "__metadata__ has more than 1024 entries");
    let empty = |n: usize| format!(r#""{n:x}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#);
    let header = |n| format!("{{{}}}", (0..n).map(empty).collect::<Vec<_>>().join(","));
    refused(
        Format::Safetensors,
        &forge::safetensors(&header((1 << 18) + 1), &[]),
        "has more than 262144 tensors",
    );
    index_refused(&format!("{{{}}}", metadata(1 << 18)), "has more than 262144 values");
}

/// Tensors of 2⁶¹ − 1 bytes each, until the sum passes 2⁶⁴.
#[test]
fn safetensors_sums_do_not_overflow() {
    let len = (1u64 << 61) - 1;
    let entry = |i: u64| {
        let (from, to) = (i * len, (i + 1) * len);
        format!(r#""{i}":{{"dtype":"I8","shape":[{len}],"data_offsets":[{from},{to}]}}"#)
    };
    let header = format!("{{{}}}", (0..8).map(entry).collect::<Vec<_>>().join(","));
    header_refused(&header, "the header promises 18446744073709551608 bytes");
}

#[test]
fn zip_entries() {
    torch_refused(&changed(|entry| entry.method = 8), "is compressed by method 8");
    torch_refused(&changed(|entry| entry.flags = 1), "is encrypted");
    torch_refused(&changed(|entry| entry.local_name = "m/data/1".into()), "has another name");
    torch_refused(&changed(|entry| entry.local_size = 23), "the local header says [23, 23]");
    good(Format::Torch, &changed(|entry| (entry.local_size, entry.flags) = (0, 8)));
    torch_refused(&changed(|entry| entry.local_size = 0), "the local header says [0, 0]");
    torch_refused(&changed(|entry| entry.sizes = [24, 1 << 30]), "has 24 bytes for 1073741824");
    torch_refused(&changed(|entry| entry.header = Some(0)), "has another name");
    torch_refused(&changed(|entry| entry.header = Some(1)), "no local header");
    torch_refused(&changed(|entry| entry.header = Some(1 << 31)), "begins at byte 2147483648");
    let huge = |entry: &mut Entry| (entry.local_size, entry.sizes) = (1 << 30, [1 << 30; 2]);
    torch_refused(&changed(huge), "is cut off: 1073741824 bytes follow");
    let twice = [good_entries(), vec![Entry::new("m/data/0", &DATA)]].concat();
    torch_refused(&zip(&twice), "\"m/data/0\" appears twice");
    let end = |from_end: usize, value: u8| {
        let mut file = zip(&good_entries());
        let at = file.len() - from_end;
        file[at] = value;
        file
    };
    torch_refused(&end(2, 1), "is a zip file with a comment");
    torch_refused(&end(14, 2), "is one part of a zip archive in several");
    let mut miscounted = end(14, 2);
    let at = miscounted.len() - 12;
    miscounted[at] = 2;
    torch_refused(&miscounted, "the zip directory has 3 entries, not 2");
    torch_refused(&zip(&[]), "is an empty zip file");
    torch_refused(&zip(&[Entry::new("m/data/0", &DATA)]), "without data.pkl");
    torch_refused(&zip(&[Entry::new("m/data.pkl", &[0; (4 << 20) + 1])]), "more than 4194304");
    let mut foreign = good_entries();
    foreign[1] = Entry::new("m/byteorder", b"big");
    torch_refused(&zip(&foreign), "little-endian");
}

/// An entry inside the data of another.
#[test]
fn zip_entries_do_not_overlap() {
    let inner = zip(&[Entry::new("m/data/1", &DATA)]);
    let mut entries = good_entries();
    let start = zip(&entries[..2]).windows(4).position(|bytes| bytes == b"PK\x01\x02").unwrap();
    let outer = entries.last_mut().unwrap();
    *outer = Entry::new("m/data/0", &inner);
    let header = start + 30 + "m/data/0".len();
    // The directory entry of the inner file. Its local header is in the data of the outer file.
    let mut hidden = Entry::new("m/data/1", &DATA);
    hidden.header = Some(header as u32);
    entries.push(hidden);
    torch_refused(&zip(&entries), "\"m/data/1\" overlaps another");
}

#[test]
fn zip64_sizes() {
    let claim = |size: u64| {
        changed(|entry| {
            entry.local_size = u32::MAX;
            entry.sizes = [u32::MAX; 2];
            entry.extra = [&b"\x01\0\x10\0"[..], &size.to_le_bytes(), &size.to_le_bytes()].concat();
        })
    };
    good(Format::Torch, &claim(24));
    torch_refused(&claim(1 << 60), "is cut off: 1152921504606846976 bytes follow");
    torch_refused(&claim(u64::MAX), "is cut off: 18446744073709551615 bytes follow");
    torch_refused(
        &changed(|entry| entry.sizes = [u32::MAX; 2]),
        "is cut off: 8 bytes follow byte 0, found 0",
    );
    let file = zip64(&good_entries());
    let end = file.len() - 22;
    for (at, problem) in [
        (end - 12, "zip64 end is not where"),   // The locator's offset.
        (end - 20 - 8, "does not lie before"),  // The directory's start.
        (end - 20 - 16, "does not lie before"), // Its length.
        (end - 20 - 24, "disagree"),            // Its count …
    ] {
        let mut file = file.clone();
        file[at] ^= 1;
        if problem == "disagree" {
            file[at - 8] ^= 1; // … which it says twice.
        } else if problem == "does not lie before" {
            file[end + if at == end - 28 { 16 } else { 12 }] ^= 1;
        }
        torch_refused(&file, problem);
    }
}

#[test]
fn other_file_formats_are_named() {
    torch_refused(b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9 j\xa8P\x19.", "Resave it in Python");
    torch_refused(b"", "is not a file that torch.save wrote");
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    torch_refused(pointer, "git lfs pull");
    refused(Format::Safetensors, pointer, "git lfs pull");
}

#[test]
fn pickles_do_not_execute_code() {
    let call = [&b"cos\nsystem\n"[..], &text("echo pwned"), b"\x85R"].concat();
    pickle_refused(&[&call], "refers to os.system");
    pickle_refused(
        &[b"ctorch.storage\n_load_from_bytes\n"],
        "refers to torch.storage._load_from_bytes",
    );
    pickle_refused(&[b"ctorch\nload\n"], "refers to torch.load");
    pickle_refused(&[b"c__builtin__\neval\n"], "refers to __builtin__.eval");
    pickle_refused(&[b"ca\x1b[2J\nb\n"], r"refers to a\x1b[2J.b,");
    pickle_refused(&[b"c", &[b'x'; 5000]], "a line without end");
    pickle_refused(&[b"(S'ls'\nios\nsystem\n"], "opcode 0x53 ('S')");
    pickle_refused(&[b"(ios\nsystem\n"], "opcode 0x69 ('i')");
    pickle_refused(&[&text("os"), &text("system"), b"\x93"], "refers to os.system");
    pickle_refused(&[b"\x93"], "needs 2 values");
    pickle_refused(&[b"\x82"], r"opcode 0x82 ('\u{82}')");
    pickle_refused(&[b"ctorch\nHalfStorage\n)R"], "calls Storage(F16) with 0 arguments");
    pickle_refused(&[b"ccollections\nOrderedDict\n(]tR"], "calls OrderedDict with 1 arguments");
    pickle_refused(&[b"ctorch._utils\n_rebuild_tensor_v2\n)R"], "with 0 arguments");
    pickle_refused(&[b"K\x01)R"], "calls what is not a function");
    let known = [
        &b"\x80\x88\x89\x8a\x85\x86\x87().NJKMGXt]ae}suqrhjcQRb"[..],
        b"\x8c\x8dCB\x8e\x96\x8f\x90\x91\x94\x95\x93",
    ];
    for opcode in (0..=u8::MAX).filter(|opcode| !known.concat().contains(opcode)) {
        pickle_refused(&[&[opcode]], &format!("byte 2: opcode {opcode:#04x}"));
    }
}

#[test]
fn pickle_stack_underflows_are_refused() {
    pickle_refused(&[b""], "needs 1 values");
    pickle_refused(&[b"}("], "needs 1 values");
    pickle_refused(&[b"(}"], "STOP before everything was used");
    pickle_refused(&[b"}}"], "STOP before everything was used");
    pickle_refused(&[b"}.}"], "STOP before everything was used");
    pickle_refused(&[b"t"], "no mark");
    pickle_refused(&[b"}(s"], "needs 2 values");
    pickle_refused(&[b"}(K\x01u"], "a key without a value");
    pickle_refused(&[b"]K\x01K\x02s"], "sets items of what is not a dictionary");
    pickle_refused(&[b"}K\x01a"], "appends to what is not a list");
    pickle_refused(&[b"K\x01\x85}b"], "sets attributes of what is not a dictionary");
    pickle_refused(&[b"h\x07"], "nothing under memo key 7");
    pickle_refused(&[b"(q\x00"], "needs 1 values");
    pickle_refused(&[b"\x80\x04"], "needs 1 values");
    pickle_refused(&[b"\x80\x06"], "pickle protocol 6, expected 2 to 5");
    pickle_refused(&[b"K\x01"], "data.pkl is not a dictionary of tensors");
    pickle_refused(&[b"X\xff\xff\xff\xff"], "is cut off: 4294967295 bytes follow");
    pickle_refused(&[b"X\x01\0\0\0\xff"], "text that is not UTF-8");
    pickle_refused(&[b"\x8a\xff", &[0; 255]], "an integer of 255 bytes");
    pickle_refused(&[&text("module"), b"\x85Q"], "a persistent id that is not a storage");
}

#[test]
fn pickles_of_modules_are_read() {
    let parameter =
        [b"ctorch._utils\n_rebuild_parameter\n(", &A.opcodes()[..], b"\x88}tR"].concat();
    let items =
        [&text("step")[..], b"K\x05", &text("list"), b"](Ne", &text("w"), &parameter].concat();
    let metadata = [&b"}"[..], &text("_metadata"), b"}s"].concat();
    let root = [&b"}("[..], &items, b"u", &metadata, b"b"].concat();
    let nested = [&b"}"[..], &text("module"), &root, b"s"].concat();
    for (opcodes, name) in [(root, "w"), (nested, "module.w")] {
        let checkpoint = good(Format::Torch, &torch(&pickle(&[&opcodes]), &[("0", &DATA)]));
        assert_eq!(checkpoint.names().collect::<Vec<_>>(), [name]);
        assert_eq!(checkpoint.tensor(name).unwrap().bytes(), &DATA[..12]);
    }
}

#[test]
fn pickles_that_are_deep_wide_or_cyclic() {
    // A dictionary that contains itself, and one that is referenced twice.
    pickle_refused(&[b"}q\0", &text("a"), b"h\0s"], "\"a.\" appears in more than one place");
    let shared = [&b"}("[..], &text("a"), b"}q\0", &text("b"), b"h\0u"].concat();
    pickle_refused(&[&shared], "appears in more than one place");
    // A million nested tuples, and exponential growth: a pair of the previous pair, a million times.
    let deep = [&b")"[..], &b"\x85".repeat(1_000_000)].concat();
    pickle_refused(&[&deep], "data.pkl is not a dictionary");
    let doubled = [&b")"[..], &b"q\0h\0\x86".repeat(700_000)].concat();
    pickle_refused(&[&doubled], "data.pkl is not a dictionary");
    // A million nested dictionaries.
    let key = text("");
    let deep =
        [&[b"}", &key[..]].concat().repeat(500_000)[..], b"}", &b"s".repeat(500_000)].concat();
    pickle_refused(&[&deep], "dictionaries lie more than 8 deep");
    // A million open marks, and a tall stack that is repeatedly cut at the bottom.
    pickle_refused(&[&b"(".repeat(1_000_000)], "needs 1 values");
    let cut = [b"(".repeat(100_000), b"N".repeat(100_000), b"t".repeat(100_000)].concat();
    pickle_refused(&[&cut], "data.pkl is not a dictionary");
}

#[test]
fn pickles_with_long_names() {
    let long = "x".repeat(600);
    pickle_refused(&[&dict(&[(&long, A)])], "a tensor's name is longer than 512 bytes");
    let key = "x".repeat(1 << 20);
    let tensor = Tensor { key: &key, ..A };
    pickle_refused(&[&dict(&[("a", tensor)])], "its storage is not in the file");
    // A valid name, but too long to look up for each of many tensors.
    let key = "x".repeat(513);
    let file = torch(&pickle(&[&dict(&[("a", Tensor { key: &key, ..A })])]), &[(&key, &DATA)]);
    torch_refused(&file, "its storage is not in the file");
    pickle_refused(&[&dict(&[("a", A), ("a", B)])], "tensor a: appears twice");
}

#[test]
fn pickled_tensors_stay_within_their_storage() {
    let refuse = |tensor: Tensor, problem: &str| {
        pickle_refused(&[&dict(&[("a.b", tensor)])], &format!("memory: tensor a.b: {problem}"));
    };
    refuse(Tensor { shape: &[3, 2], strides: &[1, 3], ..A }, "shape [3, 2] has strides [1, 3]");
    refuse(Tensor { shape: &[2, 3], strides: &[0, 0], ..A }, "shape [2, 3] has strides [0, 0]");
    refuse(Tensor { shape: &[2, 3], strides: &[3], ..A }, "shape [2, 3] has strides [3]");
    refuse(Tensor { shape: &[-2], strides: &[1], ..A }, "has a size of -2");
    refuse(Tensor { shape: &[1; 9], strides: &[1; 9], ..A }, "has 9 axes");
    refuse(Tensor { shape: &[13], strides: &[1], ..A }, "F16 [13] at 0 reaches beyond its storage");
    refuse(Tensor { offset: 7, ..A }, "F16 [2, 3] at 7 reaches beyond");
    refuse(Tensor { offset: -1, ..A }, "F16 [2, 3] at -1 reaches beyond");
    refuse(Tensor { offset: i64::MAX, ..A }, "F16 [2, 3] at 9223372036854775807 reaches beyond");
    refuse(Tensor { shape: &[i64::MAX], strides: &[1], ..A }, "F16 [9223372036854775807] at 0");
    refuse(Tensor { numel: 13, ..A }, "its storage of 13 F16 is cut off: 24 bytes");
    refuse(Tensor { numel: -1, ..A }, "its storage of -1 F16");
    refuse(Tensor { numel: i64::MAX, ..A }, "its storage of 9223372036854775807 F16");
    refuse(Tensor { storage: "DoubleStorage", ..A }, "its storage of 12 F64 is cut off");
    refuse(Tensor { key: "1", ..A }, "its storage is not in the file");
    refuse(Tensor { key: "../byteorder", ..A }, "its storage is not in the file");
    let wrong =
        [b"ctorch._utils\n_rebuild_tensor_v2\n(K\x01", &int(0)[..], &ints(&[1]), &ints(&[1])];
    let wrong = [b"}", &text("a")[..], &wrong.concat(), b"NNtRs"].concat();
    pickle_refused(&[&wrong], "tensor a: is not made from a storage");
}

/// A directory with the given files.
fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

const INDEX: &str = "pytorch_model.bin.index.json";

#[track_caller]
fn index_refused(weight_map: &str, problem: &str) {
    let file = |name| torch(&pickle(&[&dict(&[(name, A)])]), &[("0", &DATA)]);
    let index = format!(r#"{{"metadata":{{}},"weight_map":{weight_map}}}"#);
    let (one, two) = (file("a"), file("b"));
    let folder = folder(&[("1.bin", &one), ("2.bin", &two), (INDEX, index.as_bytes())]);
    let error = Checkpoint::open(folder.path()).expect_err("the index was believed").to_string();
    let error = error.replace(&format!("{}/", folder.path().display()), "");
    assert!(error.contains(problem), "expected …{problem}…, found {error}");
}

#[test]
fn index_must_match_its_files() {
    index_refused(r#"{"a":"1.bin","b":"3.bin"}"#, "3.bin: No such file");
    index_refused(r#"{"a":"1.bin","b":"1.bin"}"#, "1.bin: tensor b: is missing, though the index");
    let listed =
        "2.bin: tensor b: is here, though pytorch_model.bin.index.json says that it is in 1.bin";
    index_refused(r#"{"a":"2.bin","b":"1.bin"}"#, "1.bin: tensor a: is here, though");
    index_refused(r#"{"a":"1.bin","b":"1.bin","c":"2.bin"}"#, listed);
    index_refused(
        r#"{"c":"1.bin"}"#,
        "1.bin: tensor a: is not listed in pytorch_model.bin.index.json",
    );
    index_refused(r#"{"a":1}"#, "pytorch_model.bin.index.json: invalid type");
    for evil in
        ["../evil", "/etc/passwd", "a/1.bin", r"a\\1.bin", "..", ".", "", "c:1.bin", r"1.bin\u0000"]
    {
        index_refused(&format!(r#"{{"a":"{evil}"}}"#), "is not the name of a file in its folder");
    }
}

/// A SwissArmyTransformer directory.
fn ranks(latest: &str, files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = folder(&[("latest", latest.as_bytes())]);
    fs::create_dir(folder.path().join("100")).unwrap();
    for (name, content) in files {
        fs::write(folder.path().join("100").join(name), content).unwrap();
    }
    folder
}

#[test]
fn tensor_parallel_ranks_must_be_complete() {
    let inner = dict(&[("a", A)]);
    let shard =
        torch(&pickle(&[&[&b"}"[..], &text("module"), &inner, b"s"].concat()]), &[("0", &DATA)]);
    let name = |rank: usize| format!("mp_rank_{rank:02}_model_states.pt");
    let (zero, one, two) = (name(0), name(1), name(2));
    let both = ranks("100\n", &[(&zero, &shard), (&one, &shard)]);
    let checkpoint = Checkpoint::open(both.path()).unwrap();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["mp_rank_00/a", "mp_rank_01/a"]);
    assert_eq!(checkpoint.ranks(), ["mp_rank_00/", "mp_rank_01/"]);
    for (latest, files, problem) in [
        (
            "100",
            &[(&zero[..], &shard[..]), (&two, &shard)][..],
            "mp_rank_01_model_states.pt is missing",
        ),
        ("100", &[], "mp_rank_00_model_states.pt is missing"),
        ("100", &[(&zero, b"damaged")], "mp_rank_00_model_states.pt"),
        ("../100", &[(&zero, &shard)], "is not the name of a folder"),
        ("", &[(&zero, &shard)], "is not the name of a folder"),
        ("200", &[(&zero, &shard)], "200: No such file"),
    ] {
        let folder = ranks(latest, files);
        let error = Checkpoint::open(folder.path()).expect_err("it was believed").to_string();
        assert!(error.contains(problem), "{error}");
    }
}

#[test]
fn missing_files_are_named() {
    let empty = folder(&[]);
    let error = Checkpoint::open(empty.path()).unwrap_err().to_string();
    assert!(
        error.contains(
            "looked for model.safetensors, model.safetensors.index.json, pytorch_model.bin, "
        ),
        "{error}"
    );
    let missing = Checkpoint::open(Path::new("no/such/folder")).unwrap_err().to_string();
    assert!(missing.starts_with("no/such/folder: No such file"), "{missing}");
}

#[test]
fn safetensors_are_preferred_to_torch() {
    let (safetensors, torch) = (good_safetensors(), b"damaged");
    let folder = folder(&[("model.safetensors", &safetensors), ("pytorch_model.bin", torch)]);
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.tensor("a").unwrap().path(), folder.path().join("model.safetensors"));
    let single = Checkpoint::open(folder.path().join("model.safetensors")).unwrap();
    assert!(single.names().eq(checkpoint.names()));
}

/// Many tensors that share the same bytes of a short file. Repacking each of them would take a multiple of the file size.
#[test]
fn tensors_with_shared_bytes_do_not_multiply_memory() {
    let config = r#"{"model_type": "chatglm", "num_layers": 1, "hidden_size": 8, "num_attention_heads": 1,
        "inner_hidden_size": 8, "vocab_size": 16, "max_sequence_length": 16, "layernorm_epsilon": 1e-5,
        "bos_token_id": 1, "eos_token_id": 2, "mask_token_id": 3, "gmask_token_id": 4, "pad_token_id": 5}"#;
    let mut shapes: Vec<(String, Vec<i64>)> =
        vec![("transformer.word_embeddings.weight".into(), vec![16, 8])];
    let layer = |part: &str| format!("transformer.layers.0.{part}");
    for norm in [
        layer("input_layernorm"),
        layer("post_attention_layernorm"),
        "transformer.final_layernorm".into(),
    ] {
        shapes.extend(["weight", "bias"].map(|part| (format!("{norm}.{part}"), vec![8])));
    }
    let linears = [
        ("attention.query_key_value", 24),
        ("attention.dense", 8),
        ("mlp.dense_h_to_4h", 8),
        ("mlp.dense_4h_to_h", 8),
    ];
    for (name, rows) in linears {
        shapes.push((layer(&format!("{name}.weight")), vec![rows, 8]));
        shapes.push((layer(&format!("{name}.bias")), vec![rows]));
    }
    let write = |apart: bool| {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("config.json"), config).unwrap();
        let mut offset = 0;
        let tensors: Vec<_> = shapes
            .iter()
            .map(|(name, shape)| {
                let start = offset;
                offset += if apart { shape.iter().product::<i64>() } else { 0 };
                let strides: &[i64] = if shape.len() == 2 { &[8, 1] } else { &[1] };
                (name.as_str(), Tensor { offset: start, numel: 4096, shape, strides, ..A })
            })
            .collect();
        let file = torch(&pickle(&[&dict(&tensors)]), &[("0", &[0; 4096 * 4])]);
        fs::write(folder.path().join("pytorch_model.bin"), file).unwrap();
        glm_model::Model::open(folder.path(), &glm_model::Options::default()).map(|_| ())
    };
    write(true).unwrap();
    let error = write(false).unwrap_err().to_string();
    assert!(error.contains("shares its bytes with"), "{error}");
}

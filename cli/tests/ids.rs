//! What needs no tokenizer, against recorded outputs of the published model code.

mod common;

use std::fs;
use std::path::Path;

use common::{glm, json, refusal, stderr, stdout, text, tiny};
use safetensors::SafeTensors;
use serde_json::Value;

fn goldens(folder: &str) -> Value {
    serde_json::from_slice(&fs::read(Path::new(folder).join("golden.json")).unwrap()).unwrap()
}

fn floats(file: &[u8], name: &str) -> (Vec<usize>, Vec<f32>) {
    let file = SafeTensors::deserialize(file).unwrap();
    let tensor = file.tensor(name).unwrap();
    let (words, rest) = tensor.data().as_chunks();
    assert!(rest.is_empty());
    (tensor.shape().to_vec(), words.iter().map(|&word| f32::from_le_bytes(word)).collect())
}

/// The logits of every case in `folder/golden.json` for the model in `variant`.
fn logits_are_golden(folder: &str, variant: &str) {
    let dir = tempfile::tempdir().unwrap();
    let out = text(&dir.path().join("logits.safetensors"));
    let recorded = fs::read(Path::new(folder).join("golden.safetensors")).unwrap();
    for case in goldens(folder)["cases"].as_array().unwrap() {
        let ids = case["prompt_ids"].to_string();
        let words = ["logits", "-m", variant, "--ids", &ids, "--activations", "f32", "--out", &out];
        let run = glm(&words).output().unwrap();
        assert!(run.status.success(), "{}", stderr(&run));
        let name = case["name"].as_str().unwrap();
        let (shape, found) = floats(&fs::read(&out).unwrap(), "logits");
        let (expected_shape, expected) = floats(&recorded, &format!("{name}.prefill_logits"));
        let tokens = case["prompt_ids"].as_array().unwrap().len();
        assert_eq!(shape, [tokens, expected_shape[1]], "{name}");
        // Of a long prompt, the last rows alone are recorded.
        let last = &found[found.len() - expected.len()..];
        let is_near = |(a, b): (&f32, &f32)| (a - b).abs() <= 2e-4;
        assert!(last.iter().zip(&expected).all(is_near), "{name}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn logits_are_those_of_the_published_code() {
    let f16 = tiny("bin-f16");
    let folder = text(Path::new(&f16).parent().unwrap());
    logits_are_golden(&folder, &f16);
    logits_are_golden(&tiny("int4"), &tiny("int4"));
}

#[test]
fn greedy_ids_are_those_of_the_published_code() {
    let model = tiny("bin-f16");
    let goldens = goldens(&text(Path::new(&model).parent().unwrap()));
    let bos = &goldens["special"]["bos_token_id"];
    for case in goldens["cases"].as_array().unwrap() {
        if !case["prompt_ids"].as_array().unwrap().contains(bos) {
            continue;
        }
        let ids = case["prompt_ids"].to_string();
        let words = ["generate", "-m", &model, "--ids", &ids, "--greedy", "--ignore-eos", "--json"];
        let answer = json(&[&words[..], &["--max-new-tokens", "12"]].concat());
        assert_eq!(answer["ids"], case["greedy_ids"], "{}", case["name"]);
        assert_eq!((&answer["text"], &answer["finish"]), (&Value::Null, &"length".into()));
    }
}

#[test]
fn without_a_tokenizer_ids_are_printed_and_that_is_said() {
    let model = tiny("int4");
    let words = ["generate", "-m", &model, "--ids", "[5,6,301,304]", "--seed", "3"];
    let words = [&words[..], &["--max-new-tokens", "4"]].concat();
    let run = glm(&words).output().unwrap();
    let ids: Vec<u32> = serde_json::from_str(&stdout(&run)).unwrap();
    assert!((1..=4).contains(&ids.len()));
    assert!(stderr(&run).contains("ids only, no text"), "{}", stderr(&run));
    assert_eq!(stdout(&glm(&words).output().unwrap()), stdout(&run), "the same seed");
}

#[test]
fn a_quantized_folder_says_so_and_answers_as_its_official_source() {
    let dir = tempfile::tempdir().unwrap();
    let target = text(&dir.path().join("ready"));
    let source = tiny("int4");
    let run = glm(&["quantize", &source, &target]).output().unwrap();
    assert!(run.status.success(), "{}", stderr(&run));
    assert!(run.stdout.is_empty() && stderr(&run).contains("keep their integers and scales"));

    let info = json(&["info", "-m", &target, "--json"]);
    assert_eq!(info["architecture"], "ChatGLM-6B");
    assert_eq!((&info["quantized"], &info["weights"]["in_memory"]), (&true.into(), &0.into()));
    let generate = |model: &str| {
        let words = ["generate", "-m", model, "--ids", "[5,6,301,304]", "--greedy", "--json"];
        json(&[&words[..], &["--max-new-tokens", "20"]].concat())["ids"].clone()
    };
    assert_eq!(generate(&target), generate(&source));

    // What is there is not overwritten.
    let said = refusal(&["quantize", &source, &target], 1);
    assert!(said.contains("already"), "{said}");
}

#[test]
fn bits_and_groups_are_as_asked() {
    let dir = tempfile::tempdir().unwrap();
    for (bits, group, more, minimum) in [
        ("4", "64", Some("--symmetric"), ""),
        ("8", "128", None, ""),
        ("4", "32", None, " with minimum"),
    ] {
        let target = text(&dir.path().join(bits.to_owned() + group));
        let words = ["quantize", &tiny("bin-f16"), &target, "--bits", bits, "--group", group];
        let words: Vec<_> = words.into_iter().chain(more).collect();
        let run = glm(&words).output().unwrap();
        assert!(run.status.success(), "{}", stderr(&run));
        let rotated = if bits == "8" { " rotated" } else { "" };
        let format = format!("INT{bits}{rotated}{minimum}, groups of {group}");
        assert!(stdout(&glm(&["info", "-m", &target]).output().unwrap()).contains(&format));
    }
}

#[test]
fn info_counts_every_byte_and_says_what_an_unquantized_model_costs() {
    let run = glm(&["info", "-m", &tiny("bin-f16")]).output().unwrap();
    for part in ["ChatGLM-6B", "word embeddings", "keys and values", "2048"] {
        assert!(stdout(&run).contains(part), "{part}");
    }
    assert!(stderr(&run).contains("the weights are F16: 1.26 MB are read for every token"));
    let info = json(&["info", "-m", &tiny("bin-f16"), "--json"]);
    let bytes = info["matrices"].as_array().unwrap().iter().map(|m| m["bytes"].as_u64().unwrap());
    assert_eq!(Some(bytes.sum()), info["weights"]["bytes"].as_u64());
    assert_eq!(info["memory"].as_array().unwrap().len(), 3);
}

#[test]
fn bad_input_is_refused_with_a_reason() {
    let model = tiny("int4");
    let generate = |rest: &[&str], code, part: &str| {
        let words = [&["generate", "-m", &model][..], rest].concat();
        let said = refusal(&words, code);
        assert!(said.contains(part), "{rest:?}: {said}");
    };
    generate(&["--ids", "[5,"], 2, "JSON list of ids");
    generate(&["--ids", "[-5]"], 2, "JSON list of ids");
    generate(&["--ids", "[]"], 2, "empty list");
    generate(&["--ids", "[5,6]"], 1, "sop");
    generate(&["--ids", "[5,99999,301,304]"], 1, "99999");
    generate(&["--prompt", "x"], 1, "no tokenizer");

    let with_ids = |rest: &[&str], code, part: &str| {
        generate(&[&["--ids", "[5,301,304]"], rest].concat(), code, part);
    };
    with_ids(&["--stop", "x"], 1, "no tokenizer");
    with_ids(&["--temperature", "-1"], 2, "from 0 to 100");
    with_ids(&["--top-p", "-0.1"], 2, "from 0 to 1");
    with_ids(&["--max-new-tokens", "0"], 2, "at least 1");
    with_ids(&["--context", "0"], 2, "at least 1");
    with_ids(&["--context", "2049"], 2, "from 1 to 2048");
    with_ids(&["--context", "3"], 1, "the context holds 3");
    with_ids(&["--threads", "0"], 2, "from 1 to 1024");
    with_ids(&["--greedy", "--temperature", "1"], 2, "cannot be used with");
    with_ids(&["--prompt", "x"], 2, "cannot be used with");

    assert!(refusal(&["info", "-m", "/nowhere"], 1).contains("/nowhere"));
    // No folder can be made below a file.
    let file = tempfile::NamedTempFile::new().unwrap();
    let below = text(&file.path().join("x"));
    assert!(refusal(&["quantize", &model, &below], 1).contains(&below));
}

#[test]
fn a_failure_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let model = tiny("int4");
    let logits = |ids: &str, out: &Path, part: &str| {
        let said = refusal(&["logits", "-m", &model, "--ids", ids, "--out", &text(out)], 1);
        assert!(said.contains(part), "{said}");
    };
    logits("[5]", &dir.path().join("missing/out"), "no such folder");
    logits("[5]", dir.path(), "no regular file");
    logits("[99999]", &dir.path().join("out"), "99999");
    logits(&format!("{:?}", [5; 2049]), &dir.path().join("out"), "2048");
    for (flag, value) in [("--bits", "5"), ("--group", "48")] {
        let target = text(&dir.path().join("target"));
        refusal(&["quantize", &model, &target, flag, value], 2);
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

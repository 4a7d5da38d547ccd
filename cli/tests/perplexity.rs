//! `glm perplexity`: against logits of the same ids, and what it refuses.

mod common;

use std::fs;
use std::path::Path;

use common::causal::Family;
use common::{glm, json, refusal, stderr, stdout, talker, text};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use tempfile::TempDir;

const PROSE: &str = "春天来了，河边的柳树发出了新芽。孩子们在草地上放风筝，老人们坐在树下谈天。\
    A traveller asked the way to the old bridge. The boatman said that it was not far, and smiled.";

/// The demonstration model in half precision.
fn exact() -> String {
    text(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/demo/f16"))
}

/// A folder with [`PROSE`] in a file.
fn prose() -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("prose.txt");
    fs::write(&path, PROSE).unwrap();
    let path = text(&path);
    (folder, path)
}

fn ids(model: &str, text: &str) -> Vec<u32> {
    let found = json(&["tokenize", "-m", model, "--json", text]);
    serde_json::from_value(found["ids"].clone()).unwrap()
}

/// The mean loss of the last `counted` of these ids, from `glm logits`.
fn loss(model: &str, ids: &[u32], counted: usize) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let file = text(&folder.path().join("logits"));
    let list = json!(ids).to_string();
    let run = glm(&["logits", "-m", model, "--activations", "f32", "--ids", &list, "--out", &file]);
    let output = { run }.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let bytes = fs::read(&file).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = file.tensor("logits").unwrap();
    let vocab = tensor.shape()[1];
    let floats = tensor.data().as_chunks().0.iter().map(|&word| f32::from_le_bytes(word));
    let floats: Vec<f64> = floats.map(f64::from).collect();
    let losses = (ids.len() - counted..ids.len()).map(|at| {
        let row = &floats[(at - 1) * vocab..at * vocab];
        let sum: f64 = row.iter().map(|logit| logit.exp()).sum();
        sum.ln() - row[ids[at] as usize]
    });
    losses.sum::<f64>() / counted as f64
}

fn close(found: &Value, expected: f64) {
    let found = found.as_f64().unwrap();
    assert!((found - expected).abs() < 1e-4, "{found} {expected}");
}

#[test]
fn a_causal_model_reads_what_is_before() {
    let (_folder, path) = prose();
    for family in [Family::ChatGlm3, Family::Glm4] {
        let folder = family.folder();
        let model = text(folder.path());
        let start = match family {
            Family::Glm4 => ["[gMASK]", "<sop>"],
            _ => ["[gMASK]", "sop"],
        };
        let start = start.map(|name| family.id(name));
        let all = ids(&model, PROSE);
        let words =
            ["perplexity", "-m", &model, "--activations", "f32", "--json", "--window", "20"];
        let found = json(&[&words[..], &["--stride", "7", &path]].concat());
        // The first 13 tokens are never counted. The last window counts what is left.
        let windows = (20..=all.len()).step_by(7).map(|end| (end, 7));
        let rest = (all.len() - 20) % 7;
        let windows: Vec<_> = windows.chain((rest > 0).then_some((all.len(), rest))).collect();
        assert_eq!(found["tokens"], all.len() - 13, "{family:?}");
        let sum: f64 = windows
            .iter()
            .map(|&(end, counted)| {
                let ids = [&start[..], &all[end - 20..end]].concat();
                loss(&model, &ids, counted) * counted as f64
            })
            .sum();
        close(&found["loss"]["mean"], sum / (all.len() - 13) as f64);
        assert!(found["reference"].is_null());
        // With a stride of a whole window, the second halves are counted.
        let found = json(&[&words[..], &["--stride", "20", "--windows", "2", &path]].concat());
        assert_eq!(found["tokens"], 20);
        let halves = [0, 20].map(|at| loss(&model, &[&start[..], &all[at..at + 20]].concat(), 10));
        close(&found["loss"]["mean"], (halves[0] + halves[1]) / 2.0);
    }
}

#[test]
fn a_model_that_fills_blanks_reads_a_context_or_both_sides() {
    let (_folder, path) = prose();
    let model = exact();
    let all = ids(&model, PROSE);
    let [mask, gmask, sop] = [4, 5, 7];
    let words = ["perplexity", "-m", &model, "--json", "--window", "30", "--windows", "1"];
    let found = json(&[&words[..], &["--stride", "12", &path]].concat());
    assert_eq!(found["tokens"], 12);
    let end = [&all[..18], &[gmask, sop], &all[18..30]].concat();
    close(&found["loss"]["mean"], loss(&model, &end, 12));
    let found = json(&[&words[..], &["--blank", "6", &path]].concat());
    assert_eq!(found["tokens"], 6);
    let middle = [&all[..12], &[mask], &all[18..30], &[sop], &all[12..18]].concat();
    close(&found["loss"]["mean"], loss(&model, &middle, 6));
}

#[test]
fn a_text_shorter_than_a_window_is_one() {
    let (_folder, path) = prose();
    let model = exact();
    let all = ids(&model, PROSE);
    let found = json(&["perplexity", "-m", &model, "--json", &path]);
    let counted = all.len() / 2;
    assert_eq!(found["tokens"], counted);
    let (left, right) = all.split_at(all.len() - counted);
    close(&found["loss"]["mean"], loss(&model, &[left, &[5, 7], right].concat(), counted));
}

#[test]
fn a_reference_is_a_model_or_its_predictions() {
    let (folder, path) = prose();
    let saved = text(&folder.path().join("saved"));
    let windows = ["--window", "24", "--json", &path];
    let (exact, quantized) = (exact(), talker());
    let run = |words: &[&str]| json(&[&["perplexity"], words, &windows[..]].concat());
    let live = run(&["-m", &quantized, "--against", &exact]);
    let kl = |found: &Value| found["reference"]["kl"]["mean"].as_f64().unwrap();
    assert!(kl(&live) > 1e-3 && kl(&live) < 1.0, "{live}");
    let reference = run(&["-m", &exact, "--kv", "f32", "--save-logits", &saved]);
    assert_eq!(reference["loss"], live["reference"]["loss"]);
    let from_file = run(&["-m", &quantized, "--base", &saved]);
    assert_eq!(from_file["loss"], live["loss"]);
    assert!((kl(&from_file) - kl(&live)).abs() < 1e-4, "{from_file} {live}");
    let same = run(&["-m", &exact, "--base", &saved]);
    assert!(kl(&same) < 1e-5 && same["reference"]["same_top"]["mean"] == 1.0, "{same}");
    // The same bits on any number of threads.
    let threads = |n| run(&["-m", &quantized, "--against", &exact, "--threads", n]);
    assert_eq!(threads("1"), threads("3"));
    // Lines for people.
    let words = ["perplexity", "-m", &quantized, "--against", &exact, "--window", "24", &path];
    let output = glm(&words).output().unwrap();
    let lines = stdout(&output);
    for part in ["perplexity ", "loss added", "KL ", "99th percentile", "same likeliest token"] {
        assert!(lines.contains(part), "{part}: {lines}");
    }
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let (folder, path) = prose();
    let (model, saved) = (talker(), text(&folder.path().join("saved")));
    let refused =
        |code, words: &[&str]| refusal(&[&["perplexity", "-m", &model], words].concat(), code);
    json(&["perplexity", "-m", &model, "--json", "--window", "24", "--save-logits", &saved, &path]);
    let said = refused(1, &["--window", "26", "--base", &saved, &path]);
    assert!(said.contains("other windows"), "{said}");
    let other = Family::Glm4.folder();
    let said = refused(1, &["--against", &text(other.path()), &path]);
    assert!(said.contains("same tokenizer"), "{said}");
    let mut bytes = fs::read(&saved).unwrap();
    bytes.truncate(bytes.len() - 100);
    fs::write(&saved, &bytes).unwrap();
    let said = refused(1, &["--window", "24", "--base", &saved, &path]);
    assert!(said.contains("is damaged"), "{said}");
    for bytes in [&b""[..], b"glm logits 1\n", b"glm logits 1\n{}\n", &[0xff; 4096]] {
        fs::write(&saved, bytes).unwrap();
        let said = refused(1, &["--window", "24", "--base", &saved, &path]);
        assert!(said.contains("--save-logits"), "{said}");
    }
}

#[test]
fn texts_and_windows_that_cannot_be_are_refused() {
    let (folder, path) = prose();
    let model = talker();
    let refused =
        |code, words: &[&str]| refusal(&[&["perplexity", "-m", &model], words].concat(), code);
    for (code, words, part) in [
        (2, &["--stride", "0", &path][..], "--stride"),
        (2, &["--window", "8", "--stride", "9", &path], "from 1 to 8"),
        (2, &["--window", "1", &path], "at least 2"),
        (2, &["--window", "8", "--blank", "8", &path], "from 1 to 7"),
        (1, &["--blank", "8", &path], "a window with a blank needs 512"),
        (1, &["--save-logits", "/no/such/folder/file", &path], "/no/such/folder"),
        (1, &["/no/such/file"], "/no/such/file"),
        (2, &["--save-logits", &path, &path], "is read and would be replaced"),
    ] {
        let said = refused(code, words);
        assert!(said.contains(part), "{words:?}: {said}");
    }
    for (content, part) in
        [(&b"\xff\xfe"[..], "UTF-8"), (b"", "at least 2 tokens"), (b"a [MASK] b", "[MASK]")]
    {
        let bad = text(&folder.path().join("bad"));
        fs::write(&bad, content).unwrap();
        let said = refused(1, &[&bad]);
        assert!(said.contains(part), "{said}");
    }
    let causal = Family::Glm4.folder();
    let said = refusal(
        &["perplexity", "-m", &text(causal.path()), "--blank", "8", "--window", "16", &path],
        1,
    );
    assert!(said.contains("fills no blanks"), "{said}");
}

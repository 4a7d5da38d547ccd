//! `glm quantize`: its source and target, and signals.
#![cfg(unix)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{glm, isolated, refusal, stderr, talker, text, tiny};
use serde_json::{Map, Value, json};

#[test]
fn source_and_target_must_differ() {
    let dir = tempfile::tempdir().unwrap();
    let source = text(&dir.path().join("model"));
    fs::create_dir(&source).unwrap();
    for file in fs::read_dir(tiny("int4")).unwrap().map(Result::unwrap) {
        if file.file_type().unwrap().is_file() {
            fs::copy(file.path(), Path::new(&source).join(file.file_name())).unwrap();
        }
    }
    let link = text(&dir.path().join("link"));
    symlink(&source, &link).unwrap();
    let before = fs::read_dir(&source).unwrap().count();
    for target in [source.clone(), format!("{source}/"), format!("{source}/../model"), link] {
        let said = refusal(&["quantize", &source, &target], 1);
        assert!(said.contains("source and target are the same folder"), "{said}");
        assert!(!said.contains("remove"), "{said}");
    }
    assert_eq!(fs::read_dir(&source).unwrap().count(), before);
}

#[test]
#[cfg(target_os = "linux")]
#[ignore = "needs the right to mount, in a namespace of its own"]
fn a_folder_that_is_mounted_is_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let [other, target] = ["other", "tar get"].map(|name| dir.path().join(name));
    fs::create_dir(&other).unwrap();
    fs::create_dir(&target).unwrap();
    let glm = isolated(dir.path());
    let mut shell = Command::new("unshare");
    let script = "mount --bind \"$1\" \"$2\" && cd / && \"$3\" quantize \"$4\" \"$2\"; code=$?; ls -A \"$1\"; exit $code";
    shell.args(["-rm", "sh", "-c", script, "sh"]).args([&other, &target]);
    shell.arg(glm.get_program()).arg(tiny("bin-f16")).env("LC_ALL", "C");
    let output = shell.output().unwrap();
    let said = stderr(&output);
    assert!(said.contains("is the root of a file system: name a folder in it"), "{said}");
    assert!(output.status.code() == Some(1) && output.stdout.is_empty());
    assert!(!unfinished(&target).exists());
}

#[test]
fn a_source_without_a_tokenizer_is_noted() {
    let dir = tempfile::tempdir().unwrap();
    let run = |source: &str, target: &str| {
        let output = glm(&["quantize", source, &text(&dir.path().join(target))]).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        stderr(&output)
    };
    assert!(run(&tiny("bin-f16"), "without").contains("has no tokenizer"));
    let source = text(&Path::new(&talker()).join("../f16"));
    assert!(!run(&source, "with").contains("tokenizer"));
    refusal(&["quantize", "/nowhere", &text(&dir.path().join("x"))], 1);
    assert!(!dir.path().join("x").exists());
}

#[test]
fn formats_are_chosen_for_bits_on_average() {
    let dir = tempfile::tempdir().unwrap();
    let source = text(&Path::new(&talker()).join("../f16"));
    let target = text(&dir.path().join("mixed"));
    let output = glm(&["quantize", &source, &target, "--target-bits", "4.75"]).output().unwrap();
    assert!(output.status.success() && output.stdout.is_empty(), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(said.contains("formats of 4.75 bits a weight on average"), "{said}");

    let info = common::json(&["info", "-m", &target, "--json"]);
    let bits = info["bits_per_weight"].as_f64().unwrap();
    assert!(bits <= 4.75 && bits > 4.5, "{bits}");
    assert_eq!(info["target_bits"], 4.75);
    let matrices = info["matrices"].as_array().unwrap();
    let formats: BTreeSet<_> = matrices.iter().map(|it| it["format"].as_str().unwrap()).collect();
    assert!(formats.len() > 1, "{formats:?}");
    let count = |name: &str| -> u64 {
        let these = matrices.iter().filter(|matrix| matrix["name"] == name);
        these.map(|matrix| matrix["count"].as_u64().unwrap()).sum()
    };
    assert_eq!(info["layers"].as_u64().unwrap(), count("MLP down"));
    let shown = glm(&["info", "-m", &target]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains(&format!("{bits:.2} on average; asked for: 4.75")), "{shown}");
    assert!(formats.iter().all(|format| shown.contains(*format)), "{shown}");
    let answer =
        glm(&["generate", "-m", &target, "--max-new-tokens", "4", "你好"]).output().unwrap();
    assert!(answer.status.success(), "{}", stderr(&answer));

    let official = refusal(&["quantize", &tiny("int4"), &target, "--target-bits", "5"], 1);
    assert!(official.contains("is quantized already"), "{official}");
}

/// The demonstration model with so many layers, all zero, that quantizing it takes a while. The file has no blocks on the disk.
fn deep_model(folder: &Path) {
    const LAYERS: usize = 800;
    let source = Path::new(&talker()).join("../f16");
    let config = fs::read(source.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    config["num_layers"] = LAYERS.into();
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    fs::copy(source.join("ice_text.model"), folder.join("ice_text.model")).unwrap();

    let file = fs::read(source.join("model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
    let mut header = Map::new();
    let mut end = 0;
    let mut add = |name: String, shape: &[usize]| {
        let start = end;
        end += 2 * shape.iter().product::<usize>();
        header
            .insert(name, json!({ "dtype": "F16", "shape": shape, "data_offsets": [start, end] }));
    };
    for (name, tensor) in tensors.tensors() {
        match name.strip_prefix("transformer.layers.") {
            None => add(name, tensor.shape()),
            Some(rest) => {
                let (layer, rest) = rest.split_once('.').unwrap();
                if layer == "0" {
                    (0..LAYERS).for_each(|layer| {
                        add(format!("transformer.layers.{layer}.{rest}"), tensor.shape());
                    });
                }
            }
        }
    }
    let header = Value::Object(header).to_string();
    let path = folder.join("model.safetensors");
    fs::write(&path, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat())
        .unwrap();
    let length = (8 + header.len() + end) as u64;
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length).unwrap();
}

fn send(child: &Child, signal: &str) {
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// The folder that is written until the target is complete.
fn unfinished(target: &Path) -> PathBuf {
    target.with_added_extension("quantize.part")
}

/// Waits until something is written.
fn wait_for_work(target: &Path, child: &mut Child) {
    let started = Instant::now();
    while !unfinished(target).exists() {
        assert!(started.elapsed() < Duration::from_secs(60), "nothing is written");
        assert!(child.try_wait().unwrap().is_none(), "it has ended already");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_signal_leaves_no_unfinished_file() {
    let dir = tempfile::tempdir().unwrap();
    let (source, target) = (dir.path().join("source"), dir.path().join("target"));
    fs::create_dir(&source).unwrap();
    deep_model(&source);
    let start = || {
        let mut command = isolated(dir.path());
        command.args(["quantize", &text(&source), &text(&target), "--threads", "1"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    };
    for signal in ["-TERM", "-HUP", "-INT"] {
        let mut child = start().spawn().unwrap();
        wait_for_work(&target, &mut child);
        send(&child, signal);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{signal}: {}", stderr(&output));
        assert!(stderr(&output).contains("stopped"), "{signal}");
        assert!(!unfinished(&target).exists() && !target.exists(), "{signal}");
        assert!(!target.join("config.json").exists(), "{signal}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn what_nohup_started_survives_its_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let (source, target) = (dir.path().join("source"), dir.path().join("target"));
    fs::create_dir(&source).unwrap();
    deep_model(&source);
    let glm = isolated(dir.path());
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]).arg(glm.get_program());
    shell.args(["quantize", &text(&source), &text(&target), "--threads", "1"]);
    let mut child = shell.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_work(&target, &mut child);
    send(&child, "-HUP");
    std::thread::sleep(Duration::from_millis(100));
    assert!(child.try_wait().unwrap().is_none() && unfinished(&target).exists(), "it goes on");
    send(&child, "-TERM");
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
}

#[test]
fn one_of_two_runs_into_a_folder_writes_it() {
    let dir = tempfile::tempdir().unwrap();
    let source = text(&Path::new(&talker()).join("../f16"));
    for round in 0..4 {
        let target = dir.path().join(round.to_string());
        let start = || {
            let mut command = isolated(dir.path());
            command.args(["quantize", &source, &text(&target), "--threads", "1"]);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
            command.spawn().unwrap()
        };
        let runs = [start(), start()].map(|child| child.wait_with_output().unwrap());
        let (done, refused): (Vec<_>, Vec<_>) =
            runs.iter().partition(|output| output.status.success());
        assert_eq!(done.len(), 1, "{}", runs.each_ref().map(stderr).concat());
        let said = stderr(refused[0]);
        assert!(said.contains("another process") || said.contains("already"), "{said}");
        assert!(glm(&["info", "-m", &text(&target)]).output().unwrap().status.success());
        assert!(!unfinished(&target).exists());
    }
}

#[test]
fn a_killed_run_is_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    let (source, target) = (dir.path().join("source"), dir.path().join("target"));
    fs::create_dir(&source).unwrap();
    deep_model(&source);
    let mut child = isolated(dir.path())
        .args(["quantize", &text(&source), &text(&target)])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for_work(&target, &mut child);
    send(&child, "-KILL");
    child.wait().unwrap();
    assert!(!target.exists() && unfinished(&target).exists());
    let small = text(&Path::new(&talker()).join("../f16"));
    let output = glm(&["quantize", &small, &text(&target)]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(glm(&["info", "-m", &text(&target)]).output().unwrap().status.success());
    assert!(!unfinished(&target).exists());
}

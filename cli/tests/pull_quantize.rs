//! `glm pull --quantize`: the result is that of `glm quantize`, and the original weights never lie on the disk together.
#![cfg(unix)]

mod common;
#[path = "../../model/tests/common/forge.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod forge;
#[path = "../../model/tests/common/split.rs"]
mod split;
#[path = "../../model/tests/common/stored.rs"]
mod stored;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::thread;
use std::time::{Duration, Instant};

use common::hub::{Fault, Hub, Repository};
use common::pulling::{
    NAME, Pulling, allocated, files, interrupt, kill, names, refused, succeeded,
};
use common::{glm, stderr, stdout, text};
use glm_model::Format;
use split::split;
use tempfile::TempDir;

const LARGE: &str = "/large/";

/// Where a hub has an original in several files.
struct Original {
    dir: TempDir,
    pulling: Pulling,
}

impl Original {
    /// The demonstration model in `count` files.
    fn new(format: Format, count: usize, head: Option<u8>) -> Self {
        let (dir, pulling) = (TempDir::new().unwrap(), Pulling::new());
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/demo/f16");
        split(&source, &dir.path().join("original"), format, count, head);
        let original = Self { dir, pulling };
        original.pulling.hub.add(NAME, original.repository());
        original
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("original")
    }

    fn repository(&self) -> Repository {
        Repository::of_folder(&self.folder())
    }

    /// The hashes of the files of weights, in the order of their names.
    fn shards(&self) -> Vec<String> {
        let files = self.repository().files.into_iter();
        files.filter(|(name, _)| name.contains("-of-")).map(|(_, file)| file.hash).collect()
    }

    fn target(&self, format: &str) -> PathBuf {
        let repository = self.pulling.home.repository(NAME);
        self.pulling.home.quantized().join(repository.file_name().unwrap()).join(format)
    }

    /// Checks that the folder is that of `glm quantize` with these flags.
    fn check(&self, folder: &Path, flags: &[&str]) {
        let expected = self.dir.path().join("expected");
        let _ = fs::remove_dir_all(&expected);
        let (source, target) = (text(&self.folder()), text(&expected));
        let run = glm(&[&["quantize", &source, &target], flags].concat()).output().unwrap();
        assert!(run.status.success(), "{}", stderr(&run));
        let mut found = files(folder);
        found.retain(|(name, _)| name != ".pull.json");
        let expected = files(&expected);
        let names =
            |files: &[(String, Vec<u8>)]| files.iter().map(|it| it.0.clone()).collect::<Vec<_>>();
        assert_eq!(names(&found), names(&expected));
        assert!(found == expected);
        let left = names_beside(folder);
        assert_eq!(left, [folder.file_name().unwrap().to_str().unwrap()]);
    }

    /// Starts a pull and waits until the download of the shard of this index has come to a stop in its middle, and what came before
    /// is quantized.
    fn stalled_at(&self, shard: usize) -> std::process::Child {
        self.pulling.hub.fail_whole(&self.shards()[shard], Fault::Stall(300_000));
        let child = self.pulling.start(&["pull", NAME, "--quantize"]);
        self.pulling.hub.wait_for_stalled(1);
        child
    }

    /// Whole files that were downloaded, by their hash, since the requests were taken.
    fn downloaded(&self) -> Vec<String> {
        let shards = self.shards();
        let mut found: Vec<_> = self
            .pulling
            .hub
            .downloads(LARGE)
            .into_iter()
            .filter(|request| request.sent > 200_000)
            .map(|request| request.target.trim_start_matches(LARGE).to_owned())
            .filter(|hash| shards.contains(hash))
            .collect();
        found.sort();
        found
    }
}

fn names_beside(folder: &Path) -> Vec<String> {
    names(folder.parent().unwrap())
}

/// The largest number of bytes on the disk below a folder during a run.
fn peak(folder: &Path, run: impl FnOnce() -> Output + Send) -> (Output, u64) {
    thread::scope(|scope| {
        let run = scope.spawn(run);
        let mut most = 0;
        while !run.is_finished() {
            most = most.max(allocated(folder));
            thread::sleep(Duration::from_micros(500));
        }
        (run.join().unwrap(), most)
    })
}

fn check_whole(format: Format, head: Option<u8>, words: &[&str], flags: &[&str], name: &str) {
    let original = Original::new(format, 8, head);
    let pulling = &original.pulling;
    let words = [&["pull", NAME], words].concat();
    let (output, peak) = peak(&pulling.home.quantized(), || pulling.run(&words));
    let (folder, said) = succeeded(&output);
    let target = original.target(name);
    assert_eq!(Path::new(folder.trim_end()), target);
    assert!(said.contains(&format!("{NAME}:{name}")), "{said}");
    original.check(&target, flags);
    // On the disk were the result, two shards, that with the embedding while it is compared with a head, and headers.
    let mut sizes: Vec<_> = original
        .repository()
        .files
        .iter()
        .filter(|(name, _)| name.contains("-of-"))
        .map(|(_, file)| file.bytes.len() as u64)
        .collect();
    sizes.sort();
    let held = if head.is_some() { 3 } else { 2 };
    let (all, largest): (u64, u64) = (sizes.iter().sum(), sizes.iter().rev().take(held).sum());
    let result = fs::metadata(target.join("model.safetensors")).unwrap().len();
    let most = result + largest + 8 * (160 << 10) + (1 << 20);
    assert!(peak <= most && most < result + all, "{peak} {most} {all} {result}");
    assert!(peak > result, "{peak}");
    // Each shard came once.
    let mut shards = original.shards();
    shards.sort();
    assert_eq!(original.downloaded(), shards);
    assert!(names(&pulling.home.repository(NAME).join("blobs")).is_empty());
    let list = pulling.home.json(&["list", "--json"]);
    assert_eq!(list.as_array().unwrap().len(), 1, "{list}");
    assert_eq!(
        (&list[0]["name"], &list[0]["state"]),
        (&format!("{NAME}:{name}").into(), &"ready".into())
    );
}

#[test]
fn safetensors_become_what_quantize_makes_of_them() {
    check_whole(Format::Safetensors, None, &["--quantize"], &[], "int4");
}

#[test]
fn a_head_that_is_the_embedding_is_left_out() {
    check_whole(
        Format::Safetensors,
        Some(0),
        &["--quantize=4", "--group", "32"],
        &["--group", "32"],
        "int4-g32",
    );
}

#[test]
fn groups_may_have_no_minimum() {
    let symmetric = ["--quantize", "--symmetric"];
    check_whole(Format::Safetensors, None, &symmetric, &["--symmetric"], "int4-sym");
}

#[test]
fn files_of_pytorch_become_what_quantize_makes_of_them() {
    check_whole(Format::Torch, Some(1), &["--quantize=8"], &["--bits", "8"], "int8");
}

#[test]
fn the_result_answers_and_is_there_at_the_next_run() {
    let original = Original::new(Format::Safetensors, 3, None);
    let pulling = &original.pulling;
    let (folder, _) = pulling.succeed(&["pull", NAME, "--quantize"]);
    let (answer, _) = pulling.succeed(&["generate", "-m", NAME, "-p", "谢谢", "--greedy"]);
    assert!(answer.starts_with("不客气"), "{answer}");
    pulling.hub.take_requests();
    let (again, said) = pulling.succeed(&["pull", NAME, "--quantize"]);
    assert!(again == folder && said.contains("already"), "{said}");
    assert!(pulling.hub.downloads("/resolve/").is_empty());
    // Another commit replaces it.
    let mut newer = original.repository().with("MODEL_LICENSE", b"new".to_vec());
    newer.commit = "b".repeat(40);
    pulling.hub.add(NAME, newer);
    let (again, _) = pulling.succeed(&["pull", NAME, "--quantize"]);
    assert_eq!(again, folder);
    fs::write(original.folder().join("MODEL_LICENSE"), b"new").unwrap();
    original.check(Path::new(folder.trim_end()), &[]);
}

#[test]
fn a_calibration_that_is_not_finished_is_not_replaced() {
    let original = Original::new(Format::Safetensors, 2, None);
    let begun = original.target("int4.quantize.part").join("journal.json");
    fs::create_dir_all(begun.parent().unwrap()).unwrap();
    fs::write(&begun, "{}").unwrap();
    let output = original.pulling.glm(&["pull", NAME, "--quantize"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("calibration that is not finished"), "{}", stderr(&output));
    assert!(begun.exists());
}

#[test]
fn a_shard_is_quantized_and_removed_while_the_next_arrives() {
    let original = Original::new(Format::Safetensors, 6, None);
    let child = original.stalled_at(4);
    let part = original.target("int4.part");
    let started = Instant::now();
    // The embedding is also the head, which is rounded last: its file stays. So does the first file of a layer that lies in two. The
    // other skeletons are in their places again.
    let needed = [1, 4].map(|shard| format!("model-0000{shard}-of-00006.safetensors"));
    let next = ["model-00005-of-00006.safetensors.incomplete"];
    while names(&part.join("skeletons")) != needed || names(&part.join("shards")) != next {
        let found = [part.join("skeletons"), part.join("shards")].map(|folder| names(&folder));
        assert!(started.elapsed() < Duration::from_secs(30), "{found:?}");
        thread::sleep(Duration::from_millis(5));
    }
    assert!(part.join("model.quantize.part/journal.json").exists());
    let complete = needed.map(|name| fs::metadata(original.folder().join(name)).unwrap().len());
    let headers = allocated(&part.join("source")) - complete.iter().sum::<u64>();
    assert!(headers < 6 * (160 << 10) + (1 << 20), "{headers}");
    original.pulling.hub.release();
    let (folder, _) = succeeded(&child.wait_with_output().unwrap());
    original.check(Path::new(folder.trim_end()), &[]);
}

#[test]
fn a_killed_run_goes_on_at_the_next_shard() {
    let original = Original::new(Format::Safetensors, 6, None);
    let pulling = &original.pulling;
    let mut downloaded = BTreeSet::new();
    for shard in [2, 4] {
        kill(original.stalled_at(shard));
        assert_eq!(names_beside(&original.target("int4")), ["int4.part"]);
        let list = pulling.home.json(&["list", "--json"]);
        assert_eq!(list[0]["state"], "incomplete", "{list}");
        let now = original.downloaded();
        assert!(!now.is_empty());
        for hash in now.into_iter().filter(|hash| *hash != original.shards()[shard]) {
            assert!(downloaded.insert(hash), "nothing comes twice");
        }
        pulling.hub.take_requests();
        pulling.hub.restart();
    }
    let (folder, _) = pulling.succeed(&["pull", NAME, "--quantize"]);
    original.check(Path::new(folder.trim_end()), &[]);
    assert!(original.downloaded().iter().all(|hash| !downloaded.contains(hash)));
}

#[test]
fn a_run_that_is_killed_at_any_time_goes_on() {
    let original = Original::new(Format::Torch, 5, Some(1));
    let pulling = &original.pulling;
    // Later each time, so that it ends.
    let folder = (1..100).find_map(|tenths| {
        let mut child = pulling.start(&["pull", NAME, "--quantize"]);
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(100 * tenths) {
            if child.try_wait().unwrap().is_some() {
                return Some(succeeded(&child.wait_with_output().unwrap()).0);
            }
            thread::sleep(Duration::from_millis(1));
        }
        kill(child);
        None
    });
    original.check(Path::new(folder.unwrap().trim_end()), &[]);
}

#[test]
fn a_full_disk_leaves_what_the_next_run_goes_on_with() {
    let original = Original::new(Format::Safetensors, 12, None);
    let pulling = &original.pulling;
    // The shards fit, the result does not.
    let said = refused(&pulling.run_with_limit(6000, &["pull", NAME, "--quantize"]));
    assert!(said.contains("File too large") && said.contains("int4.part"), "{said}");
    // Neither fits.
    refused(&pulling.run_with_limit(1000, &["pull", NAME, "--quantize"]));
    assert_eq!(names_beside(&original.target("int4")), ["int4.part"]);
    let (folder, _) = pulling.succeed(&["pull", NAME, "--quantize"]);
    original.check(Path::new(folder.trim_end()), &[]);
}

#[test]
fn modelscope_is_quantized_as_well() {
    let original = Original::new(Format::Safetensors, 3, None);
    let pulling = &original.pulling;
    let modelscope = Hub::start();
    modelscope.add("ZhipuAI/chatglm-6b", original.repository());
    let mut glm = pulling.glm(&["pull", NAME, "--quantize", "--from", "modelscope"]);
    let run = glm.env("MODELSCOPE_ENDPOINT", modelscope.url()).output().unwrap();
    let (folder, said) = succeeded(&run);
    original.check(Path::new(folder.trim_end()), &[]);
    let said: Vec<_> = said.lines().collect();
    assert_eq!(said.iter().filter(|line| line.contains("int4")).count(), 2, "{said:#?}");
}

#[test]
fn an_unfinished_folder_can_be_removed() {
    let original = Original::new(Format::Safetensors, 4, None);
    let pulling = &original.pulling;
    let child = original.stalled_at(2);
    let name = format!("{NAME}:int4.part");
    let said = pulling.refusal(&["rm", "--yes", &name]);
    assert!(said.contains("another process writes it"), "{said}");
    kill(child);
    pulling.succeed(&["rm", "--yes", &name]);
    assert!(!original.target("int4.part").parent().unwrap().exists());
    // Of a model that cannot be run, nothing stays.
    let other = original.repository().with("config.json", br#"{"model_type": "bert"}"#.to_vec());
    pulling.hub.add("a/bert", other);
    let said = pulling.refusal(&["pull", "a/bert", "--quantize"]);
    assert!(said.contains("bert"), "{said}");
    assert!(names(&pulling.home.quantized()).iter().all(|name| name == ".locks"));
}

#[test]
fn an_unfinished_folder_of_another_commit_is_begun_anew() {
    let original = Original::new(Format::Safetensors, 4, None);
    let pulling = &original.pulling;
    kill(original.stalled_at(2));
    pulling.hub.restart();
    pulling.hub.take_requests();
    let mut newer = original.repository();
    newer.commit = "b".repeat(40);
    pulling.hub.add(NAME, newer);
    let (folder, _) = pulling.succeed(&["pull", NAME, "--quantize"]);
    original.check(Path::new(folder.trim_end()), &[]);
    assert_eq!(original.downloaded().len(), 4);
}

#[test]
fn ctrl_c_stops_with_130_and_the_same_command_goes_on() {
    let original = Original::new(Format::Safetensors, 4, None);
    let output = interrupt(original.stalled_at(1));
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("same command") && stdout(&output).is_empty(),
        "{}",
        stderr(&output)
    );
    original.pulling.hub.restart();
    let (folder, _) = original.pulling.succeed(&["pull", NAME, "--quantize"]);
    original.check(Path::new(folder.trim_end()), &[]);
}

#[test]
fn weights_in_the_cache_are_not_downloaded() {
    let original = Original::new(Format::Safetensors, 4, None);
    let pulling = &original.pulling;
    let snapshot = pulling.pull();
    let before = files(&snapshot);
    pulling.hub.take_requests();
    let (folder, _) = pulling.succeed(&["pull", NAME, "--quantize"]);
    original.check(Path::new(folder.trim_end()), &[]);
    assert!(original.downloaded().is_empty());
    assert!(files(&snapshot) == before);
}

#[test]
fn damaged_shards_and_servers_without_ranges_are_refused() {
    let original = Original::new(Format::Safetensors, 4, None);
    let pulling = &original.pulling;
    pulling.hub.fail(LARGE, 1000, Fault::IgnoreRange);
    let said = pulling.refusal(&["pull", NAME, "--quantize"]);
    assert!(said.contains("cannot send parts of a file"), "{said}");
    pulling.hub.restart();
    let third = &original.shards()[2];
    pulling.hub.fail_whole(third, Fault::Damage);
    let said = pulling.refusal(&["pull", NAME, "--quantize"]);
    assert!(said.contains("-00003-of-00004") && said.contains("SHA-256"), "{said}");
    assert_eq!(names_beside(&original.target("int4")), ["int4.part"]);
    pulling.hub.restart();
    let (folder, _) = pulling.succeed(&["pull", NAME, "--quantize"]);
    original.check(Path::new(folder.trim_end()), &[]);
}

#[test]
fn weights_that_are_not_finite_end_the_download_too() {
    let original = Original::new(Format::Safetensors, 4, None);
    let pulling = &original.pulling;
    let name = "model-00001-of-00004.safetensors";
    let mut bytes = original.repository().files[name].bytes.to_vec();
    // A matrix of the first layer.
    let len = bytes.len();
    bytes[len / 2..len / 2 + 100_000].fill(0xff);
    let broken = original.repository().with(name, bytes);
    pulling.hub.add(NAME, broken.clone());
    pulling.hub.fail_whole(&original.shards()[1], Fault::Stall(1000));
    let started = Instant::now();
    let said = refused(&pulling.run(&["pull", NAME, "--quantize"]));
    assert!(said.contains("transformer.layers") && said.contains("NaN"), "{said}");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

#[test]
fn two_runs_at_once_make_one_model() {
    let original = Original::new(Format::Safetensors, 4, None);
    let pulling = &original.pulling;
    let first = original.stalled_at(1);
    let second = pulling.start(&["pull", NAME, "--quantize"]);
    while pulling.hub.downloads("/tree/").len() < 2 {
        thread::sleep(Duration::from_millis(5));
    }
    thread::sleep(Duration::from_millis(200));
    pulling.hub.release();
    let (one, _) = succeeded(&first.wait_with_output().unwrap());
    let (other, _) = succeeded(&second.wait_with_output().unwrap());
    assert_eq!(one, other);
    original.check(Path::new(one.trim_end()), &[]);
    let mut shards = original.shards();
    shards.sort();
    assert_eq!(original.downloaded(), shards);
}

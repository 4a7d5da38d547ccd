//! `glm pull`: what is downloaded, where it is stored, and how it goes on.
#![cfg(unix)]

mod common;

use std::fs;
use std::path::Path;

use common::hub::{Fault, Hub, Repository, sha256};
use common::pulling::{NAME, Pulling, files, interrupt, kill, names, succeeded, talking};
use common::{stderr, talker, text};

/// Large files have such targets.
const LARGE: &str = "/large/";

/// The hash of the file of weights.
fn weights() -> String {
    sha256(&fs::read(Path::new(&talker()).join("model.safetensors")).unwrap())
}

fn size() -> usize {
    fs::read(Path::new(&talker()).join("model.safetensors")).unwrap().len()
}

#[test]
fn a_pulled_model_is_in_the_cache_and_answers_by_its_name() {
    let pulling = Pulling::new();
    let (folder, said) = pulling.succeed(&["pull", NAME]);
    assert!(said.contains(NAME) && said.contains("MB") && said.contains("glm -m"), "{said}");
    let folder = Path::new(folder.trim_end());
    let repository = pulling.home.repository(NAME);
    let commit = fs::read_to_string(repository.join("refs/main")).unwrap();
    assert_eq!(commit, talking().commit);
    assert_eq!(folder, repository.join("snapshots").join(&commit));
    // Only what is needed, as links.
    let needed = [
        "MODEL_LICENSE",
        "config.json",
        "ice_text.model",
        "model.safetensors",
        "tokenizer_config.json",
    ];
    assert_eq!(names(folder), needed);
    for name in needed {
        let target = fs::read_link(folder.join(name)).unwrap();
        assert!(target.starts_with("../../blobs"), "{}", target.display());
        assert_eq!(*fs::read(folder.join(name)).unwrap(), **talking().files[name].bytes);
        assert!(target.ends_with(&talking().files[name].hash), "{}", target.display());
    }
    assert_eq!(pulling.blobs().len(), needed.len());
    let (answer, _) = pulling.succeed(&["generate", "-m", NAME, "-p", "谢谢", "--greedy"]);
    assert!(answer.starts_with("不客气"), "{answer}");
    let list = pulling.home.json(&["list", "--json"]);
    assert_eq!((&list[0]["name"], &list[0]["state"]), (&NAME.into(), &"ready".into()));
    // Once more: nothing is left to download.
    pulling.hub.take_requests();
    assert_eq!(pulling.pull(), folder);
    assert!(
        pulling.hub.downloads("/resolve/").is_empty() && pulling.hub.downloads(LARGE).is_empty()
    );
}

#[test]
fn what_python_downloaded_is_used() {
    let pulling = Pulling::new();
    let blobs = pulling.home.repository(NAME).join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::copy(Path::new(&talker()).join("model.safetensors"), blobs.join(weights())).unwrap();
    let tokenizer = &talking().files["ice_text.model"];
    fs::write(blobs.join(format!("{}.incomplete", tokenizer.hash)), &tokenizer.bytes[..1000])
        .unwrap();
    let folder = pulling.pull();
    let large = pulling.hub.downloads(LARGE);
    assert_eq!(large.len(), 1, "{large:?}");
    assert_eq!(large[0].start, Some(1000), "an unfinished file is completed");
    assert_eq!(
        fs::read_link(folder.join("model.safetensors")).unwrap().file_name().unwrap(),
        &*weights()
    );
    assert!(fs::read(folder.join("ice_text.model")).unwrap() == **tokenizer.bytes);
    // A file of another size is none of these.
    let (short, pulling) = (&fs::read(blobs.join(weights())).unwrap()[1..], Pulling::new());
    let blobs = pulling.home.repository(NAME).join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(weights()), short).unwrap();
    let folder = pulling.pull();
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap().len(), size());
}

#[test]
fn a_killed_pull_goes_on_where_it_was() {
    let pulling = Pulling::new();
    for (stalled, killed) in [(1, 1_000_000), (2, 1_500_000)] {
        pulling.hub.fail(&weights(), 1, Fault::Stall(killed));
        let child = pulling.start(&["pull", NAME]);
        pulling.hub.wait_for_stalled(stalled);
        // Most of the bytes that were sent.
        pulling.wait_for_bytes(&weights(), [500_000, 1_500_000][stalled - 1]);
        kill(child);
        assert!(!pulling.blobs().contains(&weights()));
        let list = pulling.home.json(&["list", "--json"]);
        assert!(list.as_array().unwrap().iter().all(|model| model["state"] != "ready"), "{list}");
    }
    let folder = pulling.pull();
    assert!(
        fs::read(folder.join("model.safetensors")).unwrap()
            == fs::read(Path::new(&talker()).join("model.safetensors")).unwrap()
    );
    let starts: Vec<_> =
        pulling.hub.downloads(&weights()).iter().map(|it| it.start.unwrap_or(0)).collect();
    assert_eq!(starts.len(), 3);
    assert!(starts[0] == 0 && starts[1] >= 500_000 && starts[2] >= 1_500_000, "{starts:?}");
    assert!(!pulling.blobs().iter().any(|blob| blob.ends_with(".incomplete")));
}

#[test]
fn ctrl_c_stops_with_130_and_the_same_command_goes_on() {
    let pulling = Pulling::new();
    pulling.hub.fail(&weights(), 1, Fault::Stall(1_000_000));
    let child = pulling.start(&["pull", NAME]);
    pulling.hub.wait_for_stalled(1);
    pulling.wait_for_bytes(&weights(), 500_000);
    let output = interrupt(child);
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(output.stdout.is_empty());
    assert!(stderr(&output).contains("same command"), "{}", stderr(&output));
    pulling.pull();
    assert!(pulling.hub.downloads(&weights())[1].start >= Some(500_000));
}

#[test]
fn two_pulls_at_once_download_once() {
    let pulling = Pulling::new();
    pulling.hub.fail(&weights(), 1, Fault::Stall(1_000_000));
    let first = pulling.start(&["pull", NAME]);
    pulling.hub.wait_for_stalled(1);
    let second = pulling.start(&["pull", NAME]);
    // Until the second has asked what there is.
    while pulling.hub.downloads("/tree/").len() < 2 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    std::thread::sleep(std::time::Duration::from_millis(200));
    pulling.hub.release();
    let one = succeeded(&first.wait_with_output().unwrap());
    let other = succeeded(&second.wait_with_output().unwrap());
    assert_eq!(one.0, other.0);
    assert_eq!(pulling.hub.sent(&weights()), size());
    assert_eq!(pulling.blobs().len(), 5);
}

#[test]
fn what_is_pulled_is_not_removed() {
    let pulling = Pulling::new();
    // An older revision is there.
    pulling.home.add_snapshot(NAME, &"a".repeat(40), Path::new(&talker()));
    pulling.home.add_ref(NAME, "old", &"a".repeat(40));
    pulling.hub.fail(&weights(), 1, Fault::Stall(1_000_000));
    let pull = pulling.start(&["pull", NAME]);
    pulling.hub.wait_for_stalled(1);
    let old = format!("{NAME}@old");
    let said = pulling.refusal(&["rm", "--yes", &old]);
    assert!(said.contains(&old) && said.contains("another process writes it"), "{said}");
    pulling.hub.release();
    let (folder, _) = succeeded(&pull.wait_with_output().unwrap());
    pulling.succeed(&["rm", "--yes", &old]);
    assert_eq!(
        fs::read(Path::new(folder.trim_end()).join("model.safetensors")).unwrap().len(),
        size()
    );
    pulling.succeed(&["rm", "--yes", NAME]);
    assert!(!pulling.home.repository(NAME).exists());
}

/// Python's tools lock each blob.
#[test]
fn what_python_downloads_is_not_removed() {
    let pulling = Pulling::new();
    pulling.pull();
    let lock = pulling.home.hub().join(".locks/models--THUDM--chatglm-6b").join("x.lock");
    let lock = fs::File::create(lock).unwrap();
    lock.lock().unwrap();
    assert!(pulling.refusal(&["rm", "--yes", NAME]).contains("another process writes it"));
    drop(lock);
    pulling.succeed(&["rm", "--yes", NAME]);
}

#[test]
fn lists_come_in_pages_and_repositories_get_other_names() {
    let pulling = Pulling::new();
    let mut paged = talking();
    paged.page = 2;
    pulling.hub.add(NAME, paged);
    pulling.hub.rename(NAME, "zai-org/chatglm-6b");
    let folder = pulling.pull();
    assert_eq!(names(&folder).len(), 5);
    assert!(pulling.hub.downloads("cursor=").len() >= 3);
}

#[test]
fn a_revision_is_pulled_beside_the_others() {
    let pulling = Pulling::new();
    pulling.pull();
    let mut old = talking().with("config.json", {
        let config = fs::read_to_string(Path::new(&talker()).join("config.json")).unwrap();
        format!("{config}\n").into_bytes()
    });
    (old.commit, old.revisions) = ("a".repeat(40), vec!["refs/pr/1".to_owned()]);
    let same = pulling.home.repository(NAME);
    pulling.hub.add(NAME, old);
    pulling.hub.take_requests();
    let (folder, _) = pulling.succeed(&["pull", NAME, "--revision", "refs/pr/1"]);
    assert_eq!(Path::new(folder.trim_end()), same.join("snapshots").join("a".repeat(40)));
    assert_eq!(fs::read_to_string(same.join("refs/refs/pr/1")).unwrap(), "a".repeat(40));
    assert!(pulling.hub.downloads(LARGE).is_empty(), "the weights are the same");
    let list = pulling.home.json(&["list", "--json"]);
    let mut listed: Vec<_> =
        list.as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    listed.sort();
    assert_eq!(listed, [NAME, &format!("{NAME}@refs/pr/1")]);
}

#[test]
fn the_token_goes_to_the_hub_alone() {
    let pulling = Pulling::new();
    let contents = Hub::start();
    pulling.hub.serve_large_from(&contents);
    let run = pulling.glm(&["pull", NAME]).env("HF_TOKEN", "hf_secret").output().unwrap();
    succeeded(&run);
    let token = Some("Bearer hf_secret".to_owned());
    let requests = pulling.hub.requests();
    assert!(requests.iter().all(|request| request.authorization == token), "{requests:?}");
    let others = contents.requests();
    assert!(others.len() >= 2 && others.iter().all(|it| it.authorization.is_none()), "{others:?}");
    // Another port of the same host is another origin.
    let pulling = Pulling::new();
    let contents = Hub::start();
    pulling.hub.serve_large_from(&contents);
    let config = &talking().files["config.json"].bytes;
    contents.fail("/config", 1, Fault::Body(String::from_utf8(config.to_vec()).unwrap()));
    pulling.hub.fail("/config.json", 1, Fault::Redirect(format!("{}/config", contents.url())));
    let run = pulling.glm(&["pull", NAME]).env("HF_TOKEN", "hf_secret").output().unwrap();
    succeeded(&run);
    let others = contents.requests();
    assert!(others.iter().any(|it| it.target == "/config" && it.status == 200), "{others:?}");
    assert!(others.iter().all(|it| it.authorization.is_none()), "{others:?}");
    // The token that `hf auth login` stores, in another home.
    let pulling = Pulling::new();
    let home = pulling.home.path().join("hf");
    fs::create_dir(&home).unwrap();
    fs::write(home.join("token"), "hf_stored\n").unwrap();
    let run = pulling.glm(&["pull", NAME]).env("HF_HOME", &home).output().unwrap();
    let (folder, _) = succeeded(&run);
    assert!(folder.starts_with(&text(&home.join("hub"))), "{folder}");
    let requests = pulling.hub.requests();
    assert!(requests.iter().all(|it| it.authorization.as_deref() == Some("Bearer hf_stored")));
}

#[test]
fn modelscope_has_other_names_of_owners() {
    let pulling = Pulling::new();
    let modelscope = Hub::start();
    modelscope.add("ZhipuAI/chatglm-6b", talking());
    let run = pulling
        .glm(&["pull", NAME, "--from", "modelscope"])
        .env("MODELSCOPE_ENDPOINT", modelscope.url())
        .output()
        .unwrap();
    let (folder, said) = succeeded(&run);
    assert!(said.contains("ZhipuAI/chatglm-6b"), "{said}");
    assert!(pulling.hub.requests().is_empty());
    let pulled: Vec<_> = files(Path::new(folder.trim_end()));
    assert_eq!(pulled.len(), 5);
    assert!(pulled.iter().all(|(name, bytes)| *bytes == **talking().files[name].bytes));
    let (answer, _) = pulling.succeed(&["generate", "-m", NAME, "-p", "谢谢", "--greedy"]);
    assert!(answer.starts_with("不客气"), "{answer}");
}

#[test]
fn weights_are_safetensors_or_else_pytorch() {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/models/chatglm-6b-tiny/bin-f16");
    let tiny = Repository::of_folder(&folder);
    let pulling = Pulling::new();
    pulling.hub.add(NAME, tiny.clone());
    let (folder, said) = pulling.succeed(&["pull", NAME]);
    let pulled = names(Path::new(folder.trim_end()));
    assert!(pulled.iter().any(|name| name.ends_with(".bin")), "{pulled:?}");
    assert!(said.contains("has no tokenizer") && !said.contains("glm -m"), "{said}");
    let both = talking().with("pytorch_model.bin", b"PK".to_vec());
    pulling.hub.add("a/both", both);
    let (folder, _) = pulling.succeed(&["pull", "a/both"]);
    assert!(!names(Path::new(folder.trim_end())).contains(&"pytorch_model.bin".to_owned()));
}

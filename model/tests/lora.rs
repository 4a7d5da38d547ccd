//! Adapters of LoRA: logits of peft, and the bits of any batch.

mod common;
#[path = "common/forge.rs"]
#[allow(dead_code, reason = "this file writes valid files only")]
mod forge;
#[path = "common/lora.rs"]
mod helper;
#[path = "common/tensors.rs"]
mod tensors;

#[path = "common/gguf.rs"]
mod gguf;

use std::fs;

use common::adapter::tuned;
use common::fixture;
use common::runner::{Runner, bits, with};
use glm_model::{
    Activations, Adapter, AdapterKind, Batch, BatchOptions, Checkpoint, Chunk, Event, Generation,
    Model, Options, Request, RunOptions, Sampling, Submission,
};
use half::f16;
use helper::{
    FOUR, HF, MODULES, ONE, TWO, assert_close, config, folder, of_authors, open, open_with, prompt,
    updates,
};
use serde_json::{Value, json};
use tensors::{Tensor, torch};

/// The logits of the first and the last token, computed by `lora.py`.
#[test]
fn logits_are_those_of_peft() {
    let patterns = json!({
        "r": 3, "lora_alpha": 5, "rank_pattern": {"k_proj": 2, r"layers\.\d\.mlp\.down_proj": 6},
        "alpha_pattern": {"self_attn.q_proj": 9, "^lm_head": 1, "v_proj|o_proj": 2}
    });
    let rank = |path: &str| match path {
        path if path.ends_with("k_proj") => 2,
        path if path.ends_with("mlp.down_proj") => 6,
        _ => 3,
    };
    for (name, tensors, fields, layers, first, last) in [
        (
            FOUR,
            updates(&MODULES, |_| 4, 7),
            json!({"r": 4, "lora_alpha": 8}),
            5,
            [-0.65916, 2.78338, -2.17291, -3.3798, -1.35609, 0.92871, -1.19123, 4.08129, 5.43231],
            [0.16407, 0.3318, -0.49514, -1.10332, 3.30161, 3.03698, -0.15583, -9.15284, 1.84023],
        ),
        (
            FOUR,
            updates(&MODULES, rank, 8),
            patterns,
            5,
            [-0.27958, 2.37786, 0.18271, -2.1557, 1.89656, 0.76009, -2.56488, 4.8402, 5.01457],
            [-3.61734, 4.09396, 3.12323, -0.246, 0.35296, 4.28376, -0.62324, -4.24113, -0.45879],
        ),
        (
            HF,
            updates([0, 2, 4].map(|index| &MODULES[index]), |_| 5, 9),
            json!({"r": 5, "lora_alpha": 4, "use_rslora": true}),
            2,
            [2.74932, -2.90581, -3.31867, -4.4774, 0.36899, 2.55278, -2.16452, 2.57451, -0.33444],
            [-1.2847, -0.52672, 2.43889, 4.39123, -3.68761, -0.15, -3.20644, 2.07414, -3.13596],
        ),
    ] {
        let model = open(name);
        let folder = folder(&fields, &tensors);
        let model = tuned(&model, folder.path());
        assert_eq!(model.adapter().unwrap().kind(), AdapterKind::LowRank { layers });
        let logits = Runner::new(&model, 20).all(&[1, 5, 3, 8, 2, 7]);
        assert_close(&logits[..9], &first, 2e-4);
        assert_close(&logits[5 * 9..], &last, 2e-4);
        // What `torch.save` writes.
        fs::remove_file(folder.path().join("adapter_model.safetensors")).unwrap();
        fs::write(folder.path().join("adapter_model.bin"), torch(&tensors)).unwrap();
        let again = Runner::new(&tuned(&open(name), folder.path()), 20).all(&[1, 5, 3, 8, 2, 7]);
        assert_eq!(bits(&logits), bits(&again));
    }
}

#[test]
fn the_types_of_a_file_may_have_16_bits() {
    let mut tensors = updates(&MODULES, |_| 4, 7);
    let values = tensors.iter_mut().flat_map(|tensor| &mut tensor.values);
    values.for_each(|value| *value = f32::from_bits(value.to_bits() & 0xffff_0000));
    let fields = json!({"r": 4, "lora_alpha": 8});
    let wide = folder(&fields, &tensors);
    let narrow = tempfile::tempdir().unwrap();
    fs::write(narrow.path().join("adapter_config.json"), config(&fields)).unwrap();
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for Tensor { name, shape, values } in &tensors {
        let start = data.len();
        data.extend(
            values.iter().flat_map(|value| [value.to_le_bytes()[2], value.to_le_bytes()[3]]),
        );
        // With the name that the adapter had in the training, as some programs save it.
        let name = name.replace(".weight", ".default.weight");
        header.insert(
            name,
            json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, data.len()]}),
        );
    }
    let file = forge::safetensors(&Value::Object(header).to_string(), &data);
    fs::write(narrow.path().join("adapter_model.safetensors"), file).unwrap();
    let model = open(FOUR);
    let [a, b] = [&wide, &narrow].map(|folder| {
        bits(&Runner::new(&tuned(&model, folder.path()), 20).all(&[1, 5, 3, 8, 2, 7]))
    });
    assert_eq!(a, b);
}

/// The names of the tensors are those of the original, whatever the file of the model.
#[test]
fn a_gguf_file_with_weights_of_16_bits_may_have_an_adapter() {
    let checkpoint = Checkpoint::open(fixture(FOUR)).unwrap();
    let file = gguf::of_transformers(gguf::layer("glm4"), &checkpoint, &|_, shape, values| {
        let halves = || values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect();
        (shape.len() == 2).then(|| (1, halves()))
    });
    let (_dir, path) = gguf::written(&file);
    let folder = folder(&json!({"r": 4, "lora_alpha": 8}), &updates(&MODULES, |_| 4, 7));
    let ids = [1, 5, 3, 8, 2, 7];
    let model = open_with(&path, 2);
    assert!(model.inventory().matrices.iter().all(|matrix| matrix.format == "F16"));
    let [found, expected] =
        [&model, &open(FOUR)].map(|model| Runner::new(&tuned(model, folder.path()), 20).all(&ids));
    assert_close(&found, &expected, 2e-4);
    let plain = Runner::new(&model, 20).all(&ids);
    assert!(plain.iter().zip(&found).any(|(a, b)| (a - b).abs() > 0.5));
}

/// One pass for all, with and without adapters, on one thread or three, in pieces and forks.
#[test]
fn sequences_with_adapters_have_the_same_bits_in_any_batch() {
    for (name, activations) in
        [(ONE, Activations::F32), (TWO, Activations::Int8), (FOUR, Activations::F32)]
    {
        let open = |threads| {
            let options = with(|options: &mut Options| {
                (options.threads, options.activations) = (Some(threads), Some(activations));
            });
            Model::open(fixture(name), &options).unwrap()
        };
        let [one, other] = [5, 6].map(|seed| match name {
            FOUR => folder(&json!({"r": 3, "lora_alpha": 2}), &updates(&MODULES, |_| 3, seed)),
            _ => {
                let (fields, tensors) = of_authors(name, seed);
                // The other has updates of half of the layers only.
                folder(&fields, &tensors[..if seed == 5 { tensors.len() } else { 12 }])
            }
        });
        let ids = if name == FOUR { vec![1, 5, 3, 8, 2, 7, 4, 4, 6] } else { prompt(name) };
        let alone = {
            let model = open(1);
            [None, Some(&one), Some(&other)].map(|folder| match folder {
                None => bits(&Runner::new(&model, 20).last(&ids)),
                Some(folder) => bits(&Runner::new(&tuned(&model, folder.path()), 20).last(&ids)),
            })
        };
        assert!(alone[0] != alone[1] && alone[1] != alone[2] && alone[0] != alone[2]);
        let model = open(3);
        let models = [model.clone(), tuned(&model, one.path()), tuned(&model, other.path())];
        // Two of each, so that some are beside their like.
        let order = [1, 0, 2, 2, 1, 0];
        let split = if name == ONE { 8 } else { 2 };
        for (tile, is_hooked) in [(3, false), (256, true), (256, false)] {
            let mut sequences = order.map(|which| models[which].sequence(Some(20)).unwrap());
            let mut workspace = model.workspace_with_tile(tile).unwrap();
            let mut last = Vec::new();
            for ids in [&ids[..split], &ids[split..]] {
                let mut chunks: Vec<_> =
                    sequences.iter_mut().map(|s| Chunk::last(s, ids)).collect();
                let mut hook = |_, _: &glm_model::HookRows<'_>| {};
                let options = RunOptions::default();
                let options = if is_hooked { options.with_hook(&mut hook) } else { options };
                let logits = model.run(&mut workspace, &mut chunks, options).unwrap();
                last = (0..order.len()).map(|chunk| bits(logits.last(chunk))).collect();
            }
            assert_eq!(last, order.map(|which| alone[which].clone()), "{name} {tile}");
            // A fork goes on, and what was cleared begins again.
            for (sequence, which) in sequences.iter_mut().zip(order) {
                let mut fork = sequence.fork(split);
                let mut chunks = [Chunk::last(&mut fork, &ids[split..])];
                let logits = model.run(&mut workspace, &mut chunks, RunOptions::default()).unwrap();
                assert_eq!(bits(logits.last(0)), alone[which]);
                sequence.clear();
                let mut chunks = [Chunk::last(sequence, &ids)];
                let logits = model.run(&mut workspace, &mut chunks, RunOptions::default()).unwrap();
                assert_eq!(bits(logits.last(0)), alone[which]);
            }
        }
        assert_eq!(model.kv_pool().used_bytes(), 0);
    }
}

fn request() -> Request {
    let mut request = Request::new(Sampling::greedy());
    request.max_new_tokens = Some(6);
    request
}

#[test]
fn a_batch_does_not_mix_the_prompts_of_adapters() {
    let model = open(TWO);
    let [one, other] = [5, 6].map(|seed| {
        let (fields, tensors) = of_authors(TWO, seed);
        Adapter::open(folder(&fields, &tensors).path(), &model).unwrap()
    });
    assert!(one != other && one.fingerprint() != other.fingerprint());
    let prompt: Vec<u32> = (0..150).map(|i| 10 + i * 7 % 200).collect();
    let adapters = [None, Some(one), Some(other)];
    let expected = adapters.each_ref().map(|adapter| {
        let model = model.with_adapter(adapter.as_ref()).unwrap();
        let answer = Generation::new(&model, model.sequence(None).unwrap(), &prompt, request());
        answer.unwrap().map(Result::unwrap).collect::<Vec<_>>()
    });
    assert!(expected[0] != expected[1] && expected[1] != expected[2]);
    let options = with(|options: &mut BatchOptions| options.cache_bytes = 1 << 30);
    let mut batch = Batch::new(&model, options).unwrap();
    // The second time, each prompt finds its own beginning.
    for prompt_cached in [0, 149] {
        let tickets = adapters.each_ref().map(|adapter| {
            let mut submission = Submission::new(prompt.clone(), request());
            submission.adapter = adapter.clone();
            batch.submit(submission).unwrap()
        });
        let mut found = [const { (Vec::new(), 0) }; 3];
        while !batch.is_idle() {
            batch.pass(&mut |ticket, event| {
                let found = &mut found[tickets.iter().position(|other| *other == ticket).unwrap()];
                match event {
                    Event::Token { token, .. } => found.0.push(token.id),
                    Event::Started { cached } => found.1 = cached,
                    Event::Failed(error) => panic!("{error}"),
                    _ => {}
                }
            });
        }
        assert_eq!(found, expected.each_ref().map(|ids| (ids.clone(), prompt_cached)));
    }
}

//! Checkpoints as other programs write them: other names, scales of another type, indices that do not fit.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::fixture;
use common::runner::{Runner, bits};
use glm_model::{Checkpoint, Dtype, Model, ModelFiles, Options, Tensor};
use half::f16;
use safetensors::tensor::TensorView;
use serde_json::json;
use tempfile::TempDir;

/// Name, type, shape and bytes.
type Stored = (String, Dtype, Vec<usize>, Vec<u8>);

fn tensors(dir: &Path) -> Vec<Stored> {
    let checkpoint = Checkpoint::open(dir).unwrap();
    let stored = |tensor: &Tensor| {
        (tensor.name().to_owned(), tensor.dtype(), tensor.shape().to_vec(), tensor.bytes().to_vec())
    };
    let names: Vec<_> = checkpoint.names().map(str::to_owned).collect();
    names.iter().map(|name| stored(checkpoint.tensor(name).unwrap())).collect()
}

fn write(path: &Path, tensors: &[Stored]) {
    let view = |(name, dtype, shape, bytes): &Stored| {
        let dtype = match dtype {
            Dtype::F32 => safetensors::Dtype::F32,
            Dtype::F16 => safetensors::Dtype::F16,
            Dtype::BF16 => safetensors::Dtype::BF16,
            Dtype::I8 => safetensors::Dtype::I8,
            other => panic!("{other}"),
        };
        (name.clone(), dtype, shape.clone(), bytes.clone())
    };
    let owned: Vec<_> = tensors.iter().map(view).collect();
    let views = owned.iter().map(|(name, dtype, shape, bytes)| {
        (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// The model with changed tensors.
fn changed(model: &str, change: impl Fn(Stored) -> Stored) -> TempDir {
    let source = fixture(model);
    let dir = tempfile::tempdir().unwrap();
    fs::copy(source.join("config.json"), dir.path().join("config.json")).unwrap();
    let tensors: Vec<_> = tensors(&source).into_iter().map(change).collect();
    write(&dir.path().join("model.safetensors"), &tensors);
    dir
}

fn logits(dir: &Path) -> Vec<u32> {
    let mut options = Options::default();
    options.threads = Some(1);
    let model = Model::open(dir, &options).unwrap();
    bits(&Runner::new(&model, 16).last(&[5, 6, 7, 8]))
}

#[test]
fn names_may_have_what_training_puts_there() {
    for model in ["glm-4-0414-layer", "chatglm2-6b-tiny/int4"] {
        let expected = logits(&fixture(model));
        for prefix in ["module.", "base_model.model.", "model.", "_orig_mod.", "module._orig_mod."]
        {
            let dir = changed(model, |(name, dtype, shape, bytes)| {
                (format!("{prefix}{name}"), dtype, shape, bytes)
            });
            assert_eq!(logits(dir.path()), expected, "{prefix}");
        }
        let inside = changed(model, |(name, dtype, shape, bytes)| {
            (name.replace("layers.0.", "layers.0._checkpoint_wrapped_module."), dtype, shape, bytes)
        });
        assert_eq!(logits(inside.path()), expected);
    }
    let dir = changed("glm-4-0414-layer", |(name, dtype, shape, bytes)| {
        (format!("x.{name}"), dtype, shape, bytes)
    });
    let error = ModelFiles::open(dir.path()).err().unwrap().to_string();
    assert!(error.contains("model.embed_tokens.weight: is missing"), "{error}");
}

#[test]
fn scales_may_be_f32() {
    let model = "chatglm2-6b-tiny/int4";
    let wide = changed(model, |(name, dtype, shape, bytes)| {
        match name.ends_with("weight_scale") && dtype == Dtype::F16 {
            true => {
                let halves = bytes.as_chunks::<2>().0.iter();
                let wide = halves.flat_map(|half| f16::from_le_bytes(*half).to_f32().to_le_bytes());
                (name, Dtype::F32, shape, wide.collect())
            }
            false => (name, dtype, shape, bytes),
        }
    });
    let scales = tensors(wide.path()).into_iter().filter(|(name, ..)| name.ends_with("_scale"));
    assert!(scales.map(|(_, dtype, ..)| dtype).all(|dtype| dtype == Dtype::F32));
    assert_eq!(logits(wide.path()), logits(&fixture(model)));
}

#[test]
fn an_index_may_be_wrong_about_buffers_and_not_about_weights() {
    let model = "glm-4-0414-layer";
    let source = fixture(model);
    let tensors = tensors(&source);
    let buffer = |name: &str| (name.to_owned(), Dtype::F32, vec![2], vec![0; 8]);
    let open = |change: &dyn Fn(&mut BTreeMap<String, String>), mark: &str| {
        let dir = tempfile::tempdir().unwrap();
        fs::copy(source.join("config.json"), dir.path().join("config.json")).unwrap();
        let mut stored = tensors.clone();
        stored.push(buffer("model.rotary_emb.inv_freq"));
        write(&dir.path().join("a.safetensors"), &stored);
        let mut map: BTreeMap<String, String> =
            tensors.iter().map(|(name, ..)| (name.clone(), "a.safetensors".to_owned())).collect();
        change(&mut map);
        let index = format!("{mark}{}", json!({ "weight_map": map }));
        fs::write(dir.path().join("model.safetensors.index.json"), index).unwrap();
        ModelFiles::open(dir.path()).map(drop).map_err(|error| error.to_string())
    };
    // One that is not listed, and one that is not there; and a byte-order mark.
    open(&|_| {}, "").unwrap();
    let listed = |map: &mut BTreeMap<String, String>| {
        map.insert("model.position_ids".to_owned(), "a.safetensors".to_owned());
    };
    open(&listed, "\u{feff}").unwrap();
    let error = open(&|map| drop(map.remove("model.norm.weight")), "").unwrap_err();
    assert!(error.contains("model.norm.weight: is not listed"), "{error}");
    let error =
        open(&|map| drop(map.insert("lm_tail.weight".to_owned(), "a.safetensors".to_owned())), "")
            .unwrap_err();
    assert!(error.contains("lm_tail.weight: is missing"), "{error}");
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    let error = open(&|_| {}, pointer).unwrap_err();
    assert!(error.contains("index.json: is a git-lfs pointer"), "{error}");
}
